"""Tensors on a device, through the public functions: made, moved, indexed, written, drawn, saved, differentiated."""

from __future__ import annotations

import copy
import io
import pickle

import numpy as np
import pytest

import rushlight as torch
import rushlight.nn.functional as F
from rushlight import nn
from tests.cuda.machines import ONE_OF_EACH, using


@pytest.fixture(autouse=True, params=ONE_OF_EACH)
def machine(request):
    with using(request.param) as machine:
        yield machine


def there(x):
    assert x.device == torch.device("cuda:0")
    return x


def same(got, wanted, tolerance=1e-6):
    assert got.dtype == wanted.dtype
    np.testing.assert_allclose(there(got).detach().cpu().numpy(), wanted.detach().numpy(), tolerance, tolerance)


MADE = {
    "zeros": lambda **on: torch.zeros(2, 3, **on),
    "ones": lambda **on: torch.ones(2, dtype=torch.int32, **on),
    "full": lambda **on: torch.full((2,), 3.0, **on),
    "arange": lambda **on: torch.arange(5, **on),
    "linspace": lambda **on: torch.linspace(0, 1, 5, **on),
    "logspace": lambda **on: torch.logspace(0, 1, 5, **on),
    "eye": lambda **on: torch.eye(3, **on),
    "tensor": lambda **on: torch.tensor([[1.0, 2.0]], **on),
    "as_tensor": lambda **on: torch.as_tensor(np.ones(3), **on),
    "tril_indices": lambda **on: torch.tril_indices(3, 3, **on),
    "rand": lambda **on: torch.rand(5, **on),
    "randn": lambda **on: torch.randn(5, **on),
    "randint": lambda **on: torch.randint(0, 9, (5,), **on),
    "randperm": lambda **on: torch.randperm(7, **on),
    "normal": lambda **on: torch.normal(0.0, 1.0, (5,), **on),
    "zeros_like": lambda **on: torch.zeros_like(torch.ones(3), **on),
    "rand_like": lambda **on: torch.rand_like(torch.ones(3), **on),
    "full_like": lambda **on: torch.full_like(torch.ones(3), 2.0, **on),
    "new_zeros": lambda **on: torch.ones(3).new_zeros(2, **on),
}


@pytest.mark.parametrize("name", MADE)
def test_factories_make_the_same_numbers_as_on_the_host(name):
    torch.manual_seed(3)
    wanted = MADE[name]()
    torch.manual_seed(3)
    same(MADE[name](device="cuda"), wanted)


def test_factories_of_a_tensor_stay_on_its_device():
    x = torch.ones(3, device="cuda")
    for made in (x.new_zeros(2), x.new_full((2,), 1.0), x.new_tensor([1, 2]), torch.empty_like(x), torch.rand_like(x)):
        there(made)


def test_moves_and_what_reads_values():
    x = torch.arange(6.0).reshape(2, 3)
    y = x.to("cuda")
    for moved in (y, x.cuda(), y.cuda(), y.to(torch.float64), x.to(y), y.double(), y.t(), y.clone()):
        there(moved)
    assert torch.equal(y.cpu(), x)
    assert y.tolist() == x.tolist()
    assert (y.sum().item(), float(y[0, 1]), int(y[1, 1]), bool(y[0, 0]), len(y)) == (15, 1, 4, False, 2)
    assert f"{y.sum():.1f}" == "15.0"
    assert [row.tolist() for row in y] == x.tolist()
    assert repr(y[0]) == "tensor([0., 1., 2.], device='cuda:0')"
    assert repr(y[0].requires_grad_()) == "tensor([0., 1., 2.], device='cuda:0', requires_grad=True)"
    assert (y[1:].storage_offset(), y[1:].data_ptr() - y.data_ptr()) == (3, 12)
    with pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
        y.numpy()


MIXED = {
    "add": lambda x, y: x + y,
    "add, host first": lambda x, y: y + x,
    "add_": lambda x, y: x.add_(y),
    "add_ to the host's": lambda x, y: y.add_(x),
    "cat": lambda x, y: torch.cat([x, y]),
    "linear": lambda x, y: F.linear(x, y[None]),
    "where": lambda x, y: torch.where(x > 0, x, y),
    "index_select": lambda x, y: x.index_select(0, y.long()),
}


@pytest.mark.parametrize("name", MIXED)
def test_host_and_device_do_not_mix(name):
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        MIXED[name](torch.ones(3, device="cuda"), torch.ones(3))


def test_numbers_of_the_host_mix_as_in_pytorch():
    s = torch.tensor(2.0, requires_grad=True)
    w = torch.ones(3, device="cuda", requires_grad=True)
    ((s * 2) * w * torch.tensor(3.0)).sum().backward()
    assert (s.grad.device.type, s.grad.item()) == ("cpu", 18)
    there(w.grad).mul_(torch.tensor(2.0))
    assert w.grad.tolist() == [24, 24, 24]
    zero = torch.zeros(3, device="cuda")
    assert (torch.tensor(1.0) > zero).tolist() == (zero < torch.tensor(1.0)).tolist() == [True] * 3
    there(torch.where(zero > 0, torch.tensor(1.0), zero))
    same(zero + np.float32(2), torch.full((3,), 2.0))


