"""Order in memory: arrays that lie in an order of our own and look contiguous to everybody else.

Note [Private order]
    Convolution works on memory in (N, H, W, C) order.  Its results keep that order, so that a chain of convolutions,
    norms and pools copies nothing; but in PyTorch they are contiguous, and that is what everybody sees: `stride()` and
    `is_contiguous()` say so, and the first look that would tell the difference (a view, `numpy()`, `data_ptr()`, a
    file) makes it true: `dispatch.settle` copies the elements once and the tensor goes on with the copy.  So nothing
    else may hold the old memory as its own: a view settles its base before it is made, except where it is only read
    and never seen (`dispatch.call(…, hidden=True)`).
    Such an array is marked by its class, which costs the others nothing.  Kernels never see the mark: `dispatch.run`
    takes it off, and `lay` puts it on results that are not contiguous either, but would be in PyTorch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rushlight_tensor.core import abstract, order, placement
from rushlight_tensor.core.abstract import AbstractArray
from rushlight_tensor.core.infer import Aval
from rushlight_tensor.core.labels import (
    channels_last,
    channels_last_3d,
    contiguous_format,
    memory_format,
    preserve_format,
)

_ORDERS = {channels_last: (0, 2, 3, 1), channels_last_3d: (0, 2, 3, 4, 1)}


class PrivateOrder(np.ndarray):
    """An array of which nobody may know how it lies in memory.  See Note [Private order]."""

    __slots__ = ()


def is_private(array: Any) -> bool:
    """Whether an array has the mark; of one without data, whether its description has."""
    return type(array) is PrivateOrder or (type(array) is AbstractArray and array.aval.private)


def private(array: Any) -> Any:
    """The array with the mark, unless it is contiguous anyhow or no NumPy array."""
    if type(array) is not np.ndarray or array.flags.c_contiguous:
        return array
    return array.view(PrivateOrder)


def lay(op: Any, result: Any, arrays: Sequence[Any], attrs: dict[str, Any]) -> Any:
    """The result of a kernel, or each of several, where PyTorch's would lie.  See Note [Order of results]."""
    if op.order is None:
        return result
    if type(result) is tuple:
        if op.side_results:  # the others are for the gradient, which takes them as they are
            return (_laid(op, result[0], arrays, attrs), *map(private, result[1:]))
        if op.order is placement.CONTIGUOUS and all(type(z) is np.ndarray and z.flags.c_contiguous for z in result):
            return result
        return tuple([_laid(op, z, arrays, attrs) for z in result])
    return _laid(op, result, arrays, attrs)


def _laid(op: Any, array: Any, arrays: Sequence[Any], attrs: dict[str, Any]) -> Any:
    if isinstance(array, (np.generic, AbstractArray)) or array is None or not array.size:
        return array
    rule = op.order
    if array.flags.c_contiguous and (
        rule is placement.CONTIGUOUS
        or array.ndim < 2
        or (not rule.moves and _all_plain(arrays) and not (rule.images and _lie_both_ways(arrays)))
    ):
        return array
    if rule.asks_attrs:
        return _placed(array, _verdict(array, rule, arrays, attrs))
    key: list[Any] = [rule.strides, rule.private, type(array), array.shape, array.strides, array.itemsize]
    for a in arrays:
        if hasattr(a, "strides"):
            key += [type(a), a.shape, a.strides, a.itemsize]
        else:
            key.append(a is None)
    known = tuple(key)
    verdict = _VERDICTS.get(known)
    if verdict is None:
        if len(_VERDICTS) >= _MOST_VERDICTS:
            _VERDICTS.clear()
        verdict = _VERDICTS[known] = _verdict(array, rule, arrays, attrs)
    return _placed(array, verdict)


_VERDICTS: dict[tuple[Any, ...], Any] = {}
"""What to do with a result, by its rule and by how it and the inputs lie: images meet the same cases in each step."""

_MOST_VERDICTS = 4096


def _verdict(array: Any, rule: Any, arrays: Sequence[Any], attrs: dict[str, Any]) -> Any:
    want = rule.strides(array.shape, [operand(a) for a in arrays], attrs)
    return placing(array, want, rule.private or _any_private(arrays))


def _all_plain(arrays: Sequence[Any]) -> bool:
    """Whether PyTorch's user finds the elements of all of them in the order of their indices."""
    for a in arrays:
        if type(a) is np.ndarray:
            if not a.flags.c_contiguous:
                return False
        elif type(a) is not PrivateOrder and hasattr(a, "flags") and not a.flags.c_contiguous:
            return False
    return True


def _lie_both_ways(arrays: Sequence[Any]) -> bool:
    """Whether one is an image that lies in both orders at once, of one channel or of one pixel: its strides decide."""
    return any(
        a is not None and a.ndim > 3 and (a.shape[1] == 1 or a.shape[2:] == _PIXEL[: a.ndim - 2]) for a in arrays
    )


_PIXEL = (1, 1, 1)


def _any_private(arrays: Sequence[Any]) -> bool:
    return any(type(a) is PrivateOrder for a in arrays)


def with_strides(array: Any, want: tuple[int, ...], hidden: bool) -> Any:
    """`array`, or a copy, with these strides; `hidden`: contiguous ones may be claimed only."""
    return _placed(array, placing(array, want, hidden))


