"""Collectives on tensors, with PyTorch's names.

Tensors that are strided or on a GPU are exchanged through a contiguous copy in host memory and written back; results
are written into the tensors that the caller gave, as PyTorch does, without a trace in autograd.

Note [When memory is read]
    A collective that is started runs later, in a thread, after those that were started before it.  It reads its tensors
    then and not at the call: an earlier one may still have to write into the same memory.  So everything that looks at
    values stands in the function `collective`; what stands before it looks at shapes, dtypes and ranks only.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rushlight_distributed.arguments import (
    Group,
    array_of,
    arrays_of,
    check_alike,
    check_op,
    check_whole,
    list_of_root,
    peer_of,
    result_of,
    results_of,
    split,
    to_host,
    write,
)
from rushlight_distributed.communicator import Array, ReduceOp
from rushlight_distributed.contract import Call, ContractError
from rushlight_distributed.group import ProcessGroup, resolve
from rushlight_distributed.worker import Work
from rushlight_tensor import Tensor
from rushlight_tensor.core import cuda
from rushlight_tensor.core.inplace import touch

_PAIRS_SHOWN = 8


def all_reduce(tensor: Tensor, op: ReduceOp = ReduceOp.SUM, group: Group = None, async_op: bool = False) -> Work | None:
    """Combine `tensor` over all ranks, in place.

    Half precision is summed in float32; for bool, SUM means "any" and PRODUCT "all".

    Raises:
        TypeError: AVG of integers.
        ContractError: The ranks differ in operation, shape or dtype.
    """
    pg = resolve(group)
    if pg is None:
        return None
    array = result_of("tensor", tensor)
    check_op("all_reduce", array, op)

    def collective() -> None:
        host = to_host(array)
        pg.comm.all_reduce(host, op)
        if host is not array:
            write(array, host)

    touch(tensor)
    return _go(pg, ("all_reduce", array.dtype, array.shape, op.name), collective, async_op)


def reduce(
    tensor: Tensor,
    dst: int | None = None,
    op: ReduceOp = ReduceOp.SUM,
    group: Group = None,
    async_op: bool = False,
    group_dst: int | None = None,
) -> Work | None:
    """Combine `tensor` over all ranks into rank `dst`'s, in place; the others keep theirs."""
    pg = resolve(group)
    if pg is None:
        return None
    root = peer_of("dst", pg, dst, group_dst)
    array = result_of("tensor", tensor) if root == pg.rank() else array_of("tensor", tensor)
    check_op("reduce", array, op)

    def collective() -> None:
        host = to_host(array)
        pg.comm.reduce(host, op, root)
        if host is not array and pg.comm.rank == root:
            write(array, host)

    if pg.rank() == root:
        touch(tensor)
    return _go(pg, ("reduce", array.dtype, array.shape, op.name, f"dst={pg.ranks[root]}"), collective, async_op)


def broadcast(
    tensor: Tensor, src: int | None = None, group: Group = None, async_op: bool = False, group_src: int | None = None
) -> Work | None:
    """Rank `src`'s tensor, written into every rank's."""
    pg = resolve(group)
    if pg is None:
        return None
    root = peer_of("src", pg, src, group_src)
    array = array_of("tensor", tensor) if root == pg.rank() else result_of("tensor", tensor)

    def collective() -> None:
        host = to_host(array)
        pg.comm.broadcast(host, root)
        if host is not array and pg.comm.rank != root:
            write(array, host)

    if pg.rank() != root:
        touch(tensor)
    return _go(pg, ("broadcast", array.dtype, array.shape, f"src={pg.ranks[root]}"), collective, async_op)


def all_gather(
    tensor_list: Sequence[Tensor], tensor: Tensor, group: Group = None, async_op: bool = False
) -> Work | None:
    """Every rank's `tensor` into `tensor_list`, one per rank, of equal shapes and dtypes."""
    pg = resolve(group)
    if pg is None:
        return None
    array, outs = array_of("tensor", tensor), results_of("tensor_list", tensor_list, pg)
    check_alike("all_gather", "tensor_list", outs, array)
    _touch_all(tensor_list)

    def collective() -> None:
        box = np.empty((pg.size(), *array.shape), array.dtype)
        pg.comm.all_gather(box, to_host(array))
        for r, out in enumerate(outs):
            write(out, box[r])

    return _go(pg, ("all_gather", array.dtype, array.shape), collective, async_op)


