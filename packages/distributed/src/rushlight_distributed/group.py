"""Process groups: which ranks speak together, how a group comes up, and how it is taken down."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from rushlight_data.distributed import set_world
from rushlight_distributed.arrival import arrived
from rushlight_distributed.communicator import Communicator, LocalCommunicator, MpiCommunicator
from rushlight_distributed.contract import Call, Contract, Site, call_site
from rushlight_distributed.guard import Guard, waiting_aloud
from rushlight_distributed.meeting import meet
from rushlight_distributed.mpi import check_world, initialize, is_rank
from rushlight_distributed.worker import Work, Worker
from rushlight_tensor.core import dispatch

DEFAULT_TIMEOUT = timedelta(minutes=30)
T = TypeVar("T")
_BACKENDS = ("mpi", "gloo", "nccl", "ucc")


class ProcessGroup:
    """Ranks that exchange data. Made by `init_process_group` and `new_group`; ranks outside hold `NON_GROUP_MEMBER`.

    Attributes:
        comm: The communicator, which only this group uses.
        ranks: The world's number of each member.
        name: For messages.
    """

    def __init__(self, comm: Communicator, ranks: list[int], name: str, guard: Guard | None) -> None:
        self.comm, self.ranks, self.name, self._guard = comm, ranks, name, guard
        self.contract: Contract | None = None
        if guard is not None and comm.size > 1:
            self.contract = Contract(comm, ranks, name)
            guard.contracts.append(self.contract)
        self._worker = Worker(f"rushlight-{name}")

    def rank(self) -> int:
        """This process's number within the group."""
        return self.comm.rank

    def size(self) -> int:
        """The number of members."""
        return self.comm.size

    def run(self, call: Call, collective: Callable[[], Any]) -> None:
        """Perform a collective under the contract, after all that was started asynchronously."""
        if dispatch.INTERCEPT is not None:
            told(call)
        self.finish()
        self._perform(call, collective, None if self.contract is None else call_site())

    def start(self, call: Call, collective: Callable[[], Any]) -> Work:
        """Perform a collective in the group's thread; messages name the line that called this."""
        told(call)
        site = None if self.contract is None else call_site()
        return self._worker.start(lambda: self._perform(call, collective, site))

    def transfer(self, call: Call, site: Site | None, peer: int | None, wait: Callable[[], T], *, sending: bool) -> T:
        """Wait for a point-to-point transfer, in the watchdog's sight."""
        if self.contract is None:
            return wait()
        self.contract.wait_for(peer, call, site, sending=sending)
        done = wait()
        self.contract.done_waiting()
        return done

    def duplicate(self, name: str) -> ProcessGroup:
        """The same ranks with a communicator and a thread of their own; called by all of them."""
        return ProcessGroup(self.comm.subgroup(range(self.comm.size)), self.ranks, name, self._guard)

    def finish(self) -> None:
        """Wait for all that was started asynchronously."""
        self._worker.drain()

    def tell_failure(self) -> None:
        """Raise the first error of a started collective that `Work.wait` had no occasion to tell."""
        self._worker.tell_failure()

    def close(self) -> None:
        """Take the group out of use.

        The communicator is kept: freeing it is collective, and a rank that is done would wait for one that is not.
        """
        self.finish()
        if self._guard is not None and self.contract in self._guard.contracts:
            self.contract.settle()
            self._guard.contracts.remove(self.contract)

    def _perform(self, call: Call, collective: Callable[[], Any], site: Site | None) -> None:
        contract = self.contract
        if contract is None:
            collective()
            return
        contract.enter(call, site)
        try:
            collective()
        except Exception:
            contract.compare()  # what MPI calls "message truncated" is a disagreement that can be named
            raise
        contract.leave()


def told(call: Call) -> None:
    """Tell whoever watches operations that ranks are about to communicate: a trace refuses what it cannot hold."""
    if (watch := dispatch.INTERCEPT) is not None:
        watch.communicates(str(call[0]))


class _World:
    """What this process knows of its world; `guard` outlives the groups, as MPI does."""

    def __init__(self) -> None:
        self.group: ProcessGroup | None = None
        self.base: ProcessGroup | None = None
        self.guard: Guard | None = None
        self.groups: list[ProcessGroup] = []
        self.made = 0
        self.local_rank = 0


_world = _World()


class _WorldGroup:
    """`group.WORLD`: the default group, None before there is one; `group.NON_GROUP_MEMBER` as in PyTorch."""

    NON_GROUP_MEMBER = -100

    @property
    def WORLD(self) -> ProcessGroup | None:
        return _world.group


