"""Tensors over NumPy and CuPy: the Tensor class, the op records, and every operation under PyTorch's name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rushlight_tensor import ops
from rushlight_tensor import random as random
from rushlight_tensor.core import cuda as cuda
from rushlight_tensor.core import dtypes as dtypes
from rushlight_tensor.core.devices import device as device
from rushlight_tensor.core.devices import get_default_device as get_default_device
from rushlight_tensor.core.devices import set_default_device as set_default_device
from rushlight_tensor.core.dtypes import dtype as dtype
from rushlight_tensor.core.dtypes import finfo as finfo
from rushlight_tensor.core.dtypes import get_default_dtype as get_default_dtype
from rushlight_tensor.core.dtypes import iinfo as iinfo
from rushlight_tensor.core.dtypes import set_default_dtype as set_default_dtype
from rushlight_tensor.core.labels import channels_last as channels_last
from rushlight_tensor.core.labels import channels_last_3d as channels_last_3d
from rushlight_tensor.core.labels import contiguous_format as contiguous_format
from rushlight_tensor.core.labels import memory_format as memory_format
from rushlight_tensor.core.labels import preserve_format as preserve_format
from rushlight_tensor.core.labels import strided as strided
from rushlight_tensor.core.op import REGISTRY as REGISTRY
from rushlight_tensor.core.op import Op as Op
from rushlight_tensor.core.size import Size as Size
from rushlight_tensor.core.tensor import Tensor as Tensor
from rushlight_tensor.files import load as load
from rushlight_tensor.files import save as save
from rushlight_tensor.kernels import accelerator
from rushlight_tensor.kernels.threads import get_num_threads as get_num_threads
from rushlight_tensor.kernels.threads import set_num_threads as set_num_threads
from rushlight_tensor.methods import bind as methods
from rushlight_tensor.methods import copying, gradient, printing
from rushlight_tensor.methods import properties as state
from rushlight_tensor.methods.printing import set_printoptions as set_printoptions
from rushlight_tensor.ops.create import tensor as tensor
from rushlight_tensor.random import Generator as Generator
from rushlight_tensor.random import default_generator as default_generator
from rushlight_tensor.random import get_rng_state as get_rng_state
from rushlight_tensor.random import initial_seed as initial_seed
from rushlight_tensor.random import manual_seed as manual_seed
from rushlight_tensor.random import seed as seed
from rushlight_tensor.random import set_rng_state as set_rng_state

state.bind()
gradient.bind()
copying.bind()
methods.bind()
printing.bind()
accelerator.start()
globals().update(ops.public())
globals().update(dtypes.NAMES)

if TYPE_CHECKING:  # what the two lines above add

    def __getattr__(name: str) -> Any: ...
