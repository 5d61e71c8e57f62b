"""The cache of compiled libraries loads nothing that another user could have put there."""

import ctypes
import os
import shutil
import stat
import subprocess
import tempfile
import time
from hashlib import sha256
from pathlib import Path

import pytest

from rushlight_tensor.kernels.cache import Folder, UntrustedFolder
from rushlight_tensor.kernels.compile import find_compiler
from tests.kernels.test_compile import finish, needs_compiler, start

RIGHT = "[0.0, 2.0, 4.0, 6.0]"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
NOBODY = 65534


def seal(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()[:32]


@pytest.fixture(scope="module")
def hostile_library(tmp_path_factory):
    """A library that leaves a mark when it is loaded, and the mark."""
    folder = tmp_path_factory.mktemp("hostile")
    made, mark = folder / "hostile.so", folder / "loaded"
    text = f'#include <stdio.h>\n__attribute__((constructor)) void run(void) {{ fclose(fopen("{mark}", "w")); }}\n'
    command = [*find_compiler().command, "-shared", "-fPIC", "-x", "c", "-", "-o", str(made)]
    subprocess.run(command, input=text.encode(), check=True)
    return made, mark


@pytest.fixture
def hostile(hostile_library):
    hostile_library[1].unlink(missing_ok=True)
    return hostile_library


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    """What the name of the real library begins with; anybody can work it out."""
    folder = tmp_path_factory.mktemp("real")
    finish(start(folder / "cache"))
    (library,) = (folder / "cache").glob("*.so")
    return library.name.split("-")[0]


def plant(hostile: Path, cache: Path, key: str) -> Path:
    """Put the hostile library where the real one would be, under the name that is right for its bytes."""
    cache.mkdir(mode=0o700, exist_ok=True)
    planted = cache / f"{key}-{seal(hostile)}.so"
    shutil.copy(hostile, planted)
    planted.chmod(0o700)
    return planted


def refused(tmp_path, cache, why):
    """A program that warns once, does not use the cache and builds in the folder for temporary files."""
    before = sorted(os.listdir(cache))
    out, err = finish(start(cache, TMPDIR=str(tmp_path)))
    assert out == RIGHT
    assert err.count("UserWarning") == 1
    assert f"rushlight does not use its kernel cache: {cache} {why}" in err
    assert "name a folder of your own with RUSHLIGHT_CACHE" in err
    assert sorted(os.listdir(cache)) == before
    temporary = tmp_path / f"rushlight-{os.geteuid()}"
    assert len(list(temporary.glob("*.so"))) == 1
    assert stat.S_IMODE(temporary.stat().st_mode) == 0o700


@needs_compiler
@pytest.mark.parametrize("mode", [0o777, 0o720, 0o755])
def test_planted_library_in_a_wide_folder_is_not_loaded(tmp_path, hostile, key, mode):
    library, mark = hostile
    plant(library, tmp_path / "cache", key)
    (tmp_path / "cache").chmod(mode)
    refused(tmp_path, tmp_path / "cache", f"has mode {mode:04o}")
    assert not mark.exists()


@needs_root
@needs_compiler
def test_planted_library_in_another_users_folder_is_not_loaded(tmp_path, hostile, key):
    library, mark = hostile
    planted = plant(library, tmp_path / "cache", key)
    for path in (planted, tmp_path / "cache"):
        os.chown(path, NOBODY, NOBODY)
    refused(tmp_path, tmp_path / "cache", f"belongs to uid {NOBODY}")
    assert not mark.exists()


@needs_compiler
def test_planted_library_behind_a_link_is_not_loaded(tmp_path, hostile, key):
    library, mark = hostile
    plant(library, tmp_path / "real", key)
    (tmp_path / "cache").symlink_to(tmp_path / "real")
    refused(tmp_path, tmp_path / "cache", "is a symbolic link")
    assert not mark.exists()


@needs_compiler
def test_link_above_the_folder_is_followed(tmp_path):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "home").symlink_to(tmp_path / "scratch")
    assert finish(start(tmp_path / "home" / "cache")) == (RIGHT, "")
    assert len(list((tmp_path / "scratch" / "cache").glob("*.so"))) == 1


@needs_compiler
def test_temporary_folder_made_by_somebody_else_is_not_used_either(tmp_path, hostile, key):
    library, mark = hostile
    temporary = tmp_path / f"rushlight-{os.geteuid()}"
    plant(library, temporary, key)
    temporary.chmod(0o777)
    blocked = tmp_path / "file"
    blocked.write_text("a file where the cache folder would have to be")
    out, err = finish(start(blocked / "cache", TMPDIR=str(tmp_path)))
    assert out == "numpy"
    assert "has mode 0777" in err
    assert "slower" in err
    assert not mark.exists()


