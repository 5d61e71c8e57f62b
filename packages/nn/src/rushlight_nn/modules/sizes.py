"""Sizes that a user gives as one number or one per dimension."""

from __future__ import annotations

from collections.abc import Iterable

Size = int | tuple[int, ...]


def as_tuple(size: Size, n: int) -> tuple[int, ...]:
    """`size` repeated `n` times if it is one number, as a tuple otherwise."""
    return tuple(size) if isinstance(size, Iterable) else (size,) * n
