"""as_strided and offsets count in PyTorch's storage, through slices, detach(), other dtypes, orders and writes."""

from __future__ import annotations

import numpy as np
import pytest

import rushlight as rl
from tests.parity.outcome import outcome

torch = pytest.importorskip("torch")


def _leaf(t, *shape):
    return t.arange(float(np.prod(shape))).reshape(shape).requires_grad_()


def _grad(out, *leaves):
    out.sum().backward()
    return (*(x.grad for x in leaves), out)


def _of_a_detached(t):
    a = t.ones(3, requires_grad=True)
    b = a * 2
    return _grad(b.detach().as_strided((2,), (1,)).sum() + a[0], a)


def _of_a_detached_leaf(t):
    b = t.ones(6, requires_grad=True)
    z = (b * 2).detach()[:3].requires_grad_()
    return *_grad(z.as_strided((2,), (1,), 0) * 5, z), b.grad


def _beyond_its_argument(t):
    x = _leaf(t, 3, 4)
    return _grad((x * 1)[1:].as_strided((6,), (2,), 0), x)


def _after_a_write(t):
    x = _leaf(t, 3, 4)
    y = x * 1
    s = y[1:].as_strided((6,), (2,), 0)
    y.mul_(2)
    return _grad(s, x)


def _written(t):
    x = _leaf(t, 3, 4)
    y = x * 1
    y[1:].as_strided((6,), (2,), 0).mul_(3)
    return _grad(y, x)


def _of_what_is_expanded(t):
    x = _leaf(t, 3)
    s = (x * 1).expand(2, 3).as_strided((2, 2), (0, 1))
    return _grad(s * t.tensor([[1.0, 2.0], [3.0, 4.0]]), x)


def _written_in_another_order(t):
    x = t.ones(2, 3, requires_grad=True)
    y = x.t() * 2
    y.as_strided((4,), (1,)).mul_(t.arange(4.0))
    return _grad(y, x)


def _a_view_of_another_order(t):
    x = t.ones(2, 3, requires_grad=True)
    y = x.t() * 2
    y.t().view(-1)[:2].zero_()
    return _grad(y, x)


def _second(t):
    x = _leaf(t, 6)
    z = (x * x)[1:].as_strided((2, 3), (1, 1))
    (g,) = t.autograd.grad((z**2).sum(), x, create_graph=True)
    return g, t.autograd.grad(g.sum(), x)


def _imaginary(t):
    x = t.tensor([1 + 2j, 3.0 + 1j]).requires_grad_()
    y = x * 1
    y.imag.as_strided((2,), (1,)).mul_(2)
    return *_grad((y * (1 + 1j)).real, x), y


def _offsets(t):
    x = t.arange(12.0).reshape(3, 4)
    c = t.tensor([1 + 2j, 3.0])
    parts = x[1:], x[1:].data, x[1:].detach(), x[1:].view(t.uint8), c.imag, c[1:].imag, t.view_as_real(c)[1]
    return tuple(p.storage_offset() for p in parts), tuple(p.as_strided((2,), (1,), 0) for p in parts)


PROGRAMS = [
    _of_a_detached, _of_a_detached_leaf, _beyond_its_argument, _after_a_write, _written, _of_what_is_expanded,
    _written_in_another_order, _a_view_of_another_order, _second, _imaginary, _offsets,
    lambda t: t.zeros(2, 2).view(-1).detach().requires_grad_().as_strided((2,), (1,)),
    lambda t: t.nn.Parameter(t.zeros(2, 2)[0]).as_strided((2,), (1,)),
    lambda t: t.nn.Parameter(t.ones(2, 2)).data.as_strided((2,), (1,)),
    lambda t: t.arange(12.0).reshape(3, 4).view(t.int32).as_strided((2,), (1,)),
    lambda t: t.arange(4.0).view(t.uint8).as_strided((4,), (1,), 4),
    lambda t: t.arange(4.0)[1:].view(t.uint8).as_strided((4,), (1,)),
    lambda t: t.arange(6.0, dtype=t.bfloat16)[1:].as_strided((2,), (2,)),
    lambda t: t.arange(6.0).reshape(2, 3).t().clone().as_strided((6,), (1,)),
    lambda t: t.arange(6.0).as_strided((2,), (1,), 3).as_strided((3,), (1,), 0),
    lambda t: t.from_numpy(np.arange(6.0)[2:]).as_strided((2,), (1,), 0),
    lambda t: t.from_numpy(np.arange(6.0)[:3]).as_strided((5,), (1,), 0),
    lambda t: t.arange(6.0).as_strided((3,), (2,), 5),
    lambda t: t.arange(6.0).as_strided((0,), (1,), 50),
    lambda t: t.arange(6.0)[2:].as_strided((3,), (1,), -1),
    lambda t: t.arange(6.0).as_strided((2, 3), (0, 1)).add_(1),
]  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS)
def test_same_elements_gradients_and_errors(program):
    want, got = outcome(program, torch), outcome(program, rl)
    assert got == want
