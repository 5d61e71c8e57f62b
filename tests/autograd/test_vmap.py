"""`vmap` and `jvp` of functions: nesting, writes, random numbers, arguments in trees, and what is refused.

Single records are walked in `test_batching_walk.py` and `test_forward_walk.py`.
"""

from __future__ import annotations

import threading

import numpy as np
import pytest

import rushlight_nn as nn
import rushlight_nn.functional as F
import rushlight_tensor as rl
from rushlight_autograd import detect_anomaly, grad
from rushlight_autograd.batching import Batch, rule_of
from rushlight_autograd.forward_mode import jvp
from rushlight_autograd.vmap import vmap
from rushlight_tensor import REGISTRY, tensor
from rushlight_tensor.core import kinds
from rushlight_tensor.core.op import Op


def numbers(*shape, seed=0):
    return tensor(np.random.default_rng(seed).standard_normal(shape))


def same(got, want, tolerance=1e-12):
    assert got.shape == want.shape
    np.testing.assert_allclose(got.detach().numpy(), want.detach().numpy(), rtol=tolerance, atol=tolerance)


def gradient(f):
    """The gradient of a function of one tensor, inside or outside a transform."""

    def of(x):
        x = x.view_as(x).requires_grad_()
        return grad(f(x), x, create_graph=True)[0]

    return of


# ------------------------------------------------------------------------------------------------------ every record


def test_every_record_says_how_it_is_batched():
    """By its own rule, by its kind, or as the gradient of one that can be differentiated; else it is opaque."""
    one_by_one = set()
    for op in REGISTRY.values():
        batched = [True] * max(op.arity, 1)
        if rule_of(op, batched) is None and op.forward is None and not op.writes and op.input_names:
            one_by_one.add(op.name)
            assert isinstance(op.kind, kinds.Opaque) or op.kind.shared, f"{op.name}: {op.kind}"
    assert len(one_by_one) < 12, one_by_one


def test_a_record_without_a_rule_runs_sample_by_sample():
    def infer(x):
        return x

    op = Op("cube_for_test", kind=kinds.opaque("for this test"), infer=infer, numpy=lambda x: x**3, vjp=None)
    try:
        x = numbers(3, 2)
        same(vmap(op)(x), x**3)
    finally:
        del REGISTRY["cube_for_test"]


# ------------------------------------------------------------------------------------------------------------ nesting


def test_nested_vmap_is_an_outer_product():
    x, y = numbers(3), numbers(4, seed=1)
    outer = vmap(vmap(lambda a, b: a * b, in_dims=(None, 0)), in_dims=(0, None))
    for _ in range(2):
        same(outer(x, y), x[:, None] * y)


def test_inner_vmap_over_another_dimension_than_the_outer():
    x = numbers(3, 4, 5)
    same(vmap(vmap(lambda a: a.sum(), in_dims=1), in_dims=1)(x), x.sum(0))


def test_gradients_per_sample_of_shared_weights():
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    weights = [p.detach() for p in model.parameters()]
    x, t = numbers(6, 4), tensor([0, 2, 1, 1, 0, 2])

    def loss(w1, b1, w2, b2, a, target):
        return F.cross_entropy(F.linear(F.linear(a, w1, b1).tanh(), w2, b2), target)

    def gradients(*args):
        inner = [w.view_as(w).requires_grad_() for w in args[:4]]
        return grad(loss(*inner, *args[4:]), inner)

    each = vmap(gradients, in_dims=(None,) * 4 + (0, 0))
    for _ in range(2):
        got = each(*weights, x, t)
        for i in range(6):
            for g, w in zip(got, grad(F.cross_entropy(model(x[i]), t[i]), list(model.parameters())), strict=True):
                same(g[i], w)


def test_weights_from_outside_get_the_sum_of_all_samples():
    model = nn.Linear(4, 3).double()
    x = numbers(6, 4)
    vmap(lambda a: model(a).sin().sum())(x).sum().backward()
    got = model.weight.grad.clone()
    model.weight.grad = None
    model(x).sin().sum().backward()
    same(got, model.weight.grad)


