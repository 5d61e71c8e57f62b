"""Shape, indexing, gather, sort and creation against PyTorch: values, dtypes, strides of views, gradients, errors."""

from __future__ import annotations

import random
import warnings

import numpy as np
import pytest

import rushlight_autograd  # noqa: F401 - gives tensors their backward()
import rushlight_tensor as rl

torch = pytest.importorskip("torch")

X = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
Y = np.random.default_rng(1).standard_normal((2, 3, 4)).astype(np.float32)
V = np.array([3.0, 1.0, 2.0, 1.0, 3.0], np.float32)
S = np.array(1.5, np.float32)
I = np.array([2, 0, 2])  # noqa: E741 - an index
M = X > 0

SAME = [
    # shape
    lambda t, x=Y: x.flatten(),
    lambda t, x=Y: x.flatten(1),
    lambda t, x=S: x.flatten(),
    lambda t, x=X: x.unflatten(1, (2, -1)),
    lambda t, x=Y: t.unflatten(x, -1, (2, 2)),
    lambda t, x=Y: x[:, :1].squeeze(),
    lambda t, x=Y: x[:, :1].squeeze(1),
    lambda t, x=Y: x[:1, :1].squeeze((0, 1)),
    lambda t, x=X: x.squeeze(0),
    lambda t, x=X: x.unsqueeze(-1),
    lambda t, x=X: x.unsqueeze(0),
    lambda t, x=Y: x.movedim(0, -1),
    lambda t, x=Y: x.movedim((0, 1), (2, 0)),
    lambda t, x=Y: x.transpose(0, 2),
    lambda t, x=Y: x.swapaxes(-1, 0),
    lambda t, x=X: x.t(),
    lambda t, x=V: x.t(),
    lambda t, x=X: x.T,
    lambda t, x=Y: x.mT,
    lambda t, x=X: x.H,
    lambda t, x=Y: x.permute(2, 0, 1),
    lambda t, x=Y: x.narrow(1, 1, 2),
    lambda t, x=Y: x.narrow(1, -2, 1),
    lambda t, x=Y: x.select(1, -1),
    lambda t, x=Y: x.unbind(1),
    lambda t, x=X: x.split(2),
    lambda t, x=X: x.split([1, 3], dim=1),
    lambda t, x=X: x.chunk(3, 1),
    lambda t, x=X: x.chunk(7, 0),
    lambda t, x=X: x.tensor_split(3, 1),
    lambda t, x=X: x.tensor_split([1, 3], 1),
    lambda t, x=X: t.hsplit(x, 2),
    lambda t, x=Y: t.vsplit(x, [1]),
    lambda t, x=Y: x.dsplit(4),
    lambda t, x=X: x.expand(2, -1, 4),
    lambda t, x=X, y=Y: x.expand_as(y),
    lambda t, x=X: x.broadcast_to((2, 3, 4)),
    lambda t, x=X, y=Y: t.broadcast_tensors(x, y),
    lambda t, x=X: x.view(4, 3),
    lambda t, x=X: x.t().reshape(2, 6),
    lambda t, x=X: x.ravel(),
    lambda t, x=S: t.atleast_1d(x),
    lambda t, x=V: t.atleast_2d(x),
    lambda t, x=X: t.atleast_3d(x),
    lambda t, x=X: x.diagonal(),
    lambda t, x=Y: x.diagonal(1, 1, 2),
    lambda t, x=Y: x.diagonal(-1, 0, -1),
    lambda t, x=X: x.diagonal(9),
    lambda t, x=V: t.diag(x, 1),
    lambda t, x=X: t.diag(x, -1),
    lambda t, x=X: t.diag_embed(x, -1, 0, 2),
    lambda t, x=X: t.diagflat(x),
    lambda t, x=Y: x.tril(),
    lambda t, x=Y: x.triu(-1),
    lambda t, x=X: x.unfold(1, 2, 1),
    lambda t, x=X: x.clone().as_strided((2, 3), (1, 2), 1),
    lambda t, x=Y: (x * 2)[1].as_strided((2, 2), (3, 1)),
    lambda t, x=X: t.as_strided(x.clone(), (3, 2), (1, 1)),
    lambda t, x=X: x.where(x > 0, 2.0),
    lambda t, x=X: x.split_with_sizes([1, 2]),
    lambda t, x=Y: x.unfold(-1, 3, 1),
    lambda t, x=Y: x.unfold(1, 2, 2),
    lambda t, x=S: x.unfold(0, 1, 1),
    # join, repeat, turn
    lambda t, x=X, y=Y: t.cat([x, y[0], x], 0),
    lambda t, x=X, y=Y: t.cat((x, y[1]), -1),
    lambda t, x=X: t.cat([t.zeros(0), x], 1),
    lambda t, x=X: t.cat([x, t.ones(1, 4, dtype=t.int64)]),
    lambda t, x=X: t.stack([x, x], -1),
    lambda t, x=X, v=V: t.hstack([x, x]),
    lambda t, v=V: t.hstack([v, v]),
    lambda t, v=V: t.vstack([v, v]),
    lambda t, v=V: t.dstack([v, v]),
    lambda t, v=V: t.column_stack([v, v]),
    lambda t, x=X: x.repeat(2, 1, 3),
    lambda t, x=X: x.tile(2),
    lambda t, x=X: t.tile(x, (2, 1, 1)),
    lambda t, x=X: x.repeat_interleave(2),
    lambda t, x=X: x.repeat_interleave(3, dim=1),
    lambda t, x=X: x.repeat_interleave(t.tensor([1, 0, 2]), 0),
    lambda t, x=Y: x.flip(0, -1),
    lambda t, x=Y: x.fliplr(),
    lambda t, x=X: x.roll(1),
    lambda t, x=X: x.roll((1, -2), (0, 1)),
    lambda t, x=X: x.rot90(),
    lambda t, x=Y: x.rot90(3, (1, 2)),
    lambda t, x=Y: x.rot90(2, (0, 2)),
    lambda t, v=V, s=S: t.meshgrid(v, v[:2], indexing="ij"),
    lambda t, v=V, s=S: t.meshgrid(v, v[:2], v[:3], indexing="xy"),
    lambda t, v=V: t.cartesian_prod(v, v[:2]),
    # indexing, one of each; random ones below
    lambda t, x=Y: x[1],
    lambda t, x=Y: x[-1, 1:, ::2],
    lambda t, x=Y: x[..., None, 0],
    lambda t, x=X: x[True],
    lambda t, x=X: x[False],
    lambda t, x=X: x[[]],
    lambda t, x=X: x[()],
    lambda t, x=X: x[[[0, 1], [1, 2]]],
    lambda t, x=X: x[[0, 1], [1, 2]],
    lambda t, x=X: x[range(2)],
    lambda t, x=X: x[np.array([0, 2])],
    lambda t, x=X: x[np.int64(1)],
    lambda t, x=S: x[...],
    lambda t, x=S: x[None],
    lambda t, x=S: x[t.tensor(True)],
    lambda t, x=X: x[t.tensor(1)],
    lambda t, x=X: x[t.tensor([[0, 2], [1, 1]])],
    lambda t, x=X: x[x > 0],
    lambda t, x=X: x[:, x[0] > 0],
    lambda t, x=Y: x[t.tensor([0, 1]), :, t.tensor([2, 3])],
    lambda t, x=Y: x[0, :, t.tensor([2, 3])],
    lambda t, x=Y: x[:, t.tensor([[0], [2]]), t.tensor([1, 3])],
    lambda t, x=X: x.index_select(1, t.tensor([3, 0, 3])),
    lambda t, x=S: x.index_select(0, t.tensor([0])),
    lambda t, x=S: x.movedim(0, -1),
    lambda t, x=S, y=S: x.index_add(0, t.tensor([0]), y),
    lambda t, x=S, y=S: x.index_copy(0, t.tensor(0), y),
    lambda t, x=S: x.index_fill(0, t.tensor([0]), 3),
    lambda t, x=X: x.take(t.tensor([[0, -1], [5, 5]])),
    lambda t, x=X: x.take_along_dim(t.tensor([0, 5])),
    lambda t, x=X: x.take_along_dim(t.tensor([[0, 3]]), 1),
    lambda t, x=X: x.masked_select(x > 0),
    lambda t, x=X: x.masked_fill(x > 0, -1),
    lambda t, x=X, s=S: x.masked_fill(x > 0, s),
    lambda t, x=Y, v=X: x.masked_fill(v > 0, 2.5),
    lambda t, x=X, y=Y: x.masked_scatter(x > 0, y),
    lambda t, x=X, v=V: x.index_put((t.tensor([0, 2, 0]), t.tensor([1, 1, 1])), v[:3], accumulate=True),
    lambda t, x=X, y=Y: x.index_add(0, t.tensor([1, 1]), y[0, :2], alpha=2),
    lambda t, x=X, y=Y: x.index_add(1, t.tensor([1, 1]), y[1, :, :2]),
    lambda t, x=X, y=Y: x.index_copy(0, t.tensor([2, 1]), y[0, :2]),
    lambda t, x=X: x.index_fill(1, t.tensor([2, 1]), 7),
    lambda t, x=X: t.nonzero(x > 0),
    lambda t, x=X: t.nonzero(x > 0, as_tuple=True),
    lambda t, x=S: t.nonzero(x),
    lambda t, x=S: t.nonzero(x, as_tuple=True),
    lambda t, x=X: t.argwhere(x > 0),
    # gather, scatter
    lambda t, x=X: x.gather(0, t.tensor([[0, 1, 2, 2], [2, 2, 0, 0]])),
    lambda t, x=X: x.gather(1, t.tensor([[0], [3], [3]])),
    lambda t, x=X: x.gather(-1, t.tensor([[0, 0], [3, 1]])),
    lambda t, x=Y: x.gather(1, t.tensor([[[2, 0]]])),
    lambda t, x=S: x.gather(0, t.tensor(0)),
    lambda t, x=X, y=Y: x.scatter(0, t.tensor([[0, 1, 2, 0]]), y[0, :1]),
    lambda t, x=X: x.scatter(1, t.tensor([[0], [3]]), 9.0),
    lambda t, x=X: x.detach().scatter(1, t.tensor([[0], [3]]), 2, reduce="add"),
    lambda t, x=X: x.detach().scatter(1, t.tensor([[0], [3]]), 2, reduce="multiply"),
    lambda t, x=X, y=Y: x.scatter_add(0, t.tensor([[0, 1, 2, 0], [0, 0, 0, 0]]), y[0, :2]),
    *[
        lambda t, x=X, y=Y, r=r, s=s: x.scatter_reduce(
            0, t.tensor([[0, 1, 0, 0], [0, 0, 0, 0]]), y[0, :2], r, include_self=s
        )
        for r in ("sum", "mean", "prod", "amax", "amin")
        for s in (True, False)
    ],
    lambda t, x=X: x.clone().fill_diagonal_(7),
    lambda t, x=Y: x.reshape(6, 4)[:, :2].clone().fill_diagonal_(7, wrap=True),
    lambda t, x=X, v=V: t.diagonal_scatter(x, v[:3]),
    lambda t, x=X, v=V: t.select_scatter(x, v[:4], 0, 1),
    lambda t, x=X, v=V: t.slice_scatter(x, v[:4].reshape(1, 4), 0, 1, 2),
    lambda t, x=X, v=V: x.clone().put_(t.tensor([0, 5]), v[:2]),
    lambda t, x=X, v=V: x.t().clone().put_(t.tensor([1, 1]), v[:2], accumulate=True),
    lambda t, x=X, v=V: t.block_diag(x, v, x[:1, :1]),
    lambda t, v=V: t.combinations(v, 2),
    lambda t, v=V: t.combinations(v[:3], 3, with_replacement=True),
    # order
    lambda t, x=Y: t.sort(x),
    lambda t, x=Y: x.sort(1, descending=True),
    lambda t, v=V: v.sort(stable=True),
    lambda t, v=V: v.sort(descending=True, stable=True),
    lambda t, x=S: t.sort(x),
    lambda t, v=V: v.argsort(),
    lambda t, v=V: t.argsort(v, descending=True, stable=True),
    lambda t, x=X: t.msort(x),
    lambda t, x=X: x.topk(2)[0],
    lambda t, x=X: (x + t.arange(12).reshape(3, 4) * 3).topk(2),
    lambda t, x=X: x.topk(2, dim=0, largest=False)[0],
    lambda t, x=S: x.topk(1),
    lambda t, x=X: t.topk(x.detach().flatten().repeat(9).unique(), 2),
    lambda t, x=X: x.kthvalue(2)[0],
    lambda t, x=X: x.kthvalue(3, 0, keepdim=True),
    lambda t, v=V: v.detach().unique(),
    lambda t, v=V: t.unique(v.detach(), return_inverse=True, return_counts=True),
    lambda t, x=X: t.unique((x > 0).long(), dim=1, return_inverse=True, return_counts=True),
    lambda t, v=V: t.unique_consecutive(t.tensor([1, 1, 2, 2, 1]), return_inverse=True, return_counts=True),
    lambda t, x=X: t.unique_consecutive(t.tensor([[1, 1], [1, 1], [2, 2]]), dim=0),
    lambda t, v=V: t.searchsorted(v.unique(), v),
    lambda t, v=V: t.searchsorted(v.unique(), v, right=True, out_int32=True),
    lambda t, x=X: t.searchsorted(x.sort()[0], x),
    lambda t, v=V: t.bucketize(v, t.tensor([1.0, 2.0])),
    lambda t, v=V: t.isin(v, t.tensor([1.0, 2.0])),
    lambda t, v=V: t.isin(v, 3.0, invert=True),
    lambda t, v=V: v.long().bincount(),
    lambda t, v=V: t.bincount(v.long().detach(), v.detach(), minlength=7),
    lambda t, x=Y: x.detach().histc(7),
    lambda t, x=Y: t.histc(x.detach(), 5, -1, 1),
    # creation
    lambda t: t.arange(5),
    lambda t: t.arange(1, 10, 3, dtype=t.float32),
    lambda t: t.arange(0, 1, 0.1),
    lambda t: t.arange(5, 0, -2),
    lambda t: t.arange(2.5),
    lambda t: t.linspace(-3, 7.3, 100),
    lambda t: t.linspace(0, 10, 4, dtype=t.int64),
    lambda t: t.linspace(0, 1, 1),
    lambda t: t.logspace(0, 2, 5),
    lambda t: t.logspace(0, 3, 4, base=2),
    lambda t: t.eye(3),
    lambda t: t.eye(2, 3, dtype=t.int64),
    lambda t: t.zeros(size=(2, 3)),
    lambda t: t.ones(size=[2], dtype=t.int64),
    lambda t: t.scalar_tensor(3),
    lambda t: t.asarray([1, 2]),
    lambda t: t.asarray(np.ones(2)),
    lambda t, x=X: t.zeros_like(x, memory_format=None),
    lambda t: t.full((2, 2), 7),
    lambda t: t.full((2,), True),
    lambda t: t.full((2,), 1.5, dtype=t.float64),
    lambda t, x=X: t.full_like(x, 2),
    lambda t, x=X: t.zeros_like(x, dtype=t.int32),
    lambda t, x=X: x.new_zeros(2, 3),
    lambda t, x=X: x.new_ones((2,), dtype=t.bool),
    lambda t, x=X: x.new_full((2, 1), 3),
    lambda t, x=X: x.new_tensor([1, 2]),
    lambda t: t.tril_indices(3, 4, 1),
    lambda t: t.triu_indices(3, 3),
    lambda t, x=X: x.view(t.int32),
    lambda t, x=X: x.view(t.int16),
    lambda t, x=X: x.view(t.float64).shape[1] + t.zeros(1),
]


