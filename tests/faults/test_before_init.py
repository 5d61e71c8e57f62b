"""A rank that ends before `init_process_group`, or comes late: who waits there says for whom; nobody hangs.

MPI_Init itself would wait for ever, or let mpirun kill the innocent ranks; which of the two is a race, so the ways to
end, the guilty ranks and the starters are mixed here.
"""

import re

import pytest

from tests.launch.job import launched, mpirun

pytestmark = [pytest.mark.mpirun, pytest.mark.mpi_skip]

PROGRAM = """
import os, sys, time
import rushlight_distributed as dist
import rushlight_tensor as T
rank = int(os.environ.get("OMPI_COMM_WORLD_RANK") or os.environ["PMI_RANK"])
if rank == {guilty}:
    {act}
if rank != {guilty} or {comes}:
    dist.init_process_group()
    dist.all_reduce(T.ones(2))
    print("done")
"""
INIT_LINE = 8  # of PROGRAM


@pytest.fixture
def start(tmp_path):
    def on_ranks(starter, guilty, act, ranks=2, comes=False):
        path = tmp_path / "program.py"
        path.write_text(PROGRAM.format(guilty=guilty, act=act, comes=comes).lstrip("\n"))
        return launched(ranks, [path], tmp_path / "logs") if starter == "launcher" else mpirun(ranks, [path])

    return on_ranks


@pytest.mark.parametrize(
    ("starter", "guilty", "act"),
    [
        ("launcher", 0, "sys.exit(0)"),
        ("launcher", 1, "sys.exit(0)"),
        ("launcher", 1, "pass"),
        ("mpirun", 0, "pass"),
        ("mpirun", 1, "sys.exit(0)"),
    ],
)
def test_a_rank_that_ends_before_is_named(start, starter, guilty, act):
    ended = start(starter, guilty, act)
    assert ended.code == 1
    assert ended.out == ""
    said = re.search(rf"rank {1 - guilty} waits in vain in init_process_group at \S*program\.py:(\d+)", ended.err)
    assert said is not None, ended.err
    assert int(said[1]) == INIT_LINE
    assert f"rank {guilty} has left" in ended.err
    assert f"rank {1 - guilty} has left" not in ended.err


@pytest.mark.parametrize("guilty", [1, 2])
def test_the_one_of_three_that_ends_is_named_by_all_who_wait(start, guilty):
    """Local numbers are no ranks: Open MPI may give rank 1 the number 2."""
    ended = start("launcher", guilty, "sys.exit(0)", ranks=3)
    assert ended.code == 1
    assert f"rank {guilty} has left" in ended.err
    assert not re.search(f"rank [0{3 - guilty}] has left", ended.err)


def test_a_late_rank_is_waited_for_aloud(start):
    ended = start("launcher", 1, "time.sleep(6)", comes=True)
    assert ended.code == 0, ended.err
    assert ended.out.count("done") == 2
    assert re.search(r"rank 0 has waited \d+ s in init_process_group at \S*program\.py:8, for:", ended.err)
    assert "rank 1 is not there yet" in ended.err


def test_a_rank_that_brought_mpi_up_by_itself_is_no_late_one(start):
    """It sits in MPI_Init until this one comes: two waits that wait for one another."""
    ended = start("mpirun", 0, "from mpi4py import MPI", comes=True)
    assert ended.code == 0, ended.err
    assert ended.err == ""
