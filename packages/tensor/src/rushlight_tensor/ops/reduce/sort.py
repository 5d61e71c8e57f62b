"""Order: sort, the k largest, distinct values, positions in a sorted sequence, and counts.

The records find indices and have no gradient; values are gathered by them, which has one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rushlight_tensor.core import cuda, kinds, placement, promote
from rushlight_tensor.core.dispatch import call, numbers_only, read, real_only, refuse
from rushlight_tensor.core.dtypes import dtype_title
from rushlight_tensor.core.half_precision import in_float32
from rushlight_tensor.core.infer import Aval, axis
from rushlight_tensor.core.labels import contiguous_format
from rushlight_tensor.core.op import Op
from rushlight_tensor.core.tensor import Tensor, wrap
from rushlight_tensor.ops.index.gather import _gather
from rushlight_tensor.ops.math.cast import clone
from rushlight_tensor.ops.reduce.extreme import _result
from rushlight_tensor.ops.shape.samples import _in_front
from rushlight_tensor.ops.shape.slicing import select

_Sorted, _Top, _Kth = (_result(name, "values", "indices") for name in ("sort", "topk", "kthvalue"))

# Along a dimension


def _order_aval(x: Any, dim: int = -1, descending: bool = False) -> Aval:
    axis(dim, len(x.shape))
    return Aval(x.shape, promote.INT64)


@in_float32
def _order_kernel(x: Any, dim: int, descending: bool) -> Any:
    if x.ndim == 0:
        axis(dim, 0)
        return np.zeros_like(x, dtype=np.int64)
    if isinstance(x, np.ndarray) and x.size > _SMALL:
        keys = _sort_keys(x)
        if keys is not None:
            return _order_of_keys(np.moveaxis(~keys if descending else keys, dim, -1), dim)
    if not descending:
        return np.argsort(x, axis=dim, kind="stable")
    backwards = np.argsort(np.flip(x, dim), axis=dim, kind="stable")  # so that equal elements keep their order
    return x.shape[dim] - 1 - np.flip(backwards, dim)


_SMALL = 200


def _sort_keys(x: Any) -> Any:
    """uint32 numbers in the order of the elements, equal ones for equal elements; None where 32 bits are too few."""
    if x.dtype == np.float32:
        bits = (x + np.float32(0)).view(np.int32)  # + 0 makes -0.0 equal to 0.0
        keys = np.where(bits < 0, ~bits, bits ^ np.int32(-(2**31))).view(np.uint32)
        keys[np.isnan(x)] = 2**32 - 1
        return keys
    if x.dtype.kind not in "iu" or x.dtype == np.uint64:
        return None
    low = int(x.min())
    return (x - np.int64(low)).astype(np.uint32) if int(x.max()) - low < 2**32 else None


def _order_of_keys(keys: Any, dim: int) -> Any:
    """The stable order of 32-bit keys along the last dimension, moved to `dim`.

    Sorting key and position together as one 64-bit number is stable by itself, so that NumPy's vector code can do it:
    3 to 7 times as fast as its stable argsort.
    """
    both = keys.astype(np.uint64)
    both <<= np.uint64(32)
    both |= np.arange(keys.shape[-1], dtype=np.uint64)
    both.sort(axis=-1)
    both &= np.uint64(2**32 - 1)
    return np.ascontiguousarray(np.moveaxis(both.astype(np.int64), -1, dim))


_order = Op(
    "argsort",
    kind=kinds.rows("dim"),
    infer=_order_aval,
    real=RuntimeError(" Sort does not support complex dtypes on CPU"),
    order=placement.LIKE,
    numpy=_order_kernel,
    vjp=None,
)


def argsort(input: Any, dim: int = -1, descending: bool = False, stable: bool = False) -> Any:
    """The indices that sort `input` along `dim`; equal elements keep their order, NaN counts as largest."""
    return _order(input, dim=dim, descending=descending)


def sort(input: Any, dim: int = -1, descending: bool = False, stable: bool = False) -> Any:
    """`input` sorted along `dim`, as (values, indices); equal elements keep their order, NaN counts as largest."""
    order = _order(input, dim=dim, descending=descending)
    return _Sorted(_take(input, order, dim, True), order)


def _take(x: Any, order: Any, dim: int, alike: bool = False) -> Any:
    return x.clone() if x._array.ndim == 0 else _gather(x, order, dim, alike)


def msort(input: Any) -> Any:
    """`input` sorted along its first dimension."""
    return sort(input, 0)[0]


def _top_aval(x: Any, k: int = 1, dim: int = -1, largest: bool = True) -> Aval:
    shape = x.shape or (1,)
    d = axis(dim, len(shape))
    if not 0 <= k <= shape[d]:
        raise RuntimeError(f"selected index k out of range: k is {k}, dimension {d} has {shape[d]} elements")
    return Aval((*shape[:d], k, *shape[d + 1 :]) if x.shape else (), promote.INT64)


@in_float32
def _top_kernel(x: Any, k: int, dim: int, largest: bool) -> Any:
    if x.ndim == 0 or not 0 <= k <= x.shape[dim]:
        return np.zeros_like(x, np.int64, shape=_top_aval(x, k, dim, largest).shape)
    n = x.shape[dim]
    if isinstance(x, np.ndarray) and 16 * k < n and x.dtype.kind != "b":  # worth a first pass that only separates
        x = x.copy()  # NumPy looks for its pivots without a bound: nobody else may write here meanwhile
        cut = n - k if largest else k - 1
        part = np.argpartition(x, min(max(cut, 0), n - 1), axis=dim)
        part = np.sort(np.take(part, np.arange(n - k, n) if largest else np.arange(k), axis=dim), axis=dim)
        best = _order_kernel(np.take_along_axis(x, part, dim), dim, largest)
        return np.take_along_axis(part, best, dim)
    return np.take(_order_kernel(x, dim, largest), cuda.like(x, np.arange(k)), axis=dim)


_top = Op(
    "topk",
    kind=kinds.rows("dim"),
    infer=_top_aval,
    real=RuntimeError(" topk does not support complex dtypes on CPU"),
    numeric=RuntimeError("topk does not support bool dtypes on CPU"),
    numpy=_top_kernel,
    vjp=None,
    onnx="TopK",
)


def topk(input: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """The k largest (or smallest) elements along `dim`, in order, as (values, indices)."""
    order = _top(input, k=k, dim=dim, largest=largest)
    return _Top(_take(input, order, dim), order)


def kthvalue(input: Any, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    """The k-th smallest element along `dim` (the first is 1), as (values, indices)."""
    real_only("kthvalue_cpu", input)
    numbers_only("kthvalue_cpu", input)
    shape = input._array.shape
    d = axis(dim, len(shape))
    if not 1 <= k <= (shape[d] if shape else 1):
        raise RuntimeError(f"kthvalue(): selected number k out of range for dimension {d}: k is {k}")
    order = _order(input, dim=d)
    if shape:
        order = clone(select(order, d, k - 1), memory_format=contiguous_format).unsqueeze(d)
    values = _take(input, order, d)
    return _Kth(values, order) if keepdim or not shape else _Kth(values.squeeze(d), order.squeeze(d))


# Distinct values


def unique(
    input: Any, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any:
    """The distinct elements (or slices along `dim`) in ascending order.

    Args:
        sorted: Accepted for PyTorch's signature; the result always is.
        return_inverse: Also where each element of `input` is in the result.
        return_counts: Also how often each of them occurs.
    """
    real_only("unique", input)
    array = read(input, "unique")
    values, inverse, counts = np.unique(
        array, return_inverse=True, return_counts=True, axis=None if dim is None else axis(dim, array.ndim)
    )
    inverse = inverse.reshape(array.shape if dim is None else -1)
    return _distinct(input, values, inverse, counts, return_inverse, return_counts)


def unique_consecutive(
    input: Any, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any:
    """`input` (flattened, or along `dim`) with each run of equal elements as one; arguments as `unique`."""
    array = read(input, "unique_consecutive")
    rows = array.reshape(-1) if dim is None else np.moveaxis(array, dim, 0)
    n = len(rows)
    new = np.ones(n, np.bool_)
    if n > 1:
        new[1:] = (rows[1:] != rows[:-1]).reshape(n - 1, -1).any(axis=1)
    starts = np.flatnonzero(new)
    values = rows[starts] if dim is None else np.moveaxis(rows[starts], 0, dim)
    inverse = (np.cumsum(new) - 1).reshape(array.shape if dim is None else -1)
    return _distinct(input, values, inverse, np.diff(np.append(starts, n)), return_inverse, return_counts)


def _distinct(x: Tensor, values: Any, inverse: Any, counts: Any, want_inverse: bool, want_counts: bool) -> Any:
    out = [wrap(cuda.like(x._array, np.ascontiguousarray(values)))]
    if want_inverse:
        out.append(wrap(cuda.like(x._array, inverse.astype(np.int64, copy=False))))
    if want_counts:
        out.append(wrap(cuda.like(x._array, counts.astype(np.int64, copy=False))))
    return out[0] if len(out) == 1 else tuple(out)


# Positions


def _searchsorted_aval(sorted_sequence: Any, x: Any, right: bool = False, int32: bool = False) -> Aval:
    s, v = sorted_sequence.shape, x.shape
    if not s or (len(s) > 1 and s[:-1] != v[:-1]):
        raise RuntimeError(
            "torch.searchsorted(): boundaries tensor should be 1 dimension or the first N-1 dimensions of boundaries "
            f"tensor and input value tensor must match, but we got boundaries tensor {list(s)} and input value tensor "
            f"{list(v)}"
        )
    return Aval(v, np.dtype(np.int32) if int32 else promote.INT64)


def _searchsorted_kernel(sorted_sequence: Any, x: Any, right: bool, int32: bool) -> Any:
    if sorted_sequence.dtype != x.dtype or x.dtype.itemsize == 2:
        wide = promote.FLOAT32 if x.dtype.itemsize == 2 else x.dtype
        common = np.result_type(wide, np.float32 if sorted_sequence.dtype.itemsize == 2 else sorted_sequence.dtype)
        sorted_sequence, x = sorted_sequence.astype(common), x.astype(common)
    side: Any = "right" if right else "left"
    if sorted_sequence.ndim == 1:
        out: Any = np.searchsorted(sorted_sequence, x, side)
    elif not sorted_sequence.size or not x.size:
        _searchsorted_aval(sorted_sequence, x)
        out = np.zeros_like(x, dtype=np.int64)
    else:
        _searchsorted_aval(sorted_sequence, x)
        rows = zip(sorted_sequence.reshape(-1, sorted_sequence.shape[-1]), x.reshape(-1, x.shape[-1]), strict=True)
        out = np.stack([np.searchsorted(s, v, side) for s, v in rows]).reshape(x.shape)
    return out.astype(np.int32 if int32 else np.int64, copy=False)


def _searchsorted_samples(size: int, batched: Any, xs: Any, attrs: Any) -> Any:
    rows, x = xs
    if batched[0] and rows._array.ndim == 2:  # one row for all values of a sample
        x = x.reshape(size, -1) if batched[1] else x.reshape(1, -1).expand(size, -1)
    elif rows._array.ndim - batched[0] > 1:
        rows, x = _in_front(size, batched, xs)
    return call(_searchsorted, (rows, x), attrs)


_searchsorted = Op(
    "searchsorted",
    kind=kinds.rows(),
    batch=_searchsorted_samples,
    infer=_searchsorted_aval,
    real="searchsorted_out_cpu",
    numpy=_searchsorted_kernel,
    vjp=None,
)


def searchsorted(
    sorted_sequence: Any,
    input: Any,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Any = None,
) -> Any:
    """Where to insert the elements of `input` so that the last dimension of `sorted_sequence` stays sorted.

    Args:
        right: After equal elements instead of before them; `side="right"` says the same.
        sorter: The order of an unsorted sequence, as `argsort` returns it.
    """
    if side not in (None, "left", "right"):
        raise RuntimeError(f"torch.searchsorted(): side can only be 'left' or 'right' but got {side}")
    if right and side == "left":
        raise RuntimeError(
            "torch.searchsorted(): side and right can't be set to opposites, got side of left while right was True"
        )
    if sorter is not None:
        sorted_sequence = _gather(sorted_sequence, sorter, -1)
    if not isinstance(input, Tensor):
        input = wrap(cuda.like(sorted_sequence._array, np.asarray(input)))
    real_only("searchsorted_out_cpu", sorted_sequence, input)
    if sorted_sequence._array.dtype == promote.BOOL:
        numbers_only("searchsorted_out_cpu", input)
    return _searchsorted(sorted_sequence, input, right=right or side == "right", int32=out_int32)


def bucketize(input: Any, boundaries: Any, *, out_int32: bool = False, right: bool = False) -> Any:
    """For each element of `input` the index of the interval between sorted boundaries that it is in."""
    if boundaries._array.ndim != 1:
        raise RuntimeError(f"boundaries tensor must be 1 dimension, but got dim({boundaries._array.ndim})")
    return searchsorted(boundaries, input, out_int32=out_int32, right=right)


def _isin_aval(x: Any, y: Any) -> Aval:
    return Aval(x.shape, promote.BOOL)


def _isin_kernel(x: Any, y: Any) -> Any:
    on = x if isinstance(y, (bool, int, float)) else y  # one of them is an array
    dtype = on.dtype if on.dtype != promote.BFLOAT16 else promote.FLOAT32
    x, y = (z.astype(dtype, copy=False) if hasattr(z, "astype") else np.asarray(z, dtype, like=on) for z in (x, y))
    return np.isin(x, y)


_isin = Op(
    "isin",
    kind=kinds.opaque("every element is compared with all of the second input"),
    infer=_isin_aval,
    numpy=_isin_kernel,
    promote=promote.same,
    vjp=None,
)


def isin(elements: Any, test_elements: Any, *, assume_unique: bool = False, invert: bool = False) -> Any:
    """Which of `elements` occur in `test_elements`; one of the two may be a number."""
    for x in (elements, test_elements):
        if isinstance(x, Tensor) and x._array.dtype.kind in "bc":
            raise RuntimeError(f"Unsupported input type encountered for isin(): {dtype_title(x._array.dtype)}")
    out = _isin(elements, test_elements)
    return out.logical_not() if invert else out


# Counts


def bincount(input: Any, weights: Any = None, minlength: int = 0) -> Any:
    """How often each non-negative integer occurs in a vector, or the sum of the weights of those elements."""
    array = read(input, "bincount")
    if array.dtype.kind not in "iu":
        refuse("bincount_cpu", array.dtype)
    if array.ndim != 1 or (array.size and array.min() < 0):
        raise RuntimeError("bincount only supports 1-d non-negative integral inputs.")
    if minlength < 0:
        raise RuntimeError("minlength should be >= 0")
    if weights is not None and weights._array.shape != array.shape:
        raise RuntimeError("weights should be 1-d and have the same length as input")
    out = np.bincount(array, None if weights is None else cuda.to_host(weights._array), minlength)
    if weights is not None and weights._array.dtype == np.float32:
        out = out.astype(np.float32)
    return wrap(cuda.like(input._array, out))


def _histc_aval(x: Any, bins: int = 100, min: float = 0, max: float = 0) -> Aval:
    if promote.category(x.dtype) != 2:
        raise NotImplementedError(f'"histogram_cpu" not implemented for {x.dtype}; convert with .float() first')
    if bins <= 0:
        raise RuntimeError(f"bins must be > 0, got {bins}")
    if max < min:
        raise RuntimeError("torch.histc: max must be larger than min")
    return Aval((bins,), x.dtype)


@in_float32
def _histc_kernel(x: Any, bins: int, min: float, max: float) -> Any:
    _histc_aval(x, bins, min, max)
    low, high = (float(x.min()), float(x.max())) if min == max and x.size else (min, max)
    if low == high:
        low, high = low - 1, high + 1
    if not (np.isfinite(low) and np.isfinite(high)):
        raise RuntimeError(f"torch.histc: range of [{low}, {high}] is not finite")
    return np.histogram(x, bins, (low, high))[0].astype(x.dtype)


_histc = Op(
    "histc",
    kind=kinds.opaque("counts over all elements, between bounds that depend on these"),
    infer=_histc_aval,
    numpy=_histc_kernel,
    vjp=None,
)


def histc(input: Any, bins: int = 100, min: float = 0, max: float = 0) -> Any:
    """How many elements are in each of `bins` equal intervals between `min` and `max` (both 0: those of the data)."""
    return _histc(input, bins=bins, min=min, max=max)
