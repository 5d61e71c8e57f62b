"""Samples: how the inputs of an op are described, so that every property can be tried on every op in every dtype.

A family's file `samples_*.py` holds one dict, `SAMPLES = {op name: [sample, …]}`:

    sample(R(3, 4), R(4))                      two random inputs of these shapes, with values in (-2, 2)
    sample(R(3, 4, low=0.1), dim=1)            values in (0.1, 2); the rest are attributes of the op
    sample(R(3, 4), np.array([0, 2]), 1.5)     arrays keep their dtype; numbers and None are passed as they are
    sample(R(3)).but(dtypes=FLOATS + INTS)     in these dtypes; see `Sample` for what else can be said
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import ml_dtypes
import numpy as np

from rushlight_tensor import REGISTRY
from rushlight_tensor.core import abstract, dispatch
from rushlight_tensor.core.describe import describe
from rushlight_tensor.core.infer import Aval
from rushlight_tensor.core.layout import PrivateOrder
from rushlight_tensor.core.op import Op
from rushlight_tensor.core.tensor import Tensor, wrap

FLOATS = ("float64", "float32", "float16", "bfloat16")
INTS = ("int64", "int32", "int16", "int8", "uint8")
EVERY = (*FLOATS, *INTS, "bool")
COMPLEX = ("complex128", "complex64")


def numpy_dtype(name: str) -> np.dtype[Any]:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


@dataclass(frozen=True)
class R:
    """A random input: uniform in (low, high), integers between them for integer dtypes."""

    shape: tuple[int, ...]
    low: float
    high: float

    def __init__(self, *shape: int, low: float = -2.0, high: float = 2.0) -> None:
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)

    def make(self, rng: np.random.Generator, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        values = np.asarray(rng.uniform(self.low, self.high, self.shape))
        if dtype.kind == "c":  # with an imaginary part of either sign, so that no logarithm or root is on its cut
            return np.asarray(values + 1j * rng.uniform(-1, 1, self.shape)).astype(dtype)
        if dtype.kind == "b":
            return np.asarray(values > (self.low + self.high) / 2)
        if dtype.kind in "iu":
            low = max(self.low, 0) if dtype.kind == "u" else self.low
            return np.asarray(rng.integers(int(np.ceil(low)), int(np.floor(self.high)) + 1, self.shape), dtype)
        return values.astype(dtype)


@dataclass(frozen=True)
class Sample:
    """One call of an op.

    Attributes:
        inputs: `R`, arrays, numbers or None.
        attrs: Attributes of the op.
        dtypes: What the random inputs are drawn in.
        ulps: How far a result may be from the one in float64, in steps of the dtype at the size of the values.
        grad: Whether its derivatives are checked (where the op has any); `second`: those of second order too.
        exact: Whether a result is a value that can be compared at all (not for random numbers and bit patterns).
        shares: The result may be the input itself.
        mutates: The op returns nothing and writes into its inputs.
    """

    inputs: tuple[Any, ...]
    attrs: dict[str, Any] = field(default_factory=dict)
    dtypes: tuple[str, ...] = FLOATS
    ulps: float = 16.0
    grad: bool = True
    second: bool = True
    exact: bool = True
    shares: bool = False
    mutates: bool = False

    def but(self, **changes: Any) -> Sample:
        """The sample with other fields."""
        return replace(self, **changes)

    def arrays(self, dtype: str, layout: str = "C") -> list[Any]:
        """The inputs in a dtype, the same numbers each time; `layout`: one of `LAYOUTS`."""
        rng = np.random.default_rng(0)
        made = [x.make(rng, numpy_dtype(dtype)) if isinstance(x, R) else x for x in self.inputs]
        return [laid_out(x, layout) if isinstance(x, np.ndarray) else x for x in made]

    @property
    def widest(self) -> str:
        """The dtype in which derivatives are checked."""
        return COMPLEX[0] if set(self.dtypes) <= set(COMPLEX) else "float64"

    def varied(self) -> list[bool]:
        """For each input whether it is a random one, which derivatives are taken with respect to."""
        return [isinstance(x, R) for x in self.inputs]


def sample(*inputs: Any, **attrs: Any) -> Sample:
    """A call `op(*inputs, **attrs)`."""
    return Sample(inputs, attrs)


LAYOUTS = ("C", "F", "gaps", "channels last", "swapped")
"""Of the indices; its reverse; every other element; channels side by side; the first two dimensions swapped."""


def laid_out(x: np.ndarray[Any, Any], layout: str) -> np.ndarray[Any, Any]:
    if layout == "F":
        return np.array(x, order="F")
    if layout in ("channels last", "swapped") and x.ndim > 1:
        axes = (0, *range(2, x.ndim), 1) if layout == "channels last" else (1, 0, *range(2, x.ndim))
        return np.ascontiguousarray(x.transpose(axes)).transpose(np.argsort(axes))
    if layout == "gaps" and x.ndim:
        wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
        wide[..., ::2] = x
        return wide[..., ::2]
    return x.copy()


def tensors(arrays: list[Any], requires_grad: list[bool] | None = None) -> list[Any]:
    """The arrays as tensors, numbers as they are."""
    out = [wrap(x) if isinstance(x, np.ndarray) else x for x in arrays]
    for x, wanted in zip(out, requires_grad or [False] * len(out), strict=True):
        if wanted and isinstance(x, Tensor) and (x.dtype.is_floating_point or x.dtype.is_complex):
            x.requires_grad = True
    return out


def call(op: Op, xs: list[Any], attrs: dict[str, Any]) -> tuple[Tensor, ...]:
    """The results of an op, always as a tuple."""
    out = op(*xs, **attrs)
    return out if isinstance(out, tuple) else (out,)


def backward_ops() -> Iterator[str]:
    """Ops that are the gradient of another one, and so are tested by its samples."""
    for op in REGISTRY.values():
        if op.backward is not None:
            yield op.backward.name


def described(x: Any) -> Any:
    """The description of a NumPy array, mark and all."""
    if not isinstance(x, (np.ndarray, np.generic)):
        return x
    x = x if isinstance(x, np.ndarray) else np.asarray(x)
    return abstract.of(x)._replace(device="cpu", private=type(x) is PrivateOrder)


def same_array(got: Aval, said: Aval) -> bool:
    """Whether two descriptions are of one array: the step along a dimension of size 1 is nobody's business."""
    assert got.strides is not None
    assert said.strides is not None
    steps = zip(got.shape, got.strides, said.strides, strict=True)
    return got._replace(strides=(), offset=0) == said._replace(strides=(), offset=0, device="cpu") and (
        0 in got.shape or all(n == 1 or a == b for n, a, b in steps)
    )


class Watch:
    """An interceptor that holds what each op returns against its description: shape, dtype, order in memory, mark."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def __enter__(self) -> Watch:
        self.before = dispatch.set_intercept(self)
        return self

    def __exit__(self, *exc: object) -> None:
        dispatch.set_intercept(self.before)

    def execute(self, op: Op, arrays: list[Any], attrs: dict[str, Any]) -> Any:
        result = dispatch.run(op, arrays, attrs)
        avals = [described(x) for x in arrays]
        said = describe(op, avals, attrs)
        got = [described(z) for z in (result if isinstance(result, tuple) else (result,))]
        expected = (said,) if isinstance(said, Aval) else said
        assert len(got) == len(expected), f"{op.name}: {len(got)} results, of which {len(expected)} are described"
        for g, e in zip(got, expected, strict=True):
            assert same_array(g, e), f"{op.name} of {avals}, {attrs}: said {e}, made {g}"
        self.seen.add(op.name)
        return result

    def recorded(self, node: Any) -> None:
        pass

    def read(self, x: Tensor) -> None:
        pass

    def write(self, op: Op, array: Any, ys: list[Any], attrs: dict[str, Any]) -> None:
        raise AssertionError(f"{op.name}: an op or its gradient wrote into a tensor")
