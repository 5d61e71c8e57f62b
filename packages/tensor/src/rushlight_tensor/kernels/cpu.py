"""What this machine's processor is: the part of a kernel's cache key that says for which CPU it was made."""

from __future__ import annotations

import functools
import os

_CPUINFO_BYTES = 8192  # the first core's entry; the whole file takes milliseconds on a large node
_CPUINFO_FIELDS = ("vendor_id", "cpu family", "model", "flags", "CPU implementer", "CPU part", "Features")


@functools.cache
def description() -> tuple[str, ...]:
    """Vendor, family, model and flags of the first core; only the architecture's name where Linux does not tell."""
    fields = {}
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            for line in file.read(_CPUINFO_BYTES).split("\n\n")[0].splitlines():
                name, _, value = line.partition(":")
                fields[name.strip()] = value.strip()
    except OSError:
        pass
    return (os.uname().machine, *(fields.get(name, "") for name in _CPUINFO_FIELDS))


def is_amd() -> bool:
    """Whether the processor is AMD's."""
    return "AuthenticAMD" in description()


def has(*flags: str) -> bool:
    """Whether the processor has all of these Linux feature flags, such as `avx512f`."""
    present = {word for field in description() for word in field.split()}
    return present.issuperset(flags)


def default_threads() -> int:
    """How many threads kernels use unless told: `OMP_NUM_THREADS`, else the cores this process may use.

    Where MPI ranks share one set of cores (no binding, or binding to a whole socket), the cores are divided among the
    ranks of this host; ranks that a launcher gave cores of their own keep them all.
    """
    wish = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if wish.isdigit() and int(wish) > 0:
        return int(wish)
    mine = _affinity(0)
    for name in ("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS"):  # Open MPI, MPICH
        ranks = os.environ.get(name, "")
        # The parent is the launcher's daemon, which is not bound: its affinity is what the ranks together have.
        if ranks.isdigit() and mine * int(ranks) > _affinity(os.getppid()):
            return max(1, mine // int(ranks))
    return mine


def _affinity(process: int) -> int:
    try:
        return len(os.sched_getaffinity(process))
    except (AttributeError, OSError):  # not Linux, or the process has ended
        return os.cpu_count() or 1
