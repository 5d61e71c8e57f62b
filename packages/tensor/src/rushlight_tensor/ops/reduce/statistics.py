"""Statistics and smaller algebra: quantiles, differences, covariance, and products of vectors that are compositions."""

from __future__ import annotations

from typing import Any

import numpy as np

from rushlight_tensor.core import promote
from rushlight_tensor.core.dispatch import numbers_only, read
from rushlight_tensor.core.dtypes import dtype_title
from rushlight_tensor.core.infer import axis
from rushlight_tensor.core.tensor import Tensor
from rushlight_tensor.ops.linalg.linalg import _plus, bmm, matmul
from rushlight_tensor.ops.math.cast import cast, clone, contiguous, widely
from rushlight_tensor.ops.math.complex import complex, conj, imag, real
from rushlight_tensor.ops.math.elementwise import sqrt
from rushlight_tensor.ops.math.select import where
from rushlight_tensor.ops.reduce.reduce import mean, sum
from rushlight_tensor.ops.reduce.vector_norm import norm
from rushlight_tensor.ops.shape.join import cat, stack
from rushlight_tensor.ops.shape.shape import reshape


def diff(input: Any, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None) -> Any:
    """The differences of neighbours along `dim`, `n` times.

    Args:
        prepend: Values put before the first along `dim`.
        append: Values put after the last.
    """
    parts = [t for t in (prepend, input, append) if t is not None]
    out = cat(parts, dim) if len(parts) > 1 else input
    if not out._array.ndim:
        raise RuntimeError("diff expects input to be at least one-dimensional")
    if not n:
        return clone(input)
    for _ in range(n):
        length = out._array.shape[dim]
        later, before = (out.narrow(dim, start, max(length - 1, 0)) for start in (min(1, length), 0))
        out = later != before if out._array.dtype.kind == "b" else later - before
    return out


_INTERPOLATIONS = ("linear", "lower", "higher", "midpoint", "nearest")


def _quantile(input: Any, q: Any, dim: int | None, keepdim: bool, interpolation: str, skip_nan: bool) -> Any:
    if input._array.dtype.name not in ("float32", "float64"):
        raise RuntimeError("quantile() input tensor must be either float or double dtype")
    if not input._array.size:
        raise RuntimeError("quantile() input tensor must be non-empty")
    if isinstance(q, Tensor) and q._array.dtype != input._array.dtype:
        raise RuntimeError("quantile() q tensor must be same dtype as the input tensor")
    if interpolation not in _INTERPOLATIONS:
        raise RuntimeError(
            "quantile() interpolation must be one of linear, lower, higher, midpoint or nearest, but got "
            + interpolation
        )
    at = np.asarray(read(q, "quantile") if isinstance(q, Tensor) else q, np.float64)
    if at.ndim > 1 or not ((at >= 0) & (at <= 1)).all():
        raise RuntimeError(
            f"quantile() q values must be in the range [0, 1], in a scalar or 1D tensor; got {at.tolist()}"
        )
    ndim = input._array.ndim
    if not ndim:  # of one number, which has no dimension to keep
        axis(0 if dim is None else dim, 0)
        dim, keepdim = None, False
    d = 0 if dim is None else axis(dim, ndim)
    rows = reshape(input, -1) if dim is None or not ndim else input
    ordered = rows.sort(d)[0]
    unknown = (rows != rows).any(d, True)
    known = rows == rows if skip_nan else rows.new_ones(rows._array.shape)
    count = sum(cast(known, dtype=np.dtype(np.float64)), d, True)  # (..., 1, ...); NaN is sorted last
    found = []
    for value in at.reshape(-1) if at.size else (0.5,):  # one that gives the shape, where none is asked for
        position = ((count - 1) * float(value)).clamp(min=0)
        if not skip_nan:
            position = where(unknown, count - 1, position)  # NaN is last, and takes the gradient, too
        found.append(_between(ordered, position, d, interpolation))
    shape = [1] * ndim if dim is None else list(found[0]._array.shape)
    out = [reshape(f, shape) if keepdim else f.squeeze(d) for f in found]
    return out[0] if at.ndim == 0 else stack(out, 0) if at.size else stack(out, 0)[:0]


