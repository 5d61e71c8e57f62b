"""Descriptions: what `describe` says of a result, without data, is what comes out; and on `meta`, ops run by them."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest

import rushlight_jit as jit
import rushlight_nn  # noqa: F401 - these declare ops, too
import rushlight_optim  # noqa: F401
from rushlight_autograd import grad
from rushlight_tensor import REGISTRY, tensor
from rushlight_tensor.core import dispatch
from rushlight_tensor.core.abstract import AbstractArray
from rushlight_tensor.core.infer import Aval
from rushlight_tensor.ops.create import empty
from rushlight_tensor.ops.index import index
from rushlight_tensor.ops.index.embedding import one_hot
from rushlight_tensor.ops.math.select import where
from tests.ops.harness import LAYOUTS, Watch, call, tensors
from tests.ops.samples import SAMPLES

EVERY_SAMPLE = [
    pytest.param(REGISTRY[name], s, id=f"{name}-{i}")
    for name, samples in SAMPLES.items()
    for i, s in enumerate(samples)
]
PURE = [p for p in EVERY_SAMPLE if not p.values[1].mutates]


def gradients(xs, outs, **how):
    leaves = [x for x in xs if getattr(x, "requires_grad", False)]
    roots = [o for o in outs if o.requires_grad]
    ones = [tensor(np.ones(o.shape), dtype=o.dtype).to(o.device) for o in roots]
    return grad(roots, leaves, ones, allow_unused=True, **how) if roots else ()


@pytest.mark.parametrize(("op", "sample"), PURE)
def test_results_and_gradients_are_as_described_in_every_order_of_memory(op, sample):
    for layout in LAYOUTS:  # in every dtype, in the first of these orders: test_registry.py
        xs = tensors(sample.arrays(sample.dtypes[0], layout), sample.varied() if sample.grad else None)
        with Watch() as watch:
            try:
                outs = call(op, xs, sample.attrs)
            except (RuntimeError, ValueError):
                assert op.view, f"{op.name} refuses a layout, and is no view"
                continue
            gradients(xs, outs)
        assert op.name in watch.seen


def on_meta(xs):
    return [x.detach().to("meta").requires_grad_(x.requires_grad) if hasattr(x, "_array") else x for x in xs]


def seen(t):
    """What a user sees of a tensor without looking at its values."""
    return None if t is None else (t.shape, t.dtype, [s for n, s in zip(t.shape, t.stride(), strict=True) if n != 1])


@pytest.mark.parametrize(("op", "sample"), [p for p in PURE if p.values[0].arity and "to" not in p.values[0].defaults])
def test_on_meta_results_and_gradients_look_as_with_data(op, sample):
    here = tensors(sample.arrays(sample.dtypes[0]), sample.varied() if sample.grad else None)
    there = on_meta(here)
    wanted, got = call(op, here, sample.attrs), call(op, there, sample.attrs)
    assert [seen(g) for g in got] == [seen(w) for w in wanted]
    assert {g.device.type for g in got} <= {"meta"}
    for create_graph in (False, True) if sample.second else (False,):
        how = {"create_graph": create_graph, "retain_graph": True}
        wanted_grads, got_grads = gradients(here, wanted, **how), gradients(there, got, **how)
        assert [seen(g) for g in got_grads] == [seen(w) for w in wanted_grads]
        assert {g.device.type for g in got_grads if g is not None} <= {"meta"}


@pytest.mark.parametrize(("op", "sample"), [p for p in EVERY_SAMPLE if p.values[1].mutates])
def test_on_meta_writes_are_checked_and_nothing_else(op, sample):
    xs = on_meta(tensors(sample.arrays("float32")))
    assert dispatch.run(op, [getattr(x, "_array", x) for x in xs], {**op.defaults, **sample.attrs}) == ()


@pytest.mark.parametrize(
    "wrong",
    [
        {"shape": (3,)},
        {"dtype": np.dtype(np.float16)},
        {"private": True, "strides": (1, 2)},
    ],
)
def test_a_wrong_description_is_found(wrong):
    x = tensor(np.ones((2, 3)))
    with Watch():
        REGISTRY["exp"](x)
        said = mock.Mock(return_value=Aval((2, 3), x._array.dtype)._replace(**wrong))
        with mock.patch.object(REGISTRY["exp"], "infer", said), pytest.raises(AssertionError, match="said"):
            REGISTRY["exp"](x)


def test_views_without_data_know_their_memory():
    x = empty(4, 6, device="meta")
    rows = x[1:3].t()
    assert rows._array.base is x._array
    assert (rows.storage_offset(), rows.stride(), rows.is_contiguous()) == (6, (1, 6), False)
    assert x.clone()._array.base is None
    assert rows.unbind(1)[1].storage_offset() == 12
    rows.mul_(2)
    assert x._version == 1


def test_repeated_elements_lie_in_no_order():
    x = empty(3, 1, device="meta").expand(3, 4)
    assert (x.is_contiguous(), x.contiguous().is_contiguous(), x.contiguous().stride()) == (False, True, (4, 1))
    with pytest.raises(RuntimeError, match="single memory location"):
        x.add_(1)


def test_what_is_not_described_takes_no_memory():
    huge = empty(10**6, 10**6, device="meta", requires_grad=True)
    (huge @ huge + 1).sum().backward()
    assert isinstance(huge.grad._array, AbstractArray)
    assert huge.grad.shape == (10**6, 10**6)


def test_compiled_functions_of_tensors_without_data_run_as_they_are():
    weight = empty(3, 2, device="meta")
    compiled = jit.compile(lambda x: (x @ weight).exp())
    for _ in range(2):
        assert compiled(empty(4, 3, device="meta")).shape == (4, 2)
    assert (compiled.traces, compiled.breaks) == (0, [])


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("nonzero", lambda x: x.nonzero()),
        ("nonzero", index.argwhere),
        ("where", lambda x: where(x > 0)),
        ("index", lambda x: x[x > 0]),
        ("masked_select", lambda x: x.masked_select(x > 0)),
        ("masked_scatter", lambda x: x.masked_scatter(x > 0, x)),
        ("unique", lambda x: x.unique()),
        ("unique_consecutive", lambda x: x.unique_consecutive()),
        ("bincount", lambda x: x.long().bincount()),
        ("repeat_interleave", lambda x: x.repeat_interleave(x.long(), 0)),
        ("one_hot", lambda x: one_hot(x.long())),
        ("equal", lambda x: x.equal(x)),
        ("allclose", lambda x: x.allclose(x)),
        ("quantile", lambda x: x.quantile(x)),
    ],
)
def test_what_depends_on_values_is_refused_by_name(name, function):
    with pytest.raises(NotImplementedError, match=rf"^{name}\(\): .*Cannot copy out of meta tensor; no data!"):
        function(empty(3, device="meta"))
