"""Comparison, logic, and choice by condition: the ops whose results or inputs are bool."""

from __future__ import annotations

from typing import Any

import numpy as np

from rushlight_tensor.core import cuda, dispatch, kinds, promote
from rushlight_tensor.core.dispatch import read
from rushlight_tensor.core.infer import Aval, binary_bool, binary_promoted, broadcast_shapes, unary_bool, unary_same
from rushlight_tensor.core.op import Gradient, Op
from rushlight_tensor.core.promote import same
from rushlight_tensor.core.scalars import checked
from rushlight_tensor.core.tensor import Tensor, wrap
from rushlight_tensor.kernels import integers
from rushlight_tensor.kernels.move import chosen, moving
from rushlight_tensor.ops.math.cast import cast

eq = Op("eq", infer=binary_bool, promote=same, numpy=np.equal, expr="{x} == {y}", vjp=None, onnx="Equal")
ne = Op("ne", infer=binary_bool, promote=same, numpy=np.not_equal, expr="{x} != {y}", vjp=None)
lt = Op("lt", infer=binary_bool, promote=same, real="lt_cpu", numpy=np.less, expr="{x} < {y}", vjp=None, onnx="Less")
le = Op(
    "le",
    infer=binary_bool,
    promote=same,
    real="le_cpu",
    numpy=np.less_equal,
    expr="{x} <= {y}",
    vjp=None,
    onnx="LessOrEqual",
)
gt = Op(
    "gt", infer=binary_bool, promote=same, real="gt_cpu", numpy=np.greater, expr="{x} > {y}", vjp=None, onnx="Greater"
)
ge = Op(
    "ge",
    infer=binary_bool,
    promote=same,
    real="ge_cpu",
    numpy=np.greater_equal,
    expr="{x} >= {y}",
    vjp=None,
    onnx="GreaterOrEqual",
)

logical_and = Op(
    "logical_and", infer=binary_bool, promote=same, numpy=np.logical_and, expr="({x} != 0) && ({y} != 0)", vjp=None
)
logical_or = Op(
    "logical_or", infer=binary_bool, promote=same, numpy=np.logical_or, expr="({x} != 0) || ({y} != 0)", vjp=None
)
logical_xor = Op(
    "logical_xor", infer=binary_bool, promote=same, numpy=np.logical_xor, expr="({x} != 0) != ({y} != 0)", vjp=None
)
logical_not = Op("logical_not", infer=unary_bool, promote=same, numpy=np.logical_not, expr="{x} == 0", vjp=None)

isnan = Op("isnan", infer=unary_bool, promote=same, numpy=np.isnan, expr="{x} != {x}", vjp=None, onnx="IsNaN")
isinf = Op(
    "isinf",
    infer=unary_bool,
    promote=same,
    numpy=np.isinf,
    expr="{x} == {x} && {x} - {x} != {x} - {x}",
    vjp=None,
    onnx="IsInf",
)
isfinite = Op("isfinite", infer=unary_bool, promote=same, numpy=np.isfinite, expr="{x} - {x} == {x} - {x}", vjp=None)


def _bits(kernel: str, *, bools: bool = True) -> Any:
    """Policy of operations on bits: the common dtype.  Raises NotImplementedError for floats, as PyTorch."""

    def policy(xs: Any) -> Any:
        common = same(xs)
        if promote.category(common) > 1 or (common.kind == "b" and not bools):
            dispatch.refuse(kernel, common)
        return common

    policy.refuses = "fcV" if bools else "fcVb"  # type: ignore[attr-defined]  # as `promote.power`
    return policy


