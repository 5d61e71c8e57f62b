"""Elementwise ops on device arrays: a kernel from the op's expression, compiled once per combination of dtypes."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from rushlight_tensor.core import cuda
from rushlight_tensor.core.infer import Aval
from rushlight_tensor.kernels.cuda_launch import empty, kernel_from_text, launch_each, structure
from rushlight_tensor.kernels.cuda_text import MAX_DIMS, Elementwise, attributes_of, elementwise_text, number_dtype


def launch(op: Any, arrays: list[Any], attrs: dict[str, Any]) -> Any:
    """Run an op that has an `expr`, or one for CUDA alone.

    Args:
        op: The record.
        arrays: Device arrays that broadcast against each other, and Python numbers among them.
        attrs: All attributes of the op.
    Returns:
        A fresh contiguous device array.
    Raises:
        RuntimeError: Shapes do not broadcast, or what else the op's `infer` says.
        TypeError: A dtype has no CUDA kernels.
    """
    out_aval = op.infer(*(Aval(a.shape, a.dtype) if hasattr(a, "shape") else a for a in arrays), **attrs)
    used = {name: attrs[name] for name in _attributes(_expression(op), op.input_names)}
    spec = specification(op, arrays, used, out_aval.dtype)
    out = empty(out_aval.shape, out_aval.dtype)
    size = math.prod(out_aval.shape)
    if size == 0:
        return out
    text = _text(spec)
    tensors = [a for a in arrays if hasattr(a, "shape")]
    numbers = [number_dtype(spec).type(a) for a in arrays if not hasattr(a, "shape")]
    numbers += [number_dtype(spec, isinstance(value, float)).type(value) for value in used.values()]
    if all(a.shape == out_aval.shape and a.flags.c_contiguous for a in tensors):
        launch_each(kernel_from_text(text, f"{spec.name}_flat"), size, [*tensors, *numbers, out, np.int64(size)])
    else:
        where = layout(out_aval.shape, tensors)
        launch_each(kernel_from_text(text, f"{spec.name}_strided"), size, [*tensors, *numbers, out, where])
    return out


def specification(op: Any, arrays: list[Any], attrs: dict[str, Any], out: np.dtype) -> Elementwise:
    """The kernel that an op needs for inputs of these dtypes; `attrs` are those that its expression names."""
    inputs = tuple(
        (name, str(a.dtype) if hasattr(a, "shape") else None) for name, a in zip(op.input_names, arrays, strict=True)
    )
    kinds = tuple((name, isinstance(value, float)) for name, value in attrs.items())
    return Elementwise(f"rl_{op.name}", _expression(op), inputs, kinds, str(out))


def layout(shape: tuple[int, ...], arrays: list[Any]) -> np.ndarray:
    """The `Layout` argument of a strided kernel: neighbouring dimensions that every array walks alike are one.

    Raises:
        RuntimeError: More dimensions are left than a kernel takes.
    """
    steps = [_element_strides(a, shape) for a in arrays]
    merged: list[tuple[int, list[int]]] = []
    for d, length in enumerate(shape):
        if length == 1:
            continue
        here = [s[d] for s in steps]
        if merged and all(outer == inner * length for outer, inner in zip(merged[-1][1], here, strict=True)):
            merged[-1] = (merged[-1][0] * length, here)
        else:
            merged.append((length, here))
    if len(merged) > MAX_DIMS:
        raise RuntimeError(
            f"elementwise kernels take {MAX_DIMS} dimensions, got {len(merged)}; call .contiguous() first"
        )
    packed = np.zeros((1 + len(arrays), MAX_DIMS), np.int64)
    for d, (length, strides) in enumerate(merged):
        packed[0, d] = length
        packed[1:, d] = strides
    return structure(np.concatenate([[math.prod(shape), len(merged)], packed.ravel()]).astype(np.int64))


def _element_strides(a: Any, shape: tuple[int, ...]) -> list[int]:
    missing = len(shape) - len(a.shape)
    return [0] * missing + [
        0 if have == 1 else step // a.dtype.itemsize for have, step in zip(a.shape, a.strides, strict=True)
    ]


def _expression(op: Any) -> str:
    return str(op.cuda if op.expr is None else op.expr)


@functools.cache
def _attributes(expr: str, inputs: tuple[str, ...]) -> tuple[str, ...]:
    return attributes_of(expr, inputs)


@functools.cache
def _text(spec: Elementwise) -> str:
    return elementwise_text([spec])


cuda.LAUNCH = launch
