"""Generated elementwise kernels on special values, against the host's kernels; the registry's samples: tests/device.

Zeros and infinities of both signs, nan, both sides of every kink, numbers so small and so large that a formula loses
or overflows, each combined with each.
"""

import numpy as np
import pytest

from rushlight_tensor import REGISTRY
from rushlight_tensor.core.infer import Aval
from rushlight_tensor.kernels import elementwise_cuda
from tests.cuda.machines import ONE_OF_EACH, WHOLE, using
from tests.cuda_on_cpu.runner import build_together
from tests.ops.harness import R, backward_ops, numpy_dtype, sample
from tests.ops.samples import SAMPLES

OPS = [op for op in REGISTRY.values() if op.expr is not None or isinstance(op.cuda, str)]
KINKS = [
    1e-30,
    1e-8,
    0.001,
    0.25,
    0.5,
    0.999,
    1.0,
    1.001,
    2.0,
    2.5,
    3.0,
    3.5,
    5.999,
    6.001,
    10.0,
    20.5,
    89.0,
    1e3,
    1e10,
    1e30,
]
SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, *KINKS, *(-k for k in KINKS)]
INTEGERS = [0, 1, -1, 2, -2, 3, -3, 7, -7, 100, -100, 2**31 - 1, -(2**31), 2**53 + 1, 2**62, -(2**62)]
ULPS = {"float64": 64, "float32": 64, "float16": 2, "bfloat16": 2}
EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}


BACKWARD = set(backward_ops())
COMING_IN = [1.0, -1.0, 0.25]  # gradients, the first input of such an op; at infinity, derivatives are 0 times inf


def values(dtype):
    kind = numpy_dtype(dtype)
    if kind.kind == "b":
        return np.array([False, True])
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        return np.array([v for v in INTEGERS if limits.min <= v <= limits.max], kind)
    with np.errstate(over="ignore"):
        return np.array(SPECIAL).astype(kind)


def calls(op):
    """What the samples of an op ask for: each set of attributes in each dtype, with numbers where they stand."""
    seen = {}
    for s in SAMPLES.get(op.name, [sample(*[R(2)] * op.arity)]):  # the gradient of another op has none of its own
        numbers = tuple(x if isinstance(x, (int, float)) else None for x in s.inputs)
        for dtype in s.dtypes:
            if numpy_dtype(dtype).kind != "c":
                seen[dtype, numbers, repr(s.attrs)] = (dtype, numbers, {**op.defaults, **s.attrs})
    return list(seen.values()) if WHOLE else list(seen.values())[:1]


def inputs(op, dtype, numbers):
    """Every special value with every other; shapes that broadcast, so that both kernels run."""
    v = values(dtype)
    arrays = [i for i, n in enumerate(numbers) if n is None]
    if op.name in BACKWARD:
        v = v[np.isfinite(v)]
    made = list(numbers)
    for place, i in enumerate(arrays):
        here = np.asarray(COMING_IN, v.dtype) if i == 0 and op.name in BACKWARD else v
        made[i] = here.reshape([-1 if p == place else 1 for p in range(len(arrays))])
    if op.promote is None:  # such an op broadcasts nothing
        full = np.broadcast_shapes(*(made[i].shape for i in arrays))
        made = [x if n is not None else np.broadcast_to(x, full).copy() for x, n in zip(made, numbers, strict=True)]
    return made


def defined(op, dtype, arrays):
    """The inputs without those for which the host raises, or takes a root instead: a number as exponent of 0.5."""
    if op.name == "pow" and not isinstance(arrays[1], np.ndarray):
        arrays[0] = np.where(np.isneginf(arrays[0]), -7, arrays[0]).astype(arrays[0].dtype)
    if numpy_dtype(dtype).kind not in "iu" or len(arrays) < 2:
        return arrays
    if "pow" in op.name:
        arrays[1] = np.abs(arrays[1]) % 8 if isinstance(arrays[1], np.ndarray) else arrays[1]
    if op.name in ("floor_divide", "div_floor", "remainder", "fmod"):
        arrays[1] = np.where(arrays[1] == 0, 5, arrays[1]).astype(numpy_dtype(dtype))
    return arrays


CASES = {}
for _op in OPS:
    for _i, _call in enumerate(calls(_op)):
        CASES[f"{_op.name}-{_call[0]}-{_i}"] = (_op, *_call)


