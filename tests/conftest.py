"""Shared by every room's tests: one reproducible setting for randomness, plots and child processes."""

import os
import signal

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
