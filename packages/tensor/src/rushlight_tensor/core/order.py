"""The order of elements in fresh memory, from shapes and strides alone: contiguous, channels-last, or that of operands.

Note [Order of a result]
    A ufunc of NumPy puts its result in the order in which its operands lie: transposed plus transposed is transposed.
    Where they disagree, the order of the indices wins (`npyiter_find_best_axis_ordering`).  Dimensions of size 1 and
    repeated ones (step 0) have no opinion.  That is where kernels leave what is in private order; what users see
    follows PyTorch's rules, in `placement.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any


def contiguous(shape: Sequence[Any]) -> tuple[Any, ...]:
    """The strides of elements in the order of their indices."""
    return packed(shape, range(len(shape) - 1, -1, -1))


def packed(shape: Sequence[Any], axes: Sequence[int]) -> tuple[Any, ...]:
    """The strides of elements without gaps, `axes` from the fastest to the slowest."""
    out: list[Any] = [0] * len(shape)
    step: Any = 1
    for i in axes:
        out[i] = step
        step = step * max(shape[i], 1)
    return tuple(out)


def channels_last(shape: Sequence[Any]) -> tuple[Any, ...]:
    """The strides of images (N, C, …) whose channels lie side by side."""
    return packed(shape, (1, *range(len(shape) - 1, 1, -1), 0))


def is_contiguous(shape: Sequence[Any], strides: Sequence[Any], step: int = 1) -> bool:
    """Whether elements with these strides lie in the order of their indices, `step` apart, as NumPy sees it."""
    if 0 in shape:
        return True
    for n, stride in zip(reversed(shape), reversed(strides), strict=True):
        if n == 1:
            continue
        if stride != step:
            return False
        step = step * n
    return True


def kept(shape: Sequence[Any], *operands: Any) -> tuple[Any, ...]:
    """The strides of a fresh result of this shape, in the order of its operands.  See Note [Order of a result].

    Args:
        shape: That of the result, to which the operands broadcast.
        operands: Objects with `shape` and `strides` (None: contiguous), in any unit; everything else is left out.
    """
    return packed(shape, fastest_first(shape, *operands))


def fastest_first(shape: Sequence[Any], *operands: Any) -> list[int]:
    """The dimensions of such a result from the fastest to the slowest."""
    steps = [s for s in (_steps(shape, x) for x in operands) if s is not None]
    order = list(range(len(shape) - 1, -1, -1))  # from the fastest to the slowest, an insertion sort
    for i in range(1, len(order)):
        axis, to = order[i], i
        for j in range(i - 1, -1, -1):
            verdict = _slower(steps, axis, order[j])
            if verdict is None:
                continue
            if verdict:
                break
            to = j
        order.insert(to, order.pop(i))
    return order


def merges(shape: Sequence[Any], strides: Sequence[Any]) -> bool:
    """Whether dimensions can be seen as one without a copy."""
    solid = [(n, step) for n, step in zip(shape, strides, strict=True) if n != 1]
    return all(a == m * b for (_, a), (m, b) in itertools.pairwise(solid))


def like(x: Any) -> tuple[Any, ...]:
    """The strides of a fresh copy of `x` in its order, as those of `empty_like`, `astype` and `copy("K")`."""
    strides = contiguous(x.shape) if x.strides is None else x.strides
    return packed(x.shape, sorted(range(len(x.shape)), key=lambda i: -abs(strides[i]))[::-1])


def _steps(shape: Sequence[Any], x: Any) -> list[Any] | None:
    """The steps of an operand along the dimensions of the result, 0 where it has no opinion."""
    if not hasattr(x, "shape"):
        return None
    strides = contiguous(x.shape) if x.strides is None else x.strides
    own = [0 if n == 1 else abs(s) for n, s in zip(x.shape, strides, strict=True)]
    return [0] * (len(shape) - len(own)) + own


def _slower(steps: list[list[Any]], a: int, b: int) -> bool | None:
    """Whether dimension `a` is slower than `b` for any operand; None where none has an opinion."""
    verdict = None
    for s in steps:
        if s[a] != 0 and s[b] != 0:
            if s[b] <= s[a]:
                return True
            verdict = False
    return verdict
