"""Copies: to another dtype, to fresh memory, into existing memory, and out of the graph."""

from __future__ import annotations

from typing import Any

import numpy as np

from rushlight_tensor import devices, dispatch
from rushlight_tensor.infer import Aval, broadcast_shapes, unary_same
from rushlight_tensor.op import AS_CPU, Op


def _cast_aval(x: Any, dtype: Any = None) -> Aval:
    return Aval(x.shape, dtype)


def _cast_rule(g: Any, dtype_before: Any, dtype: Any) -> Any:
    return cast(g, dtype=dtype_before)


def _real_part(x: Any, dtype: np.dtype[Any]) -> Any:
    """What is left of complex numbers in a real dtype; NumPy would warn."""
    return x.real if x.dtype.kind == "c" and dtype.kind not in "cb" else x


cast = Op(
    "cast",
    infer=_cast_aval,
    cpu=lambda x, dtype: _real_part(x, dtype).astype(dtype),
    cuda=AS_CPU,
    save=("x.dtype",),
    vjp=(_cast_rule,),
    wirtinger=True,
)


def _clone_aval(x: Any, contiguous: bool = False) -> Aval:
    return Aval(x.shape, x.dtype)


def _clone_kernel(x: Any, contiguous: bool) -> Any:
    return x.copy("C" if contiguous else "K")


clone = Op("clone", infer=_clone_aval, cpu=_clone_kernel, cuda=AS_CPU, vjp=(lambda g, contiguous: g,))

detach = Op("detach", infer=unary_same, cpu=lambda x: x[...], cuda=AS_CPU, vjp=None, view=True)


def _copy_aval(x: Any, y: Any) -> Aval:
    if not isinstance(y, (int, float, complex)) and broadcast_shapes(x.shape, y.shape) != x.shape:
        raise RuntimeError(
            f"output with shape {list(x.shape)} doesn't match the broadcast shape "
            f"{list(broadcast_shapes(x.shape, y.shape))}: copy_ cannot make its target larger"
        )
    return Aval(x.shape, x.dtype)


def _copy_into(x: Any, y: Any) -> None:
    try:
        x[...] = _real_part(y, x.dtype) if hasattr(y, "dtype") else y
    except ValueError:
        _copy_aval(x, y)
        raise


def _copy_kernel(x: Any, y: Any) -> Any:
    out = np.empty_like(x, order="C")
    if hasattr(y, "dtype"):
        out[...] = np.broadcast_to(_real_part(y, x.dtype), x.shape)
    else:
        out[...] = y.real if isinstance(y, complex) and x.dtype.kind != "c" else y
    return out


copy = Op(
    "copy",
    infer=_copy_aval,
    cpu=_copy_kernel,
    cuda=AS_CPU,
    save=("y.dtype",),
    vjp=(None, lambda g, dtype: cast(g, dtype=dtype)),
    into=_copy_into,
    wirtinger=True,
)


def _move_aval(x: Any, to: str = "cpu", back: str = "cpu") -> Aval:
    return Aval(x.shape, x.dtype)


to_device = Op(
    "to_device",
    infer=_move_aval,
    cpu=lambda x, to, back: devices.place(x, to),
    cuda=AS_CPU,
    vjp=(lambda g, to, back: to_device(g, to=back, back=to),),
)

dispatch.CAST, dispatch.CLONE, dispatch.COPY = cast, clone, copy
