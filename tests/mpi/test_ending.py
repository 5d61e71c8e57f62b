"""One planted failure on one rank: the whole run ends by itself, soon, not with 0, and the rank's traceback is last."""

import os
import re
import sys
from pathlib import Path

import pytest

from rushlight_launch.mpi import find_mpi
from tests.launch.job import mpirun, ran

pytestmark = [pytest.mark.mpirun, pytest.mark.mpi_skip]

ROOT = Path(__file__).parents[2]
START = """
import os, signal, pytest
import rushlight_distributed as dist
import rushlight_tensor as T
from tests.mpi.ranks import RANK, SIZE
pytestmark = pytest.mark.mpi(min_size=2)
if RANK == {rank} and {where!r} == "import": {act}

@pytest.fixture(autouse=True)
def world():
    if not dist.is_initialized():
        dist.init_process_group()
    if RANK == {rank} and {where!r} == "setup": {act}
    yield
    if RANK == {rank} and {where!r} == "teardown": {act}

def test_before():
    dist.barrier()

def test_planted():
    dist.barrier()
    if RANK == {rank} and {where!r} == "test": {act}
    dist.all_reduce(T.zeros(3))

def test_after():
    dist.barrier()
"""
OPTIONS = ["--with-mpi", "-q", "--color=no", "-p", "no:cacheprovider", "-c", ROOT / "pyproject.toml", "--rootdir", ROOT]


@pytest.fixture
def start(tmp_path):
    def pytest_on(ranks, where, act, *options, rank=1):
        path = tmp_path / "test_with_a_fault.py"
        path.write_text(START.format(where=where, act=act, rank=rank))
        return mpirun(ranks, ["-m", "pytest", *OPTIONS, "-p", "tests.mpi.ending", *options, path])

    return pytest_on


@pytest.mark.parametrize(
    ("where", "act", "says"),
    [
        ("test", "assert RANK == 0, 'planted'", "AssertionError: planted"),
        ("setup", "raise RuntimeError('planted')", "RuntimeError: planted"),
        ("teardown", "raise RuntimeError('planted')", "RuntimeError: planted"),
        ("import", "raise RuntimeError('planted')", "RuntimeError: planted"),
        ("test", "pytest.exit('planted')", "Exit: planted"),
    ],
)
def test_failure_ends_the_run_with_its_traceback_last(start, where, act, says):
    ended = start(2, where, act)
    assert ended.code != 0
    assert "passed" not in ended.out
    report = ended.err[ended.err.index("[rank 1 of 2] ") :]
    assert says in report
    if find_mpi().kind == "open mpi":
        assert re.search(rf"({re.escape(says)}\n|\n\S+\.py:\d+: \w+)\n*$", report), report[-1500:]


@pytest.mark.parametrize(
    ("where", "act"),
    [
        ("test", "os._exit(3)"),
        ("test", "os.kill(os.getpid(), signal.SIGKILL)"),
        ("setup", "os._exit(3)"),
        ("import", "os.kill(os.getpid(), signal.SIGKILL)"),
    ],
)
def test_death_ends_the_run(start, where, act):
    ended = start(2, where, act)
    assert ended.code != 0
    assert "passed" not in ended.out


def test_same_failure_on_all_ranks_ends_the_run(start):
    ended = start(2, "test", "assert False, 'planted'", rank="RANK")
    assert ended.code != 0
    assert "AssertionError: planted" in ended.err


def test_tests_can_be_chosen(start):
    assert start(2, "test", "assert False", "-k", "not planted", "-x").code == 0
    assert start(2, "test", "assert False", "-k", "planted", "-x").code != 0


def test_too_few_ranks_skip_with_a_reason(start):
    ended = start(1, "test", "assert False", "-rs")
    assert ended.code == 0
    assert "3 skipped" in ended.out
    assert "Test requires 2 MPI processes, only 1 MPI processes specified" in ended.out


def test_plain_run_skips_with_a_reason():
    words = [sys.executable, "-m", "pytest", "-q", "--color=no", "-p", "no:cacheprovider", "-rs"]
    ended = ran([*words, f"{Path(__file__).parent}/on_ranks/test_contract.py"], dict(os.environ))
    assert ended.code == 0, ended.out
    assert "need --with-mpi option to run" in ended.out
    assert " passed" not in ended.out


def test_each_rank_has_a_junit_file_of_its_own(start, tmp_path):
    ended = start(2, "nowhere", "pass", f"--junitxml={tmp_path}/results.xml")
    assert ended.code == 0, ended.err
    for name in ("results.xml", "results.rank1.xml"):
        assert 'tests="3"' in (tmp_path / name).read_text()


def test_make_test_mpi_runs_them():
    ended = ran(
        ["make", "test-mpi", "RANKS=3", "ARGS=-q --color=no -p no:cacheprovider tests/mpi/on_ranks -k test_groups"],
        {**os.environ, "MAKEFLAGS": "", "MAKELEVEL": "0"},
    )
    assert ended.code == 0, ended.err
    assert ended.out.count(" passed") == 3
