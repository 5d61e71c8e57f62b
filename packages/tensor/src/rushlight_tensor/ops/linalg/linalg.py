"""Products of matrices and vectors: matmul and linear as kernels of their own, everything else through them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rushlight_tensor.core import kinds
from rushlight_tensor.core.cuda import like
from rushlight_tensor.core.dispatch import call, numbers_only
from rushlight_tensor.core.dtypes import dtype_title
from rushlight_tensor.core.infer import Aval, axis, broadcast_shapes
from rushlight_tensor.core.op import Gradient, Op
from rushlight_tensor.core.promote import BOOL, result_type
from rushlight_tensor.core.tensor import wrap
from rushlight_tensor.kernels import blas
from rushlight_tensor.kernels import linear as kernels
from rushlight_tensor.kernels.plan import C
from rushlight_tensor.ops.math.cast import cast, factor, scale, widely
from rushlight_tensor.ops.math.select import where
from rushlight_tensor.ops.reduce.reduce import sum, sum_to_size
from rushlight_tensor.ops.shape.samples import _aligned
from rushlight_tensor.ops.shape.shape import permute, reshape, transpose

_NONE: dict[str, Any] = {}
_C_NAMES = {"float32": "float", "float64": "double", "int64": "long int", "int32": "int", "int16": "short"}
_C_NAMES |= {"int8": "signed char", "uint8": "unsigned char", "float16": "c10::Half", "bfloat16": "c10::BFloat16"}


def _dtypes_differ(x: Any, y: Any) -> RuntimeError:
    a, b = (_C_NAMES.get(t.dtype.name, t.dtype.name) for t in (x, y))
    return RuntimeError(f"expected m1 and m2 to have the same dtype, but got: {a} != {b}")


def _check_dtypes(x: Any, y: Any) -> None:
    if x.dtype != y.dtype:
        raise _dtypes_differ(x, y)
    if x.dtype == BOOL:
        raise NotImplementedError("\"addmm_impl_cpu_\" not implemented for 'Bool'")


# matmul


def _matmul_shape(x: tuple[int, ...], y: tuple[int, ...]) -> tuple[int, ...]:
    if not x or not y:
        raise RuntimeError(f"both arguments to matmul need to be at least 1D, but they are {len(x)}D and {len(y)}D")
    if x[-1] != (y[-1] if len(y) == 1 else y[-2]):
        _explain_sizes(x, y)
    batch = broadcast_shapes(x[:-2], y[:-2])
    return (*batch, *x[-2:-1], *(y[-1:] if len(y) > 1 else ()))


def _explain_sizes(x: tuple[int, ...], y: tuple[int, ...]) -> None:
    rows = math.prod(x[:-1])
    if len(x) == len(y) == 1:
        raise RuntimeError(
            f"inconsistent tensor size, expected tensor [{x[0]}] and src [{y[0]}] to have the same number of elements, "
            f"but got {x[0]} and {y[0]} elements respectively"
        )
    if len(y) == 1:
        raise RuntimeError(f"size mismatch, got input ({rows}), mat ({rows}x{x[-1]}), vec ({y[0]})")
    if len(y) == 2:
        raise RuntimeError(f"mat1 and mat2 shapes cannot be multiplied ({rows}x{x[-1]} and {y[0]}x{y[1]})")
    batch = math.prod(broadcast_shapes(x[:-2], y[:-2]))
    raise RuntimeError(
        f"Expected size for first two dimensions of batch2 tensor to be: [{batch}, {x[-1]}] but got: "
        f"[{batch}, {y[-2]}]."
    )


def _matmul_aval(input: Any, other: Any) -> Aval:
    shape = _matmul_shape(input.shape, other.shape)
    _check_dtypes(input, other)
    return Aval(shape, input.dtype)


def _matmul_grads(known: Any) -> tuple[Aval, ...]:
    """Those of matrices that are broadcast have all batches: the engine sums them."""
    x, y = known.input, known.other
    batch = broadcast_shapes(x.shape[:-2], y.shape[:-2])
    return tuple([Aval(z.shape if len(y.shape) <= 2 else (*batch, *z.shape[-2:]), z.dtype) for z in (x, y)])


def _matmul_rule(g: Any, needs: Any, x: Any, y: Any) -> Any:
    a = reshape(x, 1, -1) if x._array.ndim == 1 else x
    b = reshape(y, -1, 1) if y._array.ndim == 1 else y
    rows = broadcast_shapes(a._array.shape[:-2], b._array.shape[:-2])
    g = reshape(g, *rows, a._array.shape[-2], b._array.shape[-1])
    dx = matmul(g, transpose(b, -1, -2)) if needs[0] else None
    dy = matmul(transpose(a, -1, -2), g) if needs[1] else None
    if dx is not None:
        dx = reshape(sum_to_size(dx, a._array.shape), x._array.shape)
    if dy is not None:
        dy = reshape(sum_to_size(dy, b._array.shape), y._array.shape)
    return dx, dy


def _matmul_name(n: Any) -> str:
    return ("DotBackward0", "MvBackward0", "MmBackward0", "UnsafeViewBackward0")[min(len(n.shape), 3)]


def _matmul_samples(size: int, batched: Any, xs: Any, attrs: Any) -> Any:
    """Vectors become matrices, so that all but two dimensions are broadcast; `shaped` by the caller."""
    x, y = xs
    x = reshape(x, (*x._array.shape[:-1], 1, x._array.shape[-1])) if x._array.ndim - batched[0] == 1 else x
    y = reshape(y, (*y._array.shape, 1)) if y._array.ndim - batched[1] == 1 else y
    return matmul(*_aligned(batched, (x, y)))


_matmul = Op(
    "matmul",
    kind=kinds.linear(),
    batch=_matmul_samples,
    infer=_matmul_aval,
    numpy=blas.matmul,
    c=C(
        "blas",
        "gemm_f32",
        blas.product,
        blas=True,
        pack=blas.in_two_loops,
        other=C("blas", "gemm_f64", blas.product, blas=True, pack=blas.in_two_loops),
    ),
    save=("input", "other"),
    vjp=Gradient(
        _matmul_rule,
        results=_matmul_grads,
        numpy=blas.matmul_backward,
        c=C(
            "blas",
            "gemm_backward_f32",
            blas.product_backward,
            blas=True,
            pack=blas.in_two_loops,
            other=C("blas", "gemm_backward_f64", blas.product_backward, blas=True, pack=blas.in_two_loops),
        ),
    ),
    node_name=_matmul_name,
    onnx="MatMul",
)


def matmul(input: Any, other: Any) -> Any:
    """The product of matrices (..., M, K) and (..., K, N), batches broadcast; a vector stands for one row or column.

    Raises RuntimeError where the inner sizes or the dtypes differ.
    """
    return call(_matmul, (input, other), _NONE)


# linear


def _linear_aval(input: Any, weight: Any, bias: Any) -> Aval:
    if not input.shape:
        raise RuntimeError("both arguments to linear need to be at least 1D, but they are 0D and 2D")
    if len(weight.shape) == 1:
        return Aval(_matmul_shape(input.shape, weight.shape), input.dtype)
    if len(weight.shape) != 2:
        raise RuntimeError(f"linear: weight must be 2D (out_features, in_features), got shape {weight.shape}")
    if input.shape[-1] != weight.shape[1]:
        _explain_sizes(input.shape, weight.shape[::-1])
    for other in (weight, bias):
        if other is not None and input.dtype != other.dtype:
            raise _dtypes_differ(input, other)
    out = (*input.shape[:-1], weight.shape[0])
    if bias is not None and broadcast_shapes(bias.shape, out) != out:
        raise RuntimeError(f"linear: bias of shape {bias.shape} does not fit {out}; give ({weight.shape[0]},)")
    return Aval(out, input.dtype)


def _linear_grads(known: Any) -> tuple[Aval, ...]:
    shape, dtype = known.weight.shape, known.input.dtype
    return Aval(known.input.shape, dtype), Aval(shape, dtype), Aval(shape[:1], dtype)


def _linear_rule(g: Any, needs: Any, x: Any, weight: Any) -> Any:
    n, k = weight._array.shape
    rows = math.prod(x._array.shape[:-1])
    flat = reshape(g, rows, n)
    dx = reshape(matmul(flat, weight), x._array.shape) if needs[0] else None
    dw = matmul(transpose(flat, 0, 1), reshape(x, rows, k)) if needs[1] else None
    return dx, dw, sum(flat, 0) if needs[2] else None


def _linear_name(n: Any) -> str:
    """PyTorch's linear is another operation for each number of dimensions."""
    biased = n.edges[2] is not None
    if len(n.shape) == 2:
        return "AddmmBackward0" if biased else "MmBackward0"
    return "ViewBackward0" if biased else "UnsafeViewBackward0" if n.shape[1:] else "SqueezeBackward4"


