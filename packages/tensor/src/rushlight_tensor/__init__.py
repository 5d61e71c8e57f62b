"""Tensors over NumPy and CuPy: the Tensor class, the op records, and every operation under PyTorch's name."""

from __future__ import annotations

from rushlight_tensor import cuda as cuda
from rushlight_tensor import dtypes as dtypes
from rushlight_tensor import methods, ops, state
from rushlight_tensor.devices import device as device
from rushlight_tensor.dtypes import finfo as finfo
from rushlight_tensor.dtypes import get_default_dtype as get_default_dtype
from rushlight_tensor.dtypes import iinfo as iinfo
from rushlight_tensor.dtypes import set_default_dtype as set_default_dtype
from rushlight_tensor.op import REGISTRY as REGISTRY
from rushlight_tensor.op import Op as Op
from rushlight_tensor.state import Size as Size
from rushlight_tensor.tensor import Tensor as Tensor

state.bind()
methods.bind()
globals().update(ops.public())
globals().update({d.name: d for d in dtypes.ALL})
