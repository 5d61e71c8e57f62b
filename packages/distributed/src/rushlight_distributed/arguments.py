"""What the arguments of collectives mean: arrays in host memory, ranks within a group, or what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rushlight_distributed.communicator import Array, ReduceOp
from rushlight_distributed.group import ProcessGroup, get_group_rank
from rushlight_tensor import Tensor
from rushlight_tensor.core import cuda
from rushlight_tensor.core.dispatch import settle

Group = ProcessGroup | int | None


def array_of(name: str, tensor: Any) -> Any:
    """The array of a tensor argument; TypeError, in PyTorch's words, for anything else."""
    if not isinstance(tensor, Tensor):
        raise TypeError(
            f"Invalid function argument. Expected parameter `{name}` of type torch.Tensor "
            f"but got {type(tensor)} instead."
        )
    return settle(tensor)


def result_of(name: str, tensor: Any) -> Any:
    """The array of a tensor argument that is written into. RuntimeError if its memory must not be."""
    array = array_of(name, tensor)
    if isinstance(array, np.ndarray) and not array.flags.writeable:
        raise RuntimeError(
            f"unsupported operation: `{name}` shares read-only memory, or several of its elements are one (from_numpy, "
            "expand); clone() it first"
        )
    return array


def results_of(name: str, tensors: Any, pg: ProcessGroup) -> list[Any]:
    arrays_of(name, tensors, pg)
    return [result_of(f"{name}[{r}]", tensor) for r, tensor in enumerate(tensors)]


def arrays_of(name: str, tensors: Any, pg: ProcessGroup) -> list[Any]:
    if not isinstance(tensors, (list, tuple)):
        raise TypeError(
            f"Invalid function argument. Expected parameter `{name}` of type List[torch.Tensor] "
            f"but got {type(tensors)} instead."
        )
    if len(tensors) != pg.size():
        raise ValueError(f"{name}: one tensor per rank is needed: {pg.size()}, got {len(tensors)}")
    return [array_of(name, tensor) for tensor in tensors]


def list_of_root(name: str, tensors: Any, pg: ProcessGroup, root: int, *, written: bool) -> list[Any] | None:
    if pg.rank() != root:
        if tensors:
            raise ValueError(
                f"{name} is given on rank {pg.ranks[root]} only; leave it out on rank {pg.ranks[pg.rank()]}"
            )
        return None
    if tensors is None:
        raise ValueError(f"{name} is needed on rank {pg.ranks[root]}: one tensor per rank")
    return (results_of if written else arrays_of)(name, tensors, pg)


def peer_of(
    name: str, pg: ProcessGroup, world_rank: int | None, group_rank: int | None, default: int | None = None
) -> int:
    """The number within the group that `dst`/`group_dst` or `src`/`group_src` mean."""
    if world_rank is not None and group_rank is not None:
        raise ValueError(f"give {name} or group_{name}, not both")
    if group_rank is not None or world_rank is None:
        found = default if group_rank is None else group_rank
        if found is None:
            raise ValueError(f"{name} is needed: the rank that the data goes to or comes from")
        if not 0 <= found < pg.size():
            raise ValueError(f"group_{name}={found} is not in 0..{pg.size() - 1}")
        return found
    return get_group_rank(pg, world_rank)


def check_op(name: str, array: Any, op: ReduceOp) -> None:
    if not isinstance(op, ReduceOp):
        raise TypeError(f"{name}: op must be a ReduceOp, such as ReduceOp.SUM, got {op!r}")
    if op is ReduceOp.AVG and array.dtype.kind in "iub":
        raise TypeError(f"{name}: AVG needs a floating point tensor, got {array.dtype}; use SUM and divide")
    if array.dtype.kind == "c" and op in (ReduceOp.MIN, ReduceOp.MAX):
        raise TypeError(f"{name}: complex numbers have no {op.name}")
    if op in (ReduceOp.BAND, ReduceOp.BOR, ReduceOp.BXOR) and array.dtype.kind not in "iub":
        raise TypeError(f"{name}: {op.name} needs an integer or bool tensor, got {array.dtype}")


def check_alike(name: str, listed: str, arrays: list[Any], like: Any) -> None:
    for r, array in enumerate(arrays):
        if array.shape != like.shape or array.dtype != like.dtype:
            raise ValueError(
                f"{name}: {listed}[{r}] is {array.dtype}{list(array.shape)}, but the tensor is "
                f"{like.dtype}{list(like.shape)}; all must be alike"
            )


def check_whole(name: str, whole: Any, part: Any, pg: ProcessGroup) -> None:
    """`whole` holds the ranks' parts, one after another along dim 0, or stacked along a new one."""
    ranks, shape = pg.size(), part.shape
    fits = [(ranks, *shape), (ranks * shape[0], *shape[1:]) if shape else (ranks,)]
    if whole.shape not in fits and (whole.ndim != 1 or whole.size != ranks * part.size):
        wanted = " or ".join(dict.fromkeys(f"{part.dtype}{list(one)}" for one in fits))
        raise ValueError(
            f"{name}: the larger tensor must hold one part per rank, {ranks} x {part.dtype}{list(shape)}: {wanted}, "
            f"got {whole.dtype}{list(whole.shape)}"
        )
    if whole.dtype != part.dtype:
        raise ValueError(f"{name}: both tensors must have one dtype, got {whole.dtype} and {part.dtype}")


def split(name: str, array: Any, sizes: Sequence[int] | None, pg: ProcessGroup) -> list[Any]:
    """The ranks' parts of a tensor along dim 0, as views."""
    if array.ndim == 0:
        raise ValueError(f"all_to_all_single: {name} is 0-dimensional and cannot be split; unsqueeze(0) it")
    rows = len(array)
    if not sizes:
        if rows % pg.size():
            raise ValueError(f"all_to_all_single: {name} has {rows} rows, which {pg.size()} ranks cannot share equally")
        sizes = [rows // pg.size()] * pg.size()
    if len(sizes) != pg.size() or sum(sizes) != rows or min(sizes) < 0:
        raise ValueError(
            f"all_to_all_single: {name}_split_sizes {list(sizes)} must be {pg.size()} numbers that add up to {rows}"
        )
    ends = np.cumsum(sizes)
    return [array[end - size : end] for size, end in zip(sizes, ends, strict=True)]


def is_plain(array: Any) -> bool:
    return isinstance(array, np.ndarray) and array.flags.c_contiguous


def to_host(array: Any) -> Array:
    """The array itself if MPI can take it, else a contiguous copy in host memory. No device pointer reaches MPI."""
    if is_plain(array):
        plain: Array = array
        return plain
    return np.array(cuda.to_host(array), order="C")


def write(array: Any, host: Array) -> None:
    array[...] = host if isinstance(array, np.ndarray) else cuda.to_device(host, array.device.id)