def _linear_samples(size: int, batched: Any, xs: Any, attrs: Any) -> Any:
    x, weight, bias = xs
    if not batched[1] and not batched[2]:  # more rows
        return call(_linear, (x, weight, bias), _NONE)
    if weight._array.ndim - batched[1] != 2:
        return None
    own = x._array.shape[batched[0] : -1]
    x = reshape(x, (*x._array.shape[: batched[0]], math.prod(own), x._array.shape[-1]))  # (B, rows, K) or (rows, K)
    y = matmul(x, transpose(weight, -1, -2))
    if bias is not None:
        y = y + (reshape(bias, (size, 1, bias._array.shape[-1])) if batched[2] else bias)
    return y  # (B, rows, N)


_linear = Op(
    "linear",
    kind=kinds.linear(),
    batch=_linear_samples,
    infer=_linear_aval,
    numpy=kernels.linear,
    c=C(
        "blas",
        "linear_f32",
        kernels.linear_sizes,
        blas=True,
        other=C("blas", "linear_f64", kernels.linear_sizes, blas=True),
    ),
    save=("input", "weight"),
    vjp=Gradient(
        _linear_rule,
        results=_linear_grads,
        numpy=kernels.linear_backward,
        c=C(
            "blas",
            "linear_backward_f32",
            kernels.linear_backward_sizes,
            blas=True,
            other=C("blas", "linear_backward_f64", kernels.linear_backward_sizes, blas=True),
        ),
    ),
    node_name=_linear_name,
)