def tensors(module, fn, dtype):
    """The arguments of a case, which are its defaults, as tensors that require grad."""
    names = fn.__code__.co_varnames[1 : fn.__code__.co_argcount]
    out = {}
    for name, value in zip(names, fn.__defaults__ or (), strict=True):
        if isinstance(value, np.ndarray):
            kind = getattr(module, dtype)
            out[name] = module.tensor(value, dtype=kind, requires_grad=kind.is_floating_point)
        else:
            out[name] = value
    return out


def flat(result):
    return [r for part in result for r in flat(part)] if isinstance(result, (tuple, list)) else [result]


def array(x):
    return x.detach().numpy()


def agree(got, want, tolerance):
    assert array(got).dtype == array(want).dtype
    assert tuple(got.shape) == tuple(want.shape)
    np.testing.assert_allclose(array(got), array(want), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize("case", SAME, ids=range(len(SAME)))
def test_results_and_gradients_are_pytorch_s(case, dtype):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = tensors(torch, case, dtype)
        try:
            want = flat(case(torch, **theirs))
        except (RuntimeError, NotImplementedError, TypeError):
            pytest.skip(f"PyTorch does not do this for {dtype}")
    ours = tensors(rl, case, dtype)
    got = flat(case(rl, **ours))
    assert len(got) == len(want)
    for g, w in zip(got, want, strict=True):
        agree(g, w, 2e-6)
    total, target = 0, 0
    for i, (g, w) in enumerate(zip(got, want, strict=True)):
        assert g.requires_grad == w.requires_grad
        if w.requires_grad:
            weights = np.cos(np.arange(w.numel()) + i).reshape(tuple(w.shape)).astype(dtype)
            total, target = total + (g * rl.tensor(weights)).sum(), target + (w * torch.tensor(weights)).sum()
    if isinstance(target, int):
        return
    total.backward()
    target.backward()
    for name, w in theirs.items():
        if isinstance(w, torch.Tensor) and w.grad is not None:
            agree(ours[name].grad, w.grad, 2e-5)


VIEWS = [
    lambda x: x[1],
    lambda x: x[:, 1:, ::2],
    lambda x: x[..., None, 0],
    lambda x: x.t() if x.dim() < 3 else x.mT,
    lambda x: x.transpose(0, 2),
    lambda x: x.permute(2, 0, 1),
    lambda x: x.movedim(0, -1),
    lambda x: x.narrow(1, 1, 2),
    lambda x: x.select(-1, 2),
    lambda x: x.diagonal(0, 1, 2),
    lambda x: x.unfold(2, 2, 2),
    lambda x: x.view(6, 4),
    lambda x: x.view(6, 4)[1:3].t(),
    lambda x: x.flatten(0, 1)[:, 1],
    lambda x: x.unsqueeze(1),
    lambda x: x[:1].squeeze(0),
    lambda x: x.unflatten(2, (2, 2)),
    lambda x: x.swapdims(0, 1).mT[0],
]


@pytest.mark.parametrize("view", VIEWS, ids=range(len(VIEWS)))
def test_views_have_pytorch_s_strides_and_writes_reach_the_base_and_the_graph(view):
    results = []
    for t in (rl, torch):
        leaf = t.tensor(Y, requires_grad=True)
        base = leaf * 2
        before = base * base  # has saved base
        v = view(base)
        place = [s for s, n in zip(v.stride(), v.shape, strict=True) if n > 1], v.storage_offset(), tuple(v.shape)
        v.mul_(3)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            before.sum().backward()
        base = leaf * 2
        v = view(base)
        v.mul_(v.detach() + 1)
        other = view(base)
        v[...] = v + other
        base.add_(1)
        (base * t.tensor(np.cos(Y))).sum().backward()
        results.append((place, array(base), array(leaf.grad), array(v)))
    for got, want in zip(*results, strict=True):
        if isinstance(got, tuple):
            assert got == want
        else:
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def random_index(rng, t, shape):
    """A random index for a tensor of this shape, as a function of the module that makes the tensors."""
    entries, dims, tensor_shape = [], list(shape), rng.choice([(), (2,), (2, 1), (3,)])
    while dims and rng.random() < 0.85:
        n = dims.pop(0)
        kind = rng.choice(["int", "slice", "slice", "tensor", "tensor", "mask", "list", "none", "all"])
        if kind == "int":
            entries.append(rng.randrange(-n, n))
        elif kind == "slice":
            entries.append(
                slice(
                    rng.choice([None, rng.randrange(-n - 1, n + 2)]), rng.choice([None, n - 1]), rng.choice([None, 2])
                )
            )
        elif kind == "tensor":
            entries.append(
                np.array([rng.randrange(-n, n) for _ in range(int(np.prod(tensor_shape)))]).reshape(tensor_shape)
            )
        elif kind == "mask":
            entries.append(np.array([i < 2 for i in range(n)]) if tensor_shape == (2,) else slice(None))
        elif kind == "list":
            entries.append([rng.randrange(n) for _ in range(3)] if tensor_shape == (3,) else slice(None))
        elif kind == "none":
            dims.insert(0, n)
            entries.append(None)
        else:
            entries.append(slice(None))
    if rng.random() < 0.3:
        entries.append(Ellipsis)
        if dims and rng.random() < 0.5:
            entries.append(rng.randrange(dims[-1]))
    return entries


def as_index(t, entries):
    return tuple(t.tensor(e) if isinstance(e, np.ndarray) else e for e in entries)


@pytest.mark.parametrize("seed", range(150))
def test_random_indices_read_and_write_as_in_pytorch(seed):
    rng = random.Random(seed)
    shape = rng.choice([(4,), (3, 4), (2, 3, 4), (2, 3, 2, 3)])
    data = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    entries = random_index(rng, rl, shape)
    transposed = rng.random() < 0.3
    outcomes = []
    for t in (torch, rl):
        leaf = t.tensor(data, requires_grad=True)
        base = leaf * 1
        x = base.transpose(0, -1).contiguous().transpose(0, -1) if transposed else base
        index = as_index(t, entries)
        out = x[index]
        weights = t.tensor(np.sin(np.arange(out.numel()) + 1).reshape(tuple(out.shape)).astype(np.float32))
        (out * weights).sum().backward(retain_graph=True)
        read = array(out), array(leaf.grad)
        leaf.grad = None
        if any(isinstance(e, (np.ndarray, list)) for e in entries):
            flat_positions = t.arange(data.size).reshape(shape)[index]
            assert flat_positions.shape == out.shape
            unique = len(set(flat_positions.flatten().tolist())) == flat_positions.numel()
        else:
            unique = True
        y = base * 1
        z = y.transpose(0, -1).contiguous().transpose(0, -1) if transposed else y
        source = t.tensor(np.array(2.0, np.float32), requires_grad=True)
        z[index] = weights * source if unique else source
        (z * z).sum().backward()
        y2 = base.detach().clone()
        y2[index] = 5.0
        outcomes.append((*read, array(z), array(leaf.grad), array(source.grad), array(y2)))
    for want, got in zip(*outcomes, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5, err_msg=str(entries))


REFUSED = [
    lambda t, x: x[5],
    lambda t, x: x[-4],
    lambda t, x: x[0, 5],
    lambda t, x: x[0, 0, 0],
    lambda t, x: x[t.tensor([0.5])],
    lambda t, x: x[t.tensor([5])],
    lambda t, x: x[t.tensor([True, False])],
    lambda t, x: x[:, t.tensor([True, False])],
    lambda t, x: x["a"],
    lambda t, x: x[1.5],
    lambda t, x: x[::-1],
    lambda t, x: x[t.tensor([0, 1]), t.tensor([0, 1, 2])],
    lambda t, x: t.tensor(1.0)[0],
    lambda t, x: t.tensor(1.0)[t.tensor([0])],
    lambda t, x: x.__setitem__(t.tensor([0]), t.zeros(4, dtype=t.float64)),
    lambda t, x: x.__setitem__(0, t.zeros(5)),
    lambda t, x: x.__setitem__(t.tensor([0, 1]), t.zeros(3)),
    lambda t, x: x.__setitem__(x > 2, t.zeros(3)),
    lambda t, x: x.__setitem__(0, [1, 2, 3, 4]),
    lambda t, x: x.__setitem__((0, 0), "a"),
    lambda t, x: x.__setitem__(5, 1),
    lambda t, x: t.index_select(x, 0, t.tensor([-1])),
    lambda t, x: t.index_select(x, 0, t.tensor([7])),
    lambda t, x: t.index_select(x, 0, t.tensor([[0]])),
    lambda t, x: t.index_select(x, 0, t.tensor([0.0])),
    lambda t, x: t.gather(x, 0, t.tensor([[7]])),
    lambda t, x: t.gather(x, 0, t.tensor([[-1]])),
    lambda t, x: t.gather(x, 0, t.tensor([7])),
    lambda t, x: t.gather(x, 1, t.zeros(4, 1, dtype=t.int64)),
    lambda t, x: t.gather(x, 1, t.zeros(4, 1)),
    lambda t, x: x.scatter(0, t.tensor([[7]]), 1.0),
    lambda t, x: x.scatter(0, t.tensor([[0, 0]]), t.zeros(1, 1)),
    lambda t, x: x.scatter(0, t.tensor([[0]]), t.zeros(1, 1, dtype=t.float64)),
    lambda t, x: x.scatter_add(0, t.tensor([[9]]), t.zeros(1, 1)),
    lambda t, x: t.scatter_reduce(x, 0, t.tensor([[0, 0]]), t.ones(1, 2), "foo"),
    lambda t, x: x.take(t.tensor([20])),
    lambda t, x: x.masked_fill(t.tensor([1, 0, 1, 0]), 0),
    lambda t, x: x.masked_fill(x > 2, t.tensor([1.0])),
    lambda t, x: x.masked_select(t.tensor([1, 0, 0, 0])),
    lambda t, x: x.index_add(0, t.tensor([0, 1]), t.zeros(1, 4)),
    lambda t, x: x.index_copy(0, t.tensor([7]), t.zeros(1, 4)),
    lambda t, x: x.index_copy(0, t.tensor([0]), t.zeros(2, 4)),
    lambda t, x: x.index_fill(0, t.tensor([7]), 1.0),
    lambda t, x: x.index_fill(0, t.tensor([0]), t.ones(2)),
    lambda t, x: x.narrow(0, 2, 2),
    lambda t, x: x.narrow(0, 0, -1),
    lambda t, x: x.select(0, 3),
    lambda t, x: x.select(5, 0),
    lambda t, x: t.tensor(1.0).select(0, 0),
    lambda t, x: x.split(0),
    lambda t, x: x.split([1, 1]),
    lambda t, x: x.split(-1),
    lambda t, x: x.chunk(0),
    lambda t, x: x.hsplit(3),
    lambda t, x: x.dsplit(2),
    lambda t, x: t.asarray([1], copy=False),
    lambda t, x: x.unbind(3),
    lambda t, x: t.tensor(1.0).unbind(),
    lambda t, x: x.tensor_split(0),
    lambda t, x: t.cat([]),
    lambda t, x: t.cat([x, t.zeros(2, 5)]),
    lambda t, x: t.cat([x, t.tensor(1.0)]),
    lambda t, x: t.cat([x, t.zeros(3)]),
    lambda t, x: t.cat(x),
    lambda t, x: t.cat([x, 1]),
    lambda t, x: t.stack([]),
    lambda t, x: t.stack([x, x[0]]),
    lambda t, x: t.stack([x, x], 4),
    lambda t, x: x.unflatten(1, (3, 2)),
    lambda t, x: x.flatten(1, 0),
    lambda t, x: x.squeeze(5),
    lambda t, x: x.unsqueeze(4),
    lambda t, x: x.movedim(0, 4),
    lambda t, x: x.movedim((0, 1), (0,)),
    lambda t, x: t.zeros(2, 2, 2).t(),
    lambda t, x: t.zeros(2).mT,
    lambda t, x: x.repeat(2),
    lambda t, x: x.repeat_interleave(t.tensor([1, 2]), dim=0),
    lambda t, x: x.flip(0, 0),
    lambda t, x: x.flip(3),
    lambda t, x: x.roll((1, 2), (0,)),
    lambda t, x: x.rot90(1, (0, 0)),
    lambda t, x: x.diagonal(0, 0, 0),
    lambda t, x: t.diag(t.zeros(2, 2, 2)),
    lambda t, x: t.tril(t.zeros(2)),
    lambda t, x: x.unfold(0, 5, 1),
    lambda t, x: x.as_strided((4, 4), (4, 1)),
    lambda t, x: x.as_strided((2,), (4, 1)),
    lambda t, x: x.unfold(0, 2, 0),
    lambda t, x: x.unfold(2, 2, 1),
    lambda t, x: t.meshgrid(t.zeros(2), t.zeros(2, 2), indexing="ij"),
    lambda t, x: t.broadcast_tensors(t.zeros(2), t.zeros(3)),
    lambda t, x: t.sort(x, 3),
    lambda t, x: t.topk(x, 5),
    lambda t, x: t.kthvalue(x, 9),
    lambda t, x: t.bincount(t.tensor([-1])),
    lambda t, x: t.bincount(t.tensor([1.0])),
    lambda t, x: t.searchsorted(t.tensor([[1, 2], [3, 4]]), t.tensor([1])),
    lambda t, x: t.histc(x, 4, 5, 2),
    lambda t, x: t.histc(x.long()),
    lambda t, x: t.arange(0, 10, 0),
    lambda t, x: t.arange(0, 10, -1),
    lambda t, x: t.linspace(0, 1, -1),
    lambda t, x: t.eye(-1),
    lambda t, x: t.zeros(2, -1),
    lambda t, x: t.tensor([[1, 2], [3]]),
    lambda t, x: t.tensor(["a"]),
    lambda t, x: t.tensor([None]),
    lambda t, x: x.view(5, 2),
    lambda t, x: x.t().view(12),
    lambda t, x: x.expand(3, 5),
    lambda t, x: x.permute(0),
    lambda t, x: (x * 1).requires_grad_().unsqueeze_(0),
    lambda t, x: t.zeros(2, requires_grad=True).__setitem__(0, 1.0),
    lambda t, x: t.zeros(2, requires_grad=True).index_fill_(0, t.tensor([0]), 1.0),
]


@pytest.mark.parametrize("case", REFUSED, ids=range(len(REFUSED)))
def test_errors_have_pytorch_s_type_and_words(case):
    def failure(t):
        with pytest.raises(Exception) as caught:
            case(t, t.arange(12.0).reshape(3, 4))
        return caught.value

    want, got = failure(torch), failure(rl)
    assert type(got).__name__ == type(want).__name__, f"{got!r} instead of {want!r}"
    assert words(got) & words(want), f"{got} has nothing of {want}"


def words(e):
    """The longer words of a message: ours may say more than PyTorch's, but about the same thing."""
    return {w.strip("().,:'`[]") for w in str(e).split() if len(w.strip("().,:'`[]")) > 3}


def test_dlpack_shares_memory_both_ways():
    x, y = torch.ones(3), rl.ones(3)
    a, b = rl.from_dlpack(x), torch.from_dlpack(y)
    a[0] = 5
    b[0] = 7
    assert x.tolist() == [5, 1, 1]
    assert y.tolist() == [7, 1, 1]
    with pytest.raises(BufferError, match="require gradient"):
        torch.from_dlpack(rl.ones(2, requires_grad=True))


def test_pairs_print_as_pytorch_s():
    assert repr(rl.sort(rl.tensor([3, 1]))) == repr(torch.sort(torch.tensor([3, 1])))
    assert repr(rl.topk(rl.tensor([3, 1]), 1)) == repr(torch.topk(torch.tensor([3, 1]), 1))
