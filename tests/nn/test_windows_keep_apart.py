"""An inf or a NaN shows only in the windows that it is in: means, images of another size, and their gradients."""

import numpy as np
import pytest

import rushlight as rl
import rushlight.nn.functional as F

CASES = {
    "adaptive_avg_pool1d": ((2, 3, 7), lambda x: F.adaptive_avg_pool1d(x, 3)),
    "adaptive_avg_pool2d": ((1, 2, 5, 7), lambda x: F.adaptive_avg_pool2d(x, (3, 4))),
    "area": ((1, 2, 5, 7), lambda x: F.interpolate(x, size=(3, 9), mode="area")),
    "linear": ((1, 2, 9), lambda x: F.interpolate(x, size=4, mode="linear")),
    "bilinear down": ((1, 1, 5, 7), lambda x: F.interpolate(x, size=(3, 4), mode="bilinear")),
    "bilinear up": ((1, 1, 5, 7), lambda x: F.interpolate(x, scale_factor=2, mode="bilinear")),
    "bilinear in one size": ((1, 1, 5, 7), lambda x: F.interpolate(x, size=(5, 7), mode="bilinear")),
    "bilinear along one": ((1, 1, 5, 7), lambda x: F.interpolate(x, size=(5, 4), mode="bilinear")),
    "bicubic": ((1, 1, 12, 12), lambda x: F.interpolate(x, size=(16, 7), mode="bicubic")),
}
cases = pytest.mark.parametrize(("shape", "resized"), [pytest.param(*c, id=name) for name, c in CASES.items()])


@cases
@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_values_elsewhere_stay(shape, resized, bad):
    x = rl.arange(float(np.prod(shape))).reshape(shape)
    before = resized(x)
    touched = np.abs((resized(x + 1e6 * _first(shape)) - before).numpy()) > 1
    x += rl.where(_first(shape) > 0, bad, 0.0)
    after = resized(x).numpy()
    assert touched.any()
    assert not touched.all()
    np.testing.assert_array_equal(after[~touched], before.numpy()[~touched])
    assert not np.isfinite(after[touched]).any()


@cases
def test_gradients_elsewhere_stay(shape, resized):
    x = rl.zeros(shape, requires_grad=True)
    y = resized(x)
    seed = rl.ones_like(y)
    (want,) = rl.autograd.grad(y, x, seed, retain_graph=True)
    (reached,) = rl.autograd.grad(y, x, _first(y.shape), retain_graph=True)
    (got,) = rl.autograd.grad(y, x, seed + rl.where(_first(y.shape) > 0, float("inf"), 0.0))
    aside = reached.numpy() == 0
    assert aside.any()
    reach = [slice(0, 4)] * (len(shape) - 2)  # where a window of weight 0 may reach as well
    aside[(0, 0, *reach)] = False
    np.testing.assert_allclose(got.numpy()[aside], want.numpy()[aside], rtol=1e-6)
    assert not np.isfinite(got.numpy()[reached.numpy() != 0]).any()


def _first(shape):
    one = rl.zeros(*shape)
    one.view(-1)[0] = 1
    return one
