"""Files that PyTorch writes are read, and it reads ours: bit by bit, with shared memory and parameters."""

from __future__ import annotations

import collections
import io

import ml_dtypes
import numpy as np
import pytest

import rushlight_tensor as rl
from rushlight_nn import Parameter
from rushlight_tensor.core import dtypes
from rushlight_tensor.core.tensor import Tensor, wrap
from rushlight_tensor.files import FileFormatError, load_file, save_file

torch = pytest.importorskip("torch")


def torch_array(t):
    t = t.detach().resolve_conj().resolve_neg()
    if t.dtype == torch.bfloat16:
        return t.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return t.numpy()


def assert_same(theirs, ours, place=""):
    """Equal in structure, types and bits."""
    if isinstance(theirs, torch.Tensor):
        want, got = torch_array(theirs), ours._array
        assert (got.dtype, got.shape, got.tobytes()) == (want.dtype, want.shape, want.tobytes()), place
        assert theirs.requires_grad == ours.requires_grad, place
        assert isinstance(theirs, torch.nn.Parameter) == isinstance(ours, Parameter), place
        return
    if isinstance(theirs, dict):
        assert type(theirs) is type(ours), place
        assert list(theirs) == list(ours), place
        assert getattr(theirs, "_metadata", None) == getattr(ours, "_metadata", None), place
        for key in theirs:
            assert_same(theirs[key], ours[key], f"{place}[{key!r}]")
    elif isinstance(theirs, (list, tuple)):
        assert type(theirs).__name__ == type(ours).__name__, place
        assert len(theirs) == len(ours), place
        for i, (a, b) in enumerate(zip(theirs, ours, strict=True)):
            assert_same(a, b, f"{place}[{i}]")
    elif isinstance(theirs, (torch.dtype, torch.device)):
        assert repr(theirs) == repr(ours), place
    else:
        assert (type(theirs), theirs) == (type(ours), ours), place


def training():
    """A model, its optimizers and schedulers, after a step."""
    torch.manual_seed(0)
    nn = torch.nn
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
    kinds = [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.Adagrad]
    options = [{"momentum": 0.9}, {}, {"amsgrad": True}, {"centered": True}, {}]
    optimizers = [kind(net.parameters(), lr=0.01, **o) for kind, o in zip(kinds, options, strict=True)]
    net(torch.rand(2, 1, 4, 4)).sum().backward()
    for optimizer in optimizers:
        optimizer.step()
    lr = torch.optim.lr_scheduler
    schedulers = [lr.MultiStepLR(optimizers[0], [2, 4]), lr.StepLR(optimizers[1], 3)]
    return [x.state_dict() for x in (net, *optimizers, *schedulers)]


def everything():
    base = torch.arange(6.0).reshape(2, 3)
    named = [getattr(torch, d.name) for d in dtypes.ALL]
    return {
        "training": training(),
        "dtypes": [torch.arange(4).to(d) for d in named] + named,
        "views": [base, base[1], base.t(), base[:, 1:], base[:0], base[0, 0]],
        "parameters": [torch.nn.Parameter(base), torch.nn.Parameter(base, requires_grad=False)],
        "grad": torch.ones(2, requires_grad=True),
        "expanded": torch.ones(1).expand(3, 2),
        "empty": [torch.zeros(0), torch.zeros(2, 0, 3)],
        "plain": [None, True, 0, 255, 256, -1, 2**31, 2**70, -(2**70), 1.5, 1j, "ü", b"", b"\xff", {1, 2}],
        "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
        "counter": collections.Counter("aab"),
        "size": base.shape,
        "device": [torch.device("cpu"), torch.device("cuda", 1)],
        "conjugate": torch.tensor([1 + 2j]).conj(),
        "negative": torch.tensor([1 + 2j]).conj().imag,
    }


def test_we_read_what_pytorch_writes():
    file = io.BytesIO()
    torch.save(everything(), file)
    file.seek(0)
    ours = rl.load(file)
    assert_same(everything(), ours)
    for view in ours["views"][1:4]:
        assert np.shares_memory(view._array, ours["views"][0]._array)


def test_pytorch_reads_what_we_write(tmp_path):
    file = io.BytesIO()
    torch.save(everything(), file)
    file.seek(0)
    ours = rl.load(file)
    rl.save(ours, tmp_path / "ours.pt")
    for mmap in (False, True):
        theirs = torch.load(tmp_path / "ours.pt", weights_only=True, mmap=mmap)
        assert_same(theirs, ours)
    theirs["views"][0][1] = 9
    assert theirs["views"][1].tolist() == [9, 9, 9]
    assert theirs["views"][2][:, 1].tolist() == [9, 9, 9]
    assert theirs["views"][0].stride() == (3, 1)
    assert theirs["views"][2].stride() == (1, 3)


