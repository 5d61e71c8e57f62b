"""Which dtype comes of several: PyTorch's functions over the rules of `rushlight_tensor.core.promote`."""

from __future__ import annotations

from typing import Any

from rushlight_tensor.core import dtypes, promote
from rushlight_tensor.core.tensor import Tensor


def promote_types(type1: Any, type2: Any) -> dtypes.dtype:
    """The smallest dtype that both can be converted to."""
    return dtypes.from_numpy(promote.promote_types(dtypes.to_numpy(type1), dtypes.to_numpy(type2)))


def result_type(tensor: Any, other: Any) -> dtypes.dtype:
    """The dtype of an arithmetic operation on two tensors or numbers."""
    xs = [x._array if isinstance(x, Tensor) else x for x in (tensor, other)]
    return dtypes.from_numpy(promote.result_type(xs))


def can_cast(from_: Any, to: Any) -> bool:
    """Whether a result of dtype `from_` may be written to a tensor of dtype `to`: its kind may not get lost."""
    return promote.category(dtypes.to_numpy(from_)) <= promote.category(dtypes.to_numpy(to))