group = _WorldGroup()
GroupMember = group


def init_process_group(
    backend: str | None = None,
    init_method: str | None = None,
    timeout: timedelta | None = None,
    world_size: int = -1,
    rank: int = -1,
    store: Any = None,
    group_name: str = "",
    pg_options: Any = None,
    device_id: Any = None,
) -> None:
    """Join the other ranks that mpirun or srun started; plain `python` is a world of one. No variables are needed.

    Args:
        backend: "mpi", the default. PyTorch's "gloo", "nccl" and "ucc" are taken too: MPI carries everything here.
        init_method: None or "env://"; MPI knows the ranks already. A place to meet, such as "tcp://host:port", is
            taken with `rank` and `world_size`, and not used.
        timeout: How long a collective may wait for a rank that is alive; 30 minutes by default. A rank that is dead,
            has left, or calls something else is reported within seconds.
        world_size, rank: If given, they must be MPI's.
        store, group_name, pg_options, device_id: PyTorch's; MPI needs none of them.

    Raises:
        ValueError: Called twice, or with arguments that MPI contradicts.
        RuntimeError: MPI cannot be loaded, or whoever started the processes (a scheduler, torchrun's `WORLD_SIZE`)
            counts other ranks than MPI sees.
    """
    if _world.group is not None:
        raise ValueError("trying to initialize the default process group twice!")
    if backend is not None and backend.lower() not in _BACKENDS:
        raise ValueError(f"init_process_group: unknown backend {backend!r}; use 'mpi'")
    if init_method not in (None, "env://") and -1 in (world_size, rank):
        raise ValueError(
            f"init_process_group: init_method={init_method!r} is not needed; MPI knows the ranks. "
            "With it, give rank and world_size, too: they are compared with MPI's"
        )
    if timeout is not None and timeout <= timedelta(0):
        raise ValueError(f"init_process_group: timeout must be positive, got {timeout}")
    timeout_s = (timeout or DEFAULT_TIMEOUT).total_seconds()
    base = _base_group(world_size, rank, timeout_s)
    if _world.guard is not None:
        _world.guard.timeout_s = timeout_s

    def come_up() -> None:
        _world.local_rank = base.comm.on_this_host().index(base.rank())
        _world.group = base.duplicate("the world")

    base.run(("init_process_group",), come_up)
    assert _world.group is not None
    _world.groups = [_world.group]
    set_world(base.rank(), base.size())


def _base_group(asked_size: int, asked_rank: int, timeout_s: float) -> ProcessGroup:
    """All ranks, from the first `init_process_group` to the end of the process: under its contract worlds come up."""
    if _world.base is None:
        comm = _world_communicator(asked_size, asked_rank, timeout_s)
        base = ProcessGroup(comm, list(range(comm.size)), "all ranks", _world.guard)
        if _world.guard is None:
            return base
        _world.base = base
    check_world(_world.base.size(), _world.base.rank(), os.environ, asked_size, asked_rank)
    return _world.base


def _world_communicator(asked_size: int, asked_rank: int, timeout_s: float) -> Communicator:
    loaded = sys.modules.get("mpi4py.MPI")
    up = loaded is not None and loaded.Is_initialized()
    if not is_rank(os.environ) and not up:
        check_world(1, 0, os.environ, asked_size, asked_rank)
        return LocalCommunicator()
    if up:
        return _joined(asked_size, asked_rank, finalizes=False)
    with arrived(os.environ, timeout_s, call_site()):
        return _joined(asked_size, asked_rank, finalizes=True)


def _joined(asked_size: int, asked_rank: int, *, finalizes: bool) -> Communicator:
    """MPI's world, under a guard; left when all ranks are in it."""
    mpi = initialize()
    size = mpi.COMM_WORLD.Get_size()
    if finalizes and _world.guard is None and size == 1:
        atexit.register(mpi.Finalize)
    check_world(size, mpi.COMM_WORLD.Get_rank(), os.environ, asked_size, asked_rank)
    if size == 1:
        return LocalCommunicator()
    with waiting_aloud(f"rank {mpi.COMM_WORLD.Get_rank()} of {size}", "init_process_group", call_site()):
        _world.guard = Guard(mpi, finalizes=finalizes)
        _world.guard.before_leaving.append(_finish_all)
        return MpiCommunicator(mpi.COMM_WORLD.Dup())


def _finish_all() -> None:
    """Wait for all that was started. Raises the error of a collective that nobody has waited for."""
    for one in _world.groups:
        one.finish()
        one.tell_failure()


