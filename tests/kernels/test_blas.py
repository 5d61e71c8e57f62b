"""Matrix products: every layout against np.matmul in double precision, and the same bits on any number of threads."""

import os
import subprocess
import sys

import numpy as np
import pytest

import rushlight_tensor  # noqa: F401 - declares the records
from rushlight_tensor.core.op import REGISTRY
from rushlight_tensor.kernels.threads import get_num_threads, set_num_threads

rng = np.random.default_rng(0)


def normal(*shape):
    return rng.standard_normal(shape)


def gemm(a, b):
    return REGISTRY["matmul"].cpu(a, b)


def linear(x, w, b=None):
    return REGISTRY["linear"].cpu(x, w, b)


def linear_backward(g, x, w, needs=(True, True, True)):
    return REGISTRY["linear_backward"].cpu(g, x, w, needs=needs)


OPERANDS = {
    "small": (normal(5, 7), normal(7, 3)),
    "large": (normal(100, 90), normal(90, 50)),
    "transposed": (normal(90, 100).T, normal(50, 90).T),
    "every second row and column": (normal(200, 180)[::2, ::2], normal(90, 50)),
    "reversed": (normal(100, 90)[::-1], normal(90, 50)[:, ::-1]),
    "batch times matrix": (normal(6, 100, 70), normal(70, 50)),
    "batch": (normal(6, 100, 70), normal(6, 70, 50)),
    "matrix times batch": (normal(100, 70), normal(6, 70, 50)),
    "two batch dimensions": (normal(3, 4, 64, 32), normal(3, 4, 64, 32).swapaxes(-1, -2)),
    "heads of one array": (normal(3, 64, 4, 32).swapaxes(1, 2), normal(3, 64, 4, 32).transpose(0, 2, 3, 1)),
    "three batch dimensions": (normal(2, 3, 4, 40, 30), normal(2, 3, 4, 30, 40)),
    "broadcast batch": (normal(3, 1, 40, 90), normal(8, 90, 40)),
    "broadcast rows": (np.broadcast_to(normal(1, 300), (300, 300)), normal(300, 20)),
    "long broadcast rows": (np.broadcast_to(normal(1, 600), (700, 600)), normal(600, 300)),
    "rows that overlap": (np.lib.stride_tricks.sliding_window_view(normal(2697), 600)[::3], normal(600, 300)),
    "columns that overlap": (normal(300, 600), np.lib.stride_tricks.sliding_window_view(normal(999), 600).T),
    "batch of rows that overlap": (
        np.lib.stride_tricks.as_strided(normal(4000), (8, 100, 600), (56, 24, 8)),
        normal(8, 600, 100),
    ),
    "one row": (normal(1, 900), normal(900, 300)),
    "one column": (normal(900, 300), normal(300, 1)),
    "no rows": (normal(0, 5), normal(5, 3)),
    "nothing to sum": (normal(5, 0), normal(0, 3)),
    "vectors": (normal(1000), normal(1000)),
}