ROWS, MASK = torch.tensor([2, 0, 1]), torch.arange(24).reshape(4, 6) % 3 == 0
INDICES = [
    1, slice(1, 3), (slice(None), 2), (1, 2), None, Ellipsis, (..., 0), -1, (slice(None, None, 2),), [0, 2], ROWS, MASK,
    (ROWS, ROWS), (slice(None), ROWS), (ROWS, slice(1, 3)), (ROWS[:, None], ROWS), MASK[:, 0], (slice(None), MASK[0]),
    (ROWS, None, 1), (ROWS[0], slice(None)),
]  # fmt: skip


def on_device(index):
    if isinstance(index, tuple):
        return tuple(map(on_device, index))
    return index.cuda() if isinstance(index, torch.Tensor) else index


@pytest.mark.parametrize("index", INDICES, ids=range(len(INDICES)))
def test_indexing(index):
    x = torch.arange(24.0).reshape(4, 6)
    y, at = x.cuda(), on_device(index)
    same(y[at], x[index])
    same(y[index], x[index])  # indices of the host are sent
    for value in (5.0, -x[index], torch.tensor(7.0)):
        a, b = x.clone(), x.cuda()
        a[index] = value
        b[at] = value.cuda() if isinstance(value, torch.Tensor) else value
        same(b, a)
    a, b = x.clone().requires_grad_(), x.cuda().requires_grad_()
    (a[index] ** 2).sum().backward()
    (b[at] ** 2).sum().backward()
    same(b.grad, a.grad)


WRITES = {
    "add_": (1,), "mul_": (2.0,), "sub_": (torch.ones(4),), "div_": (2,), "pow_": (2,), "clamp_": (0, 9), "exp_": (),
    "neg_": (), "zero_": (), "fill_": (3,), "copy_": (torch.ones(4),), "lerp_": (torch.ones(4, 4), 0.3),
    "addcmul_": (torch.ones(4, 4), torch.ones(4, 4)), "addcdiv_": (torch.ones(4, 4), torch.full((4, 4), 2.0)),
    "index_add_": (0, torch.tensor([0, 1]), torch.ones(2, 4)), "index_fill_": (0, torch.tensor([1]), 2.0),
    "index_copy_": (0, torch.tensor([1]), torch.ones(1, 4)), "scatter_": (1, torch.tensor([[0], [1]]), 9.0),
    "scatter_add_": (1, torch.tensor([[0], [1]]), torch.ones(2, 1)), "masked_fill_": (torch.eye(4) > 0, 7.0),
    "masked_scatter_": (torch.eye(4) > 0, torch.arange(9.0)), "tril_": (), "cumsum_": (0,), "sigmoid_": (),
    "clamp_min_": (0,), "relu_": (), "fill_diagonal_": (3,), "t_": (), "unsqueeze_": (0,),
    "index_put_": ((torch.tensor([1]),), torch.tensor(4.0)), "put_": (torch.tensor([1]), torch.tensor([5.0])),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITES)
def test_writing_in_place(name):
    x = torch.linspace(-2, 2, 16).reshape(4, 4)
    y = x.cuda()
    assert getattr(y, name)(*on_device(WRITES[name])) is y
    getattr(x, name)(*WRITES[name])
    same(y, x)


@pytest.mark.parametrize(
    ("name", "args"),
    [("normal_", ()), ("uniform_", ()), ("bernoulli_", (0.5,)), ("exponential_", ()), ("random_", (9,))],
)
def test_random_numbers_are_drawn_on_the_host_from_the_same_stream(name, args):
    torch.manual_seed(5)
    wanted = getattr(torch.zeros(20), name)(*args)
    torch.manual_seed(5)
    same(getattr(torch.zeros(20, device="cuda"), name)(*args), wanted)
    p = torch.full((6,), 0.5, device="cuda")
    for drawn in (torch.bernoulli(p), torch.multinomial(p, 3), F.dropout(p), F.gumbel_softmax(p)):
        there(drawn)


def test_random_numbers_of_a_generator():
    there(torch.zeros(4, device="cuda").normal_(generator=torch.Generator()))
    there(torch.randn(3, device="cuda", generator=torch.Generator(device="cuda")))


def through_a_file(value, **options):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, **options)


def test_files():
    x = torch.arange(6.0, device="cuda").reshape(2, 3)
    back = through_a_file({"x": x, "row": x[1], "columns": x.t()})
    for name, wanted in (("x", x), ("row", x[1]), ("columns", x.t())):
        same(back[name], wanted.cpu())
    back["x"].zero_()
    assert back["row"].tolist() == [0, 0, 0]  # views of one memory still are
    assert through_a_file(x, map_location="cpu").device.type == "cpu"
    there(through_a_file(torch.ones(2), map_location="cuda:0"))
    there(through_a_file(torch.ones(2), map_location=lambda storage, where: storage.cuda()))
    same(copy.deepcopy(x), x.cpu())
    same(pickle.loads(pickle.dumps(x)), x.cpu())
    there(copy.deepcopy(nn.Parameter(x)))


