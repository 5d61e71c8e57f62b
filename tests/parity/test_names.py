"""What shows in the facade and on Tensor is what PyTorch has, too; dtypes and other constants under all its names."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import rushlight
from rushlight import _modules

torch = pytest.importorskip("torch")

ROOT = Path(__file__).parents[2]


def public(of):
    return {name for name in dir(of) if not name.startswith("_")}


@pytest.mark.parametrize("module", sorted(_modules.listed()))
def test_facade_shows_nothing_that_pytorch_lacks(module):
    ours, theirs = rushlight, torch
    for name in module.split(".")[1:]:
        ours, theirs = getattr(ours, name), getattr(theirs, name)
    assert public(ours) - public(theirs) == set()


def test_tensor_shows_nothing_that_pytorch_lacks():
    assert public(rushlight.Tensor) - public(torch.Tensor) == set()
    assert public(rushlight.nn.Parameter) - public(torch.nn.Parameter) == set()


def test_lists_are_those_of_this_pytorch():
    """In a process of its own: PyTorch shows more names when more of it has been imported."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.parity.pytorch_names", "--check"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert (answer.returncode, answer.stdout) == (0, ""), answer.stderr


ALIASES = [
    "float", "half", "double", "bfloat16", "float16", "float32", "float64", "int", "short", "long", "int8", "int16",
    "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool", "cfloat", "cdouble", "complex64", "complex128",
]  # fmt: skip
LABELS = ["strided", "contiguous_format", "preserve_format", "channels_last", "channels_last_3d"]
CLASSES = ["dtype", "Size", "device", "layout", "memory_format", "finfo", "iinfo"]
BAD_DEVICES = ["", ":1", "cuda:", "cuda:-1", "cuda:01", 1.5]


@pytest.mark.parametrize("name", ALIASES)
def test_dtype_is_pytorchs(name):
    ours, theirs = getattr(rushlight, name), getattr(torch, name)
    facts = ("itemsize", "is_floating_point", "is_complex", "is_signed")
    assert (str(ours), *(getattr(ours, f) for f in facts)) == (str(theirs), *(getattr(theirs, f) for f in facts))
    assert isinstance(ours, rushlight.dtype)
    assert repr(ours.to_real()) == repr(theirs.to_real())
    assert repr(rushlight.zeros(1, dtype=ours)) == repr(torch.zeros(1, dtype=theirs))
    if theirs is not torch.float16:  # complex32, which NumPy does not have
        outcomes = []
        for d in (ours, theirs):
            try:
                outcomes.append(repr(d.to_complex()))
            except RuntimeError as e:
                outcomes.append(str(e))
        assert outcomes[0] == outcomes[1]


def test_every_dtype_name_of_pytorch_is_there_or_known_to_be_missing():
    theirs = {name for name in dir(torch) if isinstance(getattr(torch, name), torch.dtype)}
    ours = {name for name in dir(rushlight) if isinstance(getattr(rushlight, name), rushlight.dtype)}
    kinds = ("q", "bit", "float8", "float4", "int", "uint", "complex32", "chalf")
    assert {n for n in theirs - ours if not n.startswith(kinds)} == set()
    assert ours == set(ALIASES)


@pytest.mark.parametrize("name", LABELS + CLASSES)
def test_constants_and_classes_print_as_pytorchs(name):
    assert repr(getattr(rushlight, name)) == repr(getattr(torch, name))


@pytest.mark.parametrize("name", ALIASES + LABELS + CLASSES)
def test_constants_survive_copies_and_pickling(name):
    thing = getattr(rushlight, name)
    assert pickle.loads(pickle.dumps(thing)) is thing
    assert copy.deepcopy(thing) is thing


@pytest.mark.parametrize("name", ["dtype", "layout", "memory_format"])
def test_constants_cannot_be_made(name):
    with pytest.raises(TypeError, match=f"cannot create 'torch.{name}' instances"):
        getattr(rushlight, name)()


def test_dtype_cannot_be_changed():
    for name, text in (("itemsize", "not writable"), ("tag", "has no attribute 'tag'")):
        with pytest.raises(AttributeError, match=text):
            setattr(rushlight.float32, name, 1)


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "float64", "complex64"])
def test_finfo_prints_as_pytorchs(name):
    assert repr(rushlight.finfo(getattr(rushlight, name))) == repr(torch.finfo(getattr(torch, name)))


@pytest.mark.parametrize("name", ["uint8", "int8", "int16", "int32", "int64", "uint16"])
def test_iinfo_prints_as_pytorchs(name):
    assert repr(rushlight.iinfo(getattr(rushlight, name))) == repr(torch.iinfo(getattr(torch, name)))


MISUSE = {
    "finfo of int": lambda m: m.finfo(m.int8),
    "iinfo of float": lambda m: m.iinfo(m.float32),
    "iinfo of bool": lambda m: m.iinfo(m.bool),
    "finfo of a number": lambda m: m.finfo(3),
    "dtype as text": lambda m: m.zeros(1, dtype="float32"),
    "dtype as number": lambda m: m.zeros(1, dtype=3),
    "dtype of tensor()": lambda m: m.tensor(1, dtype="int"),
    "default int": lambda m: m.set_default_dtype(m.int32),
    "default Python float": lambda m: m.set_default_dtype(float),
    "order": lambda m: m.float32 < m.float64,
    "size of floats": lambda m: m.Size([1.5]),
    **{f"device {text!r}": lambda m, text=text: m.device(text) for text in BAD_DEVICES},
    "device twice": lambda m: m.device("cuda:0", 1),
    "device negative": lambda m: m.device("cpu", -1),
}  # fmt: skip


@pytest.mark.parametrize("case", MISUSE.values(), ids=MISUSE)
def test_misuse_is_pytorchs_error(case):
    kinds = []
    for module in (rushlight, torch):
        with pytest.raises((TypeError, RuntimeError, ValueError)) as caught:
            case(module)
        kinds.append(caught.type)
    assert kinds[0] is kinds[1]


SIZES = (
    lambda m: m.Size((1, 2)) * 2,
    lambda m: 2 * m.Size((1, 2)),
    lambda m: m.Size([1]) + (2,),
    lambda m: (2,) + m.Size([1]),
    lambda m: m.Size([2, 3])[::-1],
    lambda m: m.Size([2, 3]) == (2, 3),
    lambda m: m.Size(m.tensor([2, 3])),
    lambda m: m.Size([2, 3]).numel(),
    lambda m: m.Size(),
)


@pytest.mark.parametrize("case", SIZES)
def test_sizes_are_tuples_as_pytorchs(case):
    assert repr(case(rushlight)) == repr(case(torch))


def test_python_types_name_dtypes():
    for kind in (float, int, bool, complex):
        assert str(rushlight.zeros(1, dtype=kind).dtype) == str(torch.zeros(1, dtype=kind).dtype)