@pytest.fixture(scope="module", params=ONE_OF_EACH)
def on(request):
    with using(request.param) as machine:
        if machine.order is not None:
            build_together(elementwise_cuda._text(spec(*case)) for case in CASES.values())
        yield machine


def promoted(op, arrays):
    """In the dtype that the op computes in, as dispatch hands them over."""
    if op.promote is None:
        return arrays
    common = op.promote(arrays)
    return [
        a.astype(common) if isinstance(a, np.ndarray) else a if common.kind in "fiu" else np.asarray(a, common)
        for a in arrays
    ]


def spec(op, dtype, numbers, attrs):
    arrays = promoted(op, inputs(op, dtype, numbers))
    out = op.infer(*(Aval(a.shape, a.dtype) if hasattr(a, "shape") else a for a in arrays), **attrs)
    used = {
        name: attrs[name] for name in elementwise_cuda._attributes(elementwise_cuda._expression(op), op.input_names)
    }
    return elementwise_cuda.specification(op, arrays, used, out.dtype)


@pytest.mark.parametrize("case", CASES)
def test_special_values(on, case):
    op, dtype, numbers, attrs = CASES[case]
    arrays = promoted(op, defined(op, dtype, inputs(op, dtype, numbers)))
    with np.errstate(all="ignore"):
        wanted = np.asarray(op.cpu(*arrays, **attrs))
    got = on.run(lambda *given: elementwise_cuda.launch(op, list(given), attrs), *arrays)
    assert (got.shape, got.dtype) == (wanted.shape, wanted.dtype)
    name = str(got.dtype)
    if name not in ULPS:
        different = got != wanted
    else:
        g, w = got.astype(float), wanted.astype(float)
        with np.errstate(all="ignore"):
            near = np.abs(g - w) <= ULPS[name] * EPS[name] * np.abs(w) + 16 * EPS[name]  # what cancels, as in gelu
        different = ~(near | (g == w) | (np.isnan(g) & np.isnan(w)))
    at = np.argwhere(different)[:5]
    there = [np.broadcast_to(a, got.shape) if isinstance(a, np.ndarray) else a for a in arrays]
    shown = [
        f"{op.name}({', '.join(str(a[tuple(i)] if isinstance(a, np.ndarray) else a) for a in there)}) = "
        f"{got[tuple(i)]}, on the host {wanted[tuple(i)]}"
        for i in at
    ]
    assert not shown, f"{different.sum()} of {different.size}: " + "; ".join(shown)


def launch(on, name, *arrays, **attrs):
    """Run an op's generated kernel on NumPy arrays and numbers."""
    return on.run(lambda *given: elementwise_cuda.launch(REGISTRY[name], list(given), attrs), *arrays)


def test_integers_stay_exact(on):
    x, y = np.array([7, -7, 7, -7, 2**53 + 1, 0]), np.array([2, 2, -2, -2, 1, 5])
    np.testing.assert_array_equal(launch(on, "floor_divide", x, y), x // y)
    np.testing.assert_array_equal(launch(on, "remainder", x, y), x % y)
    power = launch(on, "pow", np.array([3, -2, 5]), np.array([39, 3, 0]))
    np.testing.assert_array_equal(power, [3**39, -8, 1])


@pytest.mark.parametrize("shape", [(), (0, 3), (1, 1, 1), (2, 1, 3, 1, 2, 1, 2, 1, 2, 1, 2)])
def test_shapes_at_the_edges(on, shape):
    rng = np.random.default_rng(7)
    x, y = (np.asarray(rng.standard_normal(s), np.float32) for s in (shape, shape[-1:]))
    np.testing.assert_array_equal(launch(on, "mul", x, y), x * y)
    np.testing.assert_array_equal(
        launch(on, "mul", x.T, y if len(shape) < 2 else x.T), x.T * (y if len(shape) < 2 else x.T)
    )


def test_shapes_that_do_not_broadcast_are_the_users_error(on):
    with pytest.raises(RuntimeError, match=r"size of tensor a \(3\) must match"):
        launch(on, "add", np.zeros(3), np.zeros(4))


def test_dtype_without_kernels_is_named(on):
    with pytest.raises(TypeError, match="no CUDA kernels for complex64"):
        launch(on, "add", *[np.zeros(3, np.complex64)] * 2)