@pytest.mark.parametrize("per_sample_indices", [False, True])
def test_padding_of_an_embedding_gets_no_gradient_from_any_table(per_sample_indices):
    tables = numbers(2, 4, 3).requires_grad_()
    indices = tensor([[0, 1, 1, 3], [1, 2, 2, 0]]) if per_sample_indices else tensor([0, 1, 1, 3])

    def f(table, at):
        return F.embedding(at, table, padding_idx=1).sin().sum()

    dims = (0, 0 if per_sample_indices else None)
    outside = grad(vmap(f, in_dims=dims)(tables, indices).sum(), tables)[0]
    inside = vmap(lambda table, at: gradient(lambda w: f(w, at))(table), in_dims=dims)(tables.detach(), indices)
    for i in range(2):
        table = tables[i].detach().requires_grad_()
        want = grad(f(table, indices[i] if per_sample_indices else indices), table)[0]
        assert not want[1].any()
        same(outside[i], want)
        same(inside[i], want)


def test_gradient_of_vmap_of_gradient():
    x = numbers(3, 4).requires_grad_()
    inner = vmap(gradient(lambda a: (a**3).sum()))(x)
    same(inner, 3 * x**2)
    same(grad(inner.sum(), x)[0], 6 * x)


def test_jvp_of_vmap_and_vmap_of_jvp():
    x, t = numbers(3, 4), numbers(3, 4, seed=1)

    def f(a):
        return a.softmax(0).log().cumsum(0)

    for _ in range(2):
        value, moved = jvp(vmap(f), (x,), (t,))
        each = vmap(lambda a, b: jvp(f, (a,), (b,)))(x, t)
        same(value, each[0])
        same(moved, each[1])


def test_nested_jvp_is_the_second_derivative_without_confusion_of_tangents():
    x = tensor(0.7, dtype=rl.float64)
    one = rl.ones_like(x)

    def slope(f):
        return lambda a: jvp(f, (a,), (one,))[1]

    same(slope(slope(lambda a: a**3))(x), 6 * x)
    # d/dx (x d/dy (x + y)) = 1: an inner tangent that met the outer one would give 2
    same(slope(lambda a: a * slope(lambda b: a + b)(one))(x), one)


def test_jvp_of_a_gradient_is_a_hessian_times_a_vector_and_vmap_of_it_the_hessian():
    x = numbers(4)

    def f(a):
        return (a.sin() * a.roll(1, 0)).sum()

    rows = vmap(lambda v: jvp(gradient(f), (x,), (v,))[1])(rl.eye(4, dtype=rl.float64))
    y = x.clone().requires_grad_()
    first = grad(f(y), y, create_graph=True)[0]
    same(rows, rl.stack([grad(g, y, retain_graph=True)[0] for g in first]))


def test_tangents_lie_as_their_tensors_so_that_views_of_these_are_views_of_them():
    x, t = numbers(3, 4), numbers(4, 3, seed=1).t()
    value, moved = jvp(lambda a: a.view(-1) * a.t().reshape(-1) * (a.t() + 0).contiguous().view(12), (x,), (t,))
    y = x.t().reshape(-1)
    u = t.t().reshape(-1)
    same(moved, t.reshape(-1) * y * y + 2 * x.view(-1) * u * y)
    same(value, x.view(-1) * y * y)


def test_gradient_of_jvp():
    x, t = numbers(4).requires_grad_(), numbers(4, seed=1)
    moved = jvp(lambda a: a.exp().prod(), (x,), (t,))[1]
    same(grad(moved, x)[0], rl.full_like(x, float(t.sum() * x.sum().exp())))


def test_tangents_from_outside_have_a_gradient():
    x, t = numbers(4), numbers(4, seed=1).requires_grad_()
    same(grad(jvp(lambda a: a.logsumexp(0), (x,), (t,))[1], t)[0], x.softmax(0))


# ------------------------------------------------------------------------------------------------------------- writes


def test_writes_inside_vmap():
    x = numbers(3, 4)

    def f(a):
        b = a.clone()
        b[0] = 5.0
        b[1:].mul_(a[1:])
        b.add_(1)
        return b

    want = x * x + 1
    want[:, 0] = 6.0
    same(vmap(f)(x), want)


def test_a_write_into_the_argument_is_seen_outside():
    x = numbers(3, 4)
    want = x + 1
    vmap(lambda a: a.add_(1), in_dims=1)(x)
    same(x, want)