def given_to_nobody(path):
    os.chown(path, NOBODY, NOBODY)


def writable_by_the_group(path):
    path.chmod(0o720)


def writable_by_all(path):
    path.chmod(0o702)


def a_link(path):
    path.rename(path.parent / "moved")
    path.symlink_to("moved")


def a_pipe(path):
    path.unlink()
    os.mkfifo(path)


def a_folder(path):
    path.unlink()
    path.mkdir()


def damaged(path):
    path.write_bytes(path.read_bytes()[:-1] + b"?")


@needs_compiler
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(given_to_nobody, marks=needs_root),
        writable_by_the_group, writable_by_all, a_link, a_pipe, a_folder, damaged,
    ],
)  # fmt: skip
def test_file_that_may_not_be_ours_is_built_again(tmp_path, hostile, key, change):
    library, mark = hostile
    cache = tmp_path / "cache"
    planted = plant(library, cache, key)
    change(planted)
    assert finish(start(cache)) == (RIGHT, "")
    assert not mark.exists()
    assert [path.name for path in cache.glob("*.so") if not path.is_dir()] != [planted.name]


@needs_compiler
def test_a_planted_library_would_be_loaded_were_the_folder_ours(tmp_path, hostile, key):
    """The tests above can fail: only the folder and the file's owner and mode speak against the planted file."""
    library, mark = hostile
    plant(library, tmp_path / "cache", key)
    start(tmp_path / "cache").communicate(timeout=120)
    assert mark.exists()


@needs_compiler
@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_what_is_written_is_the_users_alone_whatever_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        assert finish(start(tmp_path / "cache")) == (RIGHT, "")
    finally:
        os.umask(before)
    for path in (tmp_path / "cache", *(tmp_path / "cache").iterdir()):
        assert not path.stat().st_mode & 0o077
    (library,) = (tmp_path / "cache").glob("*.so")
    written = library.stat().st_mtime_ns
    assert finish(start(tmp_path / "cache")) == (RIGHT, "")
    assert library.stat().st_mtime_ns == written  # found, not built again


def test_path_that_changes_hands_after_it_was_opened_does_not_matter(tmp_path):
    path, theirs = tmp_path / "cache", tmp_path / "theirs"
    with Folder(path, create=True) as folder:
        path.rename(tmp_path / "moved")
        theirs.mkdir()
        path.symlink_to(theirs)
        loaded = []

        def make(where, name):
            (where / name).write_text("made")

        def load(library):
            loaded.append(Path(library).read_text())
            return ctypes.CDLL(None)

        with folder.one_builder("key"):
            folder.build("key", make, load)
        assert folder.find("key", load)
    assert loaded == ["made", "made"]
    assert not list(theirs.iterdir())
    assert [file.suffix for file in (tmp_path / "moved").iterdir()] == [".so"]


def test_missing_folder_is_made_only_where_that_is_wanted(tmp_path):
    with pytest.raises(FileNotFoundError):
        Folder(tmp_path / "a" / "b")
    with Folder(tmp_path / "a" / "b", create=True) as folder:
        assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UntrustedFolder, match="symbolic link"):
        Folder(tmp_path / "dangling", create=True)
    assert not (tmp_path / "nowhere").exists()


@needs_root
def test_folder_of_root_is_no_exception_for_other_users():
    shared = Path(tempfile.mkdtemp(dir="/tmp"))  # pytest's own folders are closed to other users
    shared.chmod(0o755)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.seteuid(NOBODY)
            Folder(shared)
        except UntrustedFolder as error:
            status = 0 if "belongs to uid 0" in str(error) else 2
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    shared.rmdir()
    assert status == 0


def test_folder_that_another_process_builds_in_is_left_alone_until_it_is_old(tmp_path):
    fresh, old = tmp_path / "cache" / ".build-fresh", tmp_path / "cache" / ".build-old"
    for folder in (fresh, old):
        folder.mkdir(parents=True)
        (folder / "kernel.c").touch()
    (tmp_path / "cache").chmod(0o700)
    long_ago = time.time() - 86_400
    os.utime(old, (long_ago, long_ago))
    with Folder(tmp_path / "cache") as cache:
        cache.build("key", lambda folder, name: (folder / name).touch(), lambda path: path)
    assert fresh.exists()
    assert not old.exists()
