"""Shared by every room's tests: one reproducible setting for randomness, plots and child processes."""

import ctypes
import gc
import os
import signal

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from tests.mpi.ending import (  # noqa: F401
    pytest_collection_modifyitems,
    pytest_collectreport,
    pytest_configure,
    pytest_internalerror,
    pytest_keyboard_interrupt,
    pytest_runtest_logreport,
)

# Plots are written to files, never shown; child processes of the tests inherit it.
os.environ.setdefault("MPLBACKEND", "Agg")

# The same examples on every machine; the first call of a kernel compiles it, so a deadline would fail by chance.
settings.register_profile("rushlight", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("rushlight")

# A shell starts background jobs (CI may be one) with SIGINT ignored, and processes started here would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True, optionalhook=True)  # of pytest-xdist: `make test` asks for `-n auto`, nobody else does
def pytest_xdist_auto_num_workers(config):
    """Two tests at a time on any machine, as measured: much of the suite waits for processes that it starts.

    In this process where somebody looks on (`-s`), or nothing is run.
    """
    return 0 if config.option.capture == "no" or config.option.collectonly else 2


@pytest.hookimpl(trylast=True)
def pytest_collection_finish():
    """What has been collected, near a million objects, is no garbage: each collection and each trace walked all of it.

    A trace, or a write into a view, looks for tensors and views among all objects: ours stay in sight.
    """
    gc.collect()
    ours = [o for o in gc.get_objects() if str(getattr(type(o), "__module__", "")).startswith("rushlight")]
    gc.freeze()
    for o in ours:
        ctypes.pythonapi.PyObject_GC_UnTrack(ctypes.py_object(o))
        ctypes.pythonapi.PyObject_GC_Track(ctypes.py_object(o))


@pytest.fixture(autouse=True)
def _numbers_of_its_own(request):
    """A test gets the same numbers from the generator of its module whatever ran before it, and in which process."""
    if isinstance(getattr(request.module, "rng", None), np.random.Generator):
        request.module.rng.bit_generator.state = np.random.default_rng(0).bit_generator.state