MADE = {
    "zeros_like": lambda x: rl.zeros_like(x),
    "ones_like": lambda x: rl.ones_like(x),
    "empty_like": lambda x: rl.empty_like(x).zero_(),
    "full_like": lambda x: rl.full_like(x, 2.0),
    "new_zeros": lambda x: x.new_zeros(x.shape),
    "new_ones": lambda x: x.new_ones(*x.shape),
    "new_empty": lambda x: x.new_empty(x.shape).zero_(),
    "new_full": lambda x: x.new_full(x.shape, 2.0),
    "zeros_like of a transposed one": lambda x: rl.zeros_like(x.t()).t(),
    "zeros_like in another dtype": lambda x: rl.zeros_like(x, dtype=rl.float32),
}


@pytest.mark.parametrize("made", MADE.values(), ids=MADE)
def test_what_is_made_like_a_sample_has_memory_for_all(made):
    """It was one tensor for all samples: the first write was refused, with words about a tensor that was too large."""

    def f(x):
        z = made(x)
        z.add_(x)
        z[0] = x[1]
        z[-1:][:, 1:].mul_(x[0, 0])
        return z

    x = numbers(3, 2, 4)
    want = rl.stack([f(each) for each in x])
    same(vmap(f)(x), want)
    same(vmap(f, in_dims=1)(x.movedim(0, 1)), want)
    same(vmap(vmap(f))(rl.stack([x, x * 2])), rl.stack([want, rl.stack([f(each) for each in x * 2])]))
    same(jvp(vmap(f), (x,), (x,))[0], want)
    same(vmap(lambda each: jvp(f, (each,), (each,))[0])(x), want)
    inner = vmap(lambda row: f(x[0]) * row.sum())  # like what is the same for all
    same(inner(numbers(3, 2)), f(x[0]) * numbers(3, 2).sum(1)[:, None, None], 1e-6)


def test_what_is_made_like_a_sample_may_require_grad():
    def f(x):
        z = rl.zeros_like(x, requires_grad=True)
        return grad((z * x).sum(), z)[0]

    same(vmap(f)(numbers(3, 4)), numbers(3, 4))


def test_writing_samples_into_what_is_the_same_for_all_is_refused():
    with pytest.raises(RuntimeError, match="out-of-place operators instead of add_"):
        vmap(lambda a: rl.zeros(4).add_(a))(numbers(3, 4).float())


LATER = {
    "itself": lambda y: y,
    "clone": lambda y: y.clone(),
    "relu": lambda y: y.relu(),
    "times a number": lambda y: y * 2,
    "times itself": lambda y: y * y,
    "cat": lambda y: rl.cat([y, y]),
    "zeros_like": lambda y: rl.zeros_like(y).copy_(y),
    "pool": lambda y: F.avg_pool2d(y, 2),
    "permuted": lambda y: y.permute(0, 2, 3, 1),
}


