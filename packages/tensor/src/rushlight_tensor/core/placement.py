"""How results lie in memory: PyTorch's strides, from shapes, strides and attributes alone.

Note [Order of results]
    What a view, `reshape` or a random draw does depends on where elements lie, so results lie as PyTorch's do.  Every
    record says how, in its field `order`, by one of the rules below; `dispatch.run` compares with what the kernel made
    and copies where that lies otherwise (or, where images are concerned, makes it private: Note [Private order]).
    Arrays that lie in the order of their indices, which is nearly all, are told by a flag.

    CONTIGUOUS  in the order of their indices, however the inputs lie: reductions, rows, joins, products
    COMBINED    as PyTorch's TensorIterator decides: elementwise ops
    CLONED      as the attribute `memory_format` says
    LIKE        as the first input, without its gaps: copies and flips
    FORMAT      channels-last where the first input is such an image, else contiguous: what works on images
    IMAGE       the same, private where PyTorch's would be contiguous
    AS_MADE     as the kernel makes them: views (the field is None then)

Strides are counted in elements.  An operand is `(shape, strides)`, `NUMBER` for a Python number, None where there is
none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rushlight_tensor.core import labels
from rushlight_tensor.core.order import contiguous, is_contiguous, packed

Shape = tuple[int, ...]
Operand = tuple[Shape, Shape]
NUMBER: Operand = ((), ())
"""A Python number: to PyTorch, a tensor without dimensions."""

CHANNELS_LAST = {4: (0, 2, 3, 1), 5: (0, 2, 3, 4, 1)}


class Order(NamedTuple):
    """A rule: `strides(shape of the result, operands, attrs)`.

    It may be about `images`, and the contiguous ones among its results may lie in an order of their own, in `private`.
    It `moves` elements if contiguous inputs may have results that are not, and `asks_attrs` if strides alone do not
    decide.
    """

    strides: Callable[[Shape, Sequence[Operand | None], dict[str, Any]], Shape]
    images: bool = False
    private: bool = False
    moves: bool = False
    asks_attrs: bool = False


def permuted(shape: Shape, order: Sequence[int]) -> Shape:
    """The strides without gaps where dimensions stand in `order`, the slowest first."""
    return packed(shape, order[::-1])


def is_channels_last(shape: Shape, strides: Shape) -> bool:
    """Whether elements lie in channels-last order."""
    order = CHANNELS_LAST.get(len(shape))
    return order is not None and is_contiguous(tuple(shape[d] for d in order), tuple(strides[d] for d in order))


def suggests_channels_last(operand: Operand | None) -> bool:
    """Whether PyTorch takes this for an image in channels-last order (`suggest_memory_format`); it may have gaps."""
    if operand is None or len(operand[0]) not in CHANNELS_LAST:
        return False
    shape, strides = operand
    if strides[1] == 0:
        return False
    least = 0
    for d in (1, *range(len(shape) - 1, 1, -1), 0):
        if shape[d] == 0 or strides[d] < least or (d == 0 and least == strides[1]):
            return False
        least = strides[d] * max(shape[d], 1)
    return True


def is_dense(shape: Shape, strides: Shape) -> bool:
    """Whether elements fill their memory: no gaps, no overlap."""
    step = 1
    for s, n in sorted((s, n) for n, s in zip(shape, strides, strict=True) if n != 1):
        if n == 0:
            return True
        if s != step:
            return False
        step *= n
    return True


def sorted_dims(shape: Shape, operands: Sequence[Shape]) -> list[int]:
    """The dimensions from the slowest to the fastest, as PyTorch's TensorIterator sorts them.

    Args:
        operands: The strides of each, brought to the rank of `shape`; 0 where it is repeated.
    """

    def swaps(a: int, b: int) -> int:
        for strides in operands:
            s, t = abs(strides[a]), abs(strides[b])
            if s and t:
                if s != t:
                    return 1 if s > t else -1
                if shape[a] > shape[b]:
                    return 1
        return 0

    perm = list(range(len(shape) - 1, -1, -1))  # the fastest first
    for i in range(1, len(perm)):
        at = i
        for before in range(i - 1, -1, -1):
            found = swaps(perm[before], perm[at])
            if found > 0:
                perm[before], perm[at] = perm[at], perm[before]
                at = before
            elif found < 0:
                break
    return perm[::-1]


def _contiguous(shape: Shape, xs: Sequence[Operand | None], attrs: dict[str, Any]) -> Shape:
    return contiguous(shape)


def combined(shape: Shape, xs: Sequence[Operand | None]) -> Shape:
    """Where the result of an elementwise op lies."""
    given = [x for x in xs if x is not None]
    if all(is_contiguous(*x) for x in given):
        return contiguous(shape)
    if all(len(x[0]) == len(shape) and x[0] == shape for x in given):
        if all(is_channels_last(*x) for x in given):
            return permuted(shape, CHANNELS_LAST[len(shape)])
        first = given[0][1]
        if all(x[1] == first for x in given) and is_dense(shape, first):
            return first
    aligned = []
    for of, strides in given:
        lead = len(shape) - len(of)
        aligned.append((0,) * lead + tuple(0 if n == 1 and m != 1 else s for n, m, s in zip(of, shape[lead:], strides)))  # noqa: B905 - a number has none
    return permuted(shape, sorted_dims(shape, aligned))


def _combined(shape: Shape, xs: Sequence[Operand | None], attrs: dict[str, Any]) -> Shape:
    return combined(shape, xs)


def like(shape: Shape, strides: Shape) -> Shape:
    """The strides of `empty_like`: the same ones, or without gaps and overlap in their order."""
    steps = tuple([abs(s) for s in strides])  # negative ones are NumPy's alone
    return steps if is_dense(shape, steps) else permuted(shape, sorted_dims(shape, [steps]))


def _like(shape: Shape, xs: Sequence[Operand | None], attrs: dict[str, Any]) -> Shape:
    x = xs[0]
    return contiguous(shape) if x is None or x[0] != shape else like(*x)


def alike(shape: Shape, strides: Shape, others: Shape) -> bool:
    """Whether two arrays of one shape lie in the same way; dimensions of size 1 have no say."""
    return all(s == t for n, s, t in zip(shape, strides, others, strict=True) if n != 1)


def gradient(shape: Shape, strides: Shape) -> Shape:
    """Where the gradient of a leaf with these strides lies: as the leaf where that is dense, else contiguous."""
    return strides if is_dense(shape, strides) else contiguous(shape)


def image(shape: Shape, channels_last: bool) -> Shape:
    """The strides of an image in one of PyTorch's two memory formats."""
    return permuted(shape, CHANNELS_LAST[len(shape)]) if channels_last else contiguous(shape)


