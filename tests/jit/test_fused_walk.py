"""Every expression of the registry inside fused kernels that really run, on the second call, against the op itself.

Errors: arithmetic, comparisons and roundings give the same bits.  Functions stay within 4 units in the last place of
the result; differences of nearly equal numbers (`CANCELS`) within 4 units in that of their input.
"""

import re

import numpy as np
import pytest

import rushlight_tensor as T
from rushlight_autograd import grad
from rushlight_jit import compile
from rushlight_tensor import REGISTRY
from rushlight_tensor.core import dispatch
from rushlight_tensor.kernels.compile import find_compiler
from tests.jit.fused import Runs, distance, replayed, specials
from tests.ops.samples import SAMPLES

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="needs a C compiler, RUSHLIGHT_CC=none or none found")

INTEGERS_ONLY = {"bitwise_and", "bitwise_or", "bitwise_xor"}
EXACT_CALLS = {"floor", "ceil", "trunc", "rint", "fmod", "sqrt", "signbit", "floor_divide", "floor_remainder"}
CANCELS = {
    "tanhshrink", "gelu", "gelu_tanh", "gelu_backward", "gelu_tanh_backward", "silu_backward", "mish", "atanh",
    "logaddexp", "logaddexp2",
}  # fmt: skip
OPS = [op for op in REGISTRY.values() if op.expr is not None and op.name not in INTEGERS_ONLY]
FUSED_BACKWARD = {"sigmoid", "tanh", "exp", "mul", "div", "sqrt", "silu", "gelu", "gelu_tanh", "relu", "erf", "log1p"}
BINARY = [op for op in OPS if op.arity == 2 and op.promote is not None]


def calls(ops):
    """Each op with its default attributes and those of its samples."""
    out = []
    for op in ops:
        seen = []
        for given in ({}, *[s.attrs for s in SAMPLES.get(op.name, ())]):
            attrs = {**op.defaults, **given}
            if "needs" in attrs:
                attrs["needs"] = (True,)
            if attrs not in seen and all(isinstance(v, (int, float, tuple)) for v in attrs.values()):
                seen.append(attrs)
                out.append(pytest.param(op, attrs, id=f"{op.name}-{len(seen) - 1}"))
    return out


def is_exact(op):
    return set(re.findall(r"\b([a-z]\w*)\s*\(", op.expr)) <= EXACT_CALLS


def inputs(op, attrs):
    values = specials(op, attrs)
    grids = np.meshgrid(*[values] * op.arity) if op.arity > 1 else [values]
    return [T.tensor(np.ascontiguousarray(a.ravel())) for a in grids]


def assert_close(op, got, want, xs, ulps):
    got, want = got.detach().numpy(), want.detach().numpy()
    sizes = [np.abs(x.detach().numpy()) for x in xs]
    with np.errstate(all="ignore"):
        scale = None if op.name not in CANCELS else sizes[-1] if op.promote else sizes[0] * (1 + sizes[-1])
        scale = scale if scale is None else np.nan_to_num(np.minimum(scale, np.float32(3e38)))
    gaps = distance(got, want, scale)
    worst = np.unravel_index(int(gaps.argmax()), gaps.shape)
    at = [float(np.broadcast_to(x.detach().numpy(), gaps.shape)[worst]) for x in xs]
    assert gaps[worst] <= ulps, f"{op.name}{at}: {got[worst]!r}, not {want[worst]!r}, {gaps[worst]} ulp"


@pytest.mark.parametrize(("op", "attrs"), calls(OPS))
def test_expression_gives_what_the_op_gives(op, attrs, monkeypatch):
    runs = Runs(monkeypatch)
    xs = inputs(op, attrs)

    def function(*xs):
        return dispatch.call(op, (xs[0] * 1.0, *xs[1:]), attrs)

    got, _ = replayed(function, *xs)
    assert op.name in runs.ops, "no fused kernel has run it"
    assert_close(op, got, function(*xs), xs, 0 if is_exact(op) else 4)


NO_DERIVATIVE = {"floor_divide"}  # it says so in the backward pass, as PyTorch's


