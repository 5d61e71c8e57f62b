"""The operations, by family.  Each file declares records and, below them, the compositions made of these.

A name without underscore, defined in one of these files, is public: a function of the package and of the facade and,
when its first parameter is `input` or `x`, a method of Tensor.  There is no list of them.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from types import FunctionType
from typing import Any

from rushlight_tensor.op import Op

INPLACE = (
    "clamp", "clip", "clamp_min", "clamp_max", "square", "lerp", "addcmul", "addcdiv", "addmm", "addmv", "addr",
    "baddbmm", "tril", "triu", "cumsum", "cumprod", "logit", "sinc", "xlogy", "nan_to_num", "frac", "hypot", "copysign",
    "round", "absolute", "negative", "multiply", "divide", "subtract",
)  # fmt: skip
"""Compositions that also exist in place (`clamp_`); elementwise records always do."""


@cache
def public() -> dict[str, Any]:
    """Every public operation, by name."""
    out: dict[str, Any] = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        for name, value in vars(module).items():
            function = isinstance(value, FunctionType) and value.__name__ != "<lambda>"
            mine = function and value.__module__ == module.__name__
            if not name.startswith("_") and (mine or (isinstance(value, Op) and value.home == module.__name__)):
                out[name] = value
    return out
