"""The torch-shaped facade: `import rushlight as torch`.

Everything here is defined in one of the packages below it; `rushlight.nn.Linear is rushlight_nn.Linear`.  What shows is
what PyTorch has, too: see `_modules.py`.
"""

from __future__ import annotations

import math as _math

import rushlight_autograd as _autograd
import rushlight_tensor as _tensor
from rushlight import __config__ as __config__
from rushlight import _functions, _marks, _modules
from rushlight import torch_version as torch_version
from rushlight import version as version
from rushlight_jit import compile as compile
from rushlight_tensor.core.labels import layout as layout

__version__ = (
    torch_version.__version__
)  # PyTorch's, which programs compare; ours: importlib.metadata.version("rushlight")


e, inf, nan, pi = _math.e, _math.inf, _math.nan, _math.pi
newaxis = None

_names = _modules.listed()
for _package in (_autograd, _tensor):
    globals().update(_modules.shown(_names["torch"] - {"embedding_bag"}, _package))  # it has other results there
globals().update(_modules.shown(_names["torch"], _functions))
globals().update(_modules.install(__name__, _names))
vars(globals()["jit"]).update(_marks.SCRIPT)
del annotations

__getattr__ = _modules.absent(__name__, _names["torch"])  # after the imports above, which ask for submodules


def __dir__() -> list[str]:
    """What PyTorch has, too: not `as_torch`, which stands here once it is imported."""
    return sorted(name for name in globals() if name.startswith("_") or name in _names["torch"])


def is_tensor(obj: object) -> bool:
    """Whether `obj` is a Tensor."""
    return isinstance(obj, _tensor.Tensor)


def is_floating_point(input: _tensor.Tensor) -> bool:
    """Whether the dtype of a tensor is a floating point one."""
    return input.dtype.is_floating_point


def is_complex(input: _tensor.Tensor) -> bool:
    """Whether the dtype of a tensor is a complex one."""
    return input.dtype.is_complex
