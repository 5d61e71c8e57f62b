"""A gradient in `.grad` is nobody else's: of every op, with and without hooks, at the shapes of its samples and 0-d."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from functools import partial
from itertools import combinations

import numpy as np
import pytest

from rushlight_autograd import backward
from rushlight_tensor import REGISTRY, tensor
from rushlight_tensor.core.tensor import Tensor
from tests.ops.harness import R, call, tensors
from tests.ops.samples import SAMPLES

for package in ("rushlight_nn", "rushlight_optim"):  # they declare ops, too
    if importlib.util.find_spec(package):
        importlib.import_module(package)

CASES = [
    pytest.param(REGISTRY[name], s, id=f"{name}-{i}")
    for name, samples in SAMPLES.items()
    for i, s in enumerate(samples)
    if REGISTRY[name].vjp is not None and s.grad and not s.mutates and "float64" in s.dtypes
]


def results(op, sample):
    """The inputs of a call as leaves, and its results; None where the op does not take such inputs."""
    xs = tensors(sample.arrays("float64"), sample.varied())
    try:
        return xs, call(op, xs, sample.attrs)
    except (RuntimeError, IndexError, ValueError, TypeError):
        return None


def doubled(kept, g):
    """A hook that keeps what it sees and what it returns."""
    kept += [g, g * 2]
    return kept[-1]


@pytest.mark.parametrize("hooked", [False, True], ids=["plain", "hooked"])
@pytest.mark.parametrize(("op", "sample"), CASES)
def test_gradient_in_grad_is_nobody_elses(op, sample, hooked):
    points = replace(
        sample, inputs=tuple([R(low=x.low, high=x.high) if isinstance(x, R) else x for x in sample.inputs])
    )
    for s in (sample, points):
        made = results(op, s)
        if made is None:
            assert s is points
            continue
        xs, outs = made
        roots = [y for y in outs if y.requires_grad]
        if not roots:
            continue
        given = [tensor(np.cos(np.arange(y.numel())).reshape(y.shape), dtype=y.dtype) for y in roots]
        kept = list(given)
        if hooked:
            for t in (*roots, *[x for x in xs if isinstance(x, Tensor) and x.requires_grad]):
                t.register_hook(partial(doubled, kept))
        backward(roots, given, retain_graph=True)
        leaves = [x for x in xs if isinstance(x, Tensor) and x.requires_grad and x.grad is not None]
        once = [x.grad.numpy().copy() for x in leaves]
        theirs = [t for t in (*xs, *outs, *kept) if isinstance(t, Tensor)]
        before = [t.detach().numpy().copy() for t in theirs]
        for x, y in combinations(leaves, 2):
            assert not np.shares_memory(x.grad.numpy(), y.grad.numpy())
        backward(roots, given)
        for t, was in zip(theirs, before, strict=True):
            np.testing.assert_array_equal(t.detach().numpy(), was, "a pass wrote into memory that is not its own")
        for x, g in zip(leaves, once, strict=True):
            np.testing.assert_array_equal(x.grad.numpy(), 2 * g)
