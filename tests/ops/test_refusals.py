"""What has no value is refused, with an error that says why; views change their shape in place, with their gradient."""

from __future__ import annotations

import numpy as np
import pytest

import rushlight_nn.functional as F
import rushlight_tensor as rl
from rushlight_autograd import grad
from rushlight_tensor import REGISTRY

REFUSED = {
    "abs_ of complex": (lambda: rl.tensor([3 + 4j]).abs_(), RuntimeError, "In-place abs"),
    "absolute_ of complex": (lambda: rl.tensor([3 + 4j]).absolute_(), RuntimeError, "not supported for complex"),
    "cdist of vectors": (lambda: rl.cdist(rl.ones(3), rl.ones(3)), RuntimeError, "at least 2D"),
    "cdist of two dtypes": (lambda: rl.cdist(rl.ones(2, 3), rl.ones(2, 3).double()), RuntimeError, "expected scalar"),
    "renorm of p": (lambda: rl.renorm(rl.ones(2, 2), 0, 0, 1.0), RuntimeError, "non-positive-norm"),
    "slice_scatter": (lambda: rl.slice_scatter(rl.zeros(3, 4), rl.ones(4), 0, 0, 2), RuntimeError, "slice size"),
    "select_scatter": (lambda: rl.select_scatter(rl.zeros(3, 4), rl.ones(1), 0, 0), RuntimeError, "slice size"),
    "diagonal_scatter": (lambda: rl.diagonal_scatter(rl.zeros(3, 3), rl.ones(1)), RuntimeError, "slice size"),
    "prod over two": (lambda: rl.ones(2, 3).prod(dim=(0, 1)), TypeError, "must be int, not tuple"),
    "polar of two dtypes": (lambda: rl.polar(rl.ones(2), rl.ones(2).double()), RuntimeError, "second argument"),
    "prelu of two dtypes": (lambda: F.prelu(rl.ones(2), rl.ones(1).double()), RuntimeError, "promoting not supported"),
    "meshgrid": (lambda: rl.meshgrid(rl.ones(2), rl.ones(2).double()), RuntimeError, "same dtype"),
    "softmax": (lambda: rl.ones(2).softmax(), TypeError, "missing 1 required positional argument: 'dim'"),
    "an integer sum with grad": (lambda: rl.ones(2, requires_grad=True).sum(dtype=rl.int64), RuntimeError, "Long"),
    "rms_norm": (lambda: F.rms_norm(rl.ones(3).long(), (3,)), NotImplementedError, '"rms_norm"'),
    "layer_norm": (lambda: F.layer_norm(rl.ones(3).long(), (3,)), NotImplementedError, '"LayerNormKernelImpl"'),
    "group_norm": (lambda: F.group_norm(rl.ones(3, 2).bool(), 1), NotImplementedError, '"GroupNormKernelImpl"'),
    "batch_norm": (lambda: F.batch_norm(rl.ones(3, 2).int(), None, None, training=True), NotImplementedError, "Int"),
    "avg_pool2d": (lambda: F.avg_pool2d(rl.ones(1, 1, 4, 4).int(), 2), NotImplementedError, '"avg_pool2d"'),
    "max_pool2d": (lambda: F.max_pool2d(rl.ones(1, 1, 4, 4).bool(), 2), NotImplementedError, '"max_pool2d"'),
    "pixel_shuffle": (lambda: F.pixel_shuffle(rl.ones(3, 3), 1), RuntimeError, "at least 3 dimensions"),
    "pdist": (lambda: F.pdist(rl.ones(3)), RuntimeError, "only supports 2D"),
    "sum_to_size": (lambda: rl.ones(2, 3).sum_to_size(3, 3), RuntimeError, "not expandable"),
    "an array": (lambda: rl.exp(np.ones(2)), TypeError, "must be Tensor, not numpy.ndarray"),
    "an array backwards": (lambda: rl.from_numpy(np.ones(3)[::-1]), ValueError, "stride in the given numpy array"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    program, error, text = REFUSED[name]
    with pytest.raises(error, match=text):
        program()


def test_dtypes_that_a_0d_tensor_and_a_number_do_not_decide():
    assert F.mse_loss(rl.tensor(1.0, dtype=rl.float64), rl.ones(())).dtype == rl.float64
    with pytest.warns(UserWarning, match="target size"):
        assert F.mse_loss(rl.tensor(1.0, dtype=rl.float64), rl.ones(3)).dtype == rl.float64
    assert rl.addcmul(rl.tensor([True]), rl.tensor([True]), rl.tensor([1], dtype=rl.uint8), value=3).dtype == rl.uint8
    assert rl.tensor(3.0).quantile(0.5, 0, True).shape == ()
    assert rl.block_diag().shape == (1, 0)


def test_a_view_that_changes_its_shape_in_place_stays_a_view():
    x = rl.ones(2, 3, requires_grad=True)
    y = x * 1
    v = y[:, :2]
    v.t_()
    v.mul_(rl.arange(4.0).reshape(2, 2))
    row = v[0]
    y.add_(1)
    assert row.tolist() == [1, 2]
    (g,) = grad(y.sum() + row.sum(), x)
    assert g.tolist() == [[0, 2, 1], [2, 3, 1]]


@pytest.mark.parametrize("how", [{"stride": (-1, 2)}, {"stride": (0, 1)}, {"dilation": (0, 1)}, {"padding": (-1, 0)}])
@pytest.mark.parametrize("name", ["conv2d_weight_gradient", "conv2d_input_gradient"])
def test_gradients_of_convolution_refuse_windows_as_it_does_itself(name, how):
    """Whether C or NumPy would compute them: the one said ValueError, of an argument of its own."""
    g, x, w = rl.ones(2, 4, 3, 3), rl.ones(2, 4, 6, 6), rl.ones(4, 2, 3, 3)
    attrs = {"stride": (2, 2), "padding": (1, 1), "dilation": (1, 1), "groups": 2, **how}
    xs, shape = ((g, x), {"weight_shape": w.shape}) if "weight" in name else ((g, w), {"input_shape": x.shape})
    with pytest.raises(RuntimeError, match=r"stride|padding|dilation"):
        REGISTRY[name](*xs, **shape, **attrs)