@pytest.mark.parametrize("later", LATER.values(), ids=LATER)
@pytest.mark.parametrize("transformed", [False, True])
def test_private_order_is_not_seen_inside_a_transform(later, transformed):
    """What a convolution makes is in an order of its own, and was seen so: strides, and `as_strided` refused."""
    w = numbers(4, 3, 3, 3).float()
    seen = []

    def f(x):
        y = F.conv2d(x, w)
        seen.append((y.stride(), y.is_contiguous(), y.is_contiguous(memory_format=rl.channels_last)))
        z = later(y)
        seen.append((z.stride(), z.is_contiguous()))
        return z.as_strided((5,), (1,))

    x = numbers(2, 3, 6, 6).float()
    if transformed:
        same(vmap(f)(rl.stack([x, x + 1]))[0], f(x), 1e-5)
    else:
        out, tangent = jvp(f, (x,), (x,))
        same(out, f(x), 1e-6)
        assert tangent.shape == (5,)
    assert seen[0] == ((64, 16, 4, 1), True, False)
    assert seen[: len(seen) // 2] == seen[len(seen) // 2 :]


@pytest.mark.parametrize("made", ["here", "outside", "from the argument"])
def test_writes_inside_jvp_give_tangents_to_the_base_and_its_other_views(made):
    x, t = numbers(4), numbers(4, seed=1)
    kept = rl.zeros(4, dtype=rl.float64)

    def f(a):
        b = {"here": rl.zeros(4, dtype=rl.float64), "outside": kept, "from the argument": a * 0}[made]
        before, other, view = b[:2] + 0, b[2:], b[1:]
        view.copy_(a[1:])
        b[0] = a[0] * a[1]
        return b, view, other, before

    values, moved = jvp(f, (x,), (t,))
    same(values[0], rl.cat([x[:1] * x[1], x[1:]]))
    same(moved[0], rl.cat([t[:1] * x[1] + x[0] * t[1], t[1:]]))
    same(moved[1], t[1:])
    same(moved[2], t[2:])
    same(moved[3], rl.zeros(2, dtype=rl.float64))
    if made == "outside":
        same(kept, values[0])
        assert isinstance(kept._array, np.ndarray)
        same(kept + 1, values[0] + 1)


# ------------------------------------------------------------------------------------------------------ random numbers


def test_randomness_different_is_one_draw_for_all_samples():
    rl.manual_seed(3)
    got = vmap(lambda a: rl.randn(2), randomness="different")(numbers(3, 4))
    rl.manual_seed(3)
    same(got, rl.randn(3, 2))


@pytest.mark.parametrize("draw", [lambda a: rl.rand(3), rl.rand_like, lambda a: F.dropout(rl.ones(4) + 0 * a, 0.5)])
def test_randomness_same_is_the_draw_of_one_sample(draw):
    rl.manual_seed(3)
    got = vmap(draw, randomness="same")(numbers(3, 4))
    rl.manual_seed(3)
    same(got, draw(numbers(4)).expand(3, -1))


def test_randomness_error_and_an_unknown_mode():
    with pytest.raises(RuntimeError, match="randomness error mode"):
        vmap(lambda a: a + rl.randn(4))(numbers(3, 4))
    with pytest.raises(RuntimeError, match="Only allowed values"):
        vmap(lambda a: a, randomness="some")


# -------------------------------------------------------------------------------------------------- trees and arguments


def test_trees_of_arguments_and_results():
    x, y = numbers(3, 4), numbers(4, 3, seed=1)
    got = vmap(lambda d, k: {"a": d["x"] * 2, "b": [d["y"][0] + k, d["x"]]}, in_dims=({"x": 0, "y": [1]}, None),
               out_dims={"a": 1, "b": [0, 1]})({"x": x, "y": [y]}, 2.0)  # fmt: skip
    same(got["a"], (x * 2).t())
    same(got["b"][0], y.t() + 2.0)
    same(got["b"][1], x.t())


def test_results_that_are_the_same_for_all_samples():
    x = numbers(3, 4)
    same(vmap(lambda a: rl.arange(2.0))(x), rl.arange(2.0).expand(3, 2))
    same(vmap(lambda a: rl.arange(2.0), out_dims=None)(x), rl.arange(2.0))


@pytest.mark.parametrize("chunk", [1, 2, 5, 7])
def test_chunks_give_the_same(chunk):
    x = numbers(4, 5)
    same(vmap(lambda a: a.softmax(0), in_dims=1, out_dims=-1, chunk_size=chunk)(x), x.softmax(0))


def test_keywords_are_batched_along_their_first_dimension():
    x, y = numbers(3, 4), numbers(3, 4, seed=1)
    same(vmap(lambda a, b: a * b)(x, b=y), x * y)


X = rl.ones(3, 4)


@pytest.mark.parametrize(
    ("error", "text", "function", "options", "args"),
    [
        (ValueError, "not compatible with the structure of `inputs`", lambda a: a, {"in_dims": (0, 0)}, (X,)),
        (ValueError, "expected `in_dims` to be int or a", lambda a: a, {"in_dims": None}, (X,)),
        (ValueError, "-2 <= in_dim < 2", lambda a: a, {"in_dims": 2}, (X,)),
        (ValueError, "same size in the mapped dimension", lambda a, b: a, {}, (X, X[0])),
        (ValueError, "got no inputs", lambda: X, {}, ()),
        (ValueError, "cannot vmap over non-Tensor", lambda a, b: a, {}, (X, 3)),
        (ValueError, "must only return Tensors", lambda a: 3, {}, (X,)),
        (ValueError, "not compatible with the structure of `outputs`", lambda a: (a, a), {"out_dims": (0,) * 3}, (X,)),
        (ValueError, "can not return a BatchedTensor", lambda a: a, {"out_dims": None}, (X,)),
        (IndexError, "Dimension out of range", lambda a: a, {"out_dims": 5}, (X,)),
        (ValueError, "chunk_size should be None or greater than 0", lambda a: a, {"chunk_size": 0}, (X,)),
        (RuntimeError, "values of a tensor are asked for", lambda a: a.sum().item(), {}, (X,)),
        (RuntimeError, "values of a tensor are asked for", lambda a: a if a.sum() > 0 else -a, {}, (X,)),
        (RuntimeError, "can output dynamic shape", lambda a: a.nonzero(), {}, (X,)),
        (RuntimeError, "can output dynamic shape", lambda a: a[a > 0], {}, (X,)),
        (RuntimeError, "must match the size of tensor b", lambda a: a + rl.ones(3), {}, (X,)),
    ],
)
def test_what_vmap_refuses(error, text, function, options, args):
    with pytest.raises(error, match=text):
        vmap(function, **options)(*args)
    assert Batch(1).size == 1
    same(vmap(lambda a: a + 1)(X), X + 1)  # the level has been left


@pytest.mark.parametrize(
    ("error", "text", "function", "primals", "tangents"),
    [
        (RuntimeError, "Expected primals to be a tuple", lambda a: a, X, X),
        (RuntimeError, "same python structure", lambda a: a, (X,), (X, X)),
        (RuntimeError, "different size", lambda a: a, (X,), (X[0],)),
        (RuntimeError, "at least one Tensor", lambda: X, (), ()),
        (RuntimeError, "only contain Tensors", lambda a: X, (3.0,), (1.0,)),
        (ValueError, "floating point or complex", lambda a: a, (X.int(),), (X.int(),)),
        (RuntimeError, "return only tensors", lambda a: 3, (X,), (X,)),
    ],
)
def test_what_jvp_refuses(error, text, function, primals, tangents):
    with pytest.raises(error, match=text):
        jvp(function, primals, tangents)


def test_jvp_with_other_results_and_of_what_does_not_depend():
    x = numbers(4)
    value, moved, aux = jvp(lambda a: (a * a, {"half": a / 2}), (x,), (rl.ones_like(x),), has_aux=True)
    same(value, x * x)
    same(moved, 2 * x)
    same(aux["half"], x / 2)
    same(jvp(lambda a: rl.ones(2), (x,), (x,))[1], rl.zeros(2))
    same(jvp(lambda a: a * float(a.sum()), (x,), (rl.ones_like(x),))[1], x.sum().expand(4))  # a number has no tangent


# ------------------------------------------------------------------------------------------------------- surroundings


def test_a_tensor_that_outlives_its_transform_says_so():
    kept = []
    vmap(lambda a: kept.append(a) or a)(X)
    with pytest.raises(RuntimeError, match="vmap or jvp that has ended"):
        kept[0] + 1


def test_what_is_printed_inside():
    shown = []
    vmap(lambda a: shown.append(repr(a)) or a)(rl.ones(2, 1))
    jvp(lambda a: shown.append(repr(a)) or a, (rl.ones(1),), (rl.ones(1),))
    assert shown == ["<vmap over 2 samples: tensor([[1.],\n        [1.]])>", "<jvp: tensor([1.])>"]


def test_anomaly_mode_inside_and_around():
    x = numbers(3, 4)
    with detect_anomaly():
        same(vmap(gradient(lambda a: (a * a).sum()))(x), 2 * x)

    def f(a):
        with detect_anomaly():
            return a.exp()

    same(vmap(f)(x), x.exp())


def test_another_thread_is_not_in_the_transform():
    seen = []
    w = numbers(4).requires_grad_()

    def f(a):
        thread = threading.Thread(target=lambda: seen.append((w * 2).requires_grad))
        thread.start()
        thread.join()
        return a * w

    x = numbers(3, 4)
    same(vmap(f)(x), x * w)
    assert seen == [True]
