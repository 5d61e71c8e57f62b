"""clamp by tensors whose limits cross or are equal or NaN, and quotients that are rounded: gradients are PyTorch's."""

from __future__ import annotations

import itertools

import pytest

import rushlight as rl
from tests.parity.outcome import outcome

torch = pytest.importorskip("torch")
NAN = float("nan")
VALUES = [-1.0, 0.0, 0.5, NAN]
LIMITS = {
    "both": (lambda t, x, low, high: t.clamp(x, low, high)),
    "one and the same": (lambda t, x, low, high: t.clamp(x, low, low)),
    "low": (lambda t, x, low, high: t.clamp(x, min=low)),
    "high": (lambda t, x, low, high: t.clamp(x, max=high)),
    "in place": (lambda t, x, low, high: (x * 1).clamp_(low, high)),
}


@pytest.mark.parametrize("how", LIMITS)
def test_clamp_by_tensors(how):
    def program(t):
        rows = t.tensor(list(itertools.product(VALUES, repeat=3)), dtype=t.float64)
        x, low, high = (rows[:, i].clone().requires_grad_() for i in range(3))
        y = LIMITS[how](t, x, low, high)
        (y * t.arange(1.0, len(y) + 1)).sum().backward()
        return str([v if v is None else v.tolist() for v in (y.detach(), x.grad, low.grad, high.grad)])

    assert outcome(program, rl) == outcome(program, torch)


@pytest.mark.parametrize("mode", ["trunc", "floor"])
@pytest.mark.parametrize("in_place", [False, True])
def test_rounded_quotients_have_the_gradient_zero(mode, in_place):
    def program(t):
        x = t.tensor([1.0, -7.0, 3.0, 0.0], requires_grad=True)
        y = t.tensor([0.0, 2.0, -2.0, 0.0], requires_grad=True)
        z = (x * 1).div_(y, rounding_mode=mode) if in_place else t.div(x, y, rounding_mode=mode)
        z.sum().backward()
        return [v.tolist() for v in (z.abs()[:3], x.grad, y.grad)], z.requires_grad

    assert outcome(program, rl) == outcome(program, torch)


@pytest.mark.parametrize("divide", [lambda x: x // 2, lambda x: 2 // x, lambda x: x.floor_divide(x)])
def test_floor_divide_has_no_derivative_and_says_so(divide):
    def program(t, backward):
        y = divide(t.tensor([5.0, -5.0], requires_grad=True))
        if backward:
            y.sum().backward()
        return y

    assert outcome(lambda t: program(t, False), rl) == outcome(lambda t: program(t, False), torch)
    want, got = (outcome(lambda t: program(t, True), t) for t in (torch, rl))
    assert got[0] == want[0]
    assert got[1].startswith(want[1])


@pytest.mark.parametrize("name", ["elu", "celu", "selu", "hardswish", "hardtanh", "relu6"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_activations_of_not_a_number(name, dtype):
    """As many elements as PyTorch's vectorized loop takes: those left over behind it get another gradient there."""

    def program(t):
        x = t.tensor([NAN, -7.0, -3.0, -0.5, 0.0, 0.5, 3.0, 7.0] * 16, dtype=getattr(t, dtype)).requires_grad_()
        y = getattr(t.nn.functional, name)(x)
        return t.autograd.grad(y, x, t.ones_like(y))

    assert repr(outcome(program, rl)) == repr(outcome(program, torch))
