"""Which dtypes an operation takes, and which it returns: every pair of them, bools, integers and numbers out of range.

Every case runs under both modules; it passes when both give one value of one dtype, or one kind of error.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

import rushlight

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.filterwarnings("ignore")  # PyTorch's, of values that it would rather not see

DTYPES = (
    "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64", "complex64",
    "complex128",
)  # fmt: skip
FIRST = {"b": [True, False, True, True], "u": [0, 3, 200, 7], "i": [-7, 0, 3, 5], "f": [-1.5, 0.0, 2.0, 3.0]}
SECOND = {"b": [True, True, False, True], "u": [2, 0, 3, 1], "i": [2, 0, -2, 3], "f": [2.0, 0.0, -0.5, 1.5]}
FIRST["c"], SECOND["c"] = [1 + 2j, 0j, -1j, 3 + 0j], [2 + 0j, 1j, 0j, 1 - 1j]


def operand(m, dtype, values, zero_d=False):
    numbers = values[{"bfloat16": "f"}.get(dtype, dtype[0])]
    return m.tensor(numbers[2] if zero_d else numbers, dtype=getattr(m, dtype))


def plain(value):
    if isinstance(value, (tuple, list)):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):
        return str(value.dtype), tuple(value.shape), value.tolist()
    return str(value) if type(value).__name__ == "dtype" else value


def outcome(case, *args):
    try:
        return "value", plain(case(*args))
    except Exception as e:  # whatever it is, the other has to raise it, too
        name = type(e).__name__
        return "error", "RuntimeError" if name == "NotImplementedError" else name  # which is one


def alike(a, b):
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(alike, a, b))
    if isinstance(a, bool) or isinstance(b, bool) or isinstance(a, str):
        return a is b or (isinstance(a, str) and a == b)
    if isinstance(a, complex):  # which values: tests/ops/test_complex.py; here, which dtypes
        return isinstance(b, complex)
    if isinstance(a, float):
        return a == b or (math.isnan(a) and math.isnan(b)) or abs(a - b) <= 0.02 * max(abs(a), abs(b), 1e-3)
    return type(a) is type(b) and a == b


def check(case, *names_and_args):
    """Run `case` under both; `names_and_args` build the arguments from a module."""
    theirs, ours = (outcome(case, m, *[make(m) for make in names_and_args]) for m in (torch, rushlight))
    return None if alike(theirs, ours) else f"PyTorch: {theirs}\nrushlight: {ours}"


def F(m):
    return m.nn.functional


BINARY = {
    name: lambda m, x, y, name=name: getattr(m, name)(x, y)
    for name in (
        "add", "sub", "mul", "div", "floor_divide", "remainder", "fmod", "pow", "maximum", "minimum", "fmax", "fmin",
        "atan2", "eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "logical_xor", "bitwise_and",
        "bitwise_or", "bitwise_xor", "bitwise_left_shift", "bitwise_right_shift", "hypot", "copysign", "heaviside",
        "logaddexp", "logaddexp2", "ldexp", "xlogy", "float_power", "rsub", "clamp", "clamp_min", "clamp_max", "isin",
        "isclose", "equal", "outer", "dot", "cross", "kron", "result_type",
    )
}  # fmt: skip
BINARY |= {
    "+": lambda m, x, y: x + y,
    "-": lambda m, x, y: x - y,
    "//": lambda m, x, y: x // y,
    "%": lambda m, x, y: x % y,
    "**": lambda m, x, y: x**y,
    "<<": lambda m, x, y: x << y,
    ">>": lambda m, x, y: x >> y,
    "where": lambda m, x, y: m.where(m.tensor([True, False, True, False]), x, y),
    "lerp": lambda m, x, y: m.lerp(x, y, 0.5),
    "addcmul": lambda m, x, y: m.addcmul(x, x, y),
    "addcdiv": lambda m, x, y: m.addcdiv(x, x, y),
    "div trunc": lambda m, x, y: m.div(x, y, rounding_mode="trunc"),
    "div floor": lambda m, x, y: m.div(x, y, rounding_mode="floor"),
    "cross": lambda m, x, y: m.cross(x[:3], y[:3], dim=0),
    **{
        f"{name}_": lambda m, x, y, name=name: getattr(x, f"{name}_")(y)
        for name in ("add", "sub", "mul", "div", "floor_divide", "remainder", "fmod", "pow", "eq", "lt", "bitwise_and")
    },
}


@pytest.mark.parametrize("name", BINARY)
def test_every_pair_of_dtypes(name):
    for a, b in itertools.product(DTYPES, DTYPES):
        if "float16" in (a, b) and {"complex64", "complex128"} & {a, b}:
            continue  # PyTorch has complex32 for some of these, NumPy has not
        for zero_d in itertools.product((False, True), repeat=2):
            if zero_d[0] and name.endswith("_"):
                continue  # the result does not fit in any case, and which error comes first does not matter
            x, y = (
                (lambda m, d=d, v=v, z=z: operand(m, d, v, z))
                for d, v, z in zip((a, b), (FIRST, SECOND), zero_d, strict=True)
            )
            assert check(BINARY[name], x, y) is None, (a, b, zero_d)


UNARY = {
    name: lambda m, x, name=name: getattr(m, name)(x)
    for name in (
        "abs", "neg", "sign", "sgn", "floor", "ceil", "trunc", "round", "frac", "square", "exp", "exp2", "expm1", "log",
        "log2", "log10", "log1p", "sqrt", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh",
        "acosh", "atanh", "sigmoid", "relu", "erf", "erfc", "lgamma", "digamma", "logit", "deg2rad", "rad2deg", "isnan",
        "isinf", "isfinite", "isposinf", "isneginf", "signbit", "bitwise_not", "logical_not", "sum", "prod", "mean",
        "var", "std", "median", "max", "min", "amax", "amin", "argmax", "argmin", "all", "any", "norm", "sort",
        "argsort", "unique", "bincount", "nonzero", "count_nonzero", "diff", "aminmax", "nansum", "nanmean",
        "std_mean", "var_mean", "positive", "angle", "nan_to_num", "cov", "msort",
    )
}  # fmt: skip
UNARY |= {
    **{f"F.{n}": lambda m, x, n=n: getattr(F(m), n)(x) for n in (
        "softplus", "gelu", "silu", "hardtanh", "relu6", "leaky_relu", "celu", "elu", "selu", "hardswish",
        "hardsigmoid", "mish", "logsigmoid", "hardshrink", "softshrink", "glu",
    )},
    **{f"{n}_": lambda m, x, n=n: getattr(x, f"{n}_")() for n in (
        "square", "neg", "round", "sqrt", "exp", "floor", "sigmoid", "relu", "logical_not", "bitwise_not",
    )},
    "+x": lambda m, x: +x,
    "-x": lambda m, x: -x,
    "~x": lambda m, x: ~x,
    "cumsum": lambda m, x: x.cumsum(0),
    "cumprod": lambda m, x: x.cumprod(0),
    "cummax": lambda m, x: x.cummax(0),
    "logsumexp": lambda m, x: x.logsumexp(0),
    "softmax": lambda m, x: m.softmax(x, 0),
    "topk": lambda m, x: m.topk(x, 1),
    "kthvalue": lambda m, x: m.kthvalue(x, 2)[0],
    "trace": lambda m, x: m.trace(x.reshape(2, 2)),
    "trapezoid": lambda m, x: m.trapezoid(x),
    "quantile": lambda m, x: m.quantile(x, 0.5),
    "one_hot": lambda m, x: F(m).one_hot(x.abs()),
    "sum dtype": lambda m, x: (x.sum(dtype=m.int32), x.sum(dtype=m.float64), x.sum(0, dtype=m.bool)),
    "cumsum dtype": lambda m, x: (x.cumsum(0, dtype=m.int8), x.cumprod(0, dtype=m.float32), x.prod(dtype=m.int16)),
    "mean dtype": lambda m, x: x.mean(dtype=m.float32),
    "linspace": lambda m, x: m.linspace(0, 5, 4, dtype=x.dtype),
    "full": lambda m, x: m.full((2,), 3, dtype=x.dtype),
    "fill_": lambda m, x: x.fill_(2.7),
    "masked_fill": lambda m, x: x.masked_fill(x == x, 2.5),
    "index_add": lambda m, x: x.index_add(0, m.tensor([0, 0, 1, 1]), x),
}  # fmt: skip
VECTORS = ("F.glu", "cummax", "kthvalue", "trapezoid", "index_add")  # refuse 0-d tensors, before or after the dtype
NUMBERS = (True, 1, 2, 0, -1, -3, 300, -1.0, -0.5, 0.0, 0.5, 2.0, 1e30, 1j, float("inf"))
SCALAR = {
    "x+n": lambda m, x, n: x + n, "n+x": lambda m, x, n: n + x, "x-n": lambda m, x, n: x - n,
    "n-x": lambda m, x, n: n - x, "x*n": lambda m, x, n: x * n, "x/n": lambda m, x, n: x / n,
    "x//n": lambda m, x, n: x // n, "n//x": lambda m, x, n: n // x, "x%n": lambda m, x, n: x % n,
    "n%x": lambda m, x, n: n % x, "x**n": lambda m, x, n: x**n, "n**x": lambda m, x, n: n**x,
    "x==n": lambda m, x, n: x == n, "x<n": lambda m, x, n: x < n, "x&n": lambda m, x, n: x & n,
    "n|x": lambda m, x, n: n | x, "x^n": lambda m, x, n: x ^ n, "x<<n": lambda m, x, n: x << n,
    "x>>n": lambda m, x, n: x >> n, "n<<x": lambda m, x, n: n << x, "fmod": lambda m, x, n: x.fmod(n),
    "clamp min": lambda m, x, n: x.clamp(min=n), "clamp max": lambda m, x, n: x.clamp(max=n),
    "clamp": lambda m, x, n: x.clamp(n, 2.5), "fill_": lambda m, x, n: x.fill_(n),
    "masked_fill": lambda m, x, n: x.masked_fill(x == x, n), "where": lambda m, x, n: m.where(x == x, x, n),
    "x[0]=n": lambda m, x, n: (x.__setitem__(0, n), x)[1],
    "x[mask]=n": lambda m, x, n: (x.__setitem__(x == x, n), x)[1],
    "add_": lambda m, x, n: x.add_(n), "sub_": lambda m, x, n: x.sub_(n), "mul_": lambda m, x, n: x.mul_(n),
    "div_": lambda m, x, n: x.div_(n), "pow_": lambda m, x, n: x.pow_(n), "remainder_": lambda m, x, n: x.remainder_(n),
    "floor_divide_": lambda m, x, n: x.floor_divide_(n), "eq_": lambda m, x, n: x.eq_(n),
    "alpha": lambda m, x, n: m.add(x, 1, alpha=n), "sub alpha": lambda m, x, n: x.sub(x, alpha=n),
    "full": lambda m, x, n: m.full((2,), n, dtype=x.dtype), "tensor": lambda m, x, n: m.tensor(n, dtype=x.dtype),
    "tensor list": lambda m, x, n: m.tensor([n, 1], dtype=x.dtype), "full_like": lambda m, x, n: m.full_like(x, n),
    "pad": lambda m, x, n: F(m).pad(x, (1, 1), value=n),
}  # fmt: skip


@pytest.mark.parametrize("name", UNARY)
def test_every_dtype(name):
    for dtype, zero_d in itertools.product(DTYPES, (False,) if name in VECTORS else (False, True)):
        assert check(UNARY[name], lambda m, d=dtype, z=zero_d: operand(m, d, FIRST, z)) is None, (dtype, zero_d)


@pytest.mark.parametrize("name", SCALAR)
def test_numbers_of_every_kind_and_size(name):
    for dtype, number in itertools.product(DTYPES, NUMBERS):
        if dtype == "float16" and number in (1j, 1e30):
            continue  # complex32, and numbers that PyTorch keeps in float32 for an operation on halves
        told = check(SCALAR[name], lambda m, d=dtype: operand(m, d, FIRST), lambda m, n=number: n)
        assert told is None, (dtype, number)


ZERO = {
    "//": lambda m, x, y: x // y,
    "%": lambda m, x, y: x % y,
    "floor_divide": lambda m, x, y: m.floor_divide(x, y),
    "remainder": lambda m, x, y: m.remainder(x, y),
    "fmod": lambda m, x, y: m.fmod(x, y),
    "trunc": lambda m, x, y: m.div(x, y, rounding_mode="trunc"),
    "floor": lambda m, x, y: m.div(x, y, rounding_mode="floor"),
    "/": lambda m, x, y: x / y,
    **{f"{n}_": lambda m, x, y, n=n: getattr(x, f"{n}_")(y) for n in ("floor_divide", "remainder", "fmod")},
}


@pytest.mark.parametrize("name", ZERO)
def test_integers_divided_by_zero(name):
    shapes = ((), (3,), (0,), (2, 0), (1, 3))
    for dtype, a, b in itertools.product(("int64", "uint8", "int32", "float32"), shapes, shapes):
        for fill in (0, 2):
            x, y = (lambda m, s=s, v=v, d=dtype: m.full(s, v, dtype=getattr(m, d)) for s, v in ((a, 7), (b, fill)))
            assert check(ZERO[name], x, y) is None, (dtype, a, b, fill)


ODDS = {
    "minimum of int8": lambda m: (m.tensor([-128], dtype=m.int8).abs(), -m.tensor([-128], dtype=m.int8)),
    "wrap around": lambda m: (m.tensor([127], dtype=m.int8) + 1, m.tensor([2**63 - 1]) + 1),
    "unsigned": lambda m: (m.arange(5, dtype=m.uint8) - 3, -m.tensor([1], dtype=m.uint8)),
    "casts": lambda m: (m.tensor([300, -1]).to(m.uint8), m.tensor([1.7, -1.7]).to(m.int32)),
    "powers of integers": lambda m: (m.tensor([2, -1, 1, 0]) ** m.tensor([-1, -3, -2, 0]), (-1) ** m.tensor([3, -2])),
    "a power of bools": lambda m: (m.tensor([True, False]) ** True, m.tensor([True, False]) ** False),
    "shifts": lambda m: [m.tensor([1, -8]) << n for n in (1, 63, 64, -1)],
    "shifts back": lambda m: [m.tensor([1, -8]) >> n for n in (1, 63, 64, -1)],
    "shifts of bytes": lambda m: [m.tensor([44, 255], dtype=m.uint8) >> n for n in (1, 7, 8, 9)],
    "masked": lambda m: _subtracted(m.arange(4)),
    "arange of fractions": lambda m: (m.arange(0, 3.7, dtype=m.int64), m.arange(1, 2, 0.3, dtype=m.int32)),
    "arange of bytes": lambda m: m.arange(0, 300, 100, dtype=m.uint8),
    "arange of bools": lambda m: m.arange(3, dtype=m.bool),
    "linspace of ints": lambda m: (m.linspace(0, 10, 5, dtype=m.int32), m.linspace(-3, 3, 4, dtype=m.int8)),
    "linspace beyond": lambda m: m.linspace(0, 300, 4, dtype=m.uint8),
    "logspace": lambda m: m.logspace(0, 3, 4, dtype=m.int32),
    "64 bits": lambda m: m.tensor(2**63),
    "-64 bits": lambda m: m.tensor(-(2**63) - 1),
    "65 bits": lambda m: m.tensor(2**64),
    "65 bits as float": lambda m: m.tensor(2**64, dtype=m.float64),
    "uint64": lambda m: m.tensor(2**63, dtype=m.uint64),
    "65 bits added": lambda m: m.tensor([1]) + 2**64,
    "65 bits filled": lambda m: m.tensor([1]).fill_(2**64),
    "NaN as int": lambda m: m.tensor(float("nan"), dtype=m.int32),
    "complex as float": lambda m: m.tensor(1j, dtype=m.float32),
    "NumPy scalar": lambda m: m.tensor(np.int64(300), dtype=m.uint8),
    "NumPy array": lambda m: m.tensor(np.array([300]), dtype=m.uint8),
    "tensor of a tensor": lambda m: m.tensor(m.tensor(300), dtype=m.uint8),
    "scatter": lambda m: m.zeros(2, dtype=m.uint8).scatter(0, m.tensor([0]), 300),
    "index_fill": lambda m: m.zeros(2, dtype=m.uint8).index_fill(0, m.tensor([0]), 300),
    "bincount of negative": lambda m: m.bincount(m.tensor([-1])),
    "one_hot of negative": lambda m: F(m).one_hot(m.tensor([-1])),
    "one_hot": lambda m: F(m).one_hot(m.tensor([0, 2])),
    "rounding modes": lambda m: [m.div(m.tensor([7, -7]), 2, rounding_mode=r) for r in ("trunc", "floor", None)],
    "no such mode": lambda m: m.div(m.tensor([7]), 2, rounding_mode="ceil"),
    "grad of ints": lambda m: m.tensor([1, 2], requires_grad=True),
    "half infinite": lambda m: m.zeros(2, dtype=m.float16) + 1e6,
    "half overflows": lambda m: m.zeros(2, dtype=m.float16).fill_(1e6),
    "cov weighted": lambda m: m.cov(m.arange(6.0).reshape(2, 3) ** 2, fweights=m.tensor([1, 2, 1])),
    "cov weighted twice": lambda m: m.cov(
        m.arange(6.0).reshape(2, 3) ** 2, fweights=m.tensor([1, 2, 1]), aweights=m.tensor([0.5, 1.0, 2.0])
    ),
    "cov with aweights": lambda m: m.cov(m.arange(6.0).reshape(2, 3) ** 2, aweights=m.tensor([0.5, 1.0, 2.0])),
    "cov of float weights": lambda m: m.cov(m.ones(2, 3), fweights=m.ones(3)),
}  # fmt: skip


def _subtracted(x):
    x[x > 1] -= 1
    return x


@pytest.mark.parametrize("name", ODDS)
def test_odd_cases(name):
    assert check(ODDS[name]) is None


ALIKE = {
    "linear": lambda m, x, w: F(m).linear(x, w),
    "linear with bias": lambda m, x, w: F(m).linear(x, x, w[0]),
    "matmul": lambda m, x, w: x @ w,
    "mv": lambda m, x, w: x.mv(w[0]),
    "dot": lambda m, x, w: x[0].dot(w[0]),
    "bmm": lambda m, x, w: x[None].bmm(w[None]),
    "einsum": lambda m, x, w: m.einsum("ij,jk->ik", x, w),
    "addmm": lambda m, x, w: m.addmm(x, x, w),
    "tensordot": lambda m, x, w: m.tensordot(x, w, 1),
    "conv1d": lambda m, x, w: F(m).conv1d(x[None], w[:, :, None]),
    "conv2d": lambda m, x, w: F(m).conv2d(x[None, None], w[None, None]),
    "conv2d with bias": lambda m, x, w: F(m).conv2d(x[None, None], x[None, None], w[0, :1]),
    "conv_transpose2d": lambda m, x, w: F(m).conv_transpose2d(x[None, None], w[None, None]),
    "attention": lambda m, x, w: F(m).scaled_dot_product_attention(x[None], w[None], w[None]),
    "attention's values": lambda m, x, w: F(m).scaled_dot_product_attention(x[None], x[None], w[None]),
}


@pytest.mark.parametrize("name", ALIKE)
def test_half_and_single_precision_do_not_mix(name):
    for half in ("float16", "bfloat16"):
        for a, b in ((half, "float32"), ("float32", half)):
            for m in (rushlight, torch):
                x, w = (m.ones(3, 3, dtype=getattr(m, d)) for d in (a, b))
                with pytest.raises(RuntimeError):
                    ALIKE[name](m, x, w)


FACTORS = [
    {"beta": 0.5}, {"alpha": 1.7}, {"beta": 2, "alpha": 0.5}, {"beta": -1.5, "alpha": 2.9}, {"beta": 2.0},
    {"beta": math.nan}, {"beta": 1j},
]  # fmt: skip
SUMMED = {
    "addmm": ((2, 2), (2, 2), (2, 2)),
    "addmv": ((2,), (2, 2), (2,)),
    "addr": ((2, 2), (2,), (2,)),
    "baddbmm": ((3, 2, 2), (3, 2, 2), (3, 2, 2)),
    "addbmm": ((2, 2), (3, 2, 2), (3, 2, 2)),
}


@pytest.mark.parametrize("name", SUMMED)
@pytest.mark.parametrize("dtype", ["uint8", "int64", "float64"])
@pytest.mark.parametrize("factors", FACTORS, ids=str)
def test_factors_of_products_are_of_their_dtype(name, dtype, factors):
    def case(m, inplace):
        first, *rest = [m.full(shape, 3, dtype=getattr(m, dtype)) for shape in SUMMED[name]]
        return getattr(first, name + "_" * inplace)(*rest, **factors)

    for inplace in (False, True):
        kind, found = outcome(case, rushlight, inplace)
        wanted_kind, wanted = outcome(case, torch, inplace)
        assert kind == wanted_kind
        if kind == "error":
            assert found == wanted
            continue
        assert found[:2] == wanted[:2]
        np.testing.assert_allclose(found[2], wanted[2], rtol=1e-12)


@pytest.mark.parametrize("name", ["group_norm", "instance_norm", "layer_norm", "rms_norm", "batch_norm"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("affine", ["weight", "both"])  # of a bias alone PyTorch has no gradient
def test_half_precision_stays_with_parameters_in_single(name, dtype, affine):
    if name == "rms_norm" and affine != "weight":
        return

    def case(m):
        x = (m.arange(24.0).reshape(2, 4, 3) / 8).to(getattr(m, dtype)).requires_grad_()
        w, b = (m.arange(float(3 if name in ("layer_norm", "rms_norm") else 4)).requires_grad_() for _ in range(2))
        given = {"weight": w}
        if name != "rms_norm":
            given["bias"] = b if affine == "both" else None
        sizes = {"group_norm": (2,), "layer_norm": ((3,),), "rms_norm": ((3,),), "batch_norm": (None, None)}
        training = {"training": True} if name == "batch_norm" else {}
        out = getattr(m.nn.functional, name)(x, *sizes.get(name, ()), **given, **training)
        grads = m.autograd.grad(out.float().sum(), [x, *[p for p in given.values() if p is not None]])
        return out, *grads

    for g, w in zip(case(rushlight), case(torch), strict=True):
        assert str(g.dtype) == str(w.dtype)
        np.testing.assert_allclose(g.float().detach().numpy(), w.float().detach().numpy(), rtol=0.02, atol=0.05)
