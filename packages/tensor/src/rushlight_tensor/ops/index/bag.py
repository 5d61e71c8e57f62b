"""Bags of embeddings: the sum, mean or maximum of the rows that each bag names, in time linear in their number."""

from __future__ import annotations

from typing import Any

import numpy as np

from rushlight_tensor.core import promote
from rushlight_tensor.core.cuda import like
from rushlight_tensor.core.dispatch import call, read
from rushlight_tensor.core.dtypes import dtype_title
from rushlight_tensor.core.half_precision import wide
from rushlight_tensor.core.tensor import wrap
from rushlight_tensor.ops.index.embedding import embedding
from rushlight_tensor.ops.index.gather import _gather, _index_select, _index_select_backward
from rushlight_tensor.ops.index.scatter import _scatter_reduce
from rushlight_tensor.ops.math.cast import cast
from rushlight_tensor.ops.math.select import where
from rushlight_tensor.ops.shape.shape import expand, reshape


def _starts(offsets: Any, count: int, include_last: bool) -> Any:
    """Where each bag starts, and where the last ends, after PyTorch's checks; and that none ends before it starts."""
    if offsets is None:
        raise ValueError("offsets has to be a 1D Tensor but got None")
    if offsets._array.ndim != 1:
        raise ValueError("offsets has to be a 1D Tensor")
    if offsets._array.dtype.name not in ("int64", "int32"):
        raise RuntimeError(
            "Expected tensor for argument #1 'offsets' to have one of the following scalar types: Long, Int; but got "
            f"torch.{dtype_title(offsets._array.dtype)}Tensor instead (while checking arguments for embedding_bag)"
        )
    starts = read(offsets, "embedding_bag").astype(np.int64)
    if include_last and not starts.size:
        raise RuntimeError("include_last_offset: number of offset should be at least 1")
    if starts.size and starts[0] != 0:
        raise RuntimeError(
            "offsets[0] has to be 0, i.e., the first sequence in the mini-batch has to start from position 0. However, "
            f"got {starts[0]}"
        )
    if starts.size and starts[-1] > count:
        raise RuntimeError(
            f"offsets[-1] can not be greater than input's length {count} but got offsets[-1] of {starts[-1]}"
        )
    down = np.flatnonzero(starts[1:] < starts[:-1])
    if down.size:
        at = int(down[0])
        raise RuntimeError(
            f"embedding_bag: expected offsets that do not decrease, but got {starts[at]} before {starts[at + 1]} at "
            f"position {at}; sort them"
        )
    return starts if include_last else np.append(starts, count)


def _check(input: Any, weight: Any, offsets: Any, mode: str, weights: Any, padding_idx: int | None) -> None:
    """Raise PyTorch's errors for arguments that do not go together."""
    if weights is not None and weights._array.shape != input._array.shape:
        have, want = (list(t._array.shape) for t in (weights, input))
        raise ValueError(
            f"embedding_bag: If per_sample_weights ({have}) is not None, then it must have the same shape as the input "
            f"({want})"
        )
    if input._array.ndim not in (1, 2):
        raise ValueError(f"input has to be 1D or 2D Tensor, but got Tensor of dimension {input._array.ndim}")
    if input._array.ndim == 2 and offsets is not None:
        raise ValueError(
            "if input is 2D, then offsets has to be None, as input is treated is a mini-batch of fixed length sequences"
        )
    if mode not in ("sum", "mean", "max"):
        raise ValueError(f"mode has to be one of sum, mean or max, but got {mode}")
    if weights is not None and mode != "sum":
        raise NotImplementedError(
            f"embedding_bag: per_sample_weights was not None; for mode='{mode}' only None is supported"
        )
    if weights is not None and weights._array.dtype != weight._array.dtype:
        of, got = dtype_title(weight._array.dtype), dtype_title(weights._array.dtype)
        raise RuntimeError(f"embedding_bag: expected per_sample_weights of the dtype of weight, {of}; got {got}")
    rows = weight._array.shape[0]
    if padding_idx is not None and not -rows <= padding_idx < rows:
        raise RuntimeError(
            f"padding_idx must be within the number of embeddings, -{rows} through {rows - 1}, but got {padding_idx}"
        )


