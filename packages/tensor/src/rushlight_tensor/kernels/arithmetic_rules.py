"""Rules of gradients that are plain arithmetic, run on symbols: what comes out is their C text.

Such a rule (`lambda g, x, y: g * y`, see Note [Arithmetic rules] in `graph.py`) means the same on symbols as on arrays.
A saved Python number stays in double precision as long as it meets numbers only, as in Python.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Symbol:
    """An operand of a rule, or what became of some: C text, where `T` is the dtype of the arrays."""

    __slots__ = ("number", "text")

    def __init__(self, text: str, number: bool = False) -> None:
        self.text, self.number = text, number

    def _in_arrays(self) -> str:
        return f"(T)({self.text})" if self.number else self.text

    def _with(self, sign: str, other: Any, turned: bool = False) -> Symbol:
        y = other if isinstance(other, Symbol) else Symbol(repr(float(other)), number=True)
        a, b = (y, self) if turned else (self, y)
        if not (a.number and b.number):
            return Symbol(f"({a._in_arrays()} {sign} {b._in_arrays()})")
        if sign == "/":
            raise TypeError("a quotient of two numbers may be Python's ZeroDivisionError")
        return Symbol(f"({a.text} {sign} {b.text})", number=True)

    def __add__(self, other: Any) -> Symbol:
        return self._with("+", other)

    def __radd__(self, other: Any) -> Symbol:
        return self._with("+", other, turned=True)

    def __sub__(self, other: Any) -> Symbol:
        return self._with("-", other)

    def __rsub__(self, other: Any) -> Symbol:
        return self._with("-", other, turned=True)

    def __mul__(self, other: Any) -> Symbol:
        return self._with("*", other)

    def __rmul__(self, other: Any) -> Symbol:
        return self._with("*", other, turned=True)

    def __truediv__(self, other: Any) -> Symbol:
        return self._with("/", other)

    def __rtruediv__(self, other: Any) -> Symbol:
        return self._with("/", other, turned=True)

    def __neg__(self) -> Symbol:
        return Symbol(f"(-{self.text})", self.number)


def text_of(rule: Callable[..., Any] | None, operands: list[Symbol]) -> str | None:
    """What `rule` computes from its operands; "" where it returns the first itself, None where it is no arithmetic."""
    if rule is None or rule.__code__.co_names or rule.__code__.co_freevars:
        return None
    try:
        result = rule(*operands)
    except TypeError:
        return None
    if result is operands[0]:
        return ""
    return result.text if isinstance(result, Symbol) and not result.number else None
