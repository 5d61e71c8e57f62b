"""Objects that are only a name: PyTorch's layouts and memory formats, and how its small classes print."""

from __future__ import annotations

from typing import Any, NoReturn


class TorchType(type):
    """A class that prints as PyTorch's of the same name, `<class 'torch.device'>`, and is pickled as what it is."""

    def __repr__(cls) -> str:
        return f"<class 'torch.{cls.__name__}'>"


class Label(metaclass=TorchType):
    """A constant that prints as `torch.NAME`; users cannot make one, and a copy of it is itself."""

    __slots__ = ("_name",)
    _name: str

    def __new__(cls, *args: object, **kwargs: object) -> NoReturn:
        raise TypeError(f"cannot create 'torch.{cls.__name__}' instances")

    def __repr__(self) -> str:
        return f"torch.{self._name}"

    def __reduce__(self) -> str:
        return self._name


class layout(Label):  # PyTorch's name
    """How the elements of a tensor are kept: `strided`, the one kind that there is here."""

    __slots__ = ()


class memory_format(Label):  # PyTorch's name
    """The order of dimensions in memory that a new tensor is to have."""

    __slots__ = ()


def make(cls: Any, name: str) -> object:
    """The constant `torch.name`, an instance of a subclass of `Label`."""
    label: Label = object.__new__(cls)
    label._name = name
    return label


strided = make(layout, "strided")
contiguous_format = make(memory_format, "contiguous_format")
preserve_format = make(memory_format, "preserve_format")
channels_last = make(memory_format, "channels_last")
channels_last_3d = make(memory_format, "channels_last_3d")
