"""What an op returns, from descriptions alone: shape, dtype, strides and device of each result, without data.

describe(op, avals, attrs)   the complete description of each result
run(op, arrays, attrs)       the "kernel" of arrays without data: the same, as new arrays
write(op, array, ys, attrs)  the same for a write in place: nothing but the checks

Note [Descriptions]
    `infer` of a record says shape and dtype, and what else is not obvious.  What is obvious follows from the kind of
    the op: a view has the strides and the offset that its NumPy text gives it, which runs on a header of memory that
    nobody reads; other results lie as the record's `order` says (Note [Order of results] in `placement.py`).  Results
    are on the device of the inputs, and in private order if an input is and they are not contiguous (`layout.lay` does
    the same to arrays).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rushlight_tensor.core import cuda
from rushlight_tensor.core.abstract import META, AbstractArray, in_elements, no_data
from rushlight_tensor.core.infer import Aval
from rushlight_tensor.core.kinds import Elementwise
from rushlight_tensor.core.labels import preserve_format
from rushlight_tensor.core.order import contiguous, is_contiguous, kept
from rushlight_tensor.core.placement import NUMBER, Operand
from rushlight_tensor.core.symbol import Undecided, put, symbols_of, through


def describe(op: Any, xs: list[Any], attrs: dict[str, Any]) -> Any:
    """The complete description of the result of an op, or a tuple of them; `xs` are `Aval`s, numbers and None.

    Raises the user's error where shapes or dtypes do not fit.
    """
    said = op.infer(*xs, **attrs)
    if op.view and (type(said) is not Aval or said.strides is None):
        laid_out = _headers(op, xs[0], attrs)
        said = laid_out if type(said) is not Aval else laid_out[0]
    given = [x for x in xs if type(x) is Aval]
    marked = any(x.private for x in given) and attrs.get("memory_format", preserve_format) is preserve_format
    if type(said) is Aval:
        return _completed(op, said, xs, attrs, marked)
    return tuple([_completed(op, a, xs, attrs, marked, op.side_results and i > 0) for i, a in enumerate(said)])


def _completed(op: Any, a: Aval, xs: list[Any], attrs: dict[str, Any], marked: bool, kept_back: bool = False) -> Aval:
    given = [x for x in xs if type(x) is Aval]
    device = a.device
    if device is None and given:
        device = given[0].device
    if 0 in a.shape:
        return a._replace(strides=contiguous(a.shape), device=device, private=False)
    own = a.strides  # where the kernel leaves it
    if own is None:
        own = kept(a.shape, *given) if type(op.kind) is Elementwise else contiguous(a.shape)
    if kept_back:
        return a._replace(strides=own, device=device, private=not is_contiguous(a.shape, own))
    seen = own if op.order is None else op.order.strides(a.shape, [_operand(x) for x in xs], attrs)
    if (a.private or (marked and not op.random)) and (op.order is None or is_contiguous(a.shape, seen)):
        return a._replace(strides=own, device=device, private=not is_contiguous(a.shape, own))
    return a._replace(strides=seen, device=device, private=False)


def _operand(x: Any) -> Operand | None:
    if type(x) is not Aval:
        return None if x is None else NUMBER
    return x.shape, contiguous(x.shape) if x.private or x.strides is None else x.strides


_NOWHERE = np.zeros(16, np.uint8)


def _headers(op: Any, x: Aval, attrs: dict[str, Any]) -> tuple[Aval, ...]:
    """The results of a view, from its NumPy text: it makes headers and touches no element."""
    names = symbols_of(x.shape, *[v for v in attrs.values() if type(v) is tuple])
    if not names:
        return _headers_of_numbers(op, x, attrs)
    if len(names) > 1:
        raise Undecided(f"{op.name}: where its results lie depends on {', '.join(sorted(names))}")
    (name,) = names
    made: tuple[Aval, ...] = through(
        lambda n: _headers_of_numbers(op, put(x, {name: n}), {k: put(v, {name: n}) for k, v in attrs.items()}), name
    )
    return made


def _headers_of_numbers(op: Any, x: Aval, attrs: dict[str, Any]) -> tuple[Aval, ...]:
    first = _NOWHERE[: x.dtype.itemsize].view(x.dtype)
    strides = contiguous(x.shape) if x.strides is None else x.strides
    before = np.lib.stride_tricks.as_strided(first, x.shape, [s * x.dtype.itemsize for s in strides])
    made = op.cpu(before, **attrs)
    start = cuda.address(before)
    return tuple(
        [
            Aval(z.shape, z.dtype, in_elements(z), offset=cuda.address(z) - start)
            for z in (made if type(made) is tuple else (made,))
        ]
    )


def run(op: Any, arrays: list[Any], attrs: dict[str, Any]) -> Any:
    """New arrays without data for the results of an op, of which some inputs have none.

    Raises TwoDevicesError where others have, and the user's error where shapes or dtypes do not fit.
    """
    device = None
    for a in arrays:
        if hasattr(a, "shape"):
            here = a.aval.device if type(a) is AbstractArray else "cuda" if cuda.is_cuda(a) else "cpu"
            if device is None:
                device = here
            elif here != device or type(a) is not AbstractArray:
                raise cuda.TwoDevicesError(
                    f"Tensor on device {here} is not on the expected device {device}! ({op.name})"
                )
    said = describe(op, [a.aval if type(a) is AbstractArray else a for a in arrays], attrs)
    if device == META and type(said) is Aval and said.device != META:
        no_data()
    base = arrays[0] if op.view else None
    if type(said) is Aval:
        return _made(said, base)
    return tuple([_made(a, base) for a in said])


def _made(a: Aval, above: AbstractArray | None) -> AbstractArray:
    if above is None:
        return AbstractArray(a)
    owner = above if above.base is None else above.base
    return AbstractArray(a, owner, above.offset + a.offset)


def write(op: Any, array: Any, ys: list[Any], attrs: dict[str, Any]) -> None:
    """The checks of a write in place.  Raises RuntimeError where the result is larger than what it goes into."""
    result = run(op, [array, *ys], attrs)
    if result.shape != array.shape:
        raise RuntimeError(
            f"output with shape {list(array.shape)} doesn't match the broadcast shape {list(result.shape)}"
        )
