"""Corners where PyTorch refuses, or has a dtype or shape of its own: the same value, or the same kind of error."""

from __future__ import annotations

import numpy as np
import pytest

import rushlight as rl
from tests.parity.outcome import outcome

torch = pytest.importorskip("torch")

PROGRAMS = [
    lambda t: t.cdist(t.ones(3), t.ones(3)),
    lambda t: t.cdist(t.ones(2, 3), t.ones(3)),
    lambda t: t.cdist(t.ones(2, 3), t.ones(2, 4)),
    lambda t: t.cdist(t.ones(2, 3), t.ones(2, 3).double()),
    lambda t: t.cdist(t.ones(2, 3), t.ones(2, 3), p=-1.0),
    lambda t: t.cdist(t.ones(2, 3), t.ones(2, 3).half()),
    lambda t: t.renorm(t.ones(3), 2, 0, 1.0),
    lambda t: t.renorm(t.ones(3, 2), 2, 0, -1.0),
    lambda t: t.renorm(t.ones(3, 2).int(), 2, 0, 1.0),
    lambda t: t.slice_scatter(t.zeros(3, 4), t.ones(4), 0, 0, 2),
    lambda t: t.slice_scatter(t.zeros(3, 4), t.ones(1, 4), 0, 0, 2),
    lambda t: t.slice_scatter(t.zeros(3, 4), t.ones(2, 4), 0, 0, 2),
    lambda t: t.slice_scatter(t.zeros(3, 4), t.ones(2, 4).double(), 0, 0, 2),
    lambda t: t.select_scatter(t.zeros(3, 4), t.ones(()), 0, 0),
    lambda t: t.select_scatter(t.zeros(3, 4), t.ones(1), 0, 0),
    lambda t: t.select_scatter(t.zeros(3, 4), t.ones(4).long(), 0, 0),
    lambda t: t.diagonal_scatter(t.zeros(3, 3), t.ones(())),
    lambda t: t.diagonal_scatter(t.zeros(3, 3), t.ones(1)),
    lambda t: t.diagonal_scatter(t.zeros(3, 3), t.ones(3)),
    lambda t: t.diagonal_scatter(t.zeros(3, 4), t.ones(3), 1),
    lambda t: t.prod(t.ones(2, 3), (0, 1)),
    lambda t: t.ones(2, 3).prod(dim=(0,)),
    lambda t: t.ones(2, 3).prod(dim=[0]),
    lambda t: (t.ones(2, 3).prod(0), t.ones(2, 3).prod(dim=-1, keepdim=True)),
    lambda t: t.polar(t.ones(2), t.ones(2).double()),
    lambda t: t.polar(t.ones(2, dtype=t.int64), t.ones(2, dtype=t.int64)),
    lambda t: t.nn.functional.prelu(t.ones(2), t.ones(1).double()),
    lambda t: t.nn.functional.prelu(t.ones(2).int(), t.ones(1).int()),
    lambda t: t.nn.functional.prelu(t.ones(2).int(), t.ones(1)),
    lambda t: t.nn.functional.prelu(t.ones(2, 3), t.ones(1, 1)),
    lambda t: t.meshgrid(t.ones(2), t.ones(3).double(), indexing="ij"),
    lambda t: t.meshgrid(t.ones(2), t.ones(3).long(), indexing="ij"),
    lambda t: t.ones(2).softmax(),
    lambda t: t.nn.functional.softmax(t.ones(2)),
    lambda t: t.ones(2).log_softmax(),
    lambda t: t.nn.functional.log_softmax(t.ones(2)),
    lambda t: t.nn.functional.softmin(t.ones(2)),
    lambda t: (
        t.tensor(3.0).quantile(0.5, 0, True),
        t.tensor(3.0).quantile(0.5, keepdim=True),
        t.tensor(3.0).quantile(t.tensor([0.5, 0.2]), keepdim=True),
        t.tensor(3.0).quantile(t.tensor([0.5, 0.2]), 0, keepdim=True),
    ),
    lambda t: (t.tensor(3.0).nanquantile(0.5, 0, True), t.ones(2, 3).quantile(0.5, keepdim=True)),
    lambda t: t.addcmul(t.tensor(True), t.tensor(True), t.tensor(1, dtype=t.uint8), value=3),
    lambda t: t.addcmul(t.tensor([True]), t.tensor([True]), t.tensor([1], dtype=t.uint8), value=3),
    lambda t: t.addcmul(t.tensor([1]), t.tensor([True]), t.tensor([True]), value=3),
    lambda t: t.addcmul(t.tensor([1], dtype=t.int8), t.tensor([True]), t.tensor([True]), value=3),
    lambda t: t.addcmul(t.tensor([1.0]), t.tensor([2]), t.tensor([True]), value=3.5),
    lambda t: t.addcmul(t.tensor([1]), t.tensor([2]), t.tensor([3]), value=2.5),
    lambda t: t.addcmul(t.tensor([1]), t.tensor([2]), t.tensor([3.0]), value=2.5),
    lambda t: t.addcmul(t.tensor([True]), t.tensor([True]), t.tensor([True]), value=1),
    lambda t: t.block_diag(t.ones(2), t.ones(2, 1), t.tensor(2.0)),
    lambda t: t.block_diag(t.ones(2).double(), t.ones(2, 1)),
    lambda t: t.block_diag(t.ones(2).long(), t.ones(2, 1)),
    lambda t: t.block_diag(t.ones(2).long(), t.ones(2, 1).bool()),
    lambda t: t.block_diag(),
    lambda t: t.block_diag(t.ones(0), t.ones(2, 0), t.ones(1, 1)),
    lambda t: t.block_diag(t.ones(1, 1, 1)),
    lambda t: t.nn.functional.mse_loss(t.tensor(1.0, dtype=t.float64), t.ones(3)),
    lambda t: t.nn.functional.mse_loss(t.ones(3), t.tensor(1.0, dtype=t.float64)),
    lambda t: t.nn.functional.l1_loss(t.tensor(1.0, dtype=t.float64), t.ones(3)),
    lambda t: t.nn.functional.l1_loss(t.tensor(1.0, dtype=t.float64), t.ones(3), reduction="none"),
    lambda t: t.nn.functional.mse_loss(t.tensor(1.0, dtype=t.float64), t.ones(3), reduction="none"),
    lambda t: t.nn.functional.smooth_l1_loss(t.tensor(1.0, dtype=t.float64), t.ones(3), reduction="none"),
    lambda t: t.nn.functional.huber_loss(t.tensor(1.0, dtype=t.float64), t.ones(3), reduction="none"),
    lambda t: t.nn.functional.mse_loss(t.ones(3), t.ones(3).long()),
    lambda t: t.nn.functional.mse_loss(t.ones(3).long(), t.ones(3).long()),
    lambda t: t.nn.functional.l1_loss(t.ones(3).long(), t.ones(3).long()),
    lambda t: t.nn.functional.l1_loss(t.ones(3).long(), t.ones(3).long(), reduction="none"),
    lambda t: t.nn.functional.rms_norm(t.ones(3).long(), (3,)),
    lambda t: t.nn.functional.layer_norm(t.ones(3).long(), (3,)),
    lambda t: t.nn.functional.pixel_shuffle(t.ones(3, 3), 1),
    lambda t: t.nn.functional.pixel_unshuffle(t.ones(3, 3), 1),
    lambda t: t.nn.functional.pdist(t.tensor(1.0)),
    lambda t: t.nn.functional.pdist(t.ones(3)),
    lambda t: t.nn.functional.pdist(t.ones(3, 2, 2)),
    lambda t: t.ones(2, 3).sum_to_size(3, 3),
    lambda t: (t.ones(2, 3).sum_to_size(3), t.ones(2, 3).sum_to_size(1, 3), t.ones(2, 3).sum_to_size((2, 1))),
    lambda t: t.ones(2, 3).sum_to_size(2),
    lambda t: t.ones(3).sum_to_size(2, 3),
    lambda t: t.nn.functional.avg_pool2d(t.ones(1, 1, 4, 4).int(), 2),
    lambda t: t.nn.functional.avg_pool1d(t.ones(1, 1, 4).int(), 2),
    lambda t: t.nn.functional.max_pool2d(t.ones(1, 1, 4, 4).bool(), 2),
    lambda t: t.nn.functional.adaptive_avg_pool2d(t.ones(1, 1, 4, 4).int(), 2),
    lambda t: t.nn.functional.batch_norm(t.ones(3, 2).bool(), t.zeros(2), t.ones(2)),
    lambda t: t.nn.functional.batch_norm(t.ones(3, 2).bool(), t.zeros(2), t.ones(2), training=True),
    lambda t: t.nn.functional.batch_norm(t.ones(3, 2).int(), None, None, training=True),
    lambda t: t.nn.functional.group_norm(t.ones(3, 2).bool(), 1),
    lambda t: t.nn.functional.instance_norm(t.ones(3, 2, 2).bool()),
    lambda t: t.nn.functional.linear(np.ones((1, 2), "f4"), t.ones(2, 2)),
    lambda t: t.nn.ReLU()(np.ones((1, 2), "f4")),
    lambda t: t.relu(np.ones(2)),
    lambda t: t.add(np.ones(2), t.ones(2)),
    lambda t: t.matmul(np.ones((2, 2)), t.ones(2, 2).double()),
    lambda t: t.exp(np.ones(2)),
    lambda t: t.sum(np.ones(2)),
    lambda t: t.from_numpy(np.ones(3)[::-1]),
    lambda t: t.from_numpy(np.ones((3, 2))[:, ::-1]),
    lambda t: t.as_tensor(np.ones(3)[::-1]),
    lambda t: t.from_numpy(np.ones((1, 2))[::-1]),
    lambda t: (lambda x: x.abs_())(t.tensor([3 + 4j])),
    lambda t: (lambda x: x.absolute_())(t.tensor([3 + 4j])),
    lambda t: (lambda x: x.sum(dtype=t.int64))(t.ones(2, requires_grad=True)),
    lambda t: (lambda x: x.cumsum(0, dtype=t.int64))(t.ones(2, requires_grad=True)),
    lambda t: (lambda x: x.prod(dtype=t.int64))(t.ones(2, requires_grad=True)),
    lambda t: (lambda x: x.sum(0, dtype=t.bool))(t.ones(2, requires_grad=True)),
    lambda t: (lambda x: x.sum(0, dtype=t.float64))(t.ones(2, requires_grad=True)),
]


