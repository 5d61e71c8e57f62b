"""A conjugate is a view in PyTorch and a copy here: nothing written to it is lost silently."""

from __future__ import annotations

import pytest

import rushlight_tensor as rl
from rushlight_autograd import no_grad

WAYS = {
    "conj": lambda x: x.conj(),
    "mH": lambda x: x.mH,
    "H": lambda x: x.H,
    "adjoint": lambda x: rl.adjoint(x),
    "a row": lambda x: x.conj()[0],
    "detached": lambda x: x.conj().detach(),
    "data": lambda x: x.conj().data[0],
    "real": lambda x: x.conj().real,
    "strided": lambda x: x.conj().as_strided((2,), (1,)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("requires_grad", [False, True])
def test_writes_to_conjugates_are_refused(way, requires_grad):
    x = rl.tensor([[1 + 1j, 2j]], requires_grad=requires_grad)
    with no_grad():
        for write in (lambda y: y.zero_(), lambda y: y.__setitem__(0, 1.0), lambda y: y.add_(y)):
            with pytest.raises(RuntimeError, match="writes to a conjugate do not reach"):
                write(WAYS[way](x))
        with pytest.raises(RuntimeError, match="conjugate bit"):
            WAYS[way](x).numpy()
        y = WAYS[way](x).resolve_conj()
        y.zero_()
    assert y.numpy().any() == False  # noqa: E712 - NumPy's
    assert x.tolist() == [[1 + 1j, 2j]]


def test_the_conjugate_of_a_conjugate_is_the_tensor_again():
    x = rl.tensor([1 + 1j, 2j])
    x.conj().conj()[0] = 5
    assert x.tolist() == [5, 2j]
    assert x.conj().is_conj()
    assert not x.conj().conj().is_conj()
    assert not x.conj_physical().is_conj()
