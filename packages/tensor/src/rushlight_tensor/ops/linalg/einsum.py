"""Einstein's summation: parsed into labels, then pairs of operands multiplied as batches of matrices.

Dtypes follow from what is done, as in PyTorch: what stands in one operand alone is summed, so integers become int64; a
label of two operands is a product of matrices in their one dtype, or one of elements, promoted, where its size is 1.
Every step keeps labels in the order of the result, those that are summed behind it: results lie in memory as PyTorch's.
"""

from __future__ import annotations

import functools
import string
from typing import Any

import numpy as np

from rushlight_tensor.core.tensor import Tensor
from rushlight_tensor.ops.linalg.linalg import matmul
from rushlight_tensor.ops.reduce.reduce import sum
from rushlight_tensor.ops.shape.diagonal import diagonal
from rushlight_tensor.ops.shape.shape import permute, reshape

Label = str | int
"""A letter, or the position from the right of a dimension under the ellipsis."""


def einsum(equation: Any, *operands: Any) -> Any:
    """The sum of products that `equation` names, such as "bij,bjk->bik" or "...i,...i".

    Args:
        equation: Letters for the dimensions of each operand, "..." for those that broadcast; "->", those of the result.
        operands: One tensor per term, or a list of them.  The form `einsum(a, [0, 1], b, [1, 2], [0, 2])` works too.
    Raises:
        RuntimeError: The equation is malformed, or sizes do not fit.
    """
    if isinstance(equation, Tensor):
        equation, operands = _from_lists((equation, *operands))
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    terms, result, sizes, place, apart = _read(equation, tuple([tuple(t._array.shape) for t in operands]))
    prepared = [_prepare(t, labels, sizes, apart) for t, labels in zip(operands, terms, strict=True)]
    for i, (t, labels) in enumerate(prepared):
        needed = {*result, *[label for j, (_, other) in enumerate(prepared) if j != i for label in other]}
        prepared[i] = _sum_out(t, labels, needed, place)
    left, labels = prepared[0]
    for i, (right, others) in enumerate(prepared[1:], 2):
        needed = {*result, *[label for _, later in prepared[i:] for label in later]}
        left, labels = _contract(left, labels, right, others, needed, place)
    left, labels = _sum_out(left, labels, set(result), place)
    order = [labels.index(label) for label in result]
    return left if order == sorted(order) and left is not operands[0] else permute(left, *order)


def _from_lists(arguments: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]]:
    def text(labels: Any) -> str:
        return "".join("..." if label is Ellipsis else string.ascii_letters[label] for label in labels)

    pairs = len(arguments) // 2
    equation = ",".join(text(labels) for labels in arguments[1 : 2 * pairs : 2])
    if len(arguments) % 2:
        equation += "->" + text(arguments[-1])
    return equation, arguments[: 2 * pairs : 2]


@functools.lru_cache(1024)
def _read(equation: str, shapes: tuple[tuple[int, ...], ...]) -> tuple[Any, Any, Any, Any, Any]:
    """The labels of operands and result, their sizes and places, and those of size 1 that are summed."""
    terms, result = _parse(equation, shapes)
    sizes = _sizes(terms, shapes)
    apart = {label for label, n in sizes.items() if n == 1 and label not in result and len(terms) > 1}
    return terms, result, sizes, _places(sizes, result), apart


def _parse(equation: str, shapes: tuple[tuple[int, ...], ...]) -> tuple[list[list[Label]], list[Label]]:
    left, arrow, right = equation.replace(" ", "").partition("->")
    texts = left.split(",")
    if len(texts) != len(shapes):
        fewer = "fewer" if len(shapes) < len(texts) else "more"
        raise RuntimeError(f"einsum(): {fewer} operands were provided than specified in the equation")
    terms = [_labels(text, len(shape), i) for i, (text, shape) in enumerate(zip(texts, shapes, strict=True))]
    everything = [label for term in terms for label in term]
    under = sorted({label for label in everything if isinstance(label, int)}, reverse=True)
    if not arrow:
        once = sorted({label for label in everything if isinstance(label, str) and everything.count(label) == 1})
        return terms, [*under, *once]
    head, dots, tail = right.partition("...")
    result: list[Label] = [*head, *(under if dots else ()), *tail]
    for label in result:
        if label not in everything:
            raise RuntimeError(
                f"einsum(): output subscript {label} does not appear in the equation for any input operand"
            )
        if result.count(label) > 1:
            raise RuntimeError(f"einsum(): output subscript {label} appears more than once in the output")
    return terms, result


def _labels(text: str, ndim: int, operand: int) -> list[Label]:
    head, dots, tail = text.partition("...")
    for letter in head + tail:
        if letter not in string.ascii_letters:
            raise RuntimeError(
                f"einsum(): invalid subscript given at index {text.index(letter)} in the equation string, subscripts "
                "must be in [a-zA-Z]"
            )
    named = len(head) + len(tail)
    if named > ndim or (named < ndim and not dots):
        more = "" if dots else " and no ellipsis was given"
        raise RuntimeError(
            f"einsum(): the number of subscripts in the equation ({named}) "
            f"{'is more than' if dots else 'does not match'} the number of dimensions ({ndim}) for operand {operand}"
            f"{more}"
        )
    return [*head, *range(ndim - named - 1, -1, -1), *tail]


