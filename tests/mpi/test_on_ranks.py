"""Runs the tests of `on_ranks/` on 2 and on 4 ranks of bare mpirun, all files in one job per number of ranks."""

from pathlib import Path

import pytest

from tests.launch.job import mpirun

pytestmark = [pytest.mark.mpirun, pytest.mark.mpi_skip]

FOLDER = Path(__file__).parent / "on_ranks"


@pytest.mark.parametrize("ranks", [2, 4])
def test_on_ranks(ranks):
    options = ["--with-mpi", "-q", "--color=no", "-p", "no:cacheprovider", "--timeout", "50"]
    ended = mpirun(ranks, ["-m", "pytest", *options, FOLDER])
    assert ended.code == 0, f"{ended.out[-3000:]}\n{ended.err[-6000:]}"
    assert ended.out.count(" passed") == ranks, ended.out
    assert " skipped" not in ended.out, ended.out
