"""Sizes that are not known yet: `Symbol("N")`, and what comes out when descriptions compute with it.

Note [Symbolic sizes]
    `infer` of a record is arithmetic on sizes, so a symbol may stand for one of them: for the batch, that differs from
    call to call.  Results are polynomials in symbols, and in quotients that do not divide.  A comparison has an answer
    where it is the same for every size from 2 on; 0 and 1 are other kinds of calls (they broadcast, or hold nothing),
    as in PyTorch's tracers.  Where the answer differs, and where somebody needs the number itself, `Undecided` says
    which decision depends on what; who traces may then ask for numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_LEAST = 2  # what a symbol stands for at least
_Term = tuple[Any, ...]  # factors: names of symbols, and quotients, sorted


class Undecided(RuntimeError):
    """Something depends on a size that is not known."""


class _Quotient:
    """`number // by`, where nobody knows that it divides."""

    __slots__ = ("by", "number")

    def __init__(self, number: Size, by: Size) -> None:
        self.number, self.by = number, by

    def __repr__(self) -> str:
        return f"({self.number} // {self.by})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Quotient) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def least(self) -> int | None:
        """A lower bound; None where there is none."""
        least, by = self.number.least(), self.by.constant()
        return None if least is None or by is None or by <= 0 else least // by

    def at(self, sizes: dict[str, int]) -> int:
        """The number, with numbers for the symbols."""
        return self.number.at(sizes) // self.by.at(sizes)


class Size:
    """A polynomial in symbols with whole coefficients.  See Note [Symbolic sizes]."""

    __slots__ = ("_terms",)

    def __init__(self, terms: dict[_Term, int]) -> None:
        self._terms = {t: terms[t] for t in sorted(terms, key=repr) if terms[t]}

    # ------------------------------------------------------------------------------------------------- what is known

    def constant(self) -> int | None:
        """The number, where no symbol is left."""
        if not self._terms:
            return 0
        return self._terms.get(()) if len(self._terms) == 1 else None

    def symbols(self) -> Iterator[str]:
        """The names of the symbols."""
        for term in self._terms:
            for factor in term:
                if isinstance(factor, _Quotient):
                    yield from factor.number.symbols()
                    yield from factor.by.symbols()
                else:
                    yield factor

    def least(self) -> int | None:
        """A lower bound for all sizes from 2 on; None where there is none, or none is found."""
        total = 0
        for term, times in self._terms.items():
            bound = 1
            for factor in term:
                least = factor.least() if isinstance(factor, _Quotient) else _LEAST
                if least is None or least < 0:
                    return None
                bound *= least
            if times < 0 and term:
                return None
            total += times * bound
        return total

    def at(self, sizes: dict[str, int]) -> int:
        """The number, with numbers for the symbols."""
        total = 0
        for term, times in self._terms.items():
            for factor in term:
                times *= factor.at(sizes) if isinstance(factor, _Quotient) else sizes[factor]
            total += times
        return total

    # --------------------------------------------------------------------------------------------------- arithmetic

    def __add__(self, other: Any) -> Any:
        terms = _terms(other)
        if terms is None:
            return NotImplemented
        return _simple({t: self._terms.get(t, 0) + terms.get(t, 0) for t in {**self._terms, **terms}})

    def __mul__(self, other: Any) -> Any:
        terms = _terms(other)
        if terms is None:
            return NotImplemented
        out: dict[_Term, int] = {}
        for a, m in self._terms.items():
            for b, n in terms.items():
                term = tuple(sorted((*a, *b), key=repr))
                out[term] = out.get(term, 0) + m * n
        return _simple(out)

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self) -> Any:
        return self * -1

    def __sub__(self, other: Any) -> Any:
        return NotImplemented if _terms(other) is None else self + other * -1

    def __rsub__(self, other: Any) -> Any:
        return self * -1 + other

    def __floordiv__(self, other: Any) -> Any:
        terms = _terms(other)
        if terms is None:
            return NotImplemented
        if not terms:
            raise ZeroDivisionError(f"{self} // 0")
        if len(terms) == 1:
            ((divisor, by),) = terms.items()
            exact = _divided(self._terms, divisor, by)
            if exact is not None:
                return _simple(exact)
        return Size({(_Quotient(self, Size(terms)),): 1})

    def __rfloordiv__(self, other: Any) -> Any:
        return Size(_terms(other) or {}) // self

    def __mod__(self, other: Any) -> Any:
        return self - self // other * other

    def __rmod__(self, other: Any) -> Any:
        return other - other // self * self

    # --------------------------------------------------------------------------------------------------- decisions

    def __eq__(self, other: object) -> bool:
        if _terms(other) is None:
            return NotImplemented
        difference = self - other
        if type(difference) is int:
            return difference == 0
        if (difference.least() or 0) > 0 or ((-difference).least() or 0) > 0:
            return False
        raise Undecided(f"whether {self} == {other} depends on {self._names()}")

    def __lt__(self, other: Any) -> bool:
        return self._below(other, 1, "<")

    def __le__(self, other: Any) -> bool:
        return self._below(other, 0, "<=")

    def __gt__(self, other: Any) -> bool:
        return not self._below(other, 0, "<=")

    def __ge__(self, other: Any) -> bool:
        return not self._below(other, 1, "<")

    def _below(self, other: Any, by: int, sign: str) -> bool:
        """Whether `other` is at least `by` larger."""
        difference = other - self
        if type(difference) is int:
            return difference >= by
        least, least_of_opposite = difference.least(), (-difference).least()
        if least is not None and least >= by:
            return True
        if least_of_opposite is not None and least_of_opposite > -by:
            return False
        raise Undecided(f"whether {self} {sign} {other} depends on {self._names()}")

    def __bool__(self) -> bool:
        return self != 0

    def __hash__(self) -> int:
        return hash(repr(self))

    def __index__(self) -> int:
        raise Undecided(f"a number is needed for {self}, which depends on {self._names()}")

    __int__ = __index__

    def __float__(self) -> float:
        return float(self.__index__())

    def _names(self) -> str:
        return ", ".join(sorted(set(self.symbols())))

    def __repr__(self) -> str:
        texts = []
        for term, times in self._terms.items():
            factors = [str(f) for f in term]
            texts.append("*".join(factors if times == 1 and factors else [str(times), *factors]))
        return " + ".join(texts) or "0"


class Symbol(Size):
    """A size by its name, at least 2."""

    __slots__ = ()

    def __init__(self, name: str) -> None:
        super().__init__({(name,): 1})


def _terms(x: Any) -> dict[_Term, int] | None:
    if isinstance(x, Size):
        return x._terms
    if isinstance(x, int):
        return {(): int(x)} if x else {}
    return None


def _simple(terms: dict[_Term, int]) -> Any:
    size = Size(terms)
    number = size.constant()
    return size if number is None else number


def _divided(terms: dict[_Term, int], divisor: _Term, by: int) -> dict[_Term, int] | None:
    """Each term divided, where all of them can be."""
    out = {}
    for term, times in terms.items():
        left = list(term)
        for factor in divisor:
            if factor not in left:
                return None
            left.remove(factor)
        if times % by:
            return None
        out[tuple(left)] = times // by
    return out


def symbols_of(*shapes: Any) -> set[str]:
    """The names of all symbols in some shapes."""
    return {name for shape in shapes for n in shape if isinstance(n, Size) for name in n.symbols()}


def put(x: Any, sizes: dict[str, int]) -> Any:
    """Sizes, tuples of them and descriptions with numbers for the symbols."""
    if isinstance(x, Size):
        return x.at(sizes)
    if isinstance(x, tuple):
        values = [put(v, sizes) for v in x]
        return type(x)(*values) if hasattr(x, "_fields") else tuple(values)
    return x


def through(line: Any, name: str) -> Any:
    """The size or tuple of sizes that `line(n)` gives for each number n of a symbol, if it is linear in it.

    Raises Undecided where it is not.
    """
    at = [line(n) for n in (7, 11, 13)]
    return _fitted(at, name)


def _fitted(at: list[Any], name: str) -> Any:
    if isinstance(at[0], tuple):
        if len({len(v) for v in at}) > 1:
            raise Undecided(f"how many there are depends on {name}")
        values = [_fitted(list(v), name) for v in zip(*at, strict=True)]
        return type(at[0])(*values) if hasattr(at[0], "_fields") else tuple(values)
    if all(v == at[0] for v in at):
        return at[0]
    slope = (at[1] - at[0]) // 4
    fitted = Symbol(name) * slope + (at[0] - 7 * slope)
    if [fitted.at({name: n}) for n in (7, 11, 13)] != at:
        raise Undecided(f"{at} for {name} = 7, 11, 13 is no line")
    return fitted
