"""Half precision on the CPU: storage only; kernels compute in float32 and round once, as PyTorch's do."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from rushlight_tensor.core.promote import BFLOAT16, FLOAT16, FLOAT32

_HALF = (FLOAT16, BFLOAT16)


def in_float32(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """`kernel` on arrays, such that float16 and bfloat16 inputs are float32 inside; the first array says which."""

    @wraps(kernel)
    def run(*xs: Any, **attrs: Any) -> Any:
        dtype = xs[0].dtype
        if dtype.itemsize != 2 or dtype not in _HALF:
            return kernel(*xs, **attrs)
        out = kernel(*_widened(xs, dtype), **attrs)
        if type(out) is tuple:
            return tuple([_narrow(z, dtype) for z in out])
        return _narrow(out, dtype)

    return run


def wide(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype that kernels compute in."""
    return FLOAT32 if dtype in _HALF else dtype


def _widened(xs: tuple[Any, ...], dtype: np.dtype[Any]) -> list[Any]:
    return [x.astype(FLOAT32) if getattr(x, "dtype", None) == dtype else x for x in xs]


def _narrow(z: Any, dtype: np.dtype[Any]) -> Any:
    return z.astype(dtype) if getattr(z, "dtype", None) == FLOAT32 else z