@pytest.mark.parametrize(("op", "attrs"), calls([op for op in OPS if op.vjp and op.name not in NO_DERIVATIVE]))
def test_gradient_of_a_fused_expression_is_the_ops(op, attrs, monkeypatch):
    runs = Runs(monkeypatch)
    xs = [x.requires_grad_() for x in inputs(op, attrs)]
    g = T.tensor(np.resize(np.array([1.0, -0.5, 2.0], np.float32), xs[0].shape))

    def function(*xs):
        return dispatch.call(op, (xs[0] * 1.0, *xs[1:]), attrs)

    got, _ = replayed(function, *xs)
    before = runs.count
    pairs = zip(grad(got, xs, g, allow_unused=True), grad(function(*xs), xs, g, allow_unused=True), strict=True)
    for x, (a, b) in zip(xs, pairs, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            a, b, x = (v.detach().numpy().astype(np.float64) for v in (a, b, x))
            room = 1e-5 * np.abs(b) + 5e-7 * (1 + np.abs(x))  # the formula of a gradient is as close as its parts are
            with np.errstate(all="ignore"):
                fine = (a == b) | (np.isnan(a) & np.isnan(b)) | (np.isfinite(b) & (np.abs(a - b) <= room))
            worst = int(np.argmin(fine))
            assert fine.all(), f"{op.name}: at {x[worst]}: {a[worst]!r}, not {b[worst]!r}"
    if op.name in FUSED_BACKWARD:
        assert runs.count > before, "no fused kernel has run in the backward pass"


PATTERNS = {
    "[i] [i]": ((6, 5), (6, 5)),
    "[i] [0]": ((6, 5), ()),
    "[i] [0], one element": ((6, 5), (1, 1)),
    "[0] [i]": ((1,), (6, 5)),
    "[i] [column]": ((6, 5), (5,)),
    "[i] [column], leading ones": ((2, 3, 5), (1, 1, 5)),
    "[column] [i]": ((1, 5), (6, 5)),
    "[i] [row]": ((6, 5), (6, 1)),
    "[row] [i]": ((2, 3, 1), (2, 3, 5)),
    "[column] [row]": ((1, 5), (6, 1)),
    "one row": ((1, 5), (5,)),
    "one column": ((6, 1), (6, 1)),
    "one column, [0]": ((6, 1), (1,)),
    "n, 1, 1": ((6, 1, 1), (6, 1, 1)),
    "other": ((2, 1, 5), (2, 3, 5)),
    "one element": ((1, 1), (1,)),
    "no rows": ((0, 5), (5,)),
    "no columns": ((6, 0), (6, 1)),
}


@pytest.mark.parametrize("order", ["contiguous", "transposed", "gaps", "reversed"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_operands_are_read_where_they_lie(pattern, order, monkeypatch):
    runs = Runs(monkeypatch)
    rng = np.random.default_rng(0)
    xs = [laid_out(np.asarray(rng.standard_normal(s), np.float32), order) for s in PATTERNS[pattern]]

    def function(x, y):
        outs = [op(x, y) * 1.0 for op in BINARY if op.infer(x._array, y._array).dtype == np.float32]
        return [*outs, (x - y) * y + x, (y - x).exp() + y]

    names = [op.name for op in BINARY if op.infer(xs[0]._array, xs[1]._array).dtype == np.float32]
    got, _ = replayed(function, *xs)
    want = function(*xs)
    if want[0].numel() and pattern != "other":
        assert runs.ops >= set(names)
    for name, a, b in zip([*names, "chain", "chain"], got, want, strict=True):
        op = REGISTRY.get(name)
        gaps = distance(a.numpy(), b.numpy(), np.float32(10.0) if op is None else None)
        assert gaps.max(initial=0) <= (4 if op is None or not is_exact(op) else 0), name


def laid_out(array, order):
    """The values of `array` as a tensor that lies otherwise in memory."""
    if order == "transposed":
        array = np.asfortranarray(array)
    elif order == "gaps" and array.ndim:
        wide = np.zeros([2 * n for n in array.shape], np.float32)
        part = wide[tuple(slice(None, None, 2) for _ in array.shape)]
        part[...] = array
        array = part
    elif order == "reversed" and array.ndim:
        array = array[::-1].copy()[::-1]
    out = T.ones(1)
    out._array = array
    return out


@pytest.mark.parametrize("n", [*range(1, 34), 63, 64, 65, 127, 129])
def test_every_size_around_the_width_of_a_vector(n):
    rng = np.random.default_rng(n)
    x, y = (T.tensor(rng.standard_normal((3, n)).astype(np.float32)) for _ in range(2))

    def function(x, y):
        return (x * y + y[0]).tanh() - x.exp() * y[:, :1], x.erf() + y, x.maximum(y) * 2.0

    got, _ = replayed(function, x, y)
    for a, b in zip(got, function(x, y), strict=True):
        assert distance(a.numpy(), b.numpy(), np.float32(10.0)).max() <= 4


@pytest.mark.parametrize(
    "k", [np.nan, np.inf, -np.inf, 1e300, -1e300, 2**24 + 1, 2**40, -0.0, 0.0, 1e-46, 0.1, True, 3]
)
def test_numbers_become_literals(k, monkeypatch):
    runs = Runs(monkeypatch)
    x = T.tensor(specials())

    def function(x):
        return (x * 1.0) * k, (x * 1.0) + k, x * k

    got, _ = replayed(function, x)
    assert "mul" in runs.ops
    for a, b in zip(got, function(x), strict=True):
        assert distance(a.numpy(), b.numpy()).max() == 0


def test_attributes_that_change_between_calls_are_seen():
    slope = 0.1
    fast = compile(lambda x: REGISTRY["leaky_relu"](x * 1.0, negative_slope=slope) * 1.0)
    x = T.tensor([-1.0, 2.0])
    for slope in (0.1, 0.2, 0.1, -0.0, 0.0):
        for _ in range(2):
            out = fast(x).numpy()
            np.testing.assert_array_equal(out, np.array([-slope, 2.0], np.float32))
            assert np.signbit(out[0]) == np.signbit(np.float32(-slope))