def placing(array: Any, want: tuple[int, ...], hidden: bool) -> Any:
    """What `_placed` shall do: a function of the array, or the axes of a copy and those of the view of it."""
    if tuple([s // array.itemsize for s in array.strides]) == want:
        return plain
    if order.is_contiguous(array.shape, want):
        if type(array) is PrivateOrder:
            return _itself
        if not array.flags.c_contiguous:
            return _mark if hidden and type(array) is np.ndarray else _copy
    dims = tuple(sorted(range(array.ndim), key=lambda d: -want[d]))
    back = tuple(sorted(range(array.ndim), key=dims.__getitem__))
    return dims, back


def _placed(array: Any, verdict: Any) -> Any:
    if type(verdict) is not tuple:
        return verdict(array)
    dims, back = verdict
    seen = array.transpose(dims)
    # made anew even if it is contiguous: sizes of 1 have steps, too, by which PyTorch tells orders apart
    return (seen.reshape(-1).reshape(seen.shape) if seen.flags.c_contiguous else seen.copy("C")).transpose(back)


def _itself(array: Any) -> Any:
    return array


def _mark(array: Any) -> Any:
    return array.view(PrivateOrder)


def _copy(array: Any) -> Any:
    return array.copy("C")


def operand(array: Any) -> placement.Operand | None:
    """What rules of order are told of an input."""
    if array is None:
        return None
    if not hasattr(array, "strides"):
        return placement.NUMBER
    return array.shape, strides(array)


def plain(array: Any) -> Any:
    """The array without the mark; of other subclasses of NumPy's array, too, the bare array."""
    return array.view(np.ndarray) if isinstance(array, np.ndarray) and type(array) is not np.ndarray else array


def repeats(array: Any) -> bool:
    """Whether several elements are one place in memory, as what was expanded has them."""
    return array.size > 0 and any(n > 1 and step == 0 for n, step in zip(array.shape, array.strides, strict=True))


def is_contiguous(array: Any, memory_format: Any = contiguous_format) -> bool:
    """Whether PyTorch's user finds the elements in the order of their indices, or in that of another format."""
    axes = _ORDERS.get(memory_format)
    if axes is None:
        return is_private(array) or bool(array.flags.c_contiguous)
    if array.ndim != len(axes):
        return False
    if is_private(array):  # looks contiguous, which is no other order: with one channel or pixel it has no mark
        return False
    shape, strides = [array.shape[i] for i in axes], [array.strides[i] for i in axes]
    return order.is_contiguous(shape, strides, array.itemsize)


def copy(array: Any, memory_format: Any) -> Any:
    """A copy in a memory format.

    Raises:
        RuntimeError: The format is one for tensors of another rank.
        TypeError: It is no memory format.
    """
    axes = _ORDERS.get(check(memory_format, "clone"))
    if axes is None:
        return array.copy("K" if memory_format is preserve_format else "C")
    if array.ndim != len(axes):
        raise RuntimeError(f"required rank {len(axes)} tensor to use {memory_format._name} format, got {array.ndim}")
    back = (0, len(axes) - 1, *range(1, len(axes) - 1))
    return array.transpose(axes).copy("C").transpose(back)


def image(shape: tuple[int, ...], dtype: Any, *xs: Any) -> Aval:
    """The description of a result that a kernel makes in an order of its own; `xs` are the inputs."""
    if any((getattr(x, "device", None) or "").startswith("cuda") for x in xs):
        return Aval(shape, dtype)
    return Aval(shape, dtype, order.channels_last(shape), private=True)


def is_image(x: Any) -> bool:
    """Whether an array, or a description, is one of images whose channels lie side by side, in whatever order."""
    if len(x.shape) != 4 or x.strides is None:
        return False
    step = 1 if type(x) is Aval else x.itemsize
    axes = _ORDERS[channels_last]
    return order.is_contiguous([x.shape[i] for i in axes], [x.strides[i] for i in axes], step)


def strides_of_copy(x: Any, memory_format: Any) -> tuple[int, ...]:
    """The strides of `copy`, of a description; raises the same errors."""
    axes = _ORDERS.get(check(memory_format, "clone"))
    if axes is None:
        return order.like(x) if memory_format is preserve_format else order.contiguous(x.shape)
    if x.ndim != len(axes):
        raise RuntimeError(f"required rank {len(axes)} tensor to use {memory_format._name} format, got {x.ndim}")
    return order.channels_last(x.shape)


def check(given: Any, name: str) -> Any:
    """`given`, if it is a memory format.  Raises TypeError in PyTorch's words."""
    if isinstance(given, memory_format):
        return given
    raise TypeError(f"{name}(): argument 'memory_format' must be torch.memory_format, not {type(given).__name__}")


def strides(array: Any) -> tuple[int, ...]:
    """The step of each dimension in elements, as PyTorch's user finds it."""
    if is_private(array):
        return order.contiguous(array.shape)
    return abstract.in_elements(array)


def empty_like(array: Any, dtype: Any = None) -> Any:
    """A NumPy array that lies as PyTorch's `empty_like` of `array`, whose elements are not set."""
    if is_contiguous(array):
        return np.empty(array.shape, dtype or array.dtype)
    dims = placement.sorted_dims(array.shape, [strides(array)])
    back = sorted(range(array.ndim), key=dims.__getitem__)
    return np.empty([array.shape[d] for d in dims], dtype or array.dtype).transpose(back)