def _unsqueezed(t):
    x = t.ones(2, 3, requires_grad=True)
    y = x * 1
    v = y[0]
    v.unsqueeze_(0)
    v.mul_(2)
    y.sum().backward()
    return v, x.grad


def _transposed(t):
    x = t.ones(2, 3, requires_grad=True)
    y = x * 1
    v = y[:, :2]
    v.t_()
    v.mul_(t.arange(4.0).reshape(2, 2))
    w = v[0]
    y.add_(1)
    (y.sum() + w.sum()).backward()
    return v, w, x.grad


def _squeezed(t):
    x = t.ones(2, 3, requires_grad=True)
    y = x * 1
    v = y[:1]
    v.squeeze_(0)
    y.mul_(3)
    v.sum().backward()
    return v, x.grad


def _without_grad(t):
    x = t.arange(6.0).reshape(2, 3)
    v = x[1]
    v.unsqueeze_(1)
    w = v[0]
    x.mul_(2)
    return v, w, v.storage_offset()


def _nothing_to_write(t):
    return [t.zeros(s).expand(e).add_(1).shape for s, e in (((0, 1), (0, 3)), ((1, 0), (3, 0)))]


@pytest.mark.parametrize("program", [*PROGRAMS, _unsqueezed, _transposed, _squeezed, _without_grad, _nothing_to_write])
def test_same_value_or_kind_of_error(program):
    want, got = outcome(program, torch), outcome(program, rl)
    if isinstance(want, tuple) and want and isinstance(want[0], str) and want[0].endswith("Error"):
        assert got[0] == want[0], f"PyTorch {want}, here {got}"
    else:
        assert got == want


def test_without_a_gpu_cuda_is_the_error_of_a_build_without_it():
    if rl.cuda.is_available():
        pytest.skip("a GPU is there")
    for kind in (AssertionError, RuntimeError):
        with pytest.raises(kind, match="Torch not compiled with CUDA enabled"):
            rl.ones(2).cuda()
