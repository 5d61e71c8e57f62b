"""Copies: to another dtype, to fresh memory, into existing memory, and out of the graph."""

from __future__ import annotations

from functools import wraps
from typing import Any

import numpy as np

from rushlight_tensor.core import cuda, devices, dispatch, kinds, labels, layout, order, placement, promote
from rushlight_tensor.core.half_precision import wide
from rushlight_tensor.core.infer import Aval, broadcast_shapes, unary_same
from rushlight_tensor.core.op import Op
from rushlight_tensor.core.scalars import checked
from rushlight_tensor.core.tensor import wrap


def _cast_aval(x: Any, dtype: Any = None) -> Aval:
    return Aval(x.shape, dtype, order.like(x))


def _cast_rule(g: Any, dtype_before: Any, dtype: Any) -> Any:
    return cast(g, dtype=dtype_before)


def _real_part(x: Any, dtype: np.dtype[Any]) -> Any:
    """What is left of complex numbers in a real dtype; NumPy would warn."""
    return x.real if x.dtype.kind == "c" and dtype.kind not in "cb" else x


cast = Op(
    "cast",
    kind=kinds.ELEMENTWISE,
    infer=_cast_aval,
    order=placement.LIKE,
    numpy=lambda x, dtype: _real_part(x, dtype).astype(dtype),
    save=("x.dtype",),
    vjp=(_cast_rule,),
    wirtinger=True,
    onnx="Cast",
)


def widely(fn: Any) -> Any:
    """A function made of several ops: what comes out in a half type is computed in float32, and rounded once.

    That is how PyTorch's kernels do it.  Integers and bools stay what they are; with a complex number nothing is half.
    A tensor without dimensions, of another dtype, is taken in the half type.
    """

    @wraps(fn)
    def run(*args: Any, **given: Any) -> Any:
        values = (*args, *given.values())
        half = promote.result_type([x._array for x in values if hasattr(x, "_array")])
        if wide(half) == half or any(type(x) is complex for x in values):
            return fn(*args, **given)

        def widened(x: Any) -> Any:
            if not hasattr(x, "_array") or promote.category(x._array.dtype) != 2:
                return x
            return cast(x if x._array.dtype == half else cast(x, dtype=half), dtype=wide(half))

        out = fn(*map(widened, args), **{name: widened(x) for name, x in given.items()})
        return cast(out, dtype=half)

    return run


def factor(value: Any, common: np.dtype[Any]) -> Any:
    """The number before a product; RuntimeError where it does not fit into the dtype that is computed in."""
    return checked(value.item() if hasattr(value, "_array") else value, wide(common))


def scale(value: Any, common: np.dtype[Any], name: str = "alpha") -> Any:
    """`factor`, of the category of what it multiplies.  Raises RuntimeError where it is of a higher one, or a bool."""
    value = value.item() if hasattr(value, "_array") else value
    if type(value) is bool and common != promote.BOOL:
        raise RuntimeError(f"Boolean {name} only supported for Boolean results.")
    if isinstance(value, float) and promote.category(common) < 2:
        raise RuntimeError(f"For integral input tensors, argument {name} must not be a floating point number.")
    if isinstance(value, complex) and common.kind != "c":
        raise RuntimeError(f"For non-complex input tensors, argument {name} must not be a complex number.")
    return checked(value, common) if common.kind in "biu" else value


def _clone_aval(x: Any, memory_format: Any = labels.preserve_format) -> Aval:
    return Aval(x.shape, x.dtype, layout.strides_of_copy(x, memory_format))


def _clone_samples(size: int, batched: Any, xs: Any, attrs: Any) -> Any:
    planes = attrs["memory_format"] not in (labels.preserve_format, labels.contiguous_format)
    return None if planes else clone(*xs, **attrs)  # an order of four dimensions says nothing of five


clone = Op(
    "clone",
    kind=kinds.ELEMENTWISE,
    batch=_clone_samples,
    infer=_clone_aval,
    order=placement.CLONED,
    numpy=layout.copy,
    vjp=(lambda g, memory_format: g,),
    onnx="Identity",
)