def test_gradients_stay_on_the_device():
    def results(on):
        w = torch.linspace(-1, 1, 9).reshape(3, 3).to(on).requires_grad_()
        x = torch.linspace(0, 1, 6).reshape(2, 3).to(on)
        out = x @ w
        ((out.relu() + out * 2).sum() + (w**2).mean()).backward()
        (g,) = torch.autograd.grad((x @ w).pow(2).sum(), w, create_graph=True)
        u = w * 1
        u[0] = 3.0
        u[:, 1].mul_(2)
        (torch.stack([u, g]).sum() + w.max(0)[0].sum() + w.unbind(0)[1].sum() + w.split(1)[2].sum()).backward()
        return w.grad, g

    for got, wanted in zip(results("cuda"), results("cpu"), strict=True):
        same(got, wanted, 1e-5)


def test_hooks_functions_and_checkpoints():
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * 2

        @staticmethod
        def backward(ctx, g):
            there(ctx.saved_tensors[0])
            return there(g) * 2

    v, seen = torch.ones(3, device="cuda", requires_grad=True), []
    v.register_hook(lambda g: seen.append(there(g)))
    Twice.apply(v).sum().backward()
    torch.utils.checkpoint.checkpoint(lambda a: (a * 2).sin(), v, use_reentrant=False).sum().backward()
    with torch.autograd.set_detect_anomaly(True):
        (v * 2).sum().backward()
    assert len(seen) == 3


def test_gradcheck_and_the_device_itself():
    x = torch.ones(2, 3, dtype=torch.float64, device="cuda", requires_grad=True)
    assert torch.autograd.gradcheck(lambda a: (a * a).sin(), (x,))
    assert torch.autograd.gradgradcheck(lambda a: (a * a).sin(), (x,))
    assert (torch.cuda.is_available(), torch.cuda.current_device()) == (True, 0)
    torch.cuda.synchronize()
    torch.cuda.synchronize(torch.device("cuda:0"))
    torch.cuda.empty_cache()


def test_loader_with_pinned_memory():
    data = torch.utils.data.TensorDataset(torch.arange(8.0))
    batches = [x.to("cuda", non_blocking=True) for (x,) in torch.utils.data.DataLoader(data, 4, pin_memory=True)]
    same(torch.cat(batches), torch.arange(8.0))


COMPOSED = {
    "unique": lambda a: a.unique(), "nonzero": lambda a: a.nonzero(), "median": lambda a: a.median(),
    "histc": lambda a: torch.histc(a, 5), "quantile": lambda a: a.quantile(0.5), "std": lambda a: a.std(),
    "cdist": lambda a: torch.cdist(a, a + 1), "norm": lambda a: a.norm(), "cov": lambda a: a.cov(),
    "einsum": lambda a: torch.einsum("ij,kj->ik", a, a), "roll": lambda a: a.roll(1, 0), "flip": lambda a: a.flip(0),
    "bincount": lambda a: torch.bincount((a > 0).long().flatten()), "topk": lambda a: a.topk(2)[0],
    "logsumexp": lambda a: torch.logsumexp(a, 0), "nan_to_num": lambda a: torch.nan_to_num(a),
    "bucketize": lambda a: torch.bucketize(a, torch.tensor([0.0, 1.0]).to(a.device)),
    "kthvalue": lambda a: a.kthvalue(2)[0], "one_hot": lambda a: F.one_hot((a[0] > 0).long()),
    "bilinear": lambda a: F.interpolate(a[None, None], scale_factor=2, mode="bilinear"),
    "bicubic": lambda a: F.interpolate(a[None, None], scale_factor=2, mode="bicubic"),
    "reflect": lambda a: F.pad(a[None], (1, 1), mode="reflect"), "unfold": lambda a: F.unfold(a[None, None], 2),
    "cumprod": lambda a: torch.cumprod(a, 0), "diff": lambda a: a.diff(), "masked_select": lambda a: a[a > 0],
    "renorm": lambda a: torch.renorm(a, 2, 0, 1), "corrcoef": lambda a: torch.corrcoef(a),
    "isin": lambda a: torch.isin(a, a[0]), "complex": lambda a: (torch.complex(a, a + 1) * 2).abs(),
    "mean of a scatter": lambda a: a.scatter_reduce(0, torch.zeros(1, 5, dtype=torch.long).to(a.device), a[:1], "mean"),
    "logical": lambda a: (a > 0) & (a < 1) | ~(a == 0),
    "meshgrid": lambda a: torch.meshgrid(a[0], a[1], indexing="ij")[0],
    "block_diag": lambda a: torch.block_diag(a, a), "erfinv": lambda a: torch.erfinv(a.clamp(-0.9, 0.9)),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPOSED)
def test_composed_functions(name):
    a = torch.linspace(-2, 2, 20).reshape(4, 5).sin()
    same(COMPOSED[name](a.cuda()), COMPOSED[name](a), 1e-5)