bitwise_and = Op(
    "bitwise_and",
    infer=binary_promoted,
    promote=_bits("bitwise_and_cpu"),
    numpy=np.bitwise_and,
    expr="{x} & {y}",
    vjp=None,
    onnx="BitwiseAnd",
)
bitwise_or = Op(
    "bitwise_or",
    infer=binary_promoted,
    promote=_bits("bitwise_or_cpu"),
    numpy=np.bitwise_or,
    expr="{x} | {y}",
    vjp=None,
    onnx="BitwiseOr",
)
bitwise_xor = Op(
    "bitwise_xor",
    infer=binary_promoted,
    promote=_bits("bitwise_xor_cpu"),
    numpy=np.bitwise_xor,
    expr="{x} ^ {y}",
    vjp=None,
    onnx="BitwiseXor",
)
bitwise_not = Op(
    "bitwise_not",
    kind=kinds.ELEMENTWISE,
    infer=unary_same,
    promote=_bits("bitwise_not_cpu"),
    numpy=np.invert,
    vjp=None,
    onnx="BitwiseNot",
)
bitwise_left_shift = Op(
    "bitwise_left_shift",
    kind=kinds.ELEMENTWISE,
    infer=binary_promoted,
    promote=_bits("lshift_cpu", bools=False),
    numpy=integers.shift_left,
    vjp=None,
)
bitwise_right_shift = Op(
    "bitwise_right_shift",
    kind=kinds.ELEMENTWISE,
    infer=binary_promoted,
    promote=_bits("rshift_cpu", bools=False),
    numpy=integers.shift_right,
    vjp=None,
)


def _where_aval(condition: Any, x: Any, y: Any) -> Aval:
    if condition.dtype != promote.BOOL:
        raise RuntimeError(
            f"where expected condition to be a boolean tensor, but got a tensor with dtype {condition.dtype}"
        )
    return Aval(broadcast_shapes(condition.shape, x.shape, y.shape), promote.promote_types(x.dtype, y.dtype))


def _where_kernel(condition: Any, x: Any, y: Any) -> Any:
    if condition.dtype != promote.BOOL:
        raise TypeError("where: condition is not bool")
    return np.where(condition, x, y)


def _where_rule(g: Any, needs: tuple[bool, ...], condition: Any) -> tuple[Any, ...]:
    return None, where(condition, g, 0.0) if needs[1] else None, where(condition, 0.0, g) if needs[2] else None


_where = Op(
    "where",
    kind=kinds.ELEMENTWISE,
    infer=_where_aval,
    numpy=_where_kernel,
    c=moving("where", chosen),
    save=("condition",),
    vjp=Gradient(_where_rule),
    onnx="Where",
)


def _whole(value: Any, common: Any) -> Any:
    return checked(value, common) if common.kind in "iu" else value


def where(condition: Any, input: Any = None, other: Any = None) -> Any:
    """`input` where `condition` holds, else `other`; all broadcast together, numbers allowed.

    With the condition alone: the indices of its True elements, as `nonzero(condition, as_tuple=True)`.
    """
    if input is None and other is None:
        return tuple(wrap(i) for i in np.nonzero(dispatch.look(condition, "where").copy()))
    bare = [type(getattr(v, "_array", None)) is np.ndarray for v in (condition, input, other)]
    if all(bare) and input._array.dtype is other._array.dtype:  # what most calls are: nothing to promote or to move
        return _where(condition, input, other)
    arrays = [v._array if isinstance(v, Tensor) else v for v in (input, other)]
    common = promote.result_type(arrays)
    xs = []
    for v in (input, other):
        if isinstance(v, Tensor):
            xs.append(v if v._array.dtype == common else cast(v, dtype=common))
        else:
            xs.append(wrap(cuda.like(condition._array, np.asarray(_whole(v, common), dtype=common))))
    inputs = (condition, *xs)
    try:
        return _where(*inputs)
    except cuda.TwoDevicesError:
        moved = dispatch.numbers_moved(inputs)
        if moved is inputs:
            raise
        return _where(*moved)


def isclose(input: Any, other: Any, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> Any:
    """Where `|input - other| <= atol + rtol * |other|`, element by element; infinities are close to themselves."""
    if input._array.dtype != other._array.dtype:
        raise RuntimeError(f"{input.dtype} did not match {other.dtype}".replace("torch.", ""))
    if rtol < 0 or atol < 0:
        raise RuntimeError(f"rtol and atol must be greater than or equal to zero, but got {rtol} and {atol}")
    close = input == other
    if promote.category(input._array.dtype) > 0:
        near = (input - other).abs() <= atol + (rtol * other).abs()
        close = close | (near & isfinite(input) & isfinite(other))
    return close | (isnan(input) & isnan(other)) if equal_nan else close


def allclose(input: Any, other: Any, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> bool:
    """Whether `isclose` holds everywhere."""
    return bool(read(isclose(input, other, rtol, atol, equal_nan), "allclose").all())


def equal(input: Any, other: Any) -> bool:
    """Whether two tensors have the same shape and elements."""
    if input._array.shape != other._array.shape:
        return False
    return bool(read(input == other, "equal").all())