def _joined(shape: Shape, xs: Sequence[Operand | None], attrs: dict[str, Any]) -> Shape:
    solid = [x for x in xs if x is not None and x[0] != (0,)]
    return image(shape, len(shape) in CHANNELS_LAST and all(map(suggests_channels_last, solid)))


def _picked(shape: Shape, xs: Sequence[Operand | None], attrs: dict[str, Any]) -> Shape:
    if not attrs["wrap"]:  # `index_select`; the others are indices in brackets
        return contiguous(shape)
    assert xs[0] is not None
    assert xs[1] is not None
    (of, strides), (at, steps) = xs[0], xs[1]
    dim = attrs["dim"] % max(len(of), 1)
    before, after = strides[:dim], strides[dim + 1 :]
    index = (0,) * dim + steps + (0,) * len(after)
    return permuted(shape, sorted_dims(shape, [before + (0,) * len(at) + after, index]))


def _gathered(shape: Shape, xs: Sequence[Operand | None], attrs: dict[str, Any]) -> Shape:
    return _like(shape, xs, attrs) if attrs["alike"] else contiguous(shape)


def _format(shape: Shape, xs: Sequence[Operand | None], attrs: dict[str, Any]) -> Shape:
    return image(shape, len(shape) in CHANNELS_LAST and suggests_channels_last(xs[0]))


def _convolved(shape: Shape, xs: Sequence[Operand | None], attrs: dict[str, Any]) -> Shape:
    return image(shape, len(shape) in CHANNELS_LAST and any(map(suggests_channels_last, xs[:2])))


def _given(shape: Shape, xs: Sequence[Operand | None], attrs: dict[str, Any]) -> Shape:
    return tuple(attrs["stride"])


def _are_rows(xs: Sequence[Operand | None]) -> bool:
    """Whether PyTorch has a kernel for attention over these; else it takes the long way, to contiguous results."""
    return all(x is not None and x[1][-1] == 1 for x in xs)


def _attended(shape: Shape, xs: Sequence[Operand | None], attrs: dict[str, Any]) -> Shape:
    return _like(shape, xs, attrs) if _are_rows(xs[:3]) else contiguous(shape)


def _attended_back(shape: Shape, xs: Sequence[Operand | None], attrs: dict[str, Any]) -> Shape:
    return permuted(shape, (0, 2, 1, 3)) if len(shape) == 4 and _are_rows(xs[1:4]) else contiguous(shape)


def _back_from(rule: Any) -> Any:
    def rule_of_gradients(shape: Shape, xs: Sequence[Operand | None], attrs: dict[str, Any]) -> Shape:
        found: Shape = rule(shape, xs[1:], attrs)
        return found

    return rule_of_gradients


def _cloned(shape: Shape, xs: Sequence[Operand | None], attrs: dict[str, Any]) -> Shape:
    asked = attrs["memory_format"]
    if asked is labels.preserve_format:
        return _like(shape, xs, attrs)
    return image(shape, asked in (labels.channels_last, labels.channels_last_3d))


def _as_made(shape: Shape, xs: Sequence[Operand | None], attrs: dict[str, Any]) -> Shape:
    raise AssertionError("results that lie as they are made follow no rule")


AS_MADE = Order(_as_made)
CONTIGUOUS = Order(_contiguous)
COMBINED = Order(_combined)
LIKE = Order(_like)
FORMAT = Order(_format, images=True)
IMAGE = Order(_format, images=True, private=True)
CONVOLVED = Order(_convolved, images=True, private=True)
CONVOLVED_BACK = Order(_back_from(_convolved), images=True, private=True)
JOINED = Order(_joined, images=True)
PICKED = Order(_picked, asks_attrs=True)
GATHERED = Order(_gathered, asks_attrs=True)
ATTENDED = Order(_attended)
ATTENDED_BACK = Order(_attended_back, moves=True)
GIVEN = Order(_given, asks_attrs=True)
CLONED = Order(_cloned, asks_attrs=True)