def _sizes(terms: list[list[Label]], shapes: tuple[tuple[int, ...], ...]) -> dict[Label, int]:
    sizes: dict[Label, int] = {}
    for i, (labels, shape) in enumerate(zip(terms, shapes, strict=True)):
        for label, n in zip(labels, shape, strict=True):
            first = shape[labels.index(label)]
            if n != first:
                raise RuntimeError(
                    f"einsum(): subscript {label} is repeated for operand {i} but the sizes don't match, {n} != {first}"
                )
            seen = sizes.get(label, 1)
            if seen not in (1, n) and n != 1:
                raise RuntimeError(
                    f"einsum(): subscript {label} has size {n} for operand {i} which does not broadcast with "
                    f"previously seen size {seen}"
                )
            sizes[label] = n if seen == 1 else seen
    return sizes


def _places(sizes: dict[Label, int], result: list[Label]) -> dict[Label, int]:
    """Where each label stands while operands are multiplied: those of the result, then the ellipsis, then letters."""
    summed = [label for label in sizes if label not in result]
    dots = sorted((label for label in summed if isinstance(label, int)), reverse=True)
    letters = sorted(label for label in summed if isinstance(label, str))
    return {label: i for i, label in enumerate([*result, *dots, *letters])}


def _prepare(t: Any, labels: list[Label], sizes: dict[Label, int], apart: set[Label]) -> tuple[Any, list[Label]]:
    """With the diagonal where a label stands twice, without dimensions of size 1 that broadcast or are `apart`."""
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            first, second = [i for i, other in enumerate(labels) if other == label][:2]
            t = diagonal(t, 0, first, second)
            labels = [*[label for i, label in enumerate(labels) if i not in (first, second)], labels[first]]
    shape = t._array.shape
    kept = [i for i, label in enumerate(labels) if shape[i] == sizes[label] and label not in apart]
    if len(kept) < len(labels):
        labels = [labels[i] for i in kept]
        t = reshape(t, *[shape[i] for i in kept])
    return t, labels


def _sum_out(t: Any, labels: list[Label], needed: set[Label], place: dict[Label, int]) -> tuple[Any, list[Label]]:
    if all(label in needed for label in labels):
        return t, labels
    wanted = sorted(labels, key=place.__getitem__)
    over = [i for i, label in enumerate(wanted) if label not in needed]
    return sum(_arrange(t, labels, wanted), over), [label for label in wanted if label in needed]


def _contract(
    a: Any, la: list[Label], b: Any, lb: list[Label], needed: set[Label], place: dict[Label, int]
) -> tuple[Any, list[Label]]:
    """The product of two operands, summed over the labels that nobody needs after them."""
    la_in_order, lb_in_order = (sorted(own, key=place.__getitem__) for own in (la, lb))
    batch = [label for label in la_in_order if label in lb and label in needed]
    inner = [label for label in la_in_order if label in lb and label not in needed]
    rows, columns = (
        [label for label in own if label not in other] for own, other in ((la_in_order, lb), (lb_in_order, la))
    )
    sizes = dict(zip((*la, *lb), (*a._array.shape, *b._array.shape), strict=True))
    if not inner:
        found = sorted(sizes, key=place.__getitem__)
        x, y = (
            reshape(_arrange(t, own, [n for n in found if n in own]), *[sizes[n] if n in own else 1 for n in found])
            for t, own in ((a, la), (b, lb))
        )
        return x * y, found
    last = max([i for label, i in place.items() if label not in (*batch, *rows, *inner)], default=-1)
    if rows and columns and place[rows[0]] > last:  # the other way round, as in PyTorch: the product lies as the result
        a, la, rows, b, lb, columns = b, lb, columns, a, la, rows
    x, y = _arrange(a, la, [*batch, *rows, *inner]), _arrange(b, lb, [*batch, *inner, *columns])
    shape = [sizes[label] for label in (*batch, *rows, *columns)]
    lead = [sizes[label] for label in batch]
    x = _grouped(x, lead, [sizes[label] for label in rows], [sizes[label] for label in inner])
    y = _grouped(y, lead, [sizes[label] for label in inner], [sizes[label] for label in columns])
    product = matmul(x, y)
    return product if product._array.shape == (*shape,) else reshape(product, *shape), [*batch, *rows, *columns]


def _arrange(t: Any, labels: list[Label], wanted: list[Label]) -> Any:
    return t if labels == wanted else permute(t, *[labels.index(label) for label in wanted])


def _grouped(t: Any, *groups: list[int]) -> Any:
    """Each group but the first as one dimension; no reshape, which might copy, where it is one already."""
    if len(groups[1]) == len(groups[2]) == 1:
        return t
    return reshape(t, *groups[0], int(np.prod(groups[1])), int(np.prod(groups[2])))


def bilinear(input1: Any, input2: Any, weight: Any, bias: Any = None) -> Any:
    """`input1 @ weight[n] @ input2` for every n; (..., I), (..., J), (N, I, J) to (..., N)."""
    out = einsum("...i,nij,...j->...n", input1, weight, input2)
    return out if bias is None else out + bias
