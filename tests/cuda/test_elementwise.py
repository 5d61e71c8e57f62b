"""Generated elementwise kernels: every op that has an expression, against its NumPy kernel."""

import ml_dtypes
import numpy as np
import pytest

from rushlight_tensor import REGISTRY
from rushlight_tensor.infer import Aval
from rushlight_tensor.kernels import elementwise_cuda
from rushlight_tensor.kernels.cuda_text import attributes_of, elementwise_text
from tests.cuda.machines import using

OPS = [op for op in REGISTRY.values() if op.expr is not None]
DTYPES = {
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "int64": np.int64,
    "bool": np.bool_,
}
TOLERANCE = {"float32": 2e-5, "float16": 2e-3, "bfloat16": 2e-2, "int64": 0, "bool": 0}
rng = np.random.default_rng(7)


def sample(dtype, *shape):
    """Numbers on both sides of every kink, and inside the domain of most functions; no zeros among integers."""
    if dtype == "bool":
        return rng.random(shape) < 0.5
    if dtype == "int64":
        return rng.integers(1, 9, shape) * rng.choice([-1, 1], shape)
    return (rng.uniform(0.05, 0.95, shape) * rng.choice([-1, 1, 4], shape)).astype(DTYPES[dtype])


def takes(op, dtype):
    """Whether an op computes in this dtype: its `infer` refuses some, `to_float` never hands it an integer."""
    if dtype in ("int64", "bool") and (op.promote is None or op.promote.__name__ == "to_float"):
        return False
    if dtype == "bool" and op.name in ("floor_divide", "remainder", "fmod", "hardtanh"):  # x / False, clip to -1
        return False
    try:
        op.infer(*(Aval((2,), np.dtype(DTYPES[dtype])) for _ in op.input_names), **op.defaults)
        with np.errstate(all="ignore"):  # at one, atanh is infinite
            op.cpu(*(np.ones(2, DTYPES[dtype]) for _ in op.input_names), **op.defaults)
    except (RuntimeError, TypeError):
        return False
    return True


CASES = [pytest.param(op, dtype, id=f"{op.name}-{dtype}") for op in OPS for dtype in DTYPES if takes(op, dtype)]


@pytest.fixture(scope="module")
def one_text():
    """All kernels in one text per dtype, compiled once, instead of one compilation for each."""
    texts = {}
    for dtype in DTYPES:
        specs = []
        for op in (case.values[0] for case in CASES if case.values[1] == dtype):
            inputs = [np.empty(1, DTYPES[dtype]) for _ in op.input_names]
            used = {name: op.defaults[name] for name in attributes_of(op.expr, op.input_names)}
            specs.append(elementwise_cuda.specification(op, inputs, used, infer(op, inputs, op.defaults).dtype))
        texts[dtype] = elementwise_text(specs)
    return lambda spec: texts[next(dtype for _, dtype in spec.inputs if dtype is not None)]


@pytest.fixture(params=["cpu-reverse", "gpu"])
def on(request):
    with using(request.param) as machine:
        yield machine


@pytest.fixture
def together(one_text, monkeypatch):
    monkeypatch.setattr(elementwise_cuda, "_text", one_text)


def launch(on, name, *arrays, **attrs):
    """Run an op's generated kernel on NumPy arrays and numbers."""
    return on.run(lambda *given: elementwise_cuda.launch(REGISTRY[name], list(given), attrs), *arrays)


def infer(op, arrays, attrs):
    return op.infer(*(Aval(a.shape, a.dtype) if hasattr(a, "shape") else a for a in arrays), **attrs)


def check(on, op, dtype, arrays, attrs):
    """The generated kernel against `cpu`, which computes 16-bit floats in double precision here."""
    if op.name == "pow" and dtype == "int64":
        arrays[1] = np.abs(arrays[1])
    exact = [a.astype(float) if dtype not in ("int64", "bool") else np.asarray(a) for a in arrays]
    with np.errstate(all="ignore"):
        wanted = np.asarray(op.cpu(*exact, **attrs))
    got = launch(on, op.name, *arrays, **attrs)
    aval = infer(op, arrays, attrs)
    assert (got.shape, got.dtype) == (aval.shape, aval.dtype)
    tolerance = TOLERANCE[dtype]
    np.testing.assert_allclose(got.astype(float), wanted.astype(float), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("op", "dtype"), CASES)
def test_kernel_agrees_with_the_cpu(on, together, op, dtype):
    check(on, op, dtype, [sample(dtype, 5, 60) for _ in op.input_names], op.defaults)


@pytest.mark.parametrize(
    ("op", "dtype"),
    [case for case in CASES if len(case.values[0].input_names) == 2 and case.values[0].promote is not None],
)
def test_kernel_takes_broadcast_and_strided_inputs(on, together, op, dtype):
    x, y = sample(dtype, 7, 1, 12).transpose(2, 1, 0), sample(dtype, 8, 14)[::2, ::2]
    check(on, op, dtype, [x, y], op.defaults)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64"])
def test_python_numbers_stand_in_for_arrays(on, dtype):
    x, number = sample(dtype, 4, 5), 3 if dtype == "int64" else 2.5
    for arrays in ([x, number], [number, x]):
        np.testing.assert_array_equal(launch(on, "sub", *arrays), np.subtract(*arrays))


def test_attributes_reach_the_kernel(on):
    x = sample("float32", 50)
    got = launch(on, "leaky_relu", x, negative_slope=0.25)
    np.testing.assert_array_equal(got, np.where(x > 0, x, x * np.float32(0.25)))


def test_integers_round_towards_minus_infinity_and_stay_exact(on):
    x, y = np.array([7, -7, 7, -7, 2**53 + 1, 0]), np.array([2, 2, -2, -2, 1, 5])
    np.testing.assert_array_equal(launch(on, "floor_divide", x, y), x // y)
    np.testing.assert_array_equal(launch(on, "remainder", x, y), x % y)
    power = launch(on, "pow", np.array([3, -2, 5]), np.array([39, 3, 0]))
    np.testing.assert_array_equal(power, [3**39, -8, 1])


@pytest.mark.parametrize("shape", [(), (0, 3), (1, 1, 1), (2, 1, 3, 1, 2, 1, 2, 1, 2, 1, 2)])
def test_shapes_at_the_edges(on, shape):
    x, y = sample("float32", *shape), sample("float32", *shape[-1:])
    np.testing.assert_array_equal(launch(on, "mul", np.asarray(x), np.asarray(y)), x * y)


def test_shapes_that_do_not_broadcast_are_the_users_error(on):
    with pytest.raises(RuntimeError, match=r"size of tensor a \(3\) must match"):
        launch(on, "add", np.zeros(3), np.zeros(4))


def test_dtype_without_kernels_is_named(on):
    with pytest.raises(TypeError, match="no CUDA kernels for complex64"):
        launch(on, "add", *[np.zeros(3, np.complex64)] * 2)
