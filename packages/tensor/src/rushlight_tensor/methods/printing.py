"""The printed form of a tensor, character for character PyTorch's.

All numbers of a tensor have one width and one notation: integers with a point when every number is one, scientific when
the largest is more than 1000 times the smallest (or numbers are very large or small), fixed otherwise.  Tensors of more
than `threshold` elements show `edgeitems` at both ends of each dimension.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from rushlight_tensor.core import devices, dtypes
from rushlight_tensor.core.abstract import AbstractArray
from rushlight_tensor.core.dispatch import read
from rushlight_tensor.core.lifted import Lifted
from rushlight_tensor.core.tensor import Tensor

Array = np.ndarray[Any, np.dtype[Any]]

_PROFILES: dict[str, dict[str, Any]] = {
    "default": {"precision": 4, "threshold": 1000, "edgeitems": 3, "linewidth": 80, "sci_mode": None},
    "short": {"precision": 2, "threshold": 1000, "edgeitems": 2, "linewidth": 80},
    "full": {"precision": 4, "threshold": math.inf, "edgeitems": 3, "linewidth": 80},
}


class _Options:
    """How tensors are printed; one set for the process."""

    precision: int = 4
    threshold: float = 1000
    edgeitems: int = 3
    linewidth: int = 80
    sci_mode: bool | None = None


_OPTIONS = _Options()


def set_printoptions(
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Change how tensors are printed, in this process.

    Args:
        precision: Digits after the point (4).
        threshold: Number of elements above which a tensor is summarised (1000).
        edgeitems: Items shown at both ends of a summarised dimension (3).
        linewidth: Characters per line (80).
        profile: `"default"`, `"short"` or `"full"`, as a start.
        sci_mode: Whether to use scientific notation; None decides by the numbers.
    Raises:
        ValueError: There is no such profile.
    """
    if profile is not None:
        if profile not in _PROFILES:
            raise ValueError(f"set_printoptions: unknown profile {profile!r}; use one of {', '.join(_PROFILES)}")
        for name, value in _PROFILES[profile].items():
            setattr(_OPTIONS, name, value)
    given = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems, "linewidth": linewidth}
    for name, value in given.items():
        if value is not None:
            setattr(_OPTIONS, name, value)
    _OPTIONS.sci_mode = sci_mode


def to_text(x: Tensor) -> str:
    """What `print(x)` shows; inside a transform, the tensor that it runs on."""
    if isinstance(x._array, Lifted):
        return f"<{x._array.level}: {to_text(x._array.value)}>"
    known = type(x._array) is not AbstractArray
    array = read(x) if known else x._array
    dtype = dtypes.from_numpy(array.dtype)
    suffixes = []
    if devices.of(x._array) != devices.CPU:
        suffixes.append(f"device='{devices.of(x._array)}'")
    default = dtypes.get_default_dtype()
    default_complex = dtypes.complex128 if default is dtypes.float64 else dtypes.complex64
    if not known:
        suffixes.append(f"size={array.shape}")
        if dtype is not default:
            suffixes.append(f"dtype={dtype}")
        body = "..."
    elif array.size == 0:
        if array.ndim != 1:
            suffixes.append(f"size={array.shape}")
        if dtype is not default:
            suffixes.append(f"dtype={dtype}")
        body = "[]"
    else:
        if not _OPTIONS.edgeitems:
            suffixes.append(f"size={array.shape}")
        if dtype not in (default, default_complex, dtypes.int64, dtypes.bool):
            suffixes.append(f"dtype={dtype}")
        body = _body(array, len("tensor("))
    if x.grad_fn is not None:
        suffixes.append(f"grad_fn=<{x.grad_fn.name()}>")
    elif x._requires_grad:
        suffixes.append("requires_grad=True")
    return _with_suffixes("tensor(" + body, suffixes, len("tensor("))


def _with_suffixes(text: str, suffixes: list[str], indent: int) -> str:
    parts = [text]
    last_line = len(text) - text.rfind("\n") + 1
    for suffix in suffixes:
        if last_line + len(suffix) + 2 > _OPTIONS.linewidth:
            parts.append(",\n" + " " * indent + suffix)
            last_line = indent + len(suffix)
        else:
            parts.append(", " + suffix)
            last_line += len(suffix) + 2
    return "".join(parts) + ")"


