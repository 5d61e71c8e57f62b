"""The torch-shaped facade: `import rushlight as torch`.

Everything here is defined in one of the packages below it; `rushlight.nn.Linear is rushlight_nn.Linear`.  See
`_modules.py` for the submodules (`rushlight.nn`, `rushlight.utils.data`, …).
"""

from __future__ import annotations

import math as _math

import rushlight_tensor as _tensor
from rushlight import _modules
from rushlight_autograd import detect_anomaly as _detect_anomaly
from rushlight_autograd import enable_grad as enable_grad
from rushlight_autograd import inference_mode as inference_mode
from rushlight_autograd import is_anomaly_enabled as is_anomaly_enabled
from rushlight_autograd import is_grad_enabled as is_grad_enabled
from rushlight_autograd import is_inference_mode_enabled as is_inference_mode_enabled
from rushlight_autograd import no_grad as no_grad
from rushlight_autograd import set_grad_enabled as set_grad_enabled
from rushlight_jit import compile as compile

__version__ = "0.1.0"

e, inf, nan, pi = _math.e, _math.inf, _math.nan, _math.pi
newaxis = None
strided = "torch.strided"
contiguous_format, channels_last, preserve_format = "contiguous_format", "channels_last", "preserve_format"

globals().update({name: value for name, value in vars(_tensor).items() if not name.startswith("_")})
globals().update(_modules.install(__name__))
autograd.detect_anomaly = _detect_anomaly  # type: ignore[name-defined]  # noqa: F821


def is_tensor(obj: object) -> bool:
    """Whether `obj` is a Tensor."""
    return isinstance(obj, _tensor.Tensor)
