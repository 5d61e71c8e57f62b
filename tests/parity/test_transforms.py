"""`vmap` and `jvp` against PyTorch's, on functions that mix many operations, nested and with gradients."""

from __future__ import annotations

import numpy as np
import pytest

import rushlight as rl
from rushlight_autograd.forward_mode import jvp
from rushlight_autograd.vmap import vmap

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # torch's own

FUNCTIONS = {
    "arithmetic": lambda m, a, b: (a * b + a / (b * b + 1)).sum() - a,
    "0-d of another dtype": lambda m, a, b: a.sum() * b.to(m.float32) + b.sum().to(m.float32),
    "matrix": lambda m, a, b: a @ b.T @ a[0],
    "vector": lambda m, a, b: m.outer(a[0], b[1]).logsumexp(-1) + a[:, 0].dot(b[:, 1]),
    "reductions": lambda m, a, b: m.stack([a.var(0), b.amax(0), (a * b).mean(0), a.prod(0), b.norm(dim=0)]),
    "order": lambda m, a, b: a.sort(1).values.cumsum(0) * b.max(0).values + a.argmax() + b.argmin(1).sum(),
    "shape": lambda m, a, b: m.cat(
        [a.T.reshape(-1), b.flatten().flip(0), a.unsqueeze(1).expand(3, 2, 3)[:, 1].diagonal()]
    ),
    "indices": lambda m, a, b: a[:, [2, 0]].sum() + b.gather(1, a.argsort(1)) + a.index_select(0, b[0].argsort()),
    "writes": lambda m, a, b: _written(a, b),
    "writes into what is made like": lambda m, a, b: _filled(m, a, b),
    "softmax": lambda m, a, b: m.nn.functional.cross_entropy(a, b.softmax(-1)) + m.nn.functional.log_softmax(a, 0),
    "classes": lambda m, a, b: m.nn.functional.cross_entropy(a, b.argmax(1)) * m.nn.functional.mse_loss(a, b),
    "norms": lambda m, a, b: m.nn.functional.layer_norm(a, (3,), b[0], b[1]) + m.nn.functional.gelu(b),
    "convolution": lambda m, a, b: m.nn.functional.conv2d(a[None, None], b[None, None, :2, :2], padding=1).relu(),
    "pooling": lambda m, a, b: m.nn.functional.max_pool2d(a[None], 2, 1) - m.nn.functional.avg_pool2d(b[None], 2, 1),
    "attention": lambda m, a, b: m.nn.functional.scaled_dot_product_attention(a[None], b[None], a[None]),
    "extremes": lambda m, a, b: (a / a.max() + b * b.round().min() + (a * b).round().median()) * (b + 1).round().max(),
    "causal attention": lambda m, a, b: (
        m.nn.functional.scaled_dot_product_attention(a[None].float(), b[None].float(), a[None].float(), is_causal=True)
        + m.nn.functional.scaled_dot_product_attention(a.float(), b.float(), a.float(), is_causal=True)
    ),
    "products": lambda m, a, b: a.round().prod() + (a * b).round().prod(1) + b.prod(0, keepdim=True),
    "like": lambda m, a, b: m.zeros_like(a) + m.ones_like(b) + m.full_like(a.T, 2.0) + m.zeros_like(b * a.T) + a * b,
    "where": lambda m, a, b: m.where(a > b, a.sin(), b.cos()).masked_fill(a > 0.5, 2.0).clamp(-0.5, 0.5),
    "einsum": lambda m, a, b: m.einsum("ij,kj->ik", a, b).tril() + m.triu(a),
}


def _written(a, b):
    out = a.clone()
    out[0] = b[1]
    out[:, 1:] *= 2
    out.T[2].add_(b[:, 0])
    return out


def pair(shape, seed):
    made = np.random.default_rng(seed).standard_normal(shape)
    return torch.tensor(made), rl.tensor(made)


def alike(got, want, tolerance=1e-6):
    assert tuple(got.shape) == tuple(want.shape)
    assert str(got.dtype) == str(want.dtype)
    np.testing.assert_allclose(got.detach().numpy(), want.detach().numpy(), rtol=tolerance, atol=tolerance)


def _filled(m, a, b):
    both = a * b
    made = m.zeros_like(both).copy_(a).add_(m.full_like(both, 2.0).mul_(b))
    made[0] = both.new_empty(3).copy_(b[1])
    return made * both.new_ones(3, 3).T.mul(a)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(("a_dim", "b_dim"), [(0, 0), (2, 1), (-1, None), (None, 0)])
def test_vmap_agrees(name, a_dim, b_dim):
    shapes = {0: (4, 3, 3), 1: (3, 4, 3), 2: (3, 3, 4), -1: (3, 3, 4), None: (3, 3)}
    theirs, ours = zip(*[pair(shapes[d], i) for i, d in enumerate((a_dim, b_dim))], strict=True)
    f, dims = FUNCTIONS[name], (a_dim, b_dim)
    if name == "writes" and a_dim is None:  # into what is the same for all samples
        with pytest.raises(RuntimeError, match="out-of-place"):
            vmap(lambda a, b: f(rl, a, b), in_dims=dims)(*ours)
        return
    want = torch.vmap(lambda a, b: f(torch, a, b), in_dims=dims, out_dims=-1)(*theirs)
    alike(vmap(lambda a, b: f(rl, a, b), in_dims=dims, out_dims=-1)(*ours), want)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_jvp_agrees(name):
    f = FUNCTIONS[name]
    theirs, ours = zip(*[pair((3, 3), i) for i in range(4)], strict=True)
    want = torch.func.jvp(lambda a, b: f(torch, a, b), theirs[:2], theirs[2:])
    for g, w in zip(jvp(lambda a, b: f(rl, a, b), ours[:2], ours[2:]), want, strict=True):
        alike(g, w)