def _body(array: Array, indent: int) -> str:
    summarize = array.size > _OPTIONS.threshold
    shown = _summary(array) if summarize else array
    if array.dtype.kind == "c":
        real, imag = _Format(shown.real), _Format(shown.imag)

        def show(value: Any) -> str:
            imaginary = (imag(value.imag) + "j").lstrip()
            return real(value.real) + ("" if imaginary[0] in "+-" else "+") + imaginary

        return _nested(array, indent, summarize, show, real.width + imag.width + 1)
    format = _Format(shown)
    return _nested(array, indent, summarize, format, format.width)


def _summary(array: Array) -> Array:
    """The elements that a summary shows, which alone decide on width and notation."""
    edge = _OPTIONS.edgeitems
    for axis, n in enumerate(array.shape):
        if not edge:
            return array[:0]
        if n > 2 * edge:
            array = np.take(array, [*range(edge), *range(n - edge, n)], axis)
    return array


class _Format:
    """Turns one number of an array into text of `width` characters."""

    def __init__(self, array: Array) -> None:
        self._floating = dtypes.from_numpy(array.dtype).is_floating_point
        self.width, self._scientific, self._whole = 1, False, True
        values = array.ravel()
        if not self._floating:
            self.width = max([1, *(len(str(v)) for v in values.tolist())])
            return
        wide = values.astype(np.float64)
        wide = wide[np.isfinite(wide) & (wide != 0)]
        if wide.size:
            self._choose(wide)

    def _choose(self, numbers: Array) -> None:
        low, high = float(np.abs(numbers).min()), float(np.abs(numbers).max())
        self._whole = bool((numbers == np.ceil(numbers)).all())
        self._scientific = high / low > 1000.0 or high > 1.0e8 or low < 1.0e-4
        if _OPTIONS.sci_mode is not None:
            self._scientific = _OPTIONS.sci_mode
        if self._scientific:
            spec = f".{_OPTIONS.precision}e"
        else:
            spec = ".0f" if self._whole else f".{_OPTIONS.precision}f"
        point = int(self._whole and not self._scientific)
        self.width = max(self.width, max(len(format(v, spec)) for v in numbers.tolist()) + point)

    def __call__(self, value: Any) -> str:
        if not self._floating:
            return str(value).rjust(self.width)
        if self._scientific:
            text = f"{value:.{_OPTIONS.precision}e}"
        elif self._whole:
            text = f"{value:.0f}" + ("." if math.isfinite(value) else "")
        else:
            text = f"{value:.{_OPTIONS.precision}f}"
        return text.rjust(self.width)


def _nested(array: Array, indent: int, summarize: bool, show: Callable[[Any], str], width: int) -> str:
    if array.ndim == 0:
        return show(array.item())
    edge = _OPTIONS.edgeitems
    cut = summarize and len(array) > 2 * edge
    if array.ndim == 1:
        per_line = max(1, (_OPTIONS.linewidth - indent) // (width + 2))
        if summarize and not edge:
            texts = ["..."]
        elif cut:
            ends = [show(v) for v in (*array[:edge].tolist(), *array[-edge:].tolist())]
            texts = [*ends[:edge], " ...", *ends[edge:]]
        else:
            texts = [show(v) for v in array.tolist()]
        lines = [", ".join(texts[i : i + per_line]) for i in range(0, len(texts), per_line)]
        return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"
    rows = [*range(edge), None, *range(len(array) - edge, len(array))] if cut else range(len(array))
    parts = ["..." if i is None else _nested(array[i], indent + 1, summarize, show, width) for i in rows]
    return "[" + ("," + "\n" * (array.ndim - 1) + " " * (indent + 1)).join(parts) + "]"


def _format(self: Tensor, spec: str) -> str:
    if self._array.ndim == 0 and type(self) is Tensor and type(self._array) is not AbstractArray:
        return format(read(self).item(), spec)
    return object.__format__(self, spec)


def bind() -> None:
    """Install `repr` (which `str` follows) and `format` on Tensor."""
    Tensor.__repr__ = to_text  # type: ignore[method-assign, assignment]
    Tensor.__format__ = _format  # type: ignore[method-assign, assignment]