def in_its_layout(values, dtype, strides):
    """The values in another dtype, as far apart as `strides` of float64 say: elements that share memory still do."""
    steps = [s // 8 for s in strides]
    low = sum(step * (n - 1) for step, n in zip(steps, values.shape, strict=True) if step < 0 and n)
    high = sum(step * (n - 1) for step, n in zip(steps, values.shape, strict=True) if step > 0 and n)
    memory = np.zeros(high - low + 1, dtype)
    x = np.lib.stride_tricks.as_strided(memory[-low:], values.shape, [step * memory.itemsize for step in steps])
    x[...] = values
    return x


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("name", OPERANDS)
def test_product_is_that_of_matmul(name, dtype):
    a, b = (in_its_layout((x * 10).round() if dtype == np.int64 else x, dtype, x.strides) for x in OPERANDS[name])
    product = gemm(a, b)
    assert product.dtype == dtype
    tolerance = 1e-3 if dtype == np.float32 else 1e-9
    np.testing.assert_allclose(product, np.matmul(a.astype(float), b.astype(float)), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("name", OPERANDS)
def test_gradients_of_a_product(name, dtype):
    a, b = (in_its_layout((x * 10).round() if dtype == np.int64 else x, dtype, x.strides) for x in OPERANDS[name])
    g = np.asarray(normal(*np.matmul(a, b).shape) * 10).round().astype(dtype)
    wide = [x.astype(float) for x in (g, a, b)]
    tolerance = 1e-3 if dtype == np.float32 else 1e-9
    expected = REGISTRY["matmul_backward"].numpy(*wide, needs=(True, True))
    turned = g.T.copy().T
    for given in (g, turned):
        made = REGISTRY["matmul_backward"].cpu(given, a, b, needs=(True, True))
        for got, wanted in zip(made, expected, strict=True):
            assert got.dtype == dtype
            np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance)
    (only,) = REGISTRY["matmul_backward"].cpu(g, a, b, needs=(False, True))
    np.testing.assert_array_equal(only, REGISTRY["matmul_backward"].cpu(g, a, b, needs=(True, True))[1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_bias_may_be_broadcast(dtype):
    x, w, b = normal(3, 4).astype(dtype), normal(2, 4).astype(dtype), normal(1).astype(dtype)
    np.testing.assert_allclose(linear(x, w, b), x @ w.T + b, 1e-5, 1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_operands_that_lie_transposed_are_not_copied(dtype, monkeypatch):
    monkeypatch.setattr("rushlight_tensor.kernels.plan.contiguous", None)
    x, w = normal(60, 40).astype(dtype), normal(60, 30).astype(dtype)
    np.testing.assert_allclose(gemm(x.T, w), x.T @ w, 1e-3, 1e-3)
    np.testing.assert_allclose(linear(x.T, w.T), x.T @ w, 1e-3, 1e-3)
    np.testing.assert_allclose(linear_backward(normal(40, 30).astype(dtype), x.T, w.T)[1].shape, (30, 60))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [4096, 4097, 9003])
@pytest.mark.parametrize("rows", [1, 3, 4, 6])
def test_long_products_of_a_matrix_and_a_vector(rows, k, dtype):
    """Their sums are made of parts, for whole groups of rows and for the rest, read along and across."""
    a, x = normal(rows, k).astype(dtype), normal(k, 1).astype(dtype)
    want = a.astype(np.float64) @ x.astype(np.float64)
    for got in (gemm(a, x), gemm(np.asfortranarray(a), x), gemm(x.T, a.T).T, gemm(x.T, np.ascontiguousarray(a.T)).T):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-4)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        gemm(np.zeros((100, 90)), np.zeros((80, 100)))


# The long side first, last, both, neither; at, below and above multiples of the units of all kernels; vectors.
SHAPES = [
    (768, 384, 128), (768, 65, 128), (64, 784, 784), (129, 257, 1000), (17, 4000, 100), (4000, 17, 100), (1, 3000, 900),
    (3000, 1, 900), (200, 200, 200), (97, 1217, 65), (1217, 97, 64), (1000, 999, 40), (2049, 1025, 33), (31, 31, 5000),
]  # fmt: skip


def on_each_count(compute, counts=(1, 2, 3, 5)):
    """The bits of what a function returns on each number of threads, as a set: one member, or a defect."""
    before, results = get_num_threads(), set()
    try:
        for threads in counts:
            set_num_threads(threads)
            results.add(tuple(x.tobytes() for x in compute()))
    finally:
        set_num_threads(before)
    return results


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_bits_do_not_depend_on_the_number_of_threads(shape, dtype):
    m, n, k = shape
    a, b, bias = normal(m, k).astype(dtype), normal(n, k).astype(dtype), np.ones(n, dtype)
    f, g, product = np.asfortranarray(a), np.asfortranarray(b), (a @ b.T).astype(dtype)
    results = on_each_count(
        lambda: (gemm(a, b.T), gemm(f, b.T), gemm(a, g.T), gemm(f, g.T), linear(a, b, bias),
                 *linear_backward(product, a, b)),
        (1, 2, 3, 5, 64) if shape == SHAPES[0] else (1, 2, 3, 5),
    )  # fmt: skip
    assert len(results) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("batch", [(1,), (2,), (3,), (7,), (8,), (2, 3), (40,)])
def test_bits_of_batches_do_not_depend_on_the_number_of_threads(batch, dtype):
    a, b = normal(*batch, 130, 90).astype(dtype), normal(*batch, 90, 150).astype(dtype)
    turned = np.ascontiguousarray(a.swapaxes(-1, -2)).swapaxes(-1, -2)
    assert len(on_each_count(lambda: (gemm(a, b), gemm(turned, b), gemm(a[:1], b)))) == 1


@pytest.mark.parametrize("length", [32, 33, 47, 48, 100, 784, 4001])
def test_tiles_cover_a_product_of_any_size_once(length):
    a, b = normal(length, 700).astype(np.float32), normal(700, 2 * length).astype(np.float32)
    out = gemm(a, b)
    np.testing.assert_allclose(out, a.astype(float) @ b.astype(float), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(gemm(b.T, a.T), out.T, rtol=1e-3, atol=1e-3)


NUMPYS_THREADS = """
import hashlib
import numpy as np
import rushlight_tensor
from rushlight_tensor.kernels.blas import gemm
rng = np.random.default_rng(0)
for char in "fdFD":
    x, y = (rng.standard_normal(50_001).astype(char) for _ in range(2))
    print(hashlib.sha256(gemm(x, y).tobytes()).hexdigest())
"""


def test_bits_of_a_dot_product_do_not_depend_on_the_threads_of_numpys_blas():
    outputs = {
        subprocess.run(
            [sys.executable, "-c", NUMPYS_THREADS], capture_output=True, text=True, check=True,
            env={**os.environ, "OPENBLAS_NUM_THREADS": str(threads)},
        ).stdout
        for threads in (1, 2, 3)
    }  # fmt: skip
    assert len(outputs) == 1


@pytest.mark.parametrize("shape", [(3, 4, 5), (200, 70, 90), (0, 4, 5), (1, 300, 200), (40, 800, 300), (400, 90, 300)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_linear_and_its_gradients(shape, dtype):
    m, n, k = shape
    x, w, b, g = (array.astype(dtype) for array in (normal(2, m, k), normal(n, k), normal(n), normal(2, m, n)))
    tolerance = {"rtol": 1e-4, "atol": 1e-3} if dtype == np.float32 else {"rtol": 1e-10, "atol": 1e-11}
    np.testing.assert_allclose(linear(x, w, b), x @ w.T + b, **tolerance)
    np.testing.assert_allclose(linear(x, w), x @ w.T, **tolerance)
    dx, dw, db = linear_backward(g, x, w)
    np.testing.assert_allclose(dx, g @ w, **tolerance)
    np.testing.assert_allclose(dw, g.reshape(-1, n).T @ x.reshape(-1, k), **tolerance)
    np.testing.assert_allclose(db, g.reshape(-1, n).sum(0), **tolerance)
    np.testing.assert_array_equal(linear_backward(g, x, w, (False, True, False))[0], dw)


FORKED = """
import os, signal
import numpy as np
import rushlight_tensor
from rushlight_tensor.kernels.blas import gemm
from rushlight_tensor.kernels.threads import get_num_threads, set_num_threads
set_num_threads(3)
a = np.random.default_rng(0).standard_normal((700, 700)).astype(np.float32)
expected = gemm(a, a).tobytes()
child = os.fork()
if child == 0:
    signal.alarm(60)
    set_num_threads(3)
    os._exit(0 if gemm(a, a).tobytes() == expected and get_num_threads() == 1 else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), get_num_threads())
"""


def test_forked_child_computes_on_one_thread_instead_of_hanging():
    command = [sys.executable, "-W", "ignore", "-c", FORKED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["0", "3"], done.stderr


@pytest.mark.parametrize(
    ("environment", "threads"),
    [({"OMP_NUM_THREADS": "3"}, 3), ({"OMP_NUM_THREADS": "", "OMPI_COMM_WORLD_LOCAL_SIZE": "4096"}, 1)],
)
def test_default_threads_follow_the_environment_and_are_shared_among_ranks(environment, threads):
    command = [sys.executable, "-c", "from rushlight_tensor.kernels.threads import *; print(get_num_threads())"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=True)
    assert int(done.stdout) == threads


@pytest.mark.parametrize("count", [0, -1, 1.5, "2"])
def test_thread_count_must_be_a_positive_integer(count):
    with pytest.raises(RuntimeError, match="expects a positive integer"):
        set_num_threads(count)


@pytest.mark.parametrize("shapes", [((0,), (0,)), ((3, 0), (0,)), ((0,), (0, 3)), ((2, 3, 0), (0,)), ((0, 4), (4,))])
def test_gradients_of_products_without_elements(shapes):
    x, y = (np.zeros(s, np.float32) for s in shapes)
    g = np.ones(np.matmul(x, y).shape, np.float32)
    for run in (REGISTRY["matmul_backward"].cpu, REGISTRY["matmul_backward"].numpy):
        dx, dy = run(g, x, y, needs=(True, True))
        assert (dx.shape, dy.shape) == shapes
        assert not dx.any()
        assert not dy.any()
