"""safetensors: the same bytes as the reference library writes, and what it writes is read."""

from __future__ import annotations

import os

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rushlight_tensor as torch
from rushlight_tensor.core.tensor import wrap
from rushlight_tensor.files import load_file, read_metadata, save_file
from rushlight_tensor.files.safetensors import _NAMES
from tests.files.build import array_of, same

LIBRARY_DTYPES = [name for name in _NAMES if name not in ("bfloat16", "complex64")]


def dtype(name):
    return getattr(torch, name).np


@st.composite
def named_arrays(draw, names=tuple(_NAMES)):
    shapes = st.lists(st.integers(0, 4), max_size=5)
    keys = draw(st.lists(st.text(max_size=10).filter(lambda k: k != "__metadata__"), unique=True, max_size=5))
    return {k: array_of(dtype(draw(st.sampled_from(names))), draw(shapes), draw(st.integers(0, 99))) for k in keys}


ONE_FOLDER = [HealthCheck.function_scoped_fixture]  # every example overwrites the file of the one before
QUICK = settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=ONE_FOLDER)


@QUICK
@given(named_arrays())
def test_any_tensors_come_back(tmp_path, arrays):
    tensors = {k: wrap(a) for k, a in arrays.items()}
    save_file(tensors, tmp_path / "x", {"step": "3"})
    back = load_file(tmp_path / "x")
    assert set(back) == set(tensors)
    assert all(same(back[k], tensors[k]) for k in tensors)
    assert read_metadata(tmp_path / "x") == {"step": "3"}


@QUICK
@given(named_arrays(LIBRARY_DTYPES))
def test_the_bytes_are_those_of_the_reference_library(tmp_path, arrays):
    save_file({k: wrap(a) for k, a in arrays.items()}, tmp_path / "ours", {"a": "b"})
    safetensors.numpy.save_file(arrays, tmp_path / "theirs", {"a": "b"})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    found = load_file(tmp_path / "theirs")
    assert all(found[k]._array.tobytes() == a.tobytes() for k, a in arrays.items())


def test_the_reference_library_opens_bfloat16(tmp_path):
    save_file({"a": wrap(array_of(dtype("bfloat16"), (2, 3)))}, tmp_path / "x")
    (entry,) = safetensors.deserialize((tmp_path / "x").read_bytes())
    assert entry[1]["dtype"] == "BF16"
    assert entry[1]["shape"] == [2, 3]


def test_views_are_written_as_they_look(tmp_path):
    base = np.arange(12.0).reshape(3, 4)
    save_file({"t": wrap(base.T), "r": wrap(base[::-1, 1:3])}, tmp_path / "x")
    back = load_file(tmp_path / "x")
    np.testing.assert_array_equal(back["t"].numpy(), base.T)
    np.testing.assert_array_equal(back["r"].numpy(), base[::-1, 1:3])


@pytest.mark.parametrize(
    ("tensors", "metadata", "words"),
    [
        ({1: torch.zeros(1)}, None, "1 is no name of a tensor; use a string"),
        ({"__metadata__": torch.zeros(1)}, None, "'__metadata__' is no name of a tensor"),
        ({"a": np.zeros(1)}, None, "'a' must be a Tensor, got ndarray"),
        ({"a": torch.zeros(1, dtype=torch.complex128)}, None, "complex128, which safetensors cannot hold; convert it"),
        ({}, {"step": 3}, "metadata must be strings by strings"),
    ],
)
def test_mistakes_are_named_and_write_nothing(tensors, metadata, words, tmp_path):
    with pytest.raises(TypeError, match=words):
        save_file(tensors, tmp_path / "x", metadata)
    assert os.listdir(tmp_path) == []