def contiguous(input: Any, memory_format: Any = labels.contiguous_format) -> Any:
    """`input` in a memory format: itself where it lies so, else a copy."""
    if layout.is_contiguous(input._array, layout.check(memory_format, "contiguous")):
        return input
    if memory_format is labels.preserve_format:
        raise RuntimeError("preserve memory format is unsupported by the contiguous operator")
    return clone(input, memory_format=memory_format)


def as_image(out: Any, like: Any) -> Any:
    """`out`, channels-last where `like` is an image in that order, as PyTorch's functions of images return it."""
    if placement.suggests_channels_last(layout.operand(like._array)):
        return contiguous(out, labels.channels_last if out._array.ndim == 4 else labels.channels_last_3d)
    return out


_alias = Op(
    "alias",
    kind=kinds.view(),
    infer=unary_same,
    numpy=lambda x: x[...],
    vjp=(lambda g: g,),
    view=True,
    flat=True,
    onnx="Identity",
)

detach = Op("detach", kind=kinds.view(), infer=unary_same, numpy=lambda x: x[...], vjp=None, view=True)


def unrecorded(x: Any) -> Any:
    """`x` without its history, for a kernel that only reads: the order in memory stays private."""
    return dispatch.call(detach, (x,), {}, hidden=True) if x._requires_grad else x


def flat(x: Any) -> Any:
    """`x` for a function of it that is made of ops and has a flat derivative: Note [Flat derivatives] in `graph.py`."""
    return dispatch.call(_alias, (x,), {}, hidden=True) if x._requires_grad else x


def _copy_aval(x: Any, y: Any) -> Aval:
    if not isinstance(y, (int, float, complex)) and broadcast_shapes(x.shape, y.shape) != x.shape:
        raise RuntimeError(
            f"output with shape {list(x.shape)} doesn't match the broadcast shape "
            f"{list(broadcast_shapes(x.shape, y.shape))}: copy_ cannot make its target larger"
        )
    return Aval(x.shape, x.dtype, order.contiguous(x.shape))


def _copy_into(x: Any, y: Any) -> None:
    if np.ndim(y) > x.ndim:  # NumPy lets sizes of 1 in front go
        _copy_aval(x, y)
    try:
        x[...] = _real_part(y, x.dtype) if hasattr(y, "dtype") else y
    except ValueError:
        _copy_aval(x, y)
        raise


def _zeros(g: Any) -> Any:
    """Zeros of the shape and dtype of `g`, where it is: the gradient of steps, whatever `g` is."""
    return wrap(cuda.like(g._array, np.zeros(g._array.shape, g._array.dtype)))


def _copy_kernel(x: Any, y: Any) -> Any:
    out = np.empty_like(x, order="C")
    if hasattr(y, "dtype"):
        out[...] = np.broadcast_to(_real_part(y, x.dtype), x.shape)
    else:
        out[...] = y.real if isinstance(y, complex) and x.dtype.kind != "c" else y
    return out


copy = Op(
    "copy",
    kind=kinds.INTO_FIRST,
    infer=_copy_aval,
    numpy=_copy_kernel,
    save=("y.dtype",),
    vjp=(lambda g, dtype: _zeros(g), lambda g, dtype: cast(g, dtype=dtype)),
    into=_copy_into,
    wirtinger=True,
)


def _move_aval(x: Any, to: str = "cpu", back: str = "cpu") -> Aval:
    return Aval(x.shape, x.dtype, x.strides if x.device == to else order.like(x), to)


to_device = Op(
    "to_device",
    kind=kinds.ELEMENTWISE,
    infer=_move_aval,
    order=placement.AS_MADE,
    numpy=lambda x, to, back: devices.place(x, to),
    vjp=(lambda g, to, back: to_device(g, to=back, back=to),),
)

dispatch.CAST, dispatch.CLONE, dispatch.COPY, dispatch.MOVE = cast, clone, copy, to_device
