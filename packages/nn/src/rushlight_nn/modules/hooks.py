"""Hooks of a module: how they are registered and removed, and the call path of a module that has any.

Note [Straight-line call]
    A module without hooks never enters this file: `Module.__call__` reads one flag and calls `forward`.  The flag is
    set by the first registration and stays set, so that nothing has to be counted when a handle removes its hook.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rushlight_autograd import Function
from rushlight_tensor import Tensor
from rushlight_tensor.methods.gradient import RemovableHandle, checked_gradient

if TYPE_CHECKING:
    from rushlight_nn.modules.module import Module

Hook = Callable[..., Any]


class Registered:
    """One hook with the options it was registered with."""

    __slots__ = ("function", "with_kwargs", "always_call")

    def __init__(self, function: Hook, with_kwargs: bool = False, always_call: bool = False) -> None:
        self.function, self.with_kwargs, self.always_call = function, with_kwargs, always_call


HookTable = OrderedDict[int, Registered]

GLOBAL_FORWARD_PRE_HOOKS: HookTable = OrderedDict()
GLOBAL_FORWARD_HOOKS: HookTable = OrderedDict()


def add_hook(table: HookTable, entry: Registered, prepend: bool = False) -> RemovableHandle:
    """Put `entry` into `table`, last or (`prepend`) first, and return its handle."""
    handle = RemovableHandle(table)
    table[handle.id] = entry
    if prepend:
        table.move_to_end(handle.id, last=False)
    return handle


class _Tap(Function):
    """The identity on several tensors, whose backward passes all their gradients through one callback at once."""

    @staticmethod
    def forward(ctx: Any, callback: Callable[[tuple[Tensor | None, ...]], Any], *xs: Tensor) -> Any:
        ctx.callback = callback
        ctx.set_materialize_grads(False)
        return tuple(x.view_as(x) for x in xs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        return (None, *ctx.callback(grads))


def _tap(callback: Callable[[tuple[Tensor | None, ...]], Any], values: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """`values` with its differentiable tensors led through a `_Tap`; None when there is none."""
    where = [i for i, v in enumerate(values) if isinstance(v, Tensor) and v.requires_grad]
    if not where:
        return None

    def of_tapped(grads: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        every: list[Tensor | None] = [None] * len(values)
        for i, g in zip(where, grads, strict=True):
            every[i] = g
        changed = callback(tuple(every))
        return tuple(changed[i] for i in where)

    tapped = list(values)
    for i, t in zip(where, _Tap.apply(of_tapped, *(values[i] for i in where)), strict=True):
        tapped[i] = t
    return tuple(tapped)


def _replaced(result: Any, grads: tuple[Tensor | None, ...], hook: Hook, what: str) -> tuple[Tensor | None, ...]:
    """What a backward hook returned, checked against the gradients that it was given."""
    if result is None:
        return grads
    if len(result) != len(grads):
        raise RuntimeError(f"{what}, got {len(result)}, but expected {len(grads)}")
    return tuple([
        None if new is None else new if before is None else checked_gradient(new, before, hook)
        for new, before in zip(result, grads, strict=True)
    ])  # fmt: skip


class _BackwardTaps:
    """Collects the gradients of one forward call for the full backward hooks of a module."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.grad_output: tuple[Tensor | None, ...] = ()
        self.n_inputs = 0
        self.input_tapped = False

    def inputs(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        self.n_inputs = len(args)
        tapped = _tap(self._on_grad_input, args)
        self.input_tapped = tapped is not None
        return args if tapped is None else tapped

    def outputs(self, result: Any) -> Any:
        several = isinstance(result, tuple)
        tapped = _tap(self._on_grad_output, result if several else (result,))
        if tapped is None:
            return result
        return tapped if several else tapped[0]

    def _on_grad_output(self, grads: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        for entry in list(self.module._backward_pre_hooks.values()):
            new = entry.function(self.module, grads)
            grads = _replaced(new, grads, entry.function, "Backward pre hook returned an invalid number of grad_output")
        self.grad_output = grads
        if not self.input_tapped:  # no input has a gradient: nothing later will call the hooks
            self._call_hooks((None,) * self.n_inputs)
        return grads

    def _on_grad_input(self, grads: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        return self._call_hooks(grads)

    def _call_hooks(self, grads: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        for entry in list(self.module._backward_hooks.values()):
            new = entry.function(self.module, grads, self.grad_output)
            grads = _replaced(new, grads, entry.function, "Backward hook returned an invalid number of grad_input")
        return grads


def _run_pre_hooks(module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
    for entry in (*GLOBAL_FORWARD_PRE_HOOKS.values(), *module._forward_pre_hooks.values()):
        if entry.with_kwargs:
            changed = entry.function(module, args, kwargs)
            if changed is None:
                continue
            if not (isinstance(changed, tuple) and len(changed) == 2):
                raise RuntimeError(
                    f"forward pre-hook must return None or a tuple of (new_args, new_kwargs), but got {changed}."
                )
            args, kwargs = changed
        else:
            changed = entry.function(module, args)
            if changed is not None:
                args = changed if isinstance(changed, tuple) else (changed,)
    return args, kwargs


def _run_forward_hook(entry: Registered, module: Module, args: Any, kwargs: Any, result: Any) -> Any:
    if entry.with_kwargs:
        changed = entry.function(module, args, kwargs, result)
    else:
        changed = entry.function(module, args, result)
    return result if changed is None else changed


def call_with_hooks(module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`module.forward(*args, **kwargs)` between its pre-hooks, hooks and backward hooks.

    Forward hooks registered with `always_call` see a failed forward too, with None for the output.
    """
    pending = {**GLOBAL_FORWARD_HOOKS, **module._forward_hooks}
    result = None
    try:
        args, kwargs = _run_pre_hooks(module, args, kwargs)
        taps = _BackwardTaps(module) if module._backward_hooks or module._backward_pre_hooks else None
        if taps is not None:
            args = taps.inputs(args)
        result = module.forward(*args, **kwargs)
        for key in list(pending):
            entry = pending.pop(key)
            result = _run_forward_hook(entry, module, args, kwargs, result)
        return result if taps is None else taps.outputs(result)
    except Exception:
        for entry in pending.values():
            if entry.always_call:
                _run_forward_hook(entry, module, args, kwargs, result)
        raise


class HookRegistration:
    """The `register_*_hook` methods of `Module`."""

    _forward_pre_hooks: HookTable
    _forward_hooks: HookTable
    _backward_pre_hooks: HookTable
    _backward_hooks: HookTable
    _hooked = False  # an instance's first hook shadows it, a global hook sets it for all
    _guarded_too = (GLOBAL_FORWARD_PRE_HOOKS, GLOBAL_FORWARD_HOOKS)  # what `compile` compares beside attributes

    def register_forward_pre_hook(
        self, hook: Hook, *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call `hook(module, args)` before `forward`.

        A value that it returns replaces the arguments (a single value is put into a tuple).  With `with_kwargs` it is
        `hook(module, args, kwargs)` and returns None or `(args, kwargs)`.
        """
        self._hooked = True
        return add_hook(self._forward_pre_hooks, Registered(hook, with_kwargs), prepend)

    def register_forward_hook(
        self, hook: Hook, *, prepend: bool = False, with_kwargs: bool = False, always_call: bool = False
    ) -> RemovableHandle:
        """Call `hook(module, args, output)` after `forward`; a value that it returns replaces the output.

        With `with_kwargs` it is `hook(module, args, kwargs, output)`; with `always_call` it runs after a forward that
        raised, too.
        """
        self._hooked = True
        return add_hook(self._forward_hooks, Registered(hook, with_kwargs, always_call), prepend)

    def register_full_backward_pre_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Call `hook(module, grad_output)` when the gradients of the outputs are known; it may return new ones."""
        self._hooked = True
        return add_hook(self._backward_pre_hooks, Registered(hook), prepend)

    def register_full_backward_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Call `hook(module, grad_input, grad_output)` when the gradients of the positional inputs are known.

        Both are tuples, with None where an input or output is not a tensor with a gradient.  A value that the hook
        returns replaces `grad_input`.
        """
        self._hooked = True
        return add_hook(self._backward_hooks, Registered(hook), prepend)


def register_module_forward_pre_hook(hook: Hook) -> RemovableHandle:
    """Call `hook(module, args)` before the forward of every module; it may return new arguments."""
    HookRegistration._hooked = True
    return add_hook(GLOBAL_FORWARD_PRE_HOOKS, Registered(hook))


def register_module_forward_hook(
    hook: Hook, *, with_kwargs: bool = False, always_call: bool = False
) -> RemovableHandle:
    """Call `hook(module, args, output)` after the forward of every module; it may return a new output."""
    HookRegistration._hooked = True
    return add_hook(GLOBAL_FORWARD_HOOKS, Registered(hook, with_kwargs, always_call))
