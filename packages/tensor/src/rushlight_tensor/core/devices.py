"""Devices: where a tensor's memory is, under PyTorch's names, and where it is made if nobody says."""

from __future__ import annotations

import threading
from typing import Any

from rushlight_tensor.core import abstract, cuda
from rushlight_tensor.core.abstract import AbstractArray
from rushlight_tensor.core.labels import TorchType
from rushlight_tensor.core.lifted import bottom


class device(metaclass=TorchType):
    """`device("cpu")`, `device("cuda")`, `device("cuda:1")`, `device("cuda", 1)`, `device("meta")`.

    `with device(…):` makes tensors there where no device is asked for.  On "meta", tensors have no data.  Raises
    RuntimeError for other kinds.
    """

    __slots__ = ("index", "type")

    type: str
    index: int | None

    def __init__(self, type: Any, index: int | None = None) -> None:
        if isinstance(type, device):
            self.type, self.index = type.type, type.index
            return
        if isinstance(type, int) and not isinstance(type, bool):
            type, index = "cuda", type
        if not isinstance(type, str):
            raise TypeError(f"device(): argument 'type' must be str, int or device, not {type.__class__.__name__}")
        self.type, self.index = _parse(type, index)

    def __repr__(self) -> str:
        return (
            f"device(type={self.type!r})" if self.index is None else f"device(type={self.type!r}, index={self.index})"
        )

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, device) and (self.type, self.index) == (other.type, other.index)

    def __hash__(self) -> int:
        return hash((self.type, self.index))

    def __enter__(self) -> device:
        _choose((*_DEFAULT.stack, self))
        return self

    def __exit__(self, *exc: object) -> None:
        _DEFAULT.stack = _DEFAULT.stack[:-1]

    def __reduce__(self) -> Any:
        return device, (self.type, self.index)


def _parse(text: str, index: int | None) -> tuple[str, int | None]:
    kind, colon, number = text.partition(":")
    if not text:
        raise RuntimeError("Device string must not be empty")
    if not kind or (colon and (not number.isdigit() or str(int(number)) != number)):
        raise RuntimeError(f"Invalid device string: '{text}'")
    if kind not in ("cpu", "cuda", "meta"):
        raise RuntimeError(f"Expected one of cpu, cuda, meta device type at start of device string: {text}")
    if colon and index is not None:
        raise RuntimeError(f"type (string) must not include an index because index was passed explicitly: {text}")
    if index is not None and index < 0:
        raise RuntimeError("Device index must not be negative")
    return kind, int(number) if colon else index


CPU = device("cpu")


class _Default(threading.local):
    stack: tuple[device, ...] = ()


_DEFAULT = _Default()
_IN_USE = False  # whether any thread has ever chosen one: every factory asks


def get_default_device() -> device:
    """Where tensors are made if nobody says: what `with device(…)` or `set_default_device` chose, or the CPU."""
    return _DEFAULT.stack[-1] if _DEFAULT.stack else CPU


_as_device = device  # where an argument has its name, as PyTorch's has


def set_default_device(device: Any) -> None:
    """Make tensors there where no device is asked for, in this thread; None: on the CPU."""
    _choose(() if device is None else (_as_device(device),))


def _choose(stack: tuple[device, ...]) -> None:
    global _IN_USE
    _DEFAULT.stack, _IN_USE = stack, True


def without_data(on: Any) -> bool:
    """Whether tensors that are made there (None: on the default device) have no data."""
    return (on is not None or _IN_USE) and chosen(on).type == "meta"


def chosen(on: Any) -> device:
    """The device that is asked for, or the default."""
    return get_default_device() if on is None else device(on)


def of(array: Any) -> device:
    """The device that an array is on."""
    array = bottom(array)
    if type(array) is AbstractArray:
        return device(array.aval.device or abstract.META)
    return device("cuda", array.device.id) if cuda.is_cuda(array) else CPU


def place(array: Any, on: Any) -> Any:
    """`array` on a device; itself if it is there already.

    Raises RuntimeError, as PyTorch, where there is no GPU; NotImplementedError where there is no data to be moved.
    """
    if on is None and not (_IN_USE and _DEFAULT.stack):
        return array
    d = chosen(on)
    if d.type == "meta":
        return array if type(array) is AbstractArray else abstract.like(array)
    return cuda.to_host(array) if d.type == "cpu" else cuda.to_device(array, d.index or 0)
