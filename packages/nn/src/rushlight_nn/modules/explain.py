"""Where in a network an error happened: the module's dotted name, its printed form and the shapes it was given.

The message of the error stays PyTorch's; what is known of the place becomes a note of the exception (PEP 678), printed
below it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rushlight_tensor import Tensor

if TYPE_CHECKING:
    from rushlight_nn.modules.module import Module

_TRAIL = "_rushlight_modules"


def add_place(error: Exception, module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Note that `error` came through the call of `module`; each module on the way out lengthens the name."""
    trail: list[tuple[Module, str]] = getattr(error, _TRAIL, [])
    if trail and trail[-1][0] is module:  # super().__call__
        return
    given = ", ".join([_describe(a) for a in args] + [f"{k}={_describe(v)}" for k, v in kwargs.items()])
    trail.append((module, given))
    setattr(error, _TRAIL, trail)
    notes = getattr(error, "__notes__", [])
    if len(trail) > 1:
        notes.pop()
    error.add_note(_text(trail))


def _text(trail: list[tuple[Module, str]]) -> str:
    innermost, given = trail[0]
    names = [type(trail[-1][0]).__name__]
    for (inner, _), (outer, _) in zip(reversed(trail[:-1]), reversed(trail[1:]), strict=True):
        names.append(next((n for n, m in outer.named_modules() if m is inner), f"<{type(inner).__name__}>"))
    shown = repr(innermost)
    if "\n" in shown:
        shown = f"{type(innermost).__name__}(…)"
    return f"in {'.'.join(names)}: {shown}, called with ({given})"


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        sizes = "×".join(map(str, value.shape)) if value.ndim else "0-d"
        return f"{value.dtype.name} {sizes}"
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(_describe, value))})"
    return repr(value) if isinstance(value, (int, float, bool, str, type(None))) else type(value).__name__
