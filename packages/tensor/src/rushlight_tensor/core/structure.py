"""Arguments and results as trees: the tensors in them, in order, and the rest as leaves."""

from __future__ import annotations

from typing import Any

import numpy as np

from rushlight_tensor.core import devices, dtypes
from rushlight_tensor.core.tensor import Tensor

_LEAF = "tensor"
_PLAIN = (bool, int, float, complex, str, bytes, type(None), np.dtype, dtypes.dtype, devices.device)


def flatten(tree: Any, tensors: list[Tensor]) -> Any:
    """Append the tensors of `tree` to `tensors`; returns its structure.

    Lists, dicts, tuples, named tuples and shapes are branches, everything else, subclasses with more to them included,
    is a leaf.
    """
    if isinstance(tree, Tensor):
        tensors.append(tree)
        return _LEAF
    kind = type(tree)
    if kind is list or kind is tuple or (isinstance(tree, tuple) and not hasattr(tree, "__dict__")):
        return (kind, tuple([flatten(t, tensors) for t in tree]))
    if kind is dict:
        return (dict, tuple([(k, flatten(v, tensors)) for k, v in tree.items()]))
    return (kind, "value", tree)


def unflatten(structure: Any, tensors: list[Any]) -> Any:
    """The tree of this structure, with the tensors taken from the front of the list."""
    return _build(structure, iter(tensors))


def _build(structure: Any, tensors: Any) -> Any:
    if structure == _LEAF:
        return next(tensors)
    if len(structure) == 3:
        return structure[2]
    kind, parts = structure
    if kind is dict:
        return {k: _build(v, tensors) for k, v in parts}
    items = [_build(p, tensors) for p in parts]
    return kind(*items) if hasattr(kind, "_fields") else kind(items)


def leaves_of(structure: Any) -> list[Any]:
    """The leaves that are no tensors, in order."""
    if isinstance(structure, str):
        return []
    if len(structure) == 3:
        return [structure[2]]
    kind, parts = structure
    return [leaf for p in parts for leaf in leaves_of(p[1] if kind is dict else p)]


def without_leaves(structure: Any) -> Any:
    """The structure alone, hashable where the keys of its dicts are: they always are."""
    if isinstance(structure, str):
        return structure
    if len(structure) == 3:
        return structure[0]
    kind, parts = structure
    if kind is dict:
        return (dict, tuple([(k, type(k), without_leaves(p)) for k, p in parts]))
    return (kind, tuple([without_leaves(p) for p in parts]))


def is_plain(leaf: Any) -> bool:
    """Whether a leaf is a value that nobody can change."""
    return type(leaf) in _PLAIN or isinstance(leaf, _PLAIN[-3:])
