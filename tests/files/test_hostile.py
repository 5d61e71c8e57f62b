"""Damaged and hostile files: always our own error, bounded memory, never a line of their code."""

from __future__ import annotations

import io
import pathlib
import subprocess
import sys
import tracemalloc

import pytest

from rushlight_tensor.files import FileFormatError, load, load_file, save_file
from tests.files.build import mutations, same, saved, state
from tests.files.hostile import PAYLOADS, PT, SAFETENSORS

MUTATIONS = 2000
ROOT = pathlib.Path(__file__).parents[2]


def refused_within_memory(read, size):
    tracemalloc.start()
    try:
        with pytest.raises(FileFormatError) as error:
            read()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 2 * size + (32 << 20)
    return str(error.value)


def test_there_is_enough_to_refuse():
    assert len(PT) >= 100
    assert len(SAFETENSORS) >= 40
    assert len(PAYLOADS) >= 40


@pytest.mark.parametrize("name", PT)
def test_hostile_pt_files_are_refused(name):
    data = PT[name]
    message = refused_within_memory(lambda: load(io.BytesIO(data)), len(data))
    assert message.startswith("BytesIO: ")
    assert len(message) < 500


@pytest.mark.parametrize("name", SAFETENSORS)
def test_hostile_safetensors_files_are_refused(name, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(SAFETENSORS[name])
    message = refused_within_memory(lambda: load_file(path), path.stat().st_size)
    assert message.startswith(f"{path}: ")
    assert len(message) < 500


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("payload: system protocol 2", "refers to posix.system, which a file of tensors does not need"),
        ("module", "refers to torch.nn.modules.linear.Linear"),
        ("format before 1.6", "open it in PyTorch and save it again"),
        ("compressed bomb", "compressed or encrypted, which torch.save never does"),
        ("big-endian", "its byte order is b'big'"),
        ("TorchScript", "TorchScript archive, made by torch.jit.save"),
        ("pickle protocol 5", "it has pickle protocol 5, PyTorch's default is 2"),
        ("half", "the directory at its end is missing"),
        ("wrong checksum", "record 'archive/data.pkl' is damaged"),
        ("size too large", "reaches beyond its storage of 4 elements"),
    ],
)
def test_messages_say_what_was_found(name, words):
    with pytest.raises(FileFormatError) as error:
        load(io.BytesIO(PT[name]))
    assert words in str(error.value)


def test_mutated_pt_files_are_equal_or_refused():
    original = state()
    refused = 0
    for data in mutations(saved(original), MUTATIONS):
        try:
            assert same(load(io.BytesIO(data)), original)
        except FileFormatError:
            refused += 1
    assert refused > MUTATIONS // 2


def test_mutated_pickles_inside_whole_archives_are_loaded_or_refused():
    from tests.files.build import archive

    data = saved({"w": state()["alias"], "plain": state()["plain"], "weights": state()["weights"]})
    pickle = data[64 : data.index(b"PK\3\4", 4)]
    for broken in mutations(pickle, MUTATIONS, seed=1):
        try:
            load(io.BytesIO(archive(broken, {"0": b"\0" * 96, "1": b"\0" * 10})))
        except FileFormatError:
            continue


def test_mutated_safetensors_files_are_loaded_or_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    tensors = {k: v for k, v in state()["dtypes"].items() if k != "complex128"}
    save_file(tensors, path, {"step": "3"})
    for data in mutations(path.read_bytes(), MUTATIONS // 2):
        path.write_bytes(data)
        try:
            load_file(path)
        except FileFormatError:
            continue


def test_one_flipped_bit_is_found():
    original = {"w": state()["alias"]}
    data = saved(original)
    start = data.index(original["w"]._array.tobytes())
    for i in range(0, 8 * original["w"]._array.nbytes, 7):
        broken = bytearray(data)
        broken[start + i // 8] ^= 1 << i % 8
        with pytest.raises(FileFormatError, match="record 'archive/data/0' is damaged"):
            load(io.BytesIO(broken))


WATCHED = """
import io, sys
from rushlight_tensor.files import FileFormatError, load, load_file
from tests.files.build import saved, state
from tests.files.hostile import PT, SAFETENSORS

whole, hits, watching = saved(state()), [], False
def hook(event, args):
    forbidden = ("pickle", "marshal", "exec", "compile", "import", "os.", "subprocess", "socket", "shutil", "ctypes")
    if watching and event.startswith(forbidden):
        hits.append((event, args))
load(io.BytesIO(whole))
sys.addaudithook(hook)
watching = True
load(io.BytesIO(whole))
for data in PT.values():
    try:
        load(io.BytesIO(data))
    except FileFormatError:
        pass
watching = False
print(len(PT), hits)
"""


def test_nothing_is_imported_compiled_or_run_while_loading():
    done = subprocess.run([sys.executable, "-c", WATCHED], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == f"{len(PT)} []\n", done.stderr