def linear(input: Any, weight: Any, bias: Any = None) -> Any:
    """`input @ weight.T + bias`.

    Args:
        input: (..., K).
        weight: (N, K).
        bias: (N,) or None.
    Returns:
        (..., N).
    Raises:
        RuntimeError: The sizes or the dtypes do not fit.
    """
    if weight._array.ndim == 1 or (bias is not None and bias._array.shape != weight._array.shape[:1]):
        out = matmul(input, transpose(weight, 0, 1) if weight._array.ndim == 2 else weight)
        return out if bias is None else out + bias
    return call(_linear, (input, weight, bias), _NONE)


# What PyTorch names separately


def mm(input: Any, mat2: Any) -> Any:
    """The product of two matrices (M, K) and (K, N)."""
    if input._array.ndim != 2 or mat2._array.ndim != 2:
        raise RuntimeError(f"{'self' if input._array.ndim != 2 else 'mat2'} must be a matrix")
    return matmul(input, mat2)


def bmm(input: Any, mat2: Any) -> Any:
    """The products of two batches of matrices, (B, M, K) and (B, K, N)."""
    x, y = input._array.shape, mat2._array.shape
    for name, shape in (("batch1", x), ("batch2", y)):
        if len(shape) != 3:
            raise RuntimeError(f"{name} must be a 3D tensor")
    if x[0] != y[0] or x[2] != y[1]:
        raise RuntimeError(
            f"Expected size for first two dimensions of batch2 tensor to be: [{x[0]}, {x[2]}] but got: "
            f"[{y[0]}, {y[1]}]."
        )
    return matmul(input, mat2)


def mv(input: Any, vec: Any) -> Any:
    """The product of a matrix (M, K) and a vector (K,)."""
    x, y = input._array, vec._array
    if x.ndim != 2 or y.ndim != 1:
        raise RuntimeError(f"vector + matrix @ vector expected, got 1, {x.ndim}, {y.ndim}")
    return matmul(input, vec)


def dot(input: Any, tensor: Any) -> Any:
    """The sum of the products of two vectors' elements."""
    x, y = input._array, tensor._array
    if x.ndim != 1 or y.ndim != 1:
        raise RuntimeError(f"1D tensors expected, but got {x.ndim}D and {y.ndim}D tensors")
    if x.dtype != y.dtype:
        a, b = dtype_title(x.dtype), dtype_title(y.dtype)
        raise RuntimeError(f"dot : expected both vectors to have same dtype, but found {a} and {b}")
    return matmul(input, tensor)


def inner(input: Any, other: Any) -> Any:
    """The sums of products along the last dimension of both."""
    return tensordot(input, other, ([-1], [-1])) if input._array.ndim and other._array.ndim else input * other


def outer(input: Any, vec2: Any) -> Any:
    """All products of the elements of two vectors, (M,) and (N,) to (M, N)."""
    for name, t in (("self", input), ("vec2", vec2)):
        if t._array.ndim != 1:
            raise RuntimeError(f"outer: Expected 1-D argument {name}, but got {t._array.ndim}-D")
    return reshape(input, -1, 1) * vec2


