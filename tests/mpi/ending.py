"""pytest on several ranks: the first failure on any rank ends the whole job, its report last.

pytest-mpi alone would hang: the other ranks wait in a collective for the one whose test has failed.  It also lets all
ranks write one junit file; here each has its own.  `tests/conftest.py` imports these hooks, so they hold for all tests.
"""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.mpi.ranks import RANK, SIZE

EXIT_CODE = 70


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    path = getattr(config.option, "xmlpath", None)
    if path and RANK:
        config.option.xmlpath = str(Path(path).with_suffix(f".rank{RANK}{Path(path).suffix}"))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """pytest-mpi takes the name of a folder `mpi` for its mark: what it skips for that alone is given back."""
    if config.getoption("--with-mpi", False) or config.getoption("--only-mpi", False):
        return
    for item in items:
        if item.get_closest_marker("mpi") is None:
            item.own_markers = [m for m in item.own_markers if "--with-mpi" not in m.kwargs.get("reason", "")]


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report):
    if report.failed:
        end_all_ranks(f"{report.nodeid} failed in {report.when}", report.longreprtext)


@pytest.hookimpl(trylast=True)
def pytest_collectreport(report):
    if report.failed:
        end_all_ranks(f"{report.nodeid} cannot be collected", report.longreprtext)


@pytest.hookimpl(trylast=True)
def pytest_internalerror(excrepr):
    end_all_ranks("pytest itself failed", str(excrepr))


@pytest.hookimpl(trylast=True)
def pytest_keyboard_interrupt(excinfo):
    """Ctrl-C, and `pytest.exit`."""
    end_all_ranks("the tests were interrupted", f"{excinfo.traceback[-1]}\n{excinfo.exconly()}")


def end_all_ranks(what, text):
    """Say what has happened, and end the world; nothing in a world of one, which pytest reports itself."""
    if SIZE == 1:
        return
    from mpi4py import MPI

    sys.__stdout__.flush()
    # In one piece: other ranks may be failing at the same time.
    sys.__stderr__.write(f"\n[rank {RANK} of {SIZE}] {what}\n{text}\n")
    sys.__stderr__.flush()
    _stop_mpirun()
    if MPI.Is_initialized() and not MPI.Is_finalized():
        MPI.COMM_WORLD.Abort(EXIT_CODE)
    os._exit(EXIT_CODE)


def _stop_mpirun():
    """Ask Open MPI's mpirun on this host to end its job: it does so without a word, so that the report stays last.

    An abort, or an exit code, it would explain in a box of its own below the report.
    """
    try:
        parent = Path(f"/proc/{os.getppid()}/comm").read_text().strip()
    except OSError:
        return
    if parent in ("prterun", "mpirun"):
        time.sleep(0.1)  # it reads this rank's last words before it reads that the job is over
        os.kill(os.getppid(), signal.SIGTERM)
        time.sleep(3)