def destroy_process_group(group: ProcessGroup | None = None) -> None:
    """Take down a group, by default the world and all groups in it. MPI itself stays up until the process ends."""
    if _world.group is None:
        raise ValueError("Default process group has not been initialized, please make sure to call init_process_group.")
    doomed = list(_world.groups) if group is None or group is _world.group else [group]
    for one in doomed:
        one.close()
        if one in _world.groups:
            _world.groups.remove(one)
    if _world.group in doomed:
        _world.group = None
        set_world(None, None)


def new_group(
    ranks: Sequence[int] | None = None,
    timeout: timedelta | None = None,
    backend: str | None = None,
    pg_options: Any = None,
    use_local_synchronization: bool = False,
    group_desc: str | None = None,
    device_id: Any = None,
    sort_ranks: bool = True,
) -> ProcessGroup | int:
    """A group of some of the world's ranks, all by default.

    Every rank of the world calls it, in the same order and with the same ranks; with `use_local_synchronization` the
    members alone. Who waits for a rank that does not come is told within seconds, as in a collective.

    Returns:
        The group, or `NON_GROUP_MEMBER` on a rank outside it.

    Raises:
        ValueError: A rank is named twice or is not in the world.
        ContractError: The ranks' arguments differ.
    """
    world = default_group()
    members = list(range(world.size())) if ranks is None else list(ranks)
    if len(set(members)) != len(members) or not all(0 <= r < world.size() for r in members):
        raise ValueError(f"new_group: ranks must be different and in 0..{world.size() - 1}, got {members}")
    if sort_ranks:
        members.sort()
    _world.made += 1
    name = group_desc or f"group {_world.made} of ranks {members}"
    call: Call = ("new_group", f"ranks={members}")
    made: list[ProcessGroup] = []

    def create() -> None:
        if world.rank() in members:
            made.append(ProcessGroup(world.comm.subgroup(members), members, name, _world.guard))

    if not use_local_synchronization:

        def together() -> None:
            world.comm.barrier()
            create()

        world.run(call, together)
    elif world.rank() in members:
        meet(world.comm, world.transfer, call, members)
        create()
    _world.groups += made
    return made[0] if made else _WorldGroup.NON_GROUP_MEMBER


def default_group() -> ProcessGroup:
    """The world's group. Raises ValueError, as PyTorch does, before `init_process_group`."""
    if _world.group is None:
        raise ValueError("Default process group has not been initialized, please make sure to call init_process_group.")
    return _world.group


def resolve(group: ProcessGroup | int | None) -> ProcessGroup | None:
    """The group that a `group` argument means; None on a rank outside it. ValueError for anything else."""
    if group is None:
        return default_group()
    if isinstance(group, ProcessGroup):
        return group
    if group == _WorldGroup.NON_GROUP_MEMBER:
        return None
    raise ValueError(
        f"Process group {group!r} is not initialized in the world group map; give what new_group returned, "
        "or None for the world"
    )


def is_initialized() -> bool:
    """Whether there is a default group."""
    return _world.group is not None


def is_available() -> bool:
    """Whether the package can be used: always."""
    return True


def is_mpi_available() -> bool:
    """Whether `backend="mpi"` is served: always, a world of one needs no MPI."""
    return True


def get_backend(group: ProcessGroup | int | None = None) -> str:
    """ "mpi", for every group."""
    default_group()
    return "mpi"


def get_rank(group: ProcessGroup | int | None = None) -> int:
    """This process's number in the group; -1 outside it."""
    found = resolve(group)
    return -1 if found is None else found.rank()


def get_world_size(group: ProcessGroup | int | None = None) -> int:
    """The number of ranks in the group; -1 outside it."""
    found = resolve(group)
    return -1 if found is None else found.size()


def get_node_local_rank(fallback_rank: int | None = None) -> int:
    """This process's number among the ranks of its host: which GPU is its own."""
    if _world.group is None and fallback_rank is not None:
        return fallback_rank
    default_group()
    return _world.local_rank


def get_process_group_ranks(group: ProcessGroup | None) -> list[int]:
    """The world's numbers of a group's members."""
    return list((group or default_group()).ranks)


def get_global_rank(group: ProcessGroup, group_rank: int) -> int:
    """The world's number of a group's member."""
    if not 0 <= group_rank < group.size():
        raise ValueError(f"Group rank {group_rank} is not part of group {group.name}")
    return group.ranks[group_rank]


def get_group_rank(group: ProcessGroup, global_rank: int) -> int:
    """A group's number of a rank of the world."""
    if global_rank not in group.ranks:
        raise ValueError(f"Global rank {global_rank} is not part of group {group.name}")
    return group.ranks.index(global_rank)