def _between(ordered: Any, position: Any, d: int, interpolation: str) -> Any:
    low, high = position.floor(), position.ceil()
    if interpolation == "nearest":
        low = high = position.round()
    elif interpolation == "lower":
        high = low
    elif interpolation == "higher":
        low = high
    a, b = (ordered.gather(d, i.long()) for i in (low, high))
    if interpolation == "midpoint":
        return a + (b - a) * 0.5
    return a + (b - a) * cast(position - low, dtype=ordered._array.dtype) if interpolation == "linear" else a


def quantile(
    input: Any, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Any:
    """The q-quantiles along `dim`, of all elements by default; NaN where there is one.

    Args:
        q: A number, or a vector: its quantiles become the first dimension.
        interpolation: Between the two nearest elements: "linear", "lower", "higher", "midpoint" or "nearest".
    """
    return _quantile(input, q, dim, keepdim, interpolation, False)


def nanquantile(
    input: Any, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Any:
    """`quantile` of the elements that are not NaN."""
    return _quantile(input, q, dim, keepdim, interpolation, True)


def cov(input: Any, *, correction: int = 1, fweights: Any = None, aweights: Any = None) -> Any:
    """The covariance matrix of variables (rows) over observations (columns).

    Args:
        correction: Taken off the number of observations: 1 for an unbiased estimate.
        fweights: How often each observation is to be counted: a vector of integers.
        aweights: How much each observation weighs: a vector of floats.
    """
    if input._array.ndim > 2:
        raise RuntimeError(
            f"cov(): expected input to have two or fewer dimensions but got an input with {input._array.ndim} "
            "dimensions"
        )
    if input._array.dtype.kind == "b":
        raise RuntimeError("cov(): bool dtype is not supported for input")
    x = reshape(input, 1, -1) if input._array.ndim < 2 else input
    x = cast(x, dtype=promote.to_float([x._array]))
    weights = _observation_weights(x._array.shape[1], fweights, aweights)
    if weights is None:
        count, away = x._array.shape[1], x - mean(x, 1, True)
        weighted = away
    else:
        count = sum(weights)
        away = x - sum(x * weights, 1, True) / count
        weighted = away * weights
        if aweights is not None and correction:
            pull = weights * cast(aweights, dtype=weights._array.dtype)
            count = count - correction * sum(pull) / count
            correction = 0
    left = (count - correction).clamp(min=0) if isinstance(count, Tensor) else max(count - correction, 0)
    out = matmul(weighted, conj(away).t()) / left
    return out.squeeze()


def _observation_weights(n: int, fweights: Any, aweights: Any) -> Any:
    for name, w, kinds in (("fweights", fweights, "iu"), ("aweights", aweights, "fV")):
        if w is None:
            continue
        if w._array.ndim > 1 or w._array.size != n:
            raise RuntimeError(f"cov(): expected {name} to be a vector of {n} weights, one per observation")
        if w._array.dtype.kind not in kinds:
            raise RuntimeError(
                f"cov(): expected {name} to have {'integral' if kinds == 'iu' else 'floating point'} dtype"
            )
        if (read(w, "cov") < 0).any():
            raise RuntimeError(f"cov(): {name} cannot be negative")
    if fweights is None or aweights is None:
        return fweights if aweights is None else aweights
    return fweights * aweights


def corrcoef(input: Any) -> Any:
    """The matrix of Pearson's correlations of variables (rows) over observations (columns)."""
    c = cov(input)
    if not c._array.ndim:
        return c / c
    scale = sqrt(c.diagonal())
    out = c / scale.unsqueeze(1) / scale.unsqueeze(0)
    if out._array.dtype.kind == "c":
        return complex(real(out).clamp(-1, 1), imag(out).clamp(-1, 1))
    return out.clamp(-1, 1)


def trapezoid(y: Any, x: Any = None, *, dx: float = 1.0, dim: int = -1) -> Any:
    """The integral of `y` along `dim` by trapezoids, over places `x` or steps `dx`."""
    numbers_only(RuntimeError("trapezoid: received a bool input for `y`, but bool is not supported"), y)
    n = y._array.shape[dim]
    if not n:  # no trapezoids
        return sum(y.detach(), dim)
    pairs = y.narrow(dim, 1, n - 1) + y.narrow(dim, 0, n - 1)
    if x is None:
        return sum(pairs, dim) * (dx / 2)
    steps = diff(x, dim=-1 if x._array.ndim == 1 else dim)
    if x._array.ndim == 1:
        steps = reshape(steps, -1, *[1] * (y._array.ndim - 1 - axis(dim, y._array.ndim)))
    return sum(pairs * steps, dim) / 2


def cross(input: Any, other: Any, dim: int | None = None) -> Any:
    """The vector product along a dimension of size 3, by default the first such."""
    if dim is None:
        dims = [i for i, n in enumerate(input._array.shape) if n == 3]
        if not dims:
            raise RuntimeError("no dimension of size 3 in input")
        dim = dims[0]
    for t in (input, other):
        if t._array.shape[dim] != 3:
            raise RuntimeError(
                f"linalg.cross: inputs dimension {dim} must have length 3. Got {input._array.shape[dim]} and "
                f"{other._array.shape[dim]}"
            )
    numbers_only("cross", input)
    if input._array.dtype != other._array.dtype:
        want, got = (dtype_title(t._array.dtype) for t in (input, other))
        raise RuntimeError(f"expected scalar type {want} but found {got}")
    a, b = input.unbind(dim), other.unbind(dim)
    parts = [a[i] * b[j] - a[j] * b[i] for i, j in ((1, 2), (2, 0), (0, 1))]
    return stack(parts, axis(dim, max(input._array.ndim, other._array.ndim)))


def kron(input: Any, other: Any) -> Any:
    """Kronecker's product: every element of `input` times all of `other`."""
    n = max(input._array.ndim, other._array.ndim)
    a, b = ([1] * (n - t._array.ndim) + list(t._array.shape) for t in (input, other))
    wide = [size for pair in zip(a, [1] * n, strict=True) for size in pair]
    narrow = [size for pair in zip([1] * n, b, strict=True) for size in pair]
    product = reshape(input, wide) * reshape(other, narrow)
    return reshape(product, [m * k for m, k in zip(a, b, strict=True)])


def vdot(input: Any, other: Any) -> Any:
    """The sum of the products of two vectors' elements, those of the first conjugated."""
    return conj(input).dot(other)


def addbmm(input: Any, batch1: Any, batch2: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    """`beta * input + alpha * sum(bmm(batch1, batch2))`."""
    products = bmm(batch1, batch2)
    return _plus(input, sum(products, 0, dtype=products.dtype), beta, alpha)


def chain_matmul(*matrices: Any) -> Any:
    """The product of several matrices, from left to right."""
    out = matrices[0] if len(matrices) > 1 else clone(matrices[0])
    for m in matrices[1:]:
        out = matmul(out, m)
    return out


@widely
def renorm(input: Any, p: float, dim: int, maxnorm: float) -> Any:
    """`input` with every slice along `dim` scaled down to a p-norm of at most `maxnorm`."""
    if p <= 0:
        raise RuntimeError("renorm: non-positive-norm not supported")
    if maxnorm < 0:
        raise RuntimeError(f"renorm: expected maxnorm to be >= 0 but got {maxnorm}")
    if input._array.ndim < 2:
        raise RuntimeError(f"renorm: input needs at least 2 dimensions, got {input._array.ndim} dimensions")
    over = [d for d in range(input._array.ndim) if d != axis(dim, input._array.ndim)]
    large = norm(input.detach(), p, over, True) > maxnorm
    norms = norm(where(large, input, 1.0), p, over, True)  # no gradient comes from those that are not: NaN among them
    return contiguous(input * where(large, maxnorm / (norms + 1e-7), 1.0))
