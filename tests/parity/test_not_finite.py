"""Values and gradients at NaN, infinities, zeros and kinks, and at every pair of them."""

from __future__ import annotations

import math

import numpy as np
import pytest

import rushlight

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.filterwarnings("ignore")

NAN, INF = math.nan, math.inf
EDGES = [NAN, INF, -INF, 0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 3.0, -3.0, 6.0, 20.0, 21.0, 88.0, -88.0]


def F(m):
    return m.nn.functional


def named(names, of=lambda m: m):
    return {n: lambda m, x, n=n: getattr(of(m), n)(x) for n in names.split()}


UNARY = {
    **named(
        "abs neg sign floor ceil trunc round frac square exp exp2 expm1 log log2 log10 log1p sqrt rsqrt reciprocal sin "
        "cos tan asin acos atan sinh cosh tanh asinh acosh atanh sigmoid erf erfc lgamma logit deg2rad nan_to_num relu"
    ),
    **named(
        "softplus silu hardtanh relu6 leaky_relu celu elu selu hardswish hardsigmoid mish logsigmoid hardshrink "
        "softshrink tanhshrink",
        F,
    ),
    "logit of eps": lambda m, x: m.logit(x, 1e-3),
    "threshold": lambda m, x: F(m).threshold(x, 0.5, -1.0),
    "clamp": lambda m, x: x.clamp(-1, 2),
    "squares": lambda m, x: x**2,
    "cubes": lambda m, x: x**3,
    "over squares": lambda m, x: x**-2,
    "powers of numbers": lambda m, x: m.stack([b**x for b in (2, 0, 1, INF, 0.5)]),
    "gelu of a tanh": lambda m, x: F(m).gelu(x, approximate="tanh"),
    **{
        f"{name} from the {'left' if left else 'right'}": lambda m, x, n=name, left=left: getattr(F(m), n)(
            *((x, m.full_like(x, 0.3)) if left else (m.full_like(x, 0.3), x)), reduction="none"
        )
        for name in ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "binary_cross_entropy_with_logits")
        for left in (True, False)
    },
}
NUMBERS = (
    "add", "sub", "mul", "div", "atan2", "hypot", "copysign", "maximum", "minimum", "fmax", "fmin", "logaddexp",
    "xlogy", "pow", "fmod",
)  # fmt: skip
ROWS = ("sum", "mean", "prod", "amax", "amin", "logsumexp", "softmax", "log_softmax")
PAIRS = {
    n: lambda m, z, n=n: getattr(m, n)(z[..., 0], z[..., 1])
    for n in [
        "add",
        "sub",
        "mul",
        "div",
        "atan2",
        "hypot",
        "copysign",
        "maximum",
        "minimum",
        "fmax",
        "fmin",
        "logaddexp",
        "xlogy",
        "pow",
        "fmod",
    ]
} | {
    **{n: lambda m, z, n=n: getattr(z, n)(-1) for n in ROWS},
    **{f"norm {p}": lambda m, z, p=p: z.norm(p, -1) for p in (1, 2, 3, INF)},
    "lerp": lambda m, z: m.stack([m.lerp(z[..., 0], z[..., 1], w) for w in (0.0, 0.3, 0.7, 1.0)]),
    "multi_margin": lambda m, z: F(m).multi_margin_loss(
        z.reshape(-1, 2), m.zeros(len(EDGES) ** 2, dtype=m.int64), reduction="none"
    ),
    "renorm": lambda m, z: z.reshape(-1, 2).renorm(2, 0, 1.0),
    "norm of one": lambda m, z: m.stack([z[..., :1].norm(p, -1) for p in (0.5, 1, 2, 3, INF)]),
}


def both(m, f, x):
    """The value, and the gradient of its sum where there is one."""
    x = x.detach().requires_grad_()
    y = f(m, x)
    if not y.requires_grad:
        return (y,)
    return y.detach(), m.autograd.grad(y, x, m.ones_like(y))[0]


def check(f, values, dtype):
    x, theirs = (m.tensor(values, dtype=getattr(m, dtype)) for m in (rushlight, torch))
    want = both(torch, f, theirs)
    got = both(rushlight, f, x)
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", UNARY)
def test_every_edge(name, dtype):
    check(UNARY[name], EDGES * 2, dtype)  # as many as PyTorch's loops take at once: what is left over has another NaN


@pytest.mark.parametrize("name", PAIRS)
def test_every_pair_of_edges(name):
    check(PAIRS[name], [[[a, b] for b in EDGES] for a in EDGES], "float32")


@pytest.mark.parametrize("name", ["smooth_l1_loss", "huber_loss"])
def test_a_loss_that_is_a_line_at_infinity_has_its_slope_there(name):
    x = rushlight.tensor([INF, -INF], requires_grad=True)
    getattr(rushlight.nn.functional, name)(x, rushlight.zeros(2), reduction="sum").backward()
    assert x.grad.tolist() == [1, -1]


def test_lerp_meets_both_ends():
    a, b = rushlight.tensor([1e8, 0.1]), rushlight.tensor([1.0, 0.7])
    for weight, end in (0, a), (1.0, b), (rushlight.zeros(2), a), (rushlight.ones(2), b):
        assert rushlight.equal(rushlight.lerp(a, b, weight), end)


def test_norms_of_one_number_are_its_size():
    for p in (0.5, 1, 2, 3, INF):
        assert rushlight.tensor([[1e30], [-1e-30]]).norm(p, 1).tolist() == rushlight.tensor([1e30, 1e-30]).tolist()


def test_cosine_of_a_vector_whose_norm_overflows():
    x = rushlight.tensor([1e30, 1e30])
    assert rushlight.nn.functional.cosine_similarity(x, x, 0).tolist() == 0  # as in PyTorch
