"""Parameter and Buffer: tensors that a Module registers when they are assigned to one of its attributes."""

from __future__ import annotations

from typing import Any

from rushlight_tensor import Tensor
from rushlight_tensor.core.dispatch import settle
from rushlight_tensor.core.tensor import wrap_as
from rushlight_tensor.files import pt
from rushlight_tensor.ops.create import tensor


class Parameter(Tensor):
    """A tensor that is optimised: assigned to a module's attribute it becomes one of its parameters.

    Args:
        data: The tensor whose memory it shares; empty if omitted.
        requires_grad: Whether it collects gradients.
    """

    def __new__(cls, data: Any = None, requires_grad: bool = True) -> Parameter:
        source = tensor([]) if data is None else data if isinstance(data, Tensor) else tensor(data)
        made: Parameter = wrap_as(cls, settle(source))
        made.requires_grad = requires_grad
        return made

    def __repr__(self) -> str:
        return "Parameter containing:\n" + super().__repr__()

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        if id(self) not in memo:
            memo[id(self)] = type(self)(self.detach().clone(), self.requires_grad)  # without attributes, as PyTorch
        found: Parameter = memo[id(self)]
        return found

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _rebuild_parameter, (type(self), self.data, self.requires_grad, self.__dict__)


pt.PARAMETER = Parameter  # so that files tell parameters from other tensors


class Buffer(Tensor):
    """A tensor that is state but not optimised: assigned to a module's attribute it becomes one of its buffers.

    Args:
        data: The tensor whose memory it shares.
        persistent: Whether it is part of the module's `state_dict`.
    """

    persistent: bool

    def __new__(cls, data: Any = None, *, persistent: bool = True) -> Buffer:
        source = tensor([]) if data is None else data if isinstance(data, Tensor) else tensor(data)
        made: Buffer = wrap_as(cls, settle(source))
        made.requires_grad = source.requires_grad
        made.persistent = persistent
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> Buffer:
        if id(self) not in memo:
            copy = type(self)(self.detach().clone(), persistent=self.persistent)
            copy.requires_grad = self.requires_grad
            memo[id(self)] = copy
        found: Buffer = memo[id(self)]
        return found

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _rebuild_buffer, (type(self), self.data, self.requires_grad, self.persistent)


def _rebuild_parameter(cls: type[Parameter], data: Tensor, requires_grad: bool, extra: dict[str, Any]) -> Parameter:
    made = cls(data, requires_grad)
    made.__dict__.update(extra)
    return made


def _rebuild_buffer(cls: type[Buffer], data: Tensor, requires_grad: bool, persistent: bool) -> Buffer:
    made = cls(data, persistent=persistent)
    made.requires_grad = requires_grad
    return made
