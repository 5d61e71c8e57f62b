"""Complex numbers: their parts, their conjugates, and the ways between them and real numbers.

Gradients are PyTorch's: see Note [Complex gradients] in `graph.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rushlight_tensor.core import dispatch, graph, kinds
from rushlight_tensor.core.dtypes import dtype_title
from rushlight_tensor.core.infer import Aval, broadcast_shapes, real_dtype, unary_real, unary_same
from rushlight_tensor.core.op import Op
from rushlight_tensor.core.views import conjugates
from rushlight_tensor.ops.math.cast import _alias, cast, clone

_COMPLEX = {np.dtype(f"f{n}"): np.dtype(f"c{2 * n}") for n in (4, 8)}

_conj = Op(
    "conj",
    kind=kinds.ELEMENTWISE,
    infer=unary_same,
    numpy=np.conjugate,
    vjp=(lambda g: _conj(g),),
    wirtinger=True,
)
graph.CONJUGATE = _conj

_real = Op(
    "real",
    kind=kinds.view(),
    infer=unary_real,
    numpy=lambda x: x.real,
    save=("x.dtype",),
    vjp=(lambda g, dtype: cast(g, dtype=dtype),),
    view=True,
    wirtinger=True,
)
_imag = Op(
    "imag",
    kind=kinds.view(),
    infer=unary_real,
    numpy=lambda x: x.imag,
    save=("x.dtype",),
    vjp=(lambda g, dtype: cast(g, dtype=dtype) * 1j,),
    view=True,
    wirtinger=True,
)


def conj(input: Any) -> Any:
    """The complex conjugate; a real tensor itself.  See Note [Conjugates] in `views.py`."""
    if input._array.dtype.kind != "c":
        return input
    if input._view is not None and input._view.op is _conj:
        return _alias(input._view.parent)  # what it was made of, as in PyTorch
    out = _conj(input)
    out._view = dispatch.view_of(input, _conj, {})
    return out


def real(input: Any) -> Any:
    """The real parts, a view; a real tensor itself."""
    return _real(input) if input._array.dtype.kind == "c" else input


def imag(input: Any) -> Any:
    """The imaginary parts, a view.  Raises RuntimeError for a real tensor."""
    if input._array.dtype.kind != "c":
        raise RuntimeError("imag is not implemented for tensors with non-complex dtypes.")
    return _imag(input)


# Pairs of real numbers


def _as_real_aval(x: Any) -> Aval:
    if x.dtype.kind != "c":
        raise RuntimeError("view_as_real is only supported for complex tensors")
    return Aval((*x.shape, 2), real_dtype(x.dtype))


def _as_real_kernel(x: Any) -> Any:
    if x.dtype.kind != "c":
        raise TypeError("view_as_real of real numbers")
    return x[..., None].view(real_dtype(x.dtype))


def _as_complex_aval(x: Any) -> Aval:
    if x.dtype not in _COMPLEX:
        raise RuntimeError(
            "view_as_complex is only supported for half, float and double tensors, but got a tensor of scalar type: "
            f"{dtype_title(x.dtype)}"
        )
    if not x.shape:
        raise RuntimeError("Input tensor must have one or more dimensions")
    if x.shape[-1] != 2:
        raise RuntimeError("Tensor must have a last dimension of size 2")
    return Aval(x.shape[:-1], _COMPLEX[x.dtype])


def _as_complex_kernel(x: Any) -> Any:
    if not x.ndim or x.shape[-1] != 2 or x.dtype not in _COMPLEX:
        raise TypeError("view_as_complex: no pairs of float32 or float64")
    if not x.size:
        return np.empty_like(x, _COMPLEX[x.dtype], shape=x.shape[:-1])
    if x.strides[-1] != x.itemsize:
        raise RuntimeError("Tensor must have a last dimension with stride 1")
    if any(stride % (2 * x.itemsize) for stride in x.strides[:-1]):
        raise RuntimeError("Tensor must have a stride divisible by 2 for all but last dimension")
    return x.view(_COMPLEX[x.dtype])[..., 0]


view_as_real = Op(
    "view_as_real",
    kind=kinds.view(),
    infer=_as_real_aval,
    numpy=_as_real_kernel,
    vjp=(lambda g: view_as_complex(g.contiguous()),),
    view=True,
    wirtinger=True,
)
view_as_complex = Op(
    "view_as_complex",
    kind=kinds.view(),
    infer=_as_complex_aval,
    numpy=_as_complex_kernel,
    vjp=(lambda g: view_as_real(g),),
    view=True,
    wirtinger=True,
)


def _complex_aval(real: Any, imag: Any) -> Aval:
    a, b = (dtype_title(x.dtype) for x in (real, imag))
    if real.dtype not in _COMPLEX or imag.dtype not in _COMPLEX:
        raise RuntimeError(f"Expected both inputs to be Half, Float or Double tensors but got {a} and {b}")
    if real.dtype != imag.dtype:
        raise RuntimeError(f"Expected object of scalar type {a} but got scalar type {b} for second argument")
    return Aval(broadcast_shapes(real.shape, imag.shape), _COMPLEX[real.dtype])


def _complex_kernel(x: Any, y: Any) -> Any:
    if x.dtype not in _COMPLEX or x.dtype != y.dtype:
        raise TypeError("complex of other dtypes")
    out = np.empty_like(x, _COMPLEX[x.dtype], shape=np.broadcast_shapes(x.shape, y.shape))
    out.real, out.imag = x, y
    return out


complex = Op(
    "complex",
    kind=kinds.ELEMENTWISE,
    infer=_complex_aval,
    numpy=_complex_kernel,
    vjp=(lambda g: real(g), lambda g: imag(g)),
    wirtinger=True,
)


def _part(get: Any) -> Any:
    def put(x: Any, value: Any) -> None:
        get(x).copy_(value if hasattr(value, "_array") else get(x).new_tensor(value))

    return property(get, put)


PROPERTIES = {"real": _part(real), "imag": _part(imag)}
"""Views that are attributes of a tensor, and can be assigned."""


# What PyTorch says of conjugate views


def is_conj(input: Any) -> bool:
    """Whether this is the conjugate of a tensor, or a view of one.  See Note [Conjugates] in `views.py`."""
    return input._array.dtype.kind == "c" and conjugates(input) % 2 == 1


def is_neg(input: Any) -> bool:
    """False: a negative is never a view here."""
    return False


def resolve_conj(input: Any) -> Any:
    """`input`, or a copy of it that can be written to where it is a conjugate."""
    return clone(input) if conjugates(input) else input


def resolve_neg(input: Any) -> Any:
    """`input`, which is no negative view."""
    return input


def conj_physical(input: Any) -> Any:
    """The complex conjugate, which is no view; a real tensor itself."""
    return _conj(input) if input._array.dtype.kind == "c" else input


def isreal(input: Any) -> Any:
    """Whether an element has no imaginary part."""
    return _imag(input) == 0 if input._array.dtype.kind == "c" else input.new_ones(input._array.shape, dtype=bool)