def _largest(rows: Any, bag: Any, bags: int) -> Any:
    """For each bag and column the first of the largest; a NaN counts where it comes first, as in PyTorch."""
    count, width = rows._array.shape
    first = np.ones(count, bool)
    first[1:] = bag[1:] != bag[:-1]
    x = rows.detach()
    key = where(x != x, where(wrap(like(x._array, first[:, None])), np.inf, -np.inf), x)
    at = expand(reshape(wrap(like(x._array, bag)), count, 1), (count, width))
    place = expand(wrap(like(x._array, np.arange(count)[:, None])), (count, width))
    top = _scatter_reduce(x.new_full((bags, width), -np.inf), at, key, dim=0, reduce="amax", include_self=True)
    place = where(key == _gather(top, at, 0), place, count)
    start = place.new_full((bags, width), count)
    found = _scatter_reduce(start, at, place, dim=0, reduce="amin", include_self=True)
    return where(found == count, 0.0, _gather(rows, found.clamp(max=count - 1), 0))


def _total(rows: Any, bag: Any, bags: int, average: bool) -> Any:
    """For each bag the sum of its rows, or their mean: a gradient's work, adding up what names one place."""
    table = (bags, rows._array.shape[1])
    out = call(_index_select_backward, (rows, wrap(like(rows._array, bag))), {"shape": table, "dim": 0})
    if not average:
        return out
    counts = np.maximum(np.bincount(bag, minlength=bags), 1)[:, None]
    return out / wrap(like(rows._array, counts.astype(rows._array.dtype)))


def embedding_bag(
    input: Any,
    weight: Any,
    offsets: Any = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Any = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Any:
    """The sum, mean or maximum of the rows of `weight` that each bag of indices names.

    Args:
        input: (B, N): B bags of equal size; or (N,), cut into bags at `offsets`.
        weight: (V, D).
        offsets: (B,), where each bag starts: from 0 on, not decreasing.
        mode: "sum", "mean" or "max"; an empty bag gives zeros.
        per_sample_weights: Of the shape of `input`, multiplied to the rows; for "sum" only.
        include_last_offset: `offsets` ends with the end of the last bag.
        padding_idx: An index that does not count.
    Returns:
        (B, D).
    """
    if max_norm is not None or scale_grad_by_freq or sparse:
        raise NotImplementedError(
            "embedding_bag: max_norm, scale_grad_by_freq and sparse are not supported; leave them out"
        )
    _check(input, weight, offsets, mode, per_sample_weights, padding_idx)
    if input._array.ndim == 2:
        bags, each = input._array.shape
        bag = np.repeat(np.arange(bags), each)
    else:
        starts = _starts(offsets, input._array.size, include_last_offset)
        bags = len(starts) - 1
        bag = np.repeat(np.arange(bags), np.diff(starts))
        if input._array.dtype != offsets._array.dtype:
            input = cast(input, dtype=promote.promote_types(input._array.dtype, offsets._array.dtype))
    return _bags(reshape(input, -1), weight, bag, bags, mode, per_sample_weights, padding_idx)


def _bags(flat: Any, weight: Any, bag: Any, bags: int, mode: str, weights: Any, padding_idx: int | None) -> Any:
    """`embedding_bag` of the bag that each of the first indices belongs to, in order; no later one counts."""
    kept = np.arange(len(bag))
    if padding_idx is not None:
        kept = np.flatnonzero(read(flat, "embedding_bag")[: len(bag)] != padding_idx % weight._array.shape[0])
    if len(kept) < flat._array.size:
        at = wrap(like(flat._array, kept))
        bag, flat = bag[kept], _index_select(flat, at, 0)
        weights = None if weights is None else _index_select(reshape(weights, -1), at, 0)
    try:
        rows = embedding(flat, weight)
    except IndexError:
        bad = read(flat, "embedding_bag")
        bad = bad[(bad < 0) | (bad >= weight._array.shape[0])][0]
        raise RuntimeError(
            f"embedding_bag: Expected idx >= 0 && idx < num_embeddings but found idx to be {bad}"
        ) from None
    dtype = rows._array.dtype
    rows = cast(rows, dtype=wide(dtype)) if dtype != wide(dtype) else rows  # bags are rounded once
    if weights is not None:
        rows = rows * reshape(weights, -1, 1)
    out = _largest(rows, bag, bags) if mode == "max" and len(bag) else _total(rows, bag, bags, mode == "mean")
    return out if out._array.dtype == dtype else cast(out, dtype=dtype)
