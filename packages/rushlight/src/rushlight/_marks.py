"""What programs tell TorchScript, an fx tracer or Dynamo where they define things: marks, and questions about them.

None of the three is here, so this is PyTorch with PYTORCH_JIT=0: a mark returns what it marks, a scripted function or
module is the function or module itself, and nobody is scripting.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from rushlight_jit import compile
from rushlight_jit.tracer import Tracer
from rushlight_nn import Module
from rushlight_tensor.core import dispatch

_T = TypeVar("_T")


def script(
    obj: _T, optimize: None = None, _frames_up: int = 0, _rcb: Any = None, example_inputs: Any = None
) -> _T:  # fmt: skip
    """`obj` itself: it runs as Python, with the same results."""
    return obj


def export(fn: _T) -> _T:
    """Mark a method for scripting that `forward` does not call."""
    return fn


def unused(fn: _T) -> _T:
    """Mark a function that scripting shall leave out."""
    return fn


def ignore(drop: Any = False, **kwargs: Any) -> Any:
    """Mark a function that shall stay Python: `@ignore`, or `@ignore(drop=True)`."""
    return drop if callable(drop) else unused


def interface(obj: _T) -> _T:
    """Mark a class that only says which methods there are."""
    return obj


def script_if_tracing(fn: _T) -> _T:
    """Mark a function that a trace shall hold as script; here it is traced like any other."""
    return fn


def script_method(fn: _T) -> _T:
    """Mark a method of a ScriptModule."""
    return fn


def annotate(the_type: Any, the_value: _T) -> _T:
    """`the_value`, of which scripting would know the type."""
    return the_value


def is_scripting() -> bool:
    """False: nothing is."""
    return False


def is_tracing() -> bool:
    """Whether `jit.trace` or `compile` is watching."""
    return isinstance(dispatch.INTERCEPT, Tracer)


class ScriptModule(Module):
    """A Module; its methods are Python."""


SCRIPT: dict[str, Any] = {"Final": Final} | {
    thing.__name__: thing
    for thing in (
        script, export, unused, ignore, interface, script_if_tracing, script_method, annotate, is_scripting, is_tracing,
        ScriptModule,
    )
}  # fmt: skip


def disable(fn: Any = None, recursive: bool = True, *, reason: str | None = None) -> Any:
    """Mark a function that Dynamo shall not look into: `@disable`, or `@disable(reason=…)`."""
    return unused if fn is None else fn


def wrap(fn_or_name: str | Callable[..., Any]) -> str | Callable[..., Any]:
    """Mark a function that fx shall not look into."""
    if not callable(fn_or_name) and not isinstance(fn_or_name, str):
        raise RuntimeError("Unsupported type for global function! Must be either a callable or string name")
    return fn_or_name


# In modules that are outlines otherwise.  `is_compiling` is false inside of `compile`, too: it runs the function as it
# is, so of the two branches that programs have, the one without Dynamo is right.
ELSEWHERE: dict[str, Any] = {
    "torch._dynamo.allow_in_graph": unused,
    "torch._dynamo.disable": disable,
    "torch._dynamo.is_compiling": is_scripting,
    "torch.compiler.allow_in_graph": unused,
    "torch.compiler.compile": compile,
    "torch.compiler.disable": disable,
    "torch.compiler.is_compiling": is_scripting,
    "torch.compiler.is_dynamo_compiling": is_scripting,
    "torch.compiler.is_exporting": is_scripting,
    "torch.fx.wrap": wrap,
    "torch.onnx.is_in_onnx_export": is_scripting,
}
