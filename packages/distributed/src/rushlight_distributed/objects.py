"""Collectives on Python objects, which travel pickled: only among ranks of one job, which trust one another."""

from __future__ import annotations

from typing import Any

from rushlight_distributed.arguments import Group, peer_of
from rushlight_distributed.contract import Call
from rushlight_distributed.group import ProcessGroup, resolve


def all_gather_object(object_list: list[Any], obj: Any, group: Group = None) -> None:
    """Every rank's `obj` into `object_list`, one per rank."""
    pg = resolve(group)
    if pg is not None:
        _check_length("all_gather_object", object_list, pg)
        object_list[:] = _run(pg, ("all_gather_object",), lambda: pg.comm.all_gather_object(obj))


def broadcast_object_list(
    object_list: list[Any],
    src: int | None = None,
    group: Group = None,
    device: Any = None,
    group_src: int | None = None,
) -> None:
    """Rank `src`'s objects into every rank's list, which must be as long. `device` is PyTorch's, for NCCL."""
    pg = resolve(group)
    if pg is None:
        return
    root = peer_of("src", pg, src, group_src, default=0)
    call: Call = ("broadcast_object_list", len(object_list), f"src={pg.ranks[root]}")
    object_list[:] = _run(pg, call, lambda: pg.comm.broadcast_object(list(object_list), root))


def gather_object(
    obj: Any,
    object_gather_list: list[Any] | None = None,
    dst: int | None = None,
    group: Group = None,
    group_dst: int | None = None,
) -> None:
    """Every rank's `obj` into `object_gather_list` of rank `dst`."""
    pg = resolve(group)
    if pg is None:
        return
    root = peer_of("dst", pg, dst, group_dst, default=0)
    if pg.rank() == root:
        _check_length("gather_object", object_gather_list, pg)
    got = _run(pg, ("gather_object", f"dst={pg.ranks[root]}"), lambda: pg.comm.gather_object(obj, root))
    if pg.rank() == root and object_gather_list is not None:
        object_gather_list[:] = got


def scatter_object_list(
    scatter_object_output_list: list[Any],
    scatter_object_input_list: list[Any] | None = None,
    src: int | None = None,
    group: Group = None,
    group_src: int | None = None,
) -> None:
    """Each rank's part of rank `src`'s list, into the first element of the output list."""
    pg = resolve(group)
    if pg is None:
        return
    if not isinstance(scatter_object_output_list, list) or not scatter_object_output_list:
        raise ValueError("scatter_object_list: the output list must have room for one object, such as [None]")
    root = peer_of("src", pg, src, group_src, default=0)
    if pg.rank() == root:
        _check_length("scatter_object_list", scatter_object_input_list, pg)
    call: Call = ("scatter_object_list", f"src={pg.ranks[root]}")
    scatter_object_output_list[0] = _run(pg, call, lambda: pg.comm.scatter_object(scatter_object_input_list, root))


def _run(pg: ProcessGroup, call: Call, exchange: Any) -> Any:
    got: list[Any] = []
    pg.run(call, lambda: got.append(exchange()))
    return got[0]


def _check_length(name: str, objects: list[Any] | None, pg: ProcessGroup) -> None:
    if not isinstance(objects, list) or len(objects) != pg.size():
        found = len(objects) if isinstance(objects, list) else type(objects).__name__
        raise ValueError(f"{name}: a list of one object per rank is needed, {pg.size()} here, got {found}")