def test_a_model_goes_there_and_back_through_files(tmp_path):
    net = torch.nn.Linear(3, 2)
    torch.save(net.state_dict(), tmp_path / "a.pt")
    state = rl.load(tmp_path / "a.pt")
    state["weight"]._array[...] *= 2
    rl.save(state, tmp_path / "b.pt")
    other = torch.nn.Linear(3, 2)
    other.load_state_dict(torch.load(tmp_path / "b.pt"))
    assert torch.equal(other.weight, net.weight * 2)
    assert torch.equal(other.bias, net.bias)


def test_parameters_are_parameters_on_both_sides():
    file = io.BytesIO()
    rl.save({"p": Parameter(rl.ones(2)), "frozen": Parameter(rl.ones(2), requires_grad=False)}, file)
    file.seek(0)
    theirs = torch.load(file)
    assert isinstance(theirs["p"], torch.nn.Parameter)
    assert theirs["p"].requires_grad
    assert not theirs["frozen"].requires_grad
    file.seek(0)
    assert_same(theirs, rl.load(file))


@pytest.mark.parametrize(
    ("save", "words"),
    [
        (lambda f: torch.save(torch.nn.Linear(2, 2), f), "torch.nn.modules.linear.Linear"),
        (lambda f: torch.save([torch.ones(2)], f, _use_new_zipfile_serialization=False), "from before version 1.6"),
        (lambda f: torch.save([np.float64(1)], f), "numpy._core.multiarray.scalar"),
        (lambda f: torch.save(torch.ones(2).to_sparse(), f), "_rebuild_sparse_tensor"),
        (lambda f: torch.save({"a": torch.ones(2)}, f, pickle_protocol=4), "pickle protocol 4"),
        (lambda f: torch.jit.save(torch.jit.script(torch.nn.ReLU()), f), "TorchScript archive"),
        (lambda f: torch.save(torch.ones(2).untyped_storage(), f), "bare storage"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_what_needs_more_than_tensors_is_refused(save, words):
    file = io.BytesIO()
    save(file)
    file.seek(0)
    with pytest.raises(FileFormatError) as error:
        rl.load(file)
    assert words in str(error.value)


def test_tensors_of_a_gpu_need_map_location_without_one(monkeypatch):
    file = io.BytesIO()
    rl.save(rl.ones(2), file)
    on_cuda = io.BytesIO(_relocated(file.getvalue()))
    if not rl.cuda.is_available():
        with pytest.raises(RuntimeError, match="Attempting to deserialize object on a CUDA device"):
            rl.load(on_cuda)
    for where in ("cpu", {"cuda:0": "cpu"}, lambda storage, location: storage):
        on_cuda.seek(0)
        assert rl.load(on_cuda, where).tolist() == [1, 1]
        on_cuda.seek(0)
        assert torch.load(on_cuda, where).tolist() == [1, 1]


def _relocated(data):
    """The same archive, saying that its tensors were on a GPU."""
    from rushlight_tensor.files.pickler import Call
    from tests.files.build import FLOATS, REBUILD, archive, pickled, storage

    where = storage(count=2, kind=FLOATS, where="cuda:0")
    pickle = pickled(Call(REBUILD, (where, 0, (2,), (1,), False, collections.OrderedDict())))
    return archive(pickle, {"0": np.ones(2, np.float32).tobytes()})


def test_safetensors_of_pytorch(tmp_path):
    st = pytest.importorskip("safetensors.torch")
    kinds = [d.name for d in dtypes.ALL if d.name != "complex128"]
    theirs = {name: torch.arange(6).reshape(2, 3).to(getattr(torch, name)) for name in kinds}
    st.save_file(theirs, tmp_path / "theirs")
    ours = load_file(tmp_path / "theirs")
    assert all(isinstance(t, Tensor) for t in ours.values())
    for name, tensor in theirs.items():
        assert_same(tensor, ours[name], name)
    save_file(ours, tmp_path / "ours")
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    assert_same(st.load_file(tmp_path / "ours"), load_file(tmp_path / "ours"))
    save_file({"a": wrap(np.zeros(0))}, tmp_path / "ours")
    assert st.load_file(tmp_path / "ours")["a"].shape == (0,)
