"""Second derivatives that are zero: where PyTorch's gradient depends on the input, ours does, and gives zeros.

See Note [Flat derivatives] in `graph.py`.
"""

from __future__ import annotations

import numpy as np
import pytest

from rushlight_autograd import grad
from rushlight_tensor import REGISTRY, tensor
from tests.ops.harness import call, tensors
from tests.ops.test_registry import DIFFERENTIABLE, PURE

SECOND = [p for p in DIFFERENTIABLE if p.values[1].second]
FLAT = [p for p in PURE if p.values[0].flat and p.values[1].grad]

MASKED = {  # kinks and steps whose gradient is a masked `g` in PyTorch, too: it does not depend on the input there
    "amax", "amin", "copysign", "fmod", "max_of_all", "maximum", "median_of_all", "min_of_all", "minimum", "remainder",
    "scatter_reduce",
}  # fmt: skip


def gradients(op, sample, g_requires_grad):
    xs = tensors(sample.arrays(sample.widest), sample.varied())
    leaves = [x for x in xs if getattr(x, "requires_grad", False)]
    outs = [o for o in call(op, xs, sample.attrs) if o.requires_grad]
    weights = [tensor(np.ones(o.shape), dtype=o.dtype, requires_grad=g_requires_grad) for o in outs]
    found = grad(outs, leaves, weights, create_graph=True, allow_unused=True) if outs else ()
    return leaves, found


@pytest.mark.parametrize(("op", "sample"), SECOND)
def test_gradient_depends_on_the_gradient_it_was_made_from(op, sample):
    for g in gradients(op, sample, True)[1]:
        assert g is None or g.requires_grad or not g.numpy().any()


@pytest.mark.parametrize(("op", "sample"), FLAT)
def test_flat_derivative_depends_on_the_input_with_derivative_zero(op, sample):
    for g_requires_grad in (False, True):
        leaves, found = gradients(op, sample, g_requires_grad)
        assert found[0].requires_grad
        (again,) = grad(found[0].sum(), leaves[0])
        np.testing.assert_array_equal(again.numpy(), np.zeros(leaves[0].shape))


@pytest.mark.parametrize(("op", "sample"), SECOND)
def test_gradient_that_does_not_depend_on_the_input_is_that_of_a_linear_op(op, sample):
    """Mirrored at zero, the result of such an op is mirrored too; that of a kinked one is not: it has to be flat."""
    leaves, found = gradients(op, sample, False)
    results = call(op, tensors(sample.arrays(sample.widest)), sample.attrs)
    if op.name in MASKED or any(o.numpy().dtype == np.int64 for o in results):
        return
    for i, (leaf, g) in enumerate(zip(leaves, found, strict=True)):
        if g is None or g.requires_grad or not g.numpy().any():
            continue
        values = []
        for scale in (1, -1, 0):
            xs = tensors(sample.arrays(sample.widest), sample.varied())
            mine = [x for x in xs if getattr(x, "requires_grad", False)][i]
            mine._array *= scale
            values.append([o.detach().numpy() for o in call(op, xs, sample.attrs)])
        for there, mirrored, zero in zip(*values, strict=True):
            np.testing.assert_allclose(mirrored - zero, zero - there, atol=1e-9, err_msg=f"input {i}, {leaf.shape}")


def test_gradient_penalty_on_a_network_of_straight_lines_is_zero_and_no_error():
    x = tensor(np.linspace(-1, 1, 16).reshape(1, 1, 4, 4), requires_grad=True)
    out = REGISTRY["relu"](REGISTRY["avg_pool2d"](x, kernel=(2, 2), stride=(2, 2))).sum()
    (g,) = grad(out, x, create_graph=True)
    (g * g).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), np.zeros((1, 1, 4, 4)))
