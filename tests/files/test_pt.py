"""`.pt` files: what is saved comes back, bit by bit, with shared memory still shared."""

from __future__ import annotations

import io
import os
import pathlib
import zipfile
from collections import OrderedDict, defaultdict

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rushlight_tensor as torch
from rushlight_tensor.core.tensor import wrap
from rushlight_tensor.files import FileFormatError, load, save
from tests.files.build import NUMPY_DTYPES, array_of, same, saved, state

WRITTEN_BY_TORCH = pathlib.Path(__file__).parent / "written_by_torch_2.13.pt"


def again(obj):
    return load(io.BytesIO(saved(obj)))


def test_everything_that_a_file_holds_comes_back():
    assert same(state(), again(state()))


@st.composite
def arrays(draw):
    shape = draw(st.lists(st.integers(0, 4), max_size=6))
    array = array_of(draw(st.sampled_from(NUMPY_DTYPES)), shape, draw(st.integers(0, 2**16)))
    if draw(st.booleans()):
        array = array.transpose(draw(st.permutations(range(array.ndim))))
    if array.ndim and draw(st.booleans()):
        array = array[draw(st.integers(0, 2)) :: draw(st.sampled_from((1, 2, -1)))]
    return wrap(array)


NAMES = st.one_of(st.text(max_size=8), st.integers(), st.none(), st.booleans())
KEYS = st.one_of(NAMES, st.tuples(st.integers(), st.text(max_size=3)))
NUMBERS = st.one_of(st.integers(), st.floats(allow_nan=False), st.complex_numbers(allow_nan=False))
PLAIN = st.one_of(NAMES, NUMBERS, st.text(), st.binary(max_size=20))
OBJECTS = st.recursive(
    st.one_of(PLAIN, arrays()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=5).map(tuple),
        st.dictionaries(KEYS, inner, max_size=4),
        st.dictionaries(KEYS, inner, max_size=4).map(OrderedDict),
        st.sets(KEYS, max_size=4),
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(OBJECTS)
def test_any_nesting_comes_back(obj):
    assert same(obj, again(obj))


def test_a_file_that_pytorch_wrote():
    found = load(WRITTEN_BY_TORCH)
    assert list(found) == ["f", "row", "bf16", "int", "parameter", "state", "conj", "u16", "counter", "size", "dtype"]
    assert found["f"].tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    found["f"]._array[1] = 9
    assert found["row"].tolist() == [9.0, 9.0, 9.0]
    assert found["bf16"]._array.tobytes() == np.array([1.5, -2.0], ml_dtypes.bfloat16).tobytes()
    assert found["int"].tolist() == [[1, 3], [2, 4]]
    assert found["int"]._array.strides == (8, 16)
    assert found["parameter"].requires_grad
    assert found["state"]["state"][0]["step"].item() == 1.0
    assert found["conj"].tolist() == [1 - 2j]
    assert found["u16"]._array.dtype == np.uint16
    assert found["counter"] == {2: 1, 4: 2}
    assert repr(found["size"]) == "torch.Size([2, 3])"
    assert found["dtype"] is torch.bfloat16


def test_tensors_that_share_memory_share_it_again():
    base = torch.zeros(4, 4)
    back = again({"base": base, "row": base[1], "again": base, "other": torch.zeros(4, 4)})
    assert back["base"] is back["again"]
    back["base"]._array[1] = 7
    assert back["row"].tolist() == [7] * 4
    assert back["other"]._array.sum() == 0


def test_pieces_of_one_buffer_that_do_not_overlap_are_separate_storages():
    base = torch.zeros(1000, 1000)
    data = saved([base[3:5], base[4:6], base[10]])
    assert len(data) < 20_000
    first, second, third = load(io.BytesIO(data))
    first._array[1] = 5
    assert second[0, 0].item() == 5
    assert third._array.sum() == 0


def test_one_memory_under_two_dtypes_is_refused():
    array = np.zeros(4, np.float32)
    with pytest.raises(RuntimeError, match="view the same data as different types: float32 and int32"):
        saved([wrap(array), wrap(array.view(np.int32))])


def test_requires_grad_is_kept():
    back = again([torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True) * 2])
    assert back[0].requires_grad
    assert back[0].is_leaf
    assert back[1].is_leaf


