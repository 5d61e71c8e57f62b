"""Initial values by their definition; gradient clipping; parameters as a vector."""

import math

import numpy as np
import pytest

import rushlight_nn as nn
import rushlight_tensor as T
from rushlight_nn import init
from rushlight_nn.utils import clip_grad_norm_, clip_grad_value_, parameters_to_vector, vector_to_parameters


@pytest.mark.parametrize(
    ("fill", "std"),
    [
        (lambda t: init.xavier_uniform_(t, 2.0), 2 * math.sqrt(2 / 500)),
        (lambda t: init.xavier_normal_(t), math.sqrt(2 / 500)),
        (lambda t: init.kaiming_uniform_(t, nonlinearity="relu"), math.sqrt(2 / 300)),
        (lambda t: init.kaiming_normal_(t, mode="fan_out", nonlinearity="relu"), math.sqrt(2 / 200)),
        (lambda t: init.trunc_normal_(t, std=0.02), 0.02),
    ],
)
def test_spread_of_random_weights(fill, std):
    T.manual_seed(0)
    w = fill(T.empty(200, 300))
    assert w.std().item() == pytest.approx(std, rel=0.02)
    assert abs(w.mean().item()) < std * 0.02


def test_orthogonal_matrices_are_orthogonal():
    T.manual_seed(0)
    for shape in ((4, 6), (6, 4), (5, 2, 2)):
        w = init.orthogonal_(T.empty(*shape)).reshape(shape[0], -1).numpy()
        gram = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
        np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-5)


def test_fixed_values():
    np.testing.assert_array_equal(init.eye_(T.empty(2, 3)).numpy(), np.eye(2, 3))
    assert init.constant_(T.empty(3), 2.5).tolist() == [2.5] * 3
    x = T.randn(1, 2, 5)
    layer = nn.Conv1d(2, 2, 3, padding=1, bias=False)
    init.dirac_(layer.weight)
    np.testing.assert_allclose(layer(x).detach().numpy(), x.numpy(), atol=1e-6)
    column_zeros = (init.sparse_(T.empty(10, 4), 0.3).numpy() == 0).sum(0)
    assert (column_zeros == 3).all()


def test_values_are_not_recorded():
    p = nn.Parameter(T.empty(3, 3))
    assert init.normal_(p) is p
    assert p.is_leaf
    assert p.requires_grad


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: init.calculate_gain("swish"), "Unsupported nonlinearity swish"),
        (lambda: init.calculate_gain("leaky_relu", "steep"), "negative_slope steep not a valid number"),
        (lambda: init.xavier_normal_(T.empty(3)), "fewer than 2 dimensions"),
        (lambda: init.kaiming_normal_(T.empty(3, 3), mode="fan"), "Mode fan not supported"),
        (lambda: init.eye_(T.empty(3)), "Only tensors with 2 dimensions"),
        (lambda: init.dirac_(T.empty(3, 3, 3), 2), "dim 0 must be divisible by groups"),
    ],
)
def test_mistakes_are_refused(call, text):
    with pytest.raises(ValueError, match=text):
        call()


def test_empty_tensors_only_warn():
    with pytest.warns(UserWarning, match="zero-element tensors is a no-op"):
        init.kaiming_uniform_(T.empty(0, 3))


def with_gradients():
    params = [nn.Parameter(T.zeros(2)), nn.Parameter(T.zeros(1)), nn.Parameter(T.zeros(4))]
    params[0].grad, params[1].grad = T.tensor([3.0, 0.0]), T.tensor([4.0])
    return params


def test_clipping_by_norm_scales_all_gradients_together():
    params = with_gradients()
    assert clip_grad_norm_(params, 1.0).item() == 5.0
    np.testing.assert_allclose(params[0].grad.numpy(), [0.6, 0.0], rtol=1e-5)
    np.testing.assert_allclose(params[1].grad.numpy(), [0.8], rtol=1e-5)
    before = params[1].grad.numpy().copy()
    clip_grad_norm_((p for p in params), 10.0)
    np.testing.assert_array_equal(params[1].grad.numpy(), before)
    assert clip_grad_norm_(params[2], 1.0).item() == 0.0
    assert clip_grad_norm_([], 1.0).item() == 0.0


def test_a_norm_that_is_not_finite_can_be_an_error():
    params = with_gradients()
    params[0].grad = T.tensor([float("nan"), 0.0])
    assert math.isnan(clip_grad_norm_(params, 1.0).item())
    with pytest.raises(RuntimeError, match="non-finite, so it cannot be clipped"):
        clip_grad_norm_(params, 1.0, error_if_nonfinite=True)


def test_clipping_by_value():
    params = with_gradients()
    clip_grad_value_(params, 3.5)
    assert params[0].grad.tolist() == [3.0, 0.0]
    assert params[1].grad.tolist() == [3.5]


def test_parameters_as_a_vector_and_back():
    net = nn.Linear(3, 2)
    vector = parameters_to_vector(net.parameters())
    assert vector.shape == (8,)
    weight = net.weight
    vector_to_parameters(T.arange(8.0), net.parameters())
    assert net.weight is weight
    assert net.weight.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert net.bias.tolist() == [6, 7]
    with pytest.raises(TypeError, match=r"expected torch.Tensor, but got: list"):
        vector_to_parameters([1.0], net.parameters())
