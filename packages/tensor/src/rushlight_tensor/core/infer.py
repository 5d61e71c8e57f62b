"""Shapes and dtypes without data: what an operation will return, and the user's error when it cannot.

The eager path does not call these; they run for arrays without data (`describe.py`), in the tracer, and when a kernel
has failed, to say why.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from rushlight_tensor.core import promote
from rushlight_tensor.core.symbol import Size


class Aval(NamedTuple):
    """An abstract value: what is known of an array before it exists.

    An op's `infer` says shape and dtype, and the rest only where it is not what `describe` takes for granted: fresh
    contiguous memory, on the device of the inputs.  See Note [Descriptions] in `describe.py`.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    strides: tuple[int, ...] | None = None
    """In elements; None for memory in the order of the indices."""
    device: str | None = None
    private: bool = False
    """That users see contiguous memory, whatever the strides: Note [Private order] in `layout.py`."""
    offset: int = 0
    """Of the result of a view: the bytes between the first element of what it is a view of, and its own."""

    @property
    def ndim(self) -> int:
        return len(self.shape)


def broadcast_shapes(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The common shape under NumPy's broadcasting.  Raises RuntimeError with PyTorch's text."""
    out: list[int] = []
    for back in range(1, max(map(len, shapes), default=0) + 1):
        size = 1
        for shape in shapes:
            if back > len(shape) or shape[-back] == 1:
                continue
            if size not in (1, shape[-back]):
                dim = max(map(len, shapes)) - back
                raise RuntimeError(
                    f"The size of tensor a ({size}) must match the size of tensor b ({shape[-back]}) at non-singleton "
                    f"dimension {dim}; shapes {', '.join(map(str, shapes))} do not broadcast"
                )
            size = shape[-back]
        out.append(size)
    return tuple(reversed(out))


def _shape(x: Any) -> tuple[int, ...]:
    return () if isinstance(x, (int, float, complex)) else x.shape


def axis(dim: int, ndim: int) -> int:
    """`dim` counted from the front.  Raises IndexError with PyTorch's text."""
    n = max(ndim, 1)
    if not -n <= dim < n:
        raise IndexError(f"Dimension out of range (expected to be in range of [{-n}, {n - 1}], but got {dim})")
    return dim % n


def axes(dim: int | tuple[int, ...] | list[int] | None, ndim: int) -> tuple[int, ...]:
    """Several dimensions, sorted out: `None` and `()` mean all of them."""
    if dim is None or dim == () or dim == []:
        return tuple(range(ndim))
    dims = (dim,) if isinstance(dim, int) else tuple(dim)
    out = tuple(axis(d, ndim) for d in dims)
    if len(set(out)) != len(out):
        raise RuntimeError(f"dim {dims} appears multiple times in the list of dims")
    return out if ndim else ()


def resolve(of: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """`shape` with its -1 filled in.  Raises RuntimeError where it does not hold as many elements as `of`."""
    count = math.prod(of)
    if not [n for n in shape if n < 0] and math.prod(shape) == count:
        return tuple(shape)
    known = math.prod(n for n in shape if n != -1)
    if shape.count(-1) > 1:
        raise RuntimeError("only one dimension can be inferred")
    if any(n < -1 for n in shape):
        raise RuntimeError(f"invalid shape dimension {min(shape)}")
    if -1 in shape:
        if known == 0:
            raise RuntimeError(
                f"cannot reshape tensor of {count} elements into shape {list(shape)} because the unspecified dimension "
                "size -1 can be any value and is ambiguous"
            )
        if count % known == 0:
            return tuple(count // known if n == -1 else n for n in shape)
    raise RuntimeError(f"shape '{list(shape)}' is invalid for input of size {count}")


def sizes(shape: tuple[Any, ...]) -> tuple[int, ...]:
    """The sizes given as `f(2, 3)`, `f((2, 3))` or `f(torch.Size([2, 3]))`."""
    if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
        shape = tuple(shape[0])
    try:
        return tuple([n if type(n) is int or isinstance(n, Size) else n.__index__() for n in shape])  # type: ignore[misc]
    except AttributeError:
        kinds = ", ".join(type(n).__name__ for n in shape)
        raise TypeError(f"sizes must be ints, got ({kinds})") from None


def reduced(shape: tuple[int, ...], dim: Any, keepdim: bool) -> tuple[int, ...]:
    """The shape after reducing over `dim` (None: all of them)."""
    over = axes(dim, len(shape))
    if keepdim:
        return tuple(1 if i in over else n for i, n in enumerate(shape))
    return tuple(n for i, n in enumerate(shape) if i not in over)


def real_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype of the parts of a complex number; any other dtype as it is."""
    return np.dtype(f"f{dtype.itemsize // 2}") if dtype.kind == "c" else dtype


def unary_real(x: Any) -> Aval:
    """Shape of the input; its dtype, or that of the parts of complex numbers."""
    return Aval(x.shape, real_dtype(x.dtype))


def unary_same(x: Any) -> Aval:
    """Shape and dtype of the input."""
    return Aval(x.shape, x.dtype)


def unary_float(x: Any) -> Aval:
    """Shape of the input; a floating point dtype."""
    return Aval(x.shape, promote.to_float((x,)))


def unary_bool(x: Any) -> Aval:
    """Shape of the input; bool."""
    return Aval(x.shape, promote.BOOL)


def binary_promoted(x: Any, y: Any) -> Aval:
    """Broadcast shape; common dtype."""
    return Aval(broadcast_shapes(_shape(x), _shape(y)), promote.result_type((x, y)))


def binary_float(x: Any, y: Any) -> Aval:
    """Broadcast shape; common dtype, floating point."""
    return Aval(broadcast_shapes(_shape(x), _shape(y)), promote.to_float((x, y)))


def binary_bool(x: Any, y: Any) -> Aval:
    """Broadcast shape; bool."""
    return Aval(broadcast_shapes(_shape(x), _shape(y)), promote.BOOL)