def all_gather_into_tensor(
    output_tensor: Tensor, input_tensor: Tensor, group: Group = None, async_op: bool = False
) -> Work | None:
    """Every rank's `input_tensor`, concatenated or stacked in `output_tensor`."""
    pg = resolve(group)
    if pg is None:
        return None
    out, array = result_of("output_tensor", output_tensor), array_of("input_tensor", input_tensor)
    check_whole("all_gather_into_tensor", out, array, pg)

    def collective() -> None:
        box = np.empty((pg.size(), *array.shape), array.dtype)
        pg.comm.all_gather(box, to_host(array))
        write(out, box.reshape(out.shape))

    touch(output_tensor)
    return _go(pg, ("all_gather_into_tensor", array.dtype, array.shape), collective, async_op)


def gather(
    tensor: Tensor,
    gather_list: Sequence[Tensor] | None = None,
    dst: int | None = None,
    group: Group = None,
    async_op: bool = False,
    group_dst: int | None = None,
) -> Work | None:
    """Every rank's `tensor` into `gather_list` of rank `dst`; the others give no list."""
    pg = resolve(group)
    if pg is None:
        return None
    array, root = array_of("tensor", tensor), peer_of("dst", pg, dst, group_dst, default=0)
    outs = list_of_root("gather_list", gather_list, pg, root, written=True)
    if outs is not None:
        check_alike("gather", "gather_list", outs, array)
        _touch_all(gather_list)

    def collective() -> None:
        box = None if outs is None else np.empty((pg.size(), *array.shape), array.dtype)
        pg.comm.gather(box, to_host(array), root)
        if outs is not None and box is not None:
            for r, out in enumerate(outs):
                write(out, box[r])

    return _go(pg, ("gather", array.dtype, array.shape, f"dst={pg.ranks[root]}"), collective, async_op)


def scatter(
    tensor: Tensor,
    scatter_list: Sequence[Tensor] | None = None,
    src: int | None = None,
    group: Group = None,
    async_op: bool = False,
    group_src: int | None = None,
) -> Work | None:
    """Each rank's part of rank `src`'s `scatter_list`, into `tensor`; the others give no list."""
    pg = resolve(group)
    if pg is None:
        return None
    array, root = result_of("tensor", tensor), peer_of("src", pg, src, group_src, default=0)
    parts = list_of_root("scatter_list", scatter_list, pg, root, written=False)
    if parts is not None:
        check_alike("scatter", "scatter_list", parts, array)

    def collective() -> None:
        box = None if parts is None else np.stack([cuda.to_host(part) for part in parts])
        host = np.empty(array.shape, array.dtype)
        pg.comm.scatter(host, box, root)
        write(array, host)

    touch(tensor)
    return _go(pg, ("scatter", array.dtype, array.shape, f"src={pg.ranks[root]}"), collective, async_op)


def reduce_scatter(
    output: Tensor,
    input_list: Sequence[Tensor],
    op: ReduceOp = ReduceOp.SUM,
    group: Group = None,
    async_op: bool = False,
) -> Work | None:
    """Combine the ranks' lists element by element; rank r's `output` becomes element r."""
    pg = resolve(group)
    if pg is None:
        return None
    out, parts = result_of("output", output), arrays_of("input_list", input_list, pg)
    check_alike("reduce_scatter", "input_list", parts, out)
    touch(output)
    return _reduce_scatter(
        pg, "reduce_scatter", out, lambda: np.stack([cuda.to_host(part) for part in parts]), op, async_op
    )


def reduce_scatter_tensor(
    output: Tensor, input: Tensor, op: ReduceOp = ReduceOp.SUM, group: Group = None, async_op: bool = False
) -> Work | None:
    """Combine the ranks' `input`s; rank r's `output` becomes part r of the result."""
    pg = resolve(group)
    if pg is None:
        return None
    out, array = result_of("output", output), array_of("input", input)
    check_whole("reduce_scatter_tensor", array, out, pg)
    touch(output)
    return _reduce_scatter(
        pg, "reduce_scatter_tensor", out, lambda: to_host(array).reshape((pg.size(), *out.shape)), op, async_op
    )


def _reduce_scatter(
    pg: ProcessGroup, name: str, out: Any, box: Callable[[], Array], op: ReduceOp, async_op: bool
) -> Work | None:
    check_op(name, out, op)

    def collective() -> None:
        host = np.empty(out.shape, out.dtype)
        pg.comm.reduce_scatter(host, box(), op)
        write(out, host)

    return _go(pg, (name, out.dtype, out.shape, op.name), collective, async_op)


