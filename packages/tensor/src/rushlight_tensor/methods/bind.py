"""Operations as methods and operators of Tensor: every public op whose first argument is a tensor, bound once, here.

A function of `ops` becomes a method when its first parameter is `input` or `x` and PyTorch has a method of that name;
where PyTorch has `name_`, too, that is its in-place form.  `tensor_names.txt` lists PyTorch's names.  What is not an op
at all (`item`, `numpy`, `to`, …) is in `properties.py`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rushlight_tensor import ops
from rushlight_tensor.core import dispatch
from rushlight_tensor.core.inplace import composed, inplace
from rushlight_tensor.core.op import Op
from rushlight_tensor.core.promote import category
from rushlight_tensor.core.tensor import Tensor, wrap
from rushlight_tensor.ops import create
from rushlight_tensor.ops.index import index
from rushlight_tensor.ops.linalg import linalg
from rushlight_tensor.ops.math import complex
from rushlight_tensor.ops.math import elementwise as e
from rushlight_tensor.ops.math import select as s
from rushlight_tensor.ops.norm import softmax
from rushlight_tensor.ops.shape import shape


def _method(fn: Any) -> Callable[..., Any]:
    if not isinstance(fn, Op):
        return fn
    if fn.fast is not None and fn.keywords == ("input", "other"):
        return fn.fast

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        return fn(self, *args, **kwargs)

    method.__name__ = fn.name
    method.__wrapped__ = fn  # type: ignore[attr-defined]  # its arguments are the op's
    return method


def _inplace(fn: Any) -> Callable[..., Tensor]:
    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if isinstance(fn, Op):
            if not kwargs and not fn.defaults and len(args) == fn.arity - 1:
                return inplace(fn, self, *args)
            xs, attrs = fn.bind((self, *args), kwargs)
            return inplace(fn, *xs, **attrs)
        return composed(fn, self, *args, **kwargs)

    method.__name__ = f"{getattr(fn, 'name', None) or fn.__name__}_"
    return method


def _reflected(op: Op) -> Callable[[Tensor, Any], Any]:
    def operator(self: Tensor, other: Any) -> Any:
        return dispatch.call(op, (_tensor(other), self), {})

    operator.reflects = op  # type: ignore[attr-defined]  # for the accelerator
    return operator


def _tensor(x: Any) -> Any:
    """What Python's operators find on their left: NumPy leaves `array * tensor` to us."""
    return wrap(x) if isinstance(x, np.ndarray) else x


def _operator(op: Op) -> Callable[[Tensor, Any], Any]:
    return op.fast  # type: ignore[return-value]


def _takes_tensor(fn: Any) -> bool:
    if isinstance(fn, Op):
        return not fn.variadic
    first = next(iter(inspect.signature(fn).parameters), "")
    return first in ("input", "x")


def _inverted(self: Tensor) -> Tensor:
    if category(self._array.dtype) > 1:
        raise TypeError("~ (operator.invert) is only implemented on integer and Boolean-type tensors")
    inverted: Tensor = s.bitwise_not(self)
    return inverted


def _pytorch_names() -> frozenset[str]:
    text = Path(__file__).with_name("tensor_names.txt").read_text(encoding="utf-8")
    return frozenset(text.partition("[torch.Tensor]")[2].split())


def bind() -> None:
    """Install methods and operators."""
    names = _pytorch_names()
    functions = ops.public()
    for name, fn in functions.items():
        if name not in names or not _takes_tensor(fn) or name in vars(Tensor):
            continue
        setattr(Tensor, name, _method(fn))
        if f"{name}_" in names and f"{name}_" not in functions and f"{name}_" not in vars(Tensor):
            setattr(Tensor, f"{name}_", _inplace(fn))
    for name, op in {
        "add": e._add, "sub": e._sub, "mul": e.mul, "truediv": e._div, "floordiv": e.floor_divide,
        "mod": e.remainder, "pow": e.pow,
        "and": s.bitwise_and, "or": s.bitwise_or, "xor": s.bitwise_xor,
        "lshift": s.bitwise_left_shift, "rshift": s.bitwise_right_shift,
    }.items():  # fmt: skip
        setattr(Tensor, f"__{name}__", _operator(op))
        setattr(Tensor, f"__r{name}__", _reflected(op))
        setattr(Tensor, f"__i{name}__", _inplace(op))
    Tensor.__matmul__ = linalg.matmul  # type: ignore[method-assign]
    Tensor.__rmatmul__ = lambda self, other: linalg.matmul(_tensor(other), self)  # type: ignore[method-assign]
    for name, op in {"lt": s.lt, "le": s.le, "gt": s.gt, "ge": s.ge, "eq": s.eq, "ne": s.ne}.items():
        setattr(Tensor, f"__{name}__", _operator(op))
    for name, op in {"neg": e.neg, "abs": e.abs, "pos": functions["positive"]}.items():
        setattr(Tensor, f"__{name}__", _method(op))
    Tensor.__invert__ = _inverted  # type: ignore[method-assign]
    for name, fn in {**index.SYNTAX, **create.PROTOCOLS, **complex.PROPERTIES, **softmax.METHODS}.items():
        setattr(Tensor, name, fn)
    for name, fn in shape.PROPERTIES.items():
        setattr(Tensor, name, property(fn))