def test_strings_and_containers_that_are_one_object_stay_one():
    inner = [1]
    back = again({"a": inner, "b": inner, "name": "name"})
    assert back["a"] is back["b"]
    loop = []
    loop.append(loop)
    back = again(loop)
    assert back[0] is back


def test_records_lie_at_multiples_of_64_bytes_and_every_zip_reader_opens_the_file():
    data = saved(state())
    with zipfile.ZipFile(io.BytesIO(data)) as z:
        assert z.testzip() is None
        names = z.namelist()
        for info in z.infolist():
            name_size, extra_size = np.frombuffer(data, "<u2", 2, info.header_offset + 26).tolist()
            assert (info.header_offset + 30 + name_size + extra_size) % 64 == 0
    assert names[:2] == ["archive/data.pkl", "archive/byteorder"]
    assert names[-1] == "archive/version"


def test_the_same_object_makes_the_same_file():
    assert saved(state()) == saved(state())


def test_files_larger_than_32_bits_have_64_bit_sizes(monkeypatch):
    from rushlight_tensor.files import archive

    monkeypatch.setattr(archive, "_MAX32", 500)  # sizes from here on are written the long way
    assert same(state(), again(state()))


class ReadOnly:
    """A file object with nothing but what is asked for."""

    def __init__(self, data):
        self._file = io.BytesIO(data)
        self.read, self.seek = self._file.read, self._file.seek


def test_file_objects_and_paths(tmp_path):
    path = tmp_path / "state.pt"
    save(state(), path)
    assert same(load(path), state())
    assert same(load(str(path)), state())
    with open(path, "rb") as file:
        assert same(load(file), state())
    assert same(load(ReadOnly(path.read_bytes())), state())
    with open(tmp_path / "b.pt", "wb") as file:
        file.write(b"")
        save(state(), file)
    assert (tmp_path / "b.pt").read_bytes() == path.read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["b.pt", "state.pt"]


@pytest.mark.parametrize(
    "where", ["cpu", torch.device("cpu"), {"cpu": "cpu"}, {"cuda:0": "cpu"}, lambda storage, location: storage, None]
)
def test_map_location(where):
    assert again([torch.ones(2)])[0].device == torch.device("cpu")
    assert load(io.BytesIO(saved(torch.ones(2))), where).device == torch.device("cpu")


@pytest.mark.parametrize(
    ("obj", "error", "words"),
    [
        ({"a": [1, lambda: 0]}, TypeError, r"cannot save state\['a'\]\[1\]: it is a builtins.function"),
        ({"a": np.float64(1)}, TypeError, r"state\['a'\]: it is a NumPy float64; convert it with .item\(\)"),
        (np.zeros(2), TypeError, "convert it with torch.from_numpy"),
        ({"a": defaultdict(int)}, TypeError, "collections.defaultdict"),
        ({frozenset(): 1}, TypeError, "a frozenset is no key of a dictionary here"),
        (2**3000, ValueError, "an integer of 376 bytes, 255 fit"),
        (OrderedDict, TypeError, "builtins.type"),
    ],
)
def test_what_cannot_be_saved_is_named_with_its_place(obj, error, words, tmp_path):
    path = tmp_path / "x.pt"
    save("old", path)
    with pytest.raises(error, match=words):
        save(obj, path)
    assert load(path) == "old"
    assert os.listdir(tmp_path) == ["x.pt"]


def test_data_nested_too_deep_is_refused():
    deep = []
    for _ in range(1000):
        deep = [deep]
    with pytest.raises(ValueError, match="nested beyond 200, or in itself"):
        saved(deep)


def test_arguments_that_would_run_code_are_refused(tmp_path):
    path = tmp_path / "x.pt"
    save(1, path)
    assert load(path, None, weights_only=None) == 1
    with pytest.raises(ValueError, match="weights_only=False would run code"):
        load(path, weights_only=False)
    with pytest.raises(ValueError, match="without pickle, got"):
        load(path, pickle_module=io)


def test_wrong_arguments():
    with pytest.raises(TypeError, match="expected a path or a seekable file object, got int"):
        load(3)
    with pytest.raises(TypeError, match="expected a path or a file object, got int"):
        save(1, 3)
    with pytest.raises(FileNotFoundError):
        load("/nowhere/at/all.pt")
    assert issubclass(FileFormatError, RuntimeError)