def all_to_all(
    output_tensor_list: Sequence[Tensor],
    input_tensor_list: Sequence[Tensor],
    group: Group = None,
    async_op: bool = False,
) -> Work | None:
    """Element r of the input list goes to rank r, into the element of this rank's number; shapes may differ by pair."""
    pg = resolve(group)
    if pg is None:
        return None
    outs = results_of("output_tensor_list", output_tensor_list, pg)
    parts = arrays_of("input_tensor_list", input_tensor_list, pg)
    _touch_all(output_tensor_list)
    return _all_to_all(pg, "all_to_all", outs, parts, async_op)


def all_to_all_single(
    output: Tensor,
    input: Tensor,
    output_split_sizes: Sequence[int] | None = None,
    input_split_sizes: Sequence[int] | None = None,
    group: Group = None,
    async_op: bool = False,
) -> Work | None:
    """`all_to_all` of the parts of one tensor along dim 0: equal parts, or of the sizes that are given."""
    pg = resolve(group)
    if pg is None:
        return None
    outs = split("output", result_of("output", output), output_split_sizes, pg)
    parts = split("input", array_of("input", input), input_split_sizes, pg)
    touch(output)
    return _all_to_all(pg, "all_to_all_single", outs, parts, async_op)


def _all_to_all(pg: ProcessGroup, name: str, outs: list[Any], parts: list[Any], async_op: bool) -> Work | None:
    def collective() -> None:
        _check_pairs(pg, name, outs, parts)
        hosts = [np.empty(out.shape, out.dtype) for out in outs]
        pg.comm.all_to_all(hosts, [to_host(part) for part in parts])
        for out, host in zip(outs, hosts, strict=True):
            write(out, host)

    return _go(pg, (name,), collective, async_op)


def _check_pairs(pg: ProcessGroup, name: str, outs: list[Any], parts: list[Any]) -> None:
    """Raise ContractError, on all ranks alike, if anyone sends what its receiver has no room of that size for."""

    def kinds(arrays: list[Any]) -> Array:
        return np.array([(zlib.crc32(str(a.dtype).encode()), a.size) for a in arrays], np.int64)

    expected, offered = kinds(outs), np.empty((pg.size(), 2), np.int64)
    pg.comm.all_to_all_rows(offered, kinds(parts))
    differs = np.array((offered != expected).any(), np.int64)
    pg.comm.all_reduce(differs, ReduceOp.MAX)
    if not differs:
        return
    mine = [[f"{a.dtype}{list(a.shape)}" for a in arrays] for arrays in (outs, parts)]
    wrong = (offered != expected).any(axis=1).tolist()
    where = pg.contract.here() if pg.contract is not None else f"{name}()"
    everyone = pg.comm.all_gather_object((*mine, wrong, where))
    ranks = range(pg.size())
    lines = [
        f"  rank {pg.ranks[s]} sends {everyone[s][1][r]} to rank {pg.ranks[r]}, which has room for {everyone[r][0][s]}"
        for r in ranks
        for s in ranks
        if everyone[r][2][s]
    ]
    if len(lines) > _PAIRS_SHOWN:
        lines[_PAIRS_SHOWN:] = [f"  and {len(lines) - _PAIRS_SHOWN} pairs more"]
    lines += [f"  rank {pg.ranks[r]}: {everyone[r][3]}" for r in ranks][:_PAIRS_SHOWN]
    raise ContractError(
        "\n".join([f"{name}: what ranks send is not what others expect:", *lines])
        + "\nthe two must have the same dtype and the same number of elements"
    )


def barrier(group: Group = None, async_op: bool = False, device_ids: Any = None) -> Work | None:
    """Wait until every rank of the group is here. `device_ids` is PyTorch's, for NCCL."""
    pg = resolve(group)
    return None if pg is None else _go(pg, ("barrier",), pg.comm.barrier, async_op)


def _go(pg: ProcessGroup, call: Call, collective: Callable[[], None], async_op: bool) -> Work | None:
    if async_op:
        return pg.start(call, collective)
    pg.run(call, collective)
    return None


def _touch_all(tensors: Sequence[Tensor] | None) -> None:
    for tensor in tensors or ():
        touch(tensor)