def _plus(input: Any, product: Any, beta: float, alpha: float) -> Any:
    """`beta * input + alpha * product`; of integers the factors are integers too, without what is behind the point."""
    beta, alpha = (factor(v, product._array.dtype) for v in (beta, alpha))
    if alpha != 1:
        product = product * alpha
    if beta == 0:
        return product
    have, want = input._array.shape, product._array.shape
    if broadcast_shapes(have, want) != want:
        raise RuntimeError(f"The expanded size of the tensor {list(want)} must match the existing size {list(have)}")
    return (input if beta == 1 else input * beta) + product


@widely
def addmm(input: Any, mat1: Any, mat2: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    """`beta * input + alpha * mat1 @ mat2`."""
    return _plus(input, mm(mat1, mat2), beta, alpha)


@widely
def addmv(input: Any, mat: Any, vec: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    """`beta * input + alpha * mat @ vec`."""
    return _plus(input, mv(mat, vec), beta, alpha)


@widely
def addr(input: Any, vec1: Any, vec2: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    """`beta * input + alpha * outer(vec1, vec2)`.  Raises RuntimeError for integers with factors that are none."""
    common = result_type([x._array for x in (input, vec1, vec2)])
    beta, alpha = (scale(v, common, name) for name, v in (("beta", beta), ("alpha", alpha)))
    input, vec1, vec2 = (x if x._array.dtype == common else cast(x, dtype=common) for x in (input, vec1, vec2))
    return _plus(input, outer(vec1, vec2), beta, alpha)


@widely
def baddbmm(input: Any, batch1: Any, batch2: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    """`beta * input + alpha * bmm(batch1, batch2)`."""
    return _plus(input, bmm(batch1, batch2), beta, alpha)


def trace(input: Any) -> Any:
    """The sum of the diagonal of a matrix."""
    if input._array.ndim != 2:
        raise RuntimeError(f"trace: expected a matrix, but got tensor with dim {input._array.ndim}")
    numbers_only("trace", input)
    on = wrap(like(input._array, np.eye(*input._array.shape, dtype=bool)))
    return sum(where(on, input, 0))


def tensordot(a: Any, b: Any, dims: Any = 2) -> Any:
    """The product of two tensors, summed over pairs of dimensions.

    Args:
        dims: The number of last dimensions of `a` and first of `b`, or two lists of dimensions.
    """
    x, y = a._array.shape, b._array.shape
    if hasattr(dims, "_array"):
        dims = dims.tolist()
    if isinstance(dims, int):
        if dims < 0:
            raise RuntimeError(f"tensordot expects dims >= 0, but got dims={dims}")
        if dims > min(len(x), len(y)):
            raise RuntimeError(f"tensordot expects dims < ndim_a or ndim_b, but got dims={dims}")
        dims = (range(len(x) - dims, len(x)), range(dims))
    over_a, over_b = ([axis(d, len(shape)) for d in given] for shape, given in zip((x, y), dims, strict=True))
    if len(over_a) != len(over_b):
        raise RuntimeError("both dimension lists should have same length")
    stretched: tuple[list[int], list[int]] = ([], [])
    for i, j in zip(over_a, over_b, strict=True):
        if x[i] == y[j]:
            continue
        if 1 not in (x[i], y[j]):
            raise RuntimeError(
                f"contracted dimensions need to match, but first has size {x[i]} in dim {i} and second has size "
                f"{y[j]} in dim {j}"
            )
        stretched[y[j] == 1].append(j if x[i] == 1 else i)
    if stretched[0] or stretched[1]:  # the sum over a dimension of one, stretched, is that of the other alone
        a, b = (sum(t, tuple(s), True) if s else t for t, s in ((a, stretched[1]), (b, stretched[0])))
        x, y = a._array.shape, b._array.shape
    free_a = [i for i in range(len(x)) if i not in over_a]
    free_b = [j for j in range(len(y)) if j not in over_b]
    inner_size = math.prod(x[i] for i in over_a)
    left = reshape(permute(a, *free_a, *over_a), math.prod(x[i] for i in free_a), inner_size)
    right = reshape(permute(b, *over_b, *free_b), inner_size, math.prod(y[j] for j in free_b))
    return reshape(matmul(left, right), *[x[i] for i in free_a], *[y[j] for j in free_b])
