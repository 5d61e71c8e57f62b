"""Collation: how samples become a batch of tensors, by PyTorch's rules.

Note [Collating into shared memory]
    In a worker process the batch's large arrays are made in shared memory at once (`blocks.place` gives the memory), so
    stacking is the only copy between a sample and the training loop.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, MutableMapping, MutableSequence, Sequence
from typing import Any, cast

import numpy as np

from rushlight_data import blocks
from rushlight_tensor.core.dtypes import float64
from rushlight_tensor.core.tensor import Tensor, wrap
from rushlight_tensor.ops.create import as_tensor, tensor
from rushlight_tensor.ops.shape.join import stack

_NO_TENSOR_KINDS = "SUOMm"  # NumPy's text, object and time kinds


def default_collate(batch: Sequence[Any]) -> Any:
    """Samples to one batch: what is alike is stacked along a new first dimension, structures are kept.

    Tensors, arrays and numbers become a tensor with first dimension `len(batch)` (Python floats: float64, ints: int64);
    dicts, named tuples and lists are collated member by member, tuples too but into a list; strings stay a list.

    Raises:
        TypeError: For types that have no rule, such as None.
        RuntimeError: For tensors or sequences of unequal size.
    """
    if isinstance(batch, Sequence) and len(batch) == 0:
        raise IndexError("default_collate: got an empty batch; a batch needs at least one sample")
    first = batch[0]
    kind = type(first)
    if isinstance(first, Tensor):
        return _stack_tensors(batch)
    if isinstance(first, np.ndarray):
        return _stack_arrays(batch)
    if isinstance(first, (np.bool_, np.number)) and kind is not np.timedelta64:
        return as_tensor(np.asarray(batch))
    if isinstance(first, float):
        return tensor(batch, dtype=float64)
    if isinstance(first, int):
        return tensor(batch)
    if isinstance(first, (str, bytes)):
        return batch
    if isinstance(first, Mapping):
        return _rebuilt_mapping(first, {key: default_collate([sample[key] for sample in batch]) for key in first})
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return kind(*(default_collate(members) for members in zip(*batch, strict=True)))
    if isinstance(first, Sequence):
        return _collate_sequence(first, batch)
    raise TypeError(_no_rule(kind))


def default_convert(data: Any) -> Any:
    """One sample without a batch: its arrays become tensors, everything else stays (tuples become lists)."""
    if isinstance(data, Tensor):
        return data
    if isinstance(data, (np.ndarray, np.generic)):
        return data if data.dtype.kind in _NO_TENSOR_KINDS else as_tensor(data)
    if isinstance(data, Mapping):
        return _rebuilt_mapping(data, {key: default_convert(value) for key, value in data.items()})
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(default_convert(member) for member in data))
    if isinstance(data, tuple):
        return [default_convert(member) for member in data]
    if isinstance(data, Sequence) and not isinstance(data, (str, bytes)):
        return _rebuilt_sequence(data, [default_convert(member) for member in data])
    return data


def _no_rule(kind: object) -> str:
    return (
        f"default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; found {kind}; "
        "return one of those from the dataset, or give the loader a collate_fn"
    )


def _stack_tensors(batch: Sequence[Tensor]) -> Tensor:
    if any(t.requires_grad or not isinstance(t._array, np.ndarray) for t in batch):
        if blocks.in_worker() and any(t.requires_grad for t in batch):
            raise RuntimeError(
                "default_collate: a sample requires grad, which cannot be carried from a worker to the trainer; "
                "return x.detach() from the dataset, or use num_workers=0"
            )
        return cast(Tensor, stack(tuple(batch)))
    return _stack([t._array for t in batch])


def _stack_arrays(batch: Sequence[np.ndarray]) -> Tensor:
    if batch[0].dtype.kind in _NO_TENSOR_KINDS:
        raise TypeError(_no_rule(batch[0].dtype))
    return _stack([as_tensor(array)._array for array in batch])


def _stack(arrays: list[np.ndarray]) -> Tensor:
    first = arrays[0]
    if any(array.dtype != first.dtype for array in arrays):
        return cast(Tensor, stack(tuple(wrap(array) for array in arrays)))  # with PyTorch's promotion
    for i, array in enumerate(arrays):
        if array.shape != first.shape:
            raise RuntimeError(
                f"stack expects each tensor to be equal size, but got {list(first.shape)} at entry 0 and "
                f"{list(array.shape)} at entry {i}; give the loader a collate_fn that pads, or batch_size=None"
            )
    room = blocks.place((len(arrays), *first.shape), first.dtype)  # See Note [Collating into shared memory]
    if room is None:
        room = np.empty((len(arrays), *first.shape), first.dtype)  # NumPy's own choice follows the order of the samples
    return wrap(np.stack(arrays, out=room))


def _rebuilt_mapping(like: Mapping[Any, Any], values: dict[Any, Any]) -> Any:
    """A mapping of `like`'s type with these values; a dict where that type cannot be made from one."""
    try:
        if isinstance(like, MutableMapping):
            clone = copy.copy(like)
            clone.update(values)
            return clone
        return type(like)(values)  # type: ignore[call-arg]
    except TypeError:
        return values


def _rebuilt_sequence(like: Sequence[Any], members: list[Any]) -> Any:
    """A sequence of `like`'s type with other members; a list where that type cannot be made from one."""
    try:
        if isinstance(like, MutableSequence):
            clone = copy.copy(like)
            for i, member in enumerate(members):
                clone[i] = member
            return clone
        return type(like)(members)  # type: ignore[call-arg]
    except TypeError:
        return members


def _collate_sequence(first: Sequence[Any], batch: Sequence[Any]) -> Any:
    if any(len(sample) != len(first) for sample in batch):
        sizes = [len(sample) for sample in batch]
        raise RuntimeError(f"each element in list of batch should be of equal size, but got sizes {sizes}")
    members = [default_collate(samples) for samples in zip(*batch, strict=True)]
    return members if isinstance(first, tuple) else _rebuilt_sequence(first, members)
