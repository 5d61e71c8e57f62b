"""Arguments and results as trees: the tensors in them, in order, and the rest as a value that can be compared."""

from __future__ import annotations

from typing import Any

from rushlight_tensor.tensor import Tensor

_LEAF = "tensor"


def flatten(tree: Any, tensors: list[Tensor]) -> Any:
    """Append the tensors of `tree` to `tensors`; returns its structure, hashable where its other leaves are."""
    if isinstance(tree, Tensor):
        tensors.append(tree)
        return _LEAF
    if isinstance(tree, (list, tuple)):
        return (type(tree), tuple([flatten(t, tensors) for t in tree]))
    if isinstance(tree, dict):
        return (dict, tuple([(k, flatten(v, tensors)) for k, v in tree.items()]))
    return (type(tree), "value", tree)


def unflatten(structure: Any, tensors: list[Any]) -> Any:
    """The tree of this structure, with the tensors taken from the front of the list."""
    if structure == _LEAF:
        return tensors.pop(0)
    if len(structure) == 3:
        return structure[2]
    kind, parts = structure
    if kind is dict:
        return {k: unflatten(v, tensors) for k, v in parts}
    items = [unflatten(p, tensors) for p in parts]
    return kind(*items) if hasattr(kind, "_fields") else kind(items)
