"""as_strided takes the gradient of its argument, wherever that lies in memory; bounds are those of the storage."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import rushlight_autograd  # noqa: F401 - gives tensors their backward()
import rushlight_tensor as rl


def test_no_gradient_goes_through_detach():
    a = rl.ones(3, requires_grad=True)
    (((a * 2).detach().as_strided((2,), (1,))).sum() + a[0]).backward()
    assert a.grad.tolist() == [1, 0, 0]


def test_a_detached_leaf_gets_its_gradient():
    b = rl.ones(6, requires_grad=True)
    z = (b * 2).detach()[:3].requires_grad_()
    (z.as_strided((2,), (1,), 0) * 5).sum().backward()
    assert z.grad.tolist() == [5, 5, 0]
    assert b.grad is None


def test_another_dtype_is_read_as_such():
    assert (
        rl.arange(4.0).view(rl.int32).as_strided((2,), (1,), 1).tolist()
        == np.arange(4, dtype="f4").view("i4")[1:3].tolist()
    )
    assert rl.view_as_real(rl.tensor([1 + 2j, 3.0])).as_strided((2,), (1,)).tolist() == [1, 2]


def test_writes_to_views_of_results_in_another_order():
    x = rl.ones(2, 3, requires_grad=True)
    y = x.t() * 2
    y.t().view(-1)[:2].zero_()
    y.sum().backward()
    assert x.grad.tolist() == [[0, 0, 2], [2, 2, 2]]


@pytest.mark.parametrize("make", [lambda: np.arange(9.0)[:3], lambda: np.arange(9.0)[3:6]])
def test_what_lies_beside_an_array_of_the_user_is_not_reached(make):
    with pytest.raises(RuntimeError, match="out of bounds for storage of size 24"):
        rl.from_numpy(make()).as_strided((4,), (1,), 0)
    assert rl.from_numpy(make()).as_strided((3,), (1,), 0).tolist() == make().tolist()


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    "view", [lambda x: x.view(rl.int32), lambda x: rl.view_as_complex(x), lambda x: x.view(-1)[1:]]
)
def test_deepcopy_keeps_sharing_between_dtypes(view, order):
    x = rl.arange(4.0).reshape(2, 2)
    a, b = copy.deepcopy([x, view(x)][::order])[::order]
    b.zero_()
    assert a.reshape(-1)[2:].tolist() == [0, 0]
    assert x.sum().item() == 6
    assert copy.deepcopy(x[1:]).storage_offset() == 2
