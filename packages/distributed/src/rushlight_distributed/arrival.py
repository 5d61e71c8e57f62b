"""Before MPI comes up: ranks of one host see each other come to `init_process_group`, or end without having come.

Note [Before MPI_Init]
    MPI_Init waits for every rank with the interpreter locked, and nothing looks after it: of a rank that has ended
    before it, Open MPI's either says nothing, for ever, or kills the innocent ones; of a late one it says nothing.  So
    a rank first waits, in sight, until the others of its host are there.  None of them can speak to it yet, and one
    that has ended never could; but the system knows them: they have the same starter, and a local number in the
    environment they were started with.  Who has come holds an open file with a known name.
    Where that cannot be seen (no /proc, a process namespace for each rank, a starter that tells no local number),
    MPI_Init waits as it does.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from rushlight_distributed.contract import ContractError, Site, line_of

GONE_S = 2.0  # a starter makes its processes one after another: only one that is missing for so long is missed
WARN_S = 5.0  # then at twice the time again
_LONGEST_PAUSE_S = 0.5
_LEFT = "has left: it came to the end of its program, called sys.exit, or was killed, before that call"
_LATE = "is not there yet"
_MARK = "rushlight-init"
_MPI_LIBRARIES = (b"mpi4py", b"libmpi")

# Local number and count, and the rank's number in the world and how many these are.
_LOCAL = (
    ("OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("MPI_LOCALRANKID", "MPI_LOCALNRANKS", "PMI_RANK", "PMI_SIZE"),
    ("MV2_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_SIZE", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
)
_JOB = ("PMIX_NAMESPACE", "PMI_JOBID", "SLURM_JOB_ID", "SLURM_STEP_ID")  # jobs may share a starter that stays


@contextmanager
def arrived(env: Mapping[str, str], timeout_s: float, site: Site | None) -> Iterator[None]:
    """Wait for the other ranks of this host, who see this one as come until the block is left.

    Raises:
        ContractError: One of them has ended, or has not come after `timeout_s`; it is named.
    """
    neighbours = _neighbours(env)
    if neighbours is None:
        yield
        return
    mark = os.memfd_create(_MARK)
    try:
        neighbours.wait(timeout_s, site)
        yield
    finally:
        os.close(mark)


def _neighbours(env: Mapping[str, str]) -> _Neighbours | None:
    """The ranks that were started on this host with this one; None where there are none, or they cannot be seen."""
    names = next((n for n in _LOCAL if all(env.get(one, "").isdigit() for one in n)), None)
    if names is None or int(env[names[1]]) < 2 or not hasattr(os, "memfd_create"):
        return None
    found = _Neighbours(env, names)
    return found if found.me in found.look() else None


class _Neighbours:
    """The ranks of one host, as the system sees them.

    Attributes:
        me: The local number of this one.
    """

    def __init__(self, env: Mapping[str, str], names: tuple[str, str, str, str]) -> None:
        self.me, self._count = int(env[names[0]]), int(env[names[1]])
        self._local, _, self._rank, _ = names
        self._job = {name: env.get(name) for name in _JOB}
        self._starter = self._starter_of(os.getpid())
        self._all_here = int(env[names[3]]) == self._count
        self._world = {self.me: int(env[self._rank])}  # of those that were seen, by local number: in any order

    def look(self) -> dict[int, list[int]]:
        """The processes of each rank that runs, by local number: itself, and such as a shell that started it."""
        found: dict[int, list[int]] = {}
        for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
            env = _environment(pid)
            number = env.get(self._local, "")
            if number.isdigit() and all(env.get(name) == value for name, value in self._job.items()):
                if self._starter_of(pid) != self._starter:
                    continue
                found.setdefault(int(number), []).append(pid)
                if env.get(self._rank, "").isdigit():
                    self._world[int(number)] = int(env[self._rank])
        return found

    def wait(self, timeout_s: float, site: Site | None) -> None:
        """Until all have come."""
        missing = set(range(self._count)) - {self.me}
        since: dict[int, float] = {}  # no process is there
        began, warn_s = time.monotonic(), WARN_S
        while True:
            running, now = self.look(), time.monotonic()
            missing -= {k for k in missing if any(_has_come(pid) for pid in running.get(k, ()))}
            if not missing:
                return
            since = {k: since.get(k, now) for k in missing if k not in running}
            gone = sorted(k for k, begin in since.items() if now - begin > GONE_S)
            waited_s = now - began
            if gone:
                raise ContractError(self._waits("waits in vain", gone, site, _LEFT))
            if waited_s > timeout_s:
                how = f"has waited longer than the time limit of {timeout_s:g} s"
                raise ContractError(self._waits(how, sorted(missing), site, _LATE))
            if waited_s > warn_s:
                sys.stderr.write(self._waits(f"has waited {waited_s:.0f} s", sorted(missing), site, _LATE) + "\n")
                warn_s *= 2
            time.sleep(min(max(waited_s / 10, 0.002), _LONGEST_PAUSE_S))

    def _waits(self, how: str, missing: list[int], site: Site | None, why: str) -> str:
        lines = [f"{self._name(self.me)} {how} in init_process_group at {line_of(site)}, for:"]
        return "\n".join([*lines, *(f"  {self._name(k)} {why}" for k in missing)])

    def _name(self, number: int) -> str:
        """Of a local number; those that were never seen have the ranks that nobody has, if all are on this host."""
        if number in self._world:
            return f"rank {self._world[number]}"
        if not self._all_here:
            return f"the rank number {number} of this host"
        unseen = sorted(set(range(self._count)) - self._world.keys())
        left = sorted(set(range(self._count)) - set(self._world.values()))
        return f"rank {left[unseen.index(number)]}"

    def _starter_of(self, pid: int) -> int:
        """The nearest process above that is no rank; 0 if there is none in sight."""
        while pid:
            pid = _parent(pid)
            if self._local not in _environment(pid):
                break
        return pid


def _environment(pid: int) -> dict[str, str]:
    """What a process was started with; empty for another user's, and for one that has ended."""
    try:
        text = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return {}
    return dict(word.split("=", 1) for word in text.split("\0") if "=" in word)


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return 0


def _has_come(pid: int) -> bool:
    """Whether a process holds the mark, or is at MPI by itself, which waits for this one in turn."""
    folder = f"/proc/{pid}/fd"
    with suppress(OSError):
        for name in os.listdir(folder):
            with suppress(OSError):
                if os.readlink(f"{folder}/{name}").startswith(f"/memfd:{_MARK}"):
                    return True
        maps = Path(f"/proc/{pid}/maps").read_bytes()
        return any(library in maps for library in _MPI_LIBRARIES)
    return False
