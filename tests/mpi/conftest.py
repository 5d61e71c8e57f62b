"""Inside ranks, the first failing test ends the whole job, its report last; the others would wait for ever."""

import os
import sys

import pytest

RANK = int(os.environ.get("OMPI_COMM_WORLD_RANK", os.environ.get("PMI_RANK", "0")))
SIZE = int(os.environ.get("OMPI_COMM_WORLD_SIZE", os.environ.get("PMI_SIZE", "1")))


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report):
    if not report.failed or SIZE == 1:
        return
    from mpi4py import MPI

    sys.__stderr__.write(f"\n[rank {RANK}] {report.nodeid} failed in {report.when}\n{report.longreprtext}\n")
    sys.__stderr__.flush()
    if MPI.Is_initialized():
        MPI.COMM_WORLD.Abort(70)
    os._exit(70)
