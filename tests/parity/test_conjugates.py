"""What is a conjugate, and gradients through it, as in PyTorch; what writes to it do is refused here."""

from __future__ import annotations

import pytest

import rushlight as rl
from tests.parity.outcome import outcome

torch = pytest.importorskip("torch")


def _bits(t):
    x = t.tensor([[1 + 1j, 2.0]])
    y = x.conj()
    ways = (
        y, y.conj(), x, y[0], y.clone(), y * 1, y.resolve_conj(), y.detach(), y.conj_physical(), y.real, y.data, x.mH,
        x.H, t.adjoint(x), y.contiguous(), y.t(), y.reshape(2, 1), t.conj(x), t.ones(2).conj(), y.mH,
    )  # fmt: skip
    return [w.is_conj() for w in ways], tuple(w.resolve_conj().tolist() for w in ways)


def _grad(t):
    x = t.tensor([1 + 1j, 2.0], requires_grad=True)
    y = x * 1
    z = y.conj()
    y.mul_(2)
    t.view_as_real(z * t.tensor([1j, 2.0])).sum().backward()
    return x.grad, z._base is y


def _numpy(t):
    return t.tensor([1j]).conj().numpy()


@pytest.mark.parametrize("program", [_bits, _grad, _numpy])
def test_as_in_pytorch(program):
    assert outcome(program, rl) == outcome(program, torch)
