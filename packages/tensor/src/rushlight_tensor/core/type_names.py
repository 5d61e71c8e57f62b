"""Names of types as PyTorch's error messages give them."""

from __future__ import annotations

from typing import Any

from rushlight_tensor.core.dtypes import dtype_title
from rushlight_tensor.core.tensor import Tensor


def typename(value: Any) -> str:
    """`int`, `module.Class`, or `torch.FloatTensor` for a plain tensor."""
    kind = type(value)
    if kind is Tensor:
        return f"torch.{dtype_title(value._array.dtype)}Tensor"
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