@pytest.mark.parametrize("name", ["max", "min", "median"])
def test_the_extreme_of_all_under_vmap_passes_its_gradient_on(name):
    """To one of several equal elements, as `torch.vmap` decomposes it; without `vmap` they share it."""
    nan = float("nan")
    for x in ([[5.0, 1.0, 5.0], [2.0, 2.0, 0.0]], [[1.0, nan, nan], [0.0, 1.0, 3.0]], [2.0, nan]):
        x = np.array(x)
        found = []
        for m, batched, forward in ((torch, torch.vmap, torch.func.jvp), (rl, vmap, jvp)):
            t = m.tensor(x).requires_grad_()
            f = batched(lambda x, m=m: (x / (getattr(m, name)(x) + 1)).sum())
            moved = forward(f, (t.detach(),), (m.ones_like(t),))
            found.append((m.autograd.grad(f(t).sum(), t)[0], *moved))
        for g, w in zip(found[1], found[0], strict=True):
            alike(g, w)


SMOOTH = [
    name
    for name in FUNCTIONS
    if name not in ("order", "extremes", "attention", "causal attention", "0-d of another dtype", "classes")
]


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_per_sample_and_hessian_products_agree(name):
    f = FUNCTIONS[name]
    (a, xa), (b, xb), (t, xt) = (pair((4, 3, 3), i) for i in range(3))
    gradient = torch.func.grad(lambda a, b: (f(torch, a, b) ** 2).sum())
    wanted = torch.vmap(lambda a, b, t: torch.func.jvp(lambda a: gradient(a, b), (a,), (t,)))(a, b, t)

    def ours(a, b):
        a = a.view_as(a).requires_grad_()
        return rl.autograd.grad((f(rl, a, b) ** 2).sum(), a, create_graph=True)[0]

    found = vmap(lambda a, b, t: jvp(lambda a: ours(a, b), (a,), (t,)))(xa, xb, xt)
    for g, w in zip(found, wanted, strict=True):
        alike(g, w)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_and_tangents_of_vmap_agree(name):
    """From outside: what the rules of samples are made of is differentiated."""
    f = FUNCTIONS[name]
    (a, xa), (b, xb), (t, xt) = (pair((4, 3, 3), i) for i in range(3))
    theirs, ours = (v(lambda a, b, m=m: f(m, a, b)) for m, v in ((torch, torch.vmap), (rl, vmap)))
    for g, w in zip(jvp(ours, (xa, xb), (xt, xa)), torch.func.jvp(theirs, (a, b), (t, a)), strict=True):
        alike(g, w, 1e-5)
    leaves, xleaves = ([x.requires_grad_() for x in xs] for xs in ((a, b), (xa, xb)))
    want = torch.autograd.grad((theirs(a, b) ** 2).sum(), leaves, allow_unused=True, materialize_grads=True)
    found = rl.autograd.grad((ours(xa, xb) ** 2).sum(), xleaves, allow_unused=True, materialize_grads=True)
    for g, w in zip(found, want, strict=True):
        alike(g, w, 1e-5)


def test_nested_with_different_dimensions_agrees():
    (a, xa), (b, xb) = pair((4, 5, 3), 0), pair((5, 3), 1)

    def nested(m, v):
        return v(v(lambda a, b: (a[:, None] * b).sum(0).softmax(0), in_dims=(0, None)), in_dims=(1, 0), out_dims=1)

    alike(nested(rl, vmap)(xa, xb), nested(torch, torch.vmap)(a, b))


STRICT = {
    "depends": lambda m, x: x * 2,
    "constant": lambda m, x: m.ones(2),
    "one of two": lambda m, x: (x * 2, m.ones(1)),
    "detached": lambda m, x: x.detach(),
    "times zero": lambda m, x: x * 0,
    "two that depend": lambda m, x: (x.sum(), x + 1),
}


@pytest.mark.parametrize("name", STRICT)
def test_strict_jvp_refuses_results_that_are_independent(name):
    def of(m, jvp):
        try:
            found = jvp(lambda x: STRICT[name](m, x), (m.ones(2),), (m.ones(2),), strict=True)
        except RuntimeError as e:
            return str(e)
        return [[z.tolist() for z in (part if isinstance(part, tuple) else (part,))] for part in found]

    assert of(rl, jvp) == of(torch, torch.func.jvp)


CUT = {
    "detach": lambda m, x: x.detach(),
    "times itself detached": lambda m, x: x * x.detach(),
    "data": lambda m, x: x.data * x,
    "function of it": lambda m, x: x.detach().sin() + x,
    "part of it": lambda m, x: x.detach()[:1] * x,
    "detached part": lambda m, x: x[:1].detach() * x,
    "sign": lambda m, x: x.sign() * x,
    "rounded": lambda m, x: x.round() + x,
}


@pytest.mark.parametrize("name", CUT)
def test_no_tangent_goes_through_what_cuts_the_graph(name):
    def of(m, jvp):
        value, tangent = jvp(lambda x: CUT[name](m, x), (m.tensor([2.0, 3.0]),), (m.ones(2),))
        return value.tolist(), tangent.tolist()

    (value, tangent), (want, moved) = of(rl, jvp), of(torch, torch.func.jvp)
    assert value == pytest.approx(want)
    assert tangent == pytest.approx(moved)
