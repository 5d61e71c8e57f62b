"""The operations, by family.  Each file declares records and, below them, the compositions made of these.

A name without underscore, defined in one of these files, is public: a function of the package and, where PyTorch has it
too, of the facade and a method of Tensor.  There is no list of them.

A file whose functions hand their arguments to records, which check, or which are called often says so:
`CHECKS_ARGUMENTS = True`.  The functions of the others get PyTorch's error for what is no tensor here.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from functools import cache, wraps
from types import FunctionType
from typing import Any

from rushlight_tensor.core.keywords import NUMPY, from_numpy
from rushlight_tensor.core.op import Op
from rushlight_tensor.kernels import elementwise_cuda as elementwise_cuda  # for device arrays


@cache
def public() -> dict[str, Any]:
    """Every public operation, by name."""
    out: dict[str, Any] = {}
    for info in pkgutil.walk_packages(__path__, f"{__name__}."):
        module = importlib.import_module(info.name)
        for name, value in vars(module).items():
            function = isinstance(value, FunctionType) and value.__name__ != "<lambda>"
            mine = function and value.__module__ == module.__name__
            if not name.startswith("_") and (mine or isinstance(value, Op)):
                out[name] = value
    for name, value in out.items():
        home = sys.modules[value.__module__] if isinstance(value, FunctionType) else None
        if home is not None and not getattr(home, "CHECKS_ARGUMENTS", False):
            out[name] = _explained(value)
            setattr(home, name, out[name])
    return out


def _explained(fn: FunctionType) -> FunctionType:
    """`fn` with PyTorch's error for an argument that is no tensor, and with NumPy's names of arguments, too."""

    @wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return fn(*args, **kwargs)
        except TypeError as e:
            if not kwargs.keys() & NUMPY.keys() or not str(e).startswith(f"{fn.__name__}() got an unexpected keyword"):
                raise
            return fn(*args, **from_numpy(kwargs))
        except AttributeError as e:
            if e.name != "_array":
                raise
            given = inspect.signature(fn).bind(*args, **kwargs).arguments
            got = type(e.obj).__name__
            for i, (name, value) in enumerate(given.items(), 1):
                if value is e.obj:
                    name = "input" if name == "x" else name
                    raise TypeError(
                        f"{fn.__name__}(): argument {name!r} (position {i}) must be Tensor, not {got}"
                    ) from None
            raise TypeError(f"{fn.__name__}(): expected a Tensor, not {got}") from None

    return call  # type: ignore[return-value]
