"""Saving is all or nothing: killed, without space or with a failing disk, the old file stays whole."""

from __future__ import annotations

import errno
import io
import os
import pathlib
import random
import resource
import signal
import stat
import subprocess
import sys
import time

import pytest

import rushlight_tensor as torch
from rushlight_tensor.files import atomic, load, load_file, save, save_file

ROOT = pathlib.Path(__file__).parents[2]
KILLS = 8

ENDLESS = """
import sys
import rushlight_tensor as torch
from rushlight_tensor.files import save
path, n = sys.argv[1], 0
while True:
    save({"n": n, "tensors": [torch.full((40_000,), float(n)) for _ in range(4)]}, path)
    n += 1
    if n == 1:
        print("saved", flush=True)
"""


def whole(path):
    found = load(path)
    assert all((t._array == found["n"]).all() for t in found["tensors"])
    return found["n"]


def test_killed_at_random_times_the_last_file_loads(tmp_path):
    rng, path = random.Random(0), tmp_path / "state.pt"
    for _ in range(KILLS):
        child = subprocess.Popen([sys.executable, "-c", ENDLESS, path], cwd=ROOT, stdout=subprocess.PIPE)
        assert child.stdout.readline() == b"saved\n"
        time.sleep(rng.uniform(0, 0.05))
        child.kill()
        child.wait()
        child.stdout.close()
        whole(path)
    save({"n": -1, "tensors": []}, path)
    assert whole(path) == -1


KILLED_AT = """
import os, signal, sys
import rushlight_tensor as torch
from rushlight_tensor.files import save
path, call, when = sys.argv[1:]
save({"n": 1, "tensors": [torch.full((1000,), 1.0)]}, path)
original = getattr(os, call)
def killed(*args, **kwargs):
    if when == "after":
        original(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(os, call, killed)
save({"n": 2, "tensors": [torch.full((1000,), 2.0)]}, path)
"""


@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_each_system_call_the_old_or_the_new_file_is_whole(call, when, tmp_path):
    path = tmp_path / "state.pt"
    done = subprocess.run([sys.executable, "-c", KILLED_AT, path, call, when], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert whole(path) == (2 if (call, when) == ("replace", "after") else 1)


@pytest.mark.parametrize("writer", [save, save_file])
def test_no_space_leaves_the_old_file_and_nothing_else(writer, tmp_path):
    path = tmp_path / "state"
    path.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # the closest to a full disk without being root
    try:
        with pytest.raises(OSError, match="File too large"):
            writer({"a": torch.zeros(300_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["state"]


@pytest.mark.parametrize("call", ["fsync", "link", "replace", "fchmod"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_failing_disk_leaves_the_old_file_and_nothing_else(call, code, tmp_path, monkeypatch):
    path = tmp_path / "state.pt"
    save("old", path)

    def fails(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fails)
        if call == "link" and not _has_nameless_files(tmp_path):
            pytest.skip("needs a file system with O_TMPFILE, found none")
        with pytest.raises(OSError, match=os.strerror(code)):
            save("new", path)
    assert load(path) == "old"
    assert os.listdir(tmp_path) == ["state.pt"]


def _has_nameless_files(folder):
    try:
        os.close(os.open(folder, os.O_TMPFILE | os.O_WRONLY))
    except (OSError, AttributeError):
        return False
    return True


def test_without_nameless_files_a_temporary_one_does(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    path = tmp_path / "state.pt"
    save(1, path)
    with pytest.raises(TypeError), atomic.atomic_write(path) as file:
        file.writelines([b"half", None])
    assert load(path) == 1
    assert os.listdir(tmp_path) == ["state.pt"]


def test_permissions_and_links_are_kept(tmp_path):
    path, link = tmp_path / "state.pt", tmp_path / "link.pt"
    mask = os.umask(0o027)
    try:
        save(1, path)
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.chmod(0o604)
    link.symlink_to(path)
    save(2, link)
    assert link.is_symlink()
    assert load(path) == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o604


def test_folders_that_are_not_there_or_not_writable(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"parent directory does not exist; make it first: '.*/no'$"):
        save(1, tmp_path / "no" / "state.pt")
    with pytest.raises(IsADirectoryError):
        save(1, tmp_path)
    assert os.listdir(tmp_path) == []


def test_pipes_and_devices_are_written_directly():
    save(1, "/dev/null")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_file_object_that_fails_passes_its_error_on():
    class Full(io.RawIOBase):
        def write(self, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left"):
        save(torch.zeros(3), Full())


def test_a_damaged_file_is_not_touched_by_loading(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(3)}, path)
    before = path.read_bytes()
    assert load_file(path)["a"].tolist() == [0, 0, 0]
    assert path.read_bytes() == before
