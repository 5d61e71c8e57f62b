"""What an op saved for its gradient and somebody changed since is never used: the gradient is right, or refused."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

import rushlight as rl
from rushlight_autograd import backward, grad, no_grad
from rushlight_tensor import REGISTRY, tensor
from rushlight_tensor.core.tensor import Tensor
from tests.ops.harness import call, tensors
from tests.ops.samples import SAMPLES

for package in ("rushlight_nn", "rushlight_optim"):  # they declare ops, too
    if importlib.util.find_spec(package):
        importlib.import_module(package)

CASES = [
    pytest.param(REGISTRY[name], s, id=f"{name}-{i}")
    for name, samples in SAMPLES.items()
    for i, s in enumerate(samples)
    if REGISTRY[name].vjp is not None and s.grad and s.exact and not s.mutates and "float64" in s.dtypes
]
CHANGES = {
    "itself": lambda x: x.mul_(3),
    "a view of it": lambda x: x.view(-1).mul_(3),
    "detached": lambda x: x.detach().mul_(3),
}


def gradients(op, sample, change, create_graph):
    """The gradients of an op's inputs, which are no leaves, when `change` was made between the passes."""
    xs = tensors(sample.arrays("float64"), sample.varied())
    leaves = [x for x in xs if isinstance(x, Tensor) and x.requires_grad]
    inner = [x * 1 if isinstance(x, Tensor) and x.requires_grad else x for x in xs]
    outs = [y for y in call(op, inner, sample.attrs) if y.requires_grad]
    weights = [tensor(np.cos(np.arange(y.numel())).reshape(y.shape), dtype=y.dtype) for y in outs]
    with no_grad():
        change(inner, outs)
    if create_graph:
        found = grad(outs, leaves, weights, allow_unused=True, create_graph=True) if outs else ()
    else:  # on bare arrays
        backward(outs, weights)
        found = [leaf.grad for leaf in leaves]
    return [None if g is None else g.detach().numpy().copy() for g in found]


def changed(x, how):
    if x.numel() and (how != "a view of it" or x.is_contiguous()):
        CHANGES[how](x)


@pytest.mark.parametrize(("op", "sample"), CASES)
def test_gradient_is_that_of_the_values_at_the_time_or_refused(op, sample):
    if op.view:
        pytest.skip("saves nothing, and writes go through it")
    for create_graph in (False, True):
        want = gradients(op, sample, lambda inner, outs: None, create_graph)
        places = [(0, i) for i, varied in enumerate(sample.varied()) if varied] + [(1, 0)]
        for how in CHANGES:
            for kind, i in places:

                def change(inner, outs, kind=kind, i=i, how=how):
                    x = (inner, outs)[kind]
                    if i < len(x) and x[i].dtype.is_floating_point:
                        changed(x[i], how)

                try:
                    got = gradients(op, sample, change, create_graph)
                except RuntimeError as e:
                    assert "modified by an inplace operation" in str(e)  # noqa: PT017 - or no error at all
                    assert op.saves, f"{op.name} saves nothing, so a change cannot matter"
                    continue
                what = f"{'result' if kind else 'input'} {i} changed through {how}, create_graph={create_graph}"
                for g, w in zip(got, want, strict=True):
                    assert (g is None) == (w is None), what
                    if g is not None:
                        np.testing.assert_array_equal(g, w, err_msg=what)


@pytest.mark.parametrize(
    "name", ["max", "min", "median", "cummax", "cummin", "max_pool1d", "max_pool2d", "sort", "topk"]
)
def test_a_write_into_the_indices_is_noticed(name):
    x = rl.arange(16.0).reshape(1, 4, 4).requires_grad_()
    if name.startswith("max_pool"):
        values, indices = getattr(rl.nn.functional, name)(x, 2, return_indices=True)
    else:
        values, indices = getattr(x, name)(2 if name == "topk" else -1)
    indices.fill_(0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        values.sum().backward()
