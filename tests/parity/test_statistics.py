"""Statistics, second names and the arguments that PyTorch gives to arithmetic, against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

import rushlight
import rushlight_autograd as autograd
import rushlight_tensor as rl
from tests.parity.outcome import outcome

torch = pytest.importorskip("torch")

RNG = np.random.default_rng(0)
X, Y = (RNG.standard_normal((4, 5)).astype(np.float32) for _ in range(2))
WITH_NAN = X.copy()
WITH_NAN[1, 2] = np.nan
ODD = np.array([np.nan, np.inf, -np.inf, 1, 0], np.float32)
INTS = np.array([[-7, 7, 5], [4, -4, 9]])

CASES = {
    "quantile": lambda m, x, y: (m.quantile(x, 0.3), x.quantile(0.6, 1), m.quantile(x, m.tensor([0.1, 0.6]), dim=1)),
    "diff": lambda m, x, y: (m.diff(x), m.diff(x, 2, 0), m.diff(x, prepend=x[:, :1])),
    "cov": lambda m, x, y: (m.cov(x), m.corrcoef(x), m.cov(x, correction=0), m.cov(x[0])),
    "trapezoid": lambda m, x, y: (m.trapezoid(x, dx=0.5, dim=0), m.trapezoid(x, m.tensor([0.0, 1, 3, 4, 7]))),
    "cross": lambda m, x, y: m.cross(x[:, :3], y[:, :3], dim=1),
    "kron": lambda m, x, y: (m.kron(x[:2], y[0]), m.vdot(x[0], y[0])),
    "addbmm": lambda m, x, y: m.addbmm(x[0, :4], x.reshape(2, 2, 5), y.reshape(2, 5, 2)[..., [0, 1, 1, 0]], alpha=2),
    "renorm": lambda m, x, y: m.renorm(x, 2, 0, 1.5),
    "alpha": lambda m, x, y: (m.add(x, y, alpha=2), x.sub(y, alpha=0.5), m.rsub(x, y), x.clone().add_(y, alpha=-3)),
    "rounding_mode": lambda m, x, y: (m.div(x, y, rounding_mode="trunc"), x.div(y)),
    "decimals": lambda m, x, y: (m.round(x, decimals=1), m.round(x * 100, decimals=-1), m.round(x)),
    "hyperbolic": lambda m, x, y: (m.asinh(x), m.acosh(x.abs() + 1.1), m.atanh(x / 9)),
    "pairs": lambda m, x, y: (m.hypot(x, y), m.copysign(x, y), m.fmax(x, y), m.fmin(x, y), m.logaddexp2(x, y)),
    "names": lambda m, x, y: (
        m.subtract(x, y), m.multiply(x, y), m.divide(x, y), m.negative(x), m.absolute(x), m.clip(x, -1, 1), m.frac(x),
        m.fix(x), m.clamp_min(x, 0.1), m.clamp_max(x, y), m.deg2rad(x), m.float_power(x.abs(), 2), m.arctan(x),
    ),
    "in-place": lambda m, x, y: (x.clone().clip_(-1, 1), x.clone().cumsum_(0), x.clone().div_(y)),
}  # fmt: skip

EXTRA = {
    "pdist": lambda m, f, x, y: f.pdist(x),
    "multi_margin": lambda m, f, x, y: (
        f.multi_margin_loss(x, labels(m)),
        f.multi_margin_loss(x, labels(m), 2, reduction="none"),
    ),
    "multilabel_soft_margin": lambda m, f, x, y: f.multilabel_soft_margin_loss(
        x, (y.detach() > 0).float(), y.detach()[0].abs()
    ),
    "triplet": lambda m, f, x, y: f.triplet_margin_with_distance_loss(x, y, y * 2, swap=True),
    "embedding_bag": lambda m, f, x, y: tuple(
        f.embedding_bag(m.tensor([1, 3, 0, 2, 1]), x, m.tensor([0, 2, 2]), mode=mode) for mode in ("sum", "mean", "max")
    ),
    "embedding_bag-weights": lambda m, f, x, y: f.embedding_bag(
        m.tensor([[1, 3, 0], [2, 1, 1]]), x, mode="sum", per_sample_weights=y[:2, :3]
    ),
    "gamma": lambda m, f, x, y: (m.lgamma(x.abs() + 0.1), m.digamma(x), m.polygamma(1, y.detach()), m.erfinv(x / 4)),
    "dropout3d": lambda m, f, x, y: (m.manual_seed(0), f.dropout3d(x.reshape(4, 5, 1, 1, 1), 0.4))[1],
}


def labels(m):
    return m.tensor([2, 0, 4, 2])


EXACT = {
    "interpolations": lambda m: tuple(
        f(m.tensor(a), q, dim, interpolation=how)
        for f, a in ((m.quantile, X), (m.nanquantile, WITH_NAN), (m.quantile, WITH_NAN))
        for how in ("linear", "lower", "higher", "midpoint", "nearest")
        for q in (0.0, 0.37, 1.0)
        for dim in (None, 0, 1)
    ),
    "nan_to_num": lambda m: (m.nan_to_num(m.tensor(ODD)), m.nan_to_num(m.tensor(ODD), 1, 2, 3)),
    "which": lambda m: (m.isposinf(m.tensor(ODD)), m.isneginf(m.tensor(ODD)), m.signbit(m.tensor(ODD[1:]))),
    "nan-pairs": lambda m: (m.fmax(m.tensor(ODD), m.tensor(ODD[::-1].copy())), m.heaviside(m.tensor(X), m.tensor(0.5))),
    "integers": lambda m: tuple(
        m.div(m.tensor(INTS), m.tensor([2, -2, 3]), rounding_mode=mode) for mode in (None, "floor", "trunc")
    ),
    "compare": lambda m: (m.less(m.tensor(X), 0), m.greater_equal(m.tensor(INTS), 4), m.not_equal(m.tensor(INTS), 4)),
    "diff-other": lambda m: (m.diff(m.tensor(INTS)), m.diff(m.tensor(INTS) > 0)),
}


def compare(ours, theirs, what, tol=3e-5):
    theirs = theirs.detach()
    assert str(ours.dtype) == str(theirs.dtype), what
    np.testing.assert_allclose(ours.detach().numpy(), theirs.numpy(force=True), rtol=tol, atol=tol, err_msg=what)


@pytest.mark.parametrize("name", [*CASES, *EXTRA])
def test_values_and_gradients_agree(name):
    sides = []
    for m, f, grad in ((torch, torch.nn.functional, torch.autograd.grad), (rl, rl, autograd.grad)):
        xs = [m.tensor(a, requires_grad=True) for a in (X, Y)]
        outs = CASES[name](m, *xs) if name in CASES else EXTRA[name](m, f, *xs)
        outs = outs if isinstance(outs, tuple) else (outs,)
        total = sum((o.double() * m.arange(o.numel()).reshape(o.shape).cos()).sum() for o in outs if o.requires_grad)
        sides.append((outs, [g for g in grad(total, xs, allow_unused=True) if g is not None]))
    for kind in (0, 1):
        assert len(sides[0][kind]) == len(sides[1][kind])
        for i, (theirs, ours) in enumerate(zip(sides[0][kind], sides[1][kind], strict=True)):
            compare(ours, theirs, f"{('result', 'gradient')[kind]} {i}", tol=(3e-5, 2e-4)[kind])


@pytest.mark.parametrize("name", EXACT)
def test_values_agree(name):
    for i, (theirs, ours) in enumerate(zip(EXACT[name](torch), EXACT[name](rl), strict=True)):
        compare(ours, theirs, f"{name} {i}")


def test_an_unknown_argument_of_an_op_in_place_is_refused():
    with pytest.raises(TypeError, match="alpha"):
        rl.tensor([1.0]).mul_(2, alpha=3)


@pytest.mark.parametrize(
    "call",
    [
        lambda t, f: f.cross_entropy(t.zeros(2, 3), [1, 2]),
        lambda t, f: f.linear(t.zeros(2), [1]),
        lambda t, f: t.softmax([1], 0),
        lambda t, f: f.layer_norm([1], (2,)),
        lambda t, f: f.dropout([1.0]),
        lambda t, f: t.max([1]),
        lambda t, f: t.relu([1]),
        lambda t, f: t.mm([1], [2]),
        lambda t, f: t.matmul(t.zeros(2), 3),
    ],
)
def test_what_is_no_tensor_is_named(call):
    said = []
    for m, f in ((torch, torch.nn.functional), (rl, rl)):
        with pytest.raises(TypeError, match="must be Tensor, not") as caught:
            call(m, f)
        said.append(str(caught.value).replace("cross_entropy_loss", "cross_entropy"))
    assert said[0] == said[1]


def test_nodes_have_their_names():
    def named(m, f):
        x, w, b, cube, image = (m.ones(*s, requires_grad=True) for s in ((2, 3), (4, 3), (4,), (2, 5, 3), (1, 2, 4, 4)))
        labels = m.tensor([0, 1])
        made = (
            f.linear(x, w, b),
            f.linear(x, w),
            f.linear(cube, w, b),
            f.linear(cube, w),
            x @ w.t(),
            x[0] @ w[0],
            x @ w[0],
            f.cross_entropy(x, labels),
            f.nll_loss(x, labels),
            f.mse_loss(x, x * 2),
            f.l1_loss(x, x * 2),
            x.max(),
            x.max(1)[0],
            x.amax(1),
            x.min(),
            x.sum(),
            x.sum(1),
            x.mean(),
            x.mean(1),
            x.prod(1),
            x.norm(),
            x.median(1)[0],
            x.logsumexp(1),
            f.layer_norm(x, (3,)),
            f.conv2d(image, m.ones(3, 2, 2, 2)),
            f.max_pool2d(image, 2),
            f.avg_pool2d(image, 2),
            f.gelu(x),
            f.silu(x),
            f.relu6(x),
            f.selu(x),
            f.logsigmoid(x),
            f.softmax(x, 1),
            f.dropout(x, 0.5),
            x.cumsum(0),
        )
        return [t.grad_fn.name() for t in made]

    assert named(rl, rl) == named(torch, torch.nn.functional)


QUANTILES = {
    "none": lambda m, x: m.quantile(x, x.new_empty(0)),
    "none of rows": lambda m, x: m.quantile(x, x.new_empty(0), dim=1),
    "none of columns, kept": lambda m, x: m.quantile(x, x.new_empty(0), dim=0, keepdim=True),
    "of nothing": lambda m, x: m.quantile(x[:0], 0.5),
    "of no columns": lambda m, x: m.quantile(x[:0], 0.5, dim=1),
    "of other dtype": lambda m, x: m.quantile(x, m.tensor(0.5, dtype=m.float64)),
    "of same dtype": lambda m, x: m.quantile(x, m.tensor(0.5), dim=1),
}


@pytest.mark.parametrize("name", QUANTILES)
def test_quantiles_of_nothing_and_of_no_points(name):
    want, got = (outcome(lambda m: QUANTILES[name](m, m.tensor(X, requires_grad=True)), m) for m in (torch, rushlight))
    assert got == want


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint8"])
def test_max_pool_of_integers(dtype):
    want, got = (
        outcome(
            lambda m: m.nn.functional.max_pool2d(
                m.arange(-8, 8).reshape(1, 1, 4, 4).to(getattr(m, dtype)), 2, 1, padding=1, return_indices=True
            ),
            m,
        )
        for m in (torch, rushlight)
    )
    assert got == want


@pytest.mark.parametrize("size", [(0, 1), (3, 0), (0, 0)])
def test_adaptive_pools_of_no_windows(size):
    for name in ("adaptive_max_pool2d", "adaptive_avg_pool2d"):
        want, got = (
            outcome(lambda m, f=name: getattr(m.nn.functional, f)(m.ones(2, 1, 4, 4), size), m)
            for m in (torch, rushlight)
        )
        assert got == want
