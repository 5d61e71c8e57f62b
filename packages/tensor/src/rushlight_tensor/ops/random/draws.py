"""Random tensors: created, drawn like another tensor, and in place.  The numbers are those of `random.Generator`.

Four records do it all, so that a tracer sees where numbers are drawn: `random_draw` makes a tensor, `random_like` fills
one (or makes one with the memory order of its input), `bernoulli_like` and `multinomial` read probabilities from a
tensor.  Their attribute `generator` is None for the default generator.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from rushlight_tensor.core import cuda, devices, dtypes, kinds, layout, placement
from rushlight_tensor.core.dispatch import call, read, settle
from rushlight_tensor.core.infer import Aval, broadcast_shapes, sizes
from rushlight_tensor.core.inplace import inplace
from rushlight_tensor.core.keywords import also_as, factory
from rushlight_tensor.core.labels import preserve_format
from rushlight_tensor.core.op import Op
from rushlight_tensor.core.tensor import Tensor
from rushlight_tensor.kernels.draw import Sampled
from rushlight_tensor.ops.create import empty, zeros_like
from rushlight_tensor.ops.math.cast import detach, to_device
from rushlight_tensor.random import Generator, default_generator

CHECKS_ARGUMENTS = True  # see `ops`

Array = np.ndarray[Any, np.dtype[Any]]


def _fill(out: Array, sampler: str, args: tuple[Any, ...], generator: Generator | None) -> Array:
    getattr(generator or default_generator, sampler)(out, *args)
    return out


def _on_host(kernel: Any) -> Any:
    """The CUDA launcher of a sampler: numbers are drawn on the host and copied."""

    def launch(x: Any, *others: Any, **attrs: Any) -> Any:
        return cuda.like(x, kernel(cuda.to_host(x), *map(cuda.to_host, others), **attrs))

    return launch


def _zero(g: Any, **attrs: Any) -> Tensor:
    """Numbers that are drawn do not depend on what was there."""
    return zeros_like(g)


def _draw_aval(
    shape: tuple[int, ...] = (),
    dtype: Any = None,
    sampler: str = "uniform",
    args: tuple[Any, ...] = (),
    generator: Any = None,
) -> Aval:
    return Aval(shape, dtype)


def _draw(shape: tuple[int, ...], dtype: Any, sampler: str, args: tuple[Any, ...], generator: Any) -> Array:
    return _fill(np.empty(shape, dtype), sampler, args, generator)


random_draw = Op(
    "random_draw",
    kind=kinds.opaque("no inputs"),
    infer=_draw_aval,
    numpy=_draw,
    c=Sampled(),
    cuda=None,
    vjp=None,
    random=True,
)


def _like_aval(
    x: Any, dtype: Any = None, sampler: str = "uniform", args: tuple[Any, ...] = (), generator: Any = None
) -> Aval:
    return Aval(x.shape, dtype or x.dtype)


def _like(x: Array, dtype: Any, sampler: str, args: tuple[Any, ...], generator: Any) -> Array:
    return _fill(layout.empty_like(x, dtype), sampler, args, generator)


def _like_into(x: Array, dtype: Any, sampler: str, args: tuple[Any, ...], generator: Any) -> None:
    _check_separate(x)
    _fill(x, sampler, args, generator)


def _check_separate(x: Array) -> None:
    if layout.repeats(x):
        raise RuntimeError(
            "unsupported operation: more than one element of the written-to tensor refers to a single memory location. "
            "Please clone() the tensor before performing the operation."
        )


random_like = Op(
    "random_like",
    kind=kinds.ELEMENTWISE,
    infer=_like_aval,
    order=placement.LIKE,
    numpy=_like,
    c=Sampled(),
    cuda=_on_host(_like),
    vjp=(_zero,),
    into=_like_into,
    random=True,
)


def _bernoulli_aval(x: Any, p: Any, generator: Any = None) -> Aval:
    both = broadcast_shapes(x.shape, p.shape)
    if both != x.shape:
        raise RuntimeError(f"output with shape {list(x.shape)} doesn't match the broadcast shape {list(both)}")
    return Aval(x.shape, x.dtype)


def _bernoulli(x: Array, p: Array, generator: Any) -> Array:
    return _fill(np.empty(x.shape, x.dtype), "bernoulli", (p,), generator)


def _bernoulli_into(x: Array, p: Array, generator: Any) -> None:
    _check_separate(x)
    _bernoulli_aval(x, p)
    _fill(x, "bernoulli", (p,), generator)


bernoulli_like = Op(
    "bernoulli_like",
    kind=kinds.ELEMENTWISE,
    infer=_bernoulli_aval,
    order=placement.CONTIGUOUS,
    numpy=_bernoulli,
    c=Sampled(),
    cuda=_on_host(_bernoulli),
    vjp=(_zero, _zero),
    into=_bernoulli_into,
    random=True,
)


def _multinomial_aval(input: Any, num_samples: int = 1, replacement: bool = False, generator: Any = None) -> Aval:
    return Aval((*input.shape[:-1], num_samples), np.dtype(np.int64))


def _multinomial(input: Array, num_samples: int, replacement: bool, generator: Any) -> Array:
    return (generator or default_generator).multinomial(input, num_samples, replacement)


def _multinomial_samples(size: int, batched: Any, xs: Any, attrs: Any) -> Any:
    (weights,) = xs
    return call(multinomial, (weights.reshape(-1, weights._array.shape[-1]),), attrs)


multinomial = Op(
    "multinomial",
    kind=kinds.rows(),
    batch=_multinomial_samples,
    infer=_multinomial_aval,
    numpy=_multinomial,
    cuda=_on_host(_multinomial),
    vjp=None,
    random=True,
)


# -------------------------------------------------------------------------------------------------------- creation


def _made(shape: tuple[int, ...], sampler: str, args: tuple[Any, ...], factory: tuple[Any, ...]) -> Tensor:
    """A new tensor; `factory` is what every creating function takes: generator, out, dtype, device, requires_grad."""
    generator, out, dtype, device, requires_grad = factory
    if any(n < 0 for n in shape):
        raise RuntimeError(f"Trying to create tensor with negative dimension {min(shape)}: {list(shape)}")
    if out is not None:
        if out._array.shape != shape:
            got = list(out._array.shape)
            raise RuntimeError(f"out= has shape {got}, the result has {list(shape)}; give one of that shape")
        return _refill(random_like, out, sampler=sampler, args=args, generator=generator)
    d = dtypes.get_default_dtype().np if dtype is None else dtypes.to_numpy(dtype)
    on = devices.chosen(device)
    if on.type == "meta":
        return empty(shape, dtype=d, device=on, requires_grad=requires_grad)
    attrs = {"shape": shape, "dtype": d, "sampler": sampler, "args": args, "generator": generator}
    t: Tensor = call(random_draw, (), attrs)
    if on.type != "cpu":
        t = to_device(t, to=str(on), back="cpu")
    if requires_grad:
        t.requires_grad = True
    return t


@factory("size")
def rand(
    *size: Any,
    generator: Any = None,
    out: Any = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Uniform numbers in [0, 1)."""
    return _made(sizes(size), "uniform", (), (generator, out, dtype, device, requires_grad))


@factory("size")
def randn(
    *size: Any,
    generator: Any = None,
    out: Any = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Normally distributed numbers of mean 0 and variance 1."""
    return _made(sizes(size), "normal", (), (generator, out, dtype, device, requires_grad))


@factory()
def randint(
    *bounds_and_size: Any,
    low: int = 0,
    high: int | None = None,
    size: Any = None,
    generator: Any = None,
    out: Any = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Integers in [low, high): `randint(high, size)` or `randint(low, high, size)`; int64 unless a dtype is given."""
    given = list(bounds_and_size)
    if given and size is None and isinstance(given[-1], (tuple, list)):
        size = given.pop()
    if len(given) == 2:
        low, high = given
    elif len(given) == 1 and high is None:
        (high,) = given
    elif given:
        low = given[0]
    if high is None or size is None or len(given) > 2:
        got = bounds_and_size
        raise TypeError(f"randint() received an invalid combination of arguments {got}: give low, high and a size")
    args = (operator.index(low), operator.index(high))
    return _made(sizes((size,)), "integers", args, (generator, out, dtype or dtypes.int64, device, requires_grad))


@factory()
def randperm(
    n: int,
    *,
    generator: Any = None,
    out: Any = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """The integers from 0 to n-1 in random order; int64 unless a dtype is given."""
    d = dtype or dtypes.int64
    np_dtype = dtypes.to_numpy(d)
    if np_dtype.kind in "iu" and n > np.iinfo(np_dtype).max:
        raise RuntimeError(f"value cannot be converted to type {np_dtype} without overflow: n={n}")
    return _made((n,), "permutation", (), (generator, out, d, device, requires_grad))


def normal(
    mean: Any = 0.0,
    std: Any = 1.0,
    size: Any = None,
    *,
    generator: Any = None,
    out: Any = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Normally distributed numbers; `mean` and `std` are numbers with a `size`, or tensors that broadcast."""
    if not isinstance(mean, Tensor) and not isinstance(std, Tensor):
        if size is None:
            raise TypeError("normal() received an invalid combination of arguments: two numbers, no size; give size=")
        args = (float(mean), float(std))
        return _made(sizes((size,)), "normal", args, (generator, out, dtype, device, requires_grad))
    if size is not None:
        raise TypeError("normal() received an invalid combination of arguments: a tensor and a size; leave size= out")
    parts = [detach(t) for t in (mean, std) if isinstance(t, Tensor)]
    if isinstance(std, Tensor) and (read(std, "normal") < 0).any():
        raise RuntimeError("normal expects all elements of std >= 0.0")
    shape = broadcast_shapes(*[t._array.shape for t in parts])
    number_std = 1.0 if isinstance(std, Tensor) else float(std)
    d, on = parts[0]._array.dtype, devices.of(parts[0]._array)
    t = _made(shape, "normal", (0.0, number_std), (generator, out, d, on, False))
    if isinstance(std, Tensor):
        t.mul_(parts[-1])
    if isinstance(mean, Tensor) or mean:
        t.add_(parts[0] if isinstance(mean, Tensor) else mean)
    return t


def _made_like(input: Tensor, sampler: str, args: tuple[Any, ...], factory: tuple[Any, ...]) -> Tensor:
    generator, dtype, device, requires_grad, memory_format = factory
    d = None if dtype is None else dtypes.to_numpy(dtype)
    t: Tensor = random_like(detach(input), dtype=d, sampler=sampler, args=args, generator=generator)
    if memory_format is not preserve_format:
        t = t.contiguous(memory_format=memory_format)
    if device is not None:
        t = t.to(device)
    if requires_grad:
        t.requires_grad = True
    return t


@factory()
def rand_like(
    input: Tensor,
    *,
    generator: Any = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    memory_format: Any = preserve_format,
) -> Tensor:
    """Uniform numbers in [0, 1), with the shape, dtype, device and memory order of `input`."""
    return _made_like(input, "uniform", (), (generator, dtype, device, requires_grad, memory_format))


@factory()
def randn_like(
    input: Tensor,
    *,
    generator: Any = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    memory_format: Any = preserve_format,
) -> Tensor:
    """Standard normals, with the shape, dtype, device and memory order of `input`."""
    return _made_like(input, "normal", (), (generator, dtype, device, requires_grad, memory_format))


@factory()
def randint_like(
    input: Tensor,
    low: int,
    high: int | None = None,
    *,
    generator: Any = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    memory_format: Any = preserve_format,
) -> Tensor:
    """Integers in [low, high), or in [0, low), with the shape, dtype, device and memory order of `input`."""
    args = (0, operator.index(low)) if high is None else (operator.index(low), operator.index(high))
    return _made_like(input, "integers", args, (generator, dtype, device, requires_grad, memory_format))


def bernoulli(input: Tensor, p: float | None = None, *, generator: Any = None) -> Tensor:
    """Ones and zeros of the dtype of `input`: one with the probability that the element says, or with `p` for all."""
    if p is None:
        return bernoulli_like(input, input, generator=generator)
    array = input._array
    return _made(array.shape, "bernoulli", (p,), (generator, None, array.dtype, devices.of(array), False))


# -------------------------------------------------------------------------------------------------------- in place


def _filled(input: Tensor, sampler: str, args: tuple[Any, ...], generator: Any) -> Tensor:
    return _refill(random_like, input, sampler=sampler, args=args, generator=generator)


def _refill(op: Op, x: Tensor, *others: Tensor, **attrs: Any) -> Tensor:
    """`inplace`, in the order of memory that the user sees: numbers are drawn in that order."""
    settle(x)
    return inplace(op, x, *others, **attrs)


def uniform_(input: Tensor, from_: float = 0.0, to: float = 1.0, *, generator: Any = None) -> Tensor:
    """Fill with uniform numbers in [from_, to), in place."""
    return _filled(input, "uniform", (float(from_), float(to)), generator)


def normal_(input: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Any = None) -> Tensor:
    """Fill with normally distributed numbers, in place."""
    return _filled(input, "normal", (float(mean), float(std)), generator)


@also_as("from", "to")
def random_(input: Tensor, *bounds: int | None, generator: Any = None) -> Tensor:
    """Fill with integers, in place: `random_(to)`, `random_(from, to)`; `random_()` for all that the dtype holds."""
    if not bounds:
        return _filled(input, "full_range", (), generator)
    low, high = (0, bounds[0]) if len(bounds) == 1 else bounds
    args = (operator.index(low or 0), None if high is None else operator.index(high))
    return _filled(input, "integers", args, generator)


def bernoulli_(input: Tensor, p: Any = 0.5, *, generator: Any = None) -> Tensor:
    """Fill with ones and zeros, in place: one with probability `p`, a number or a tensor that broadcasts."""
    if isinstance(p, Tensor):
        return _refill(bernoulli_like, input, p, generator=generator)
    return _filled(input, "bernoulli", (float(p),), generator)


def exponential_(input: Tensor, lambd: float = 1.0, *, generator: Any = None) -> Tensor:
    """Fill with exponentially distributed numbers of mean `1 / lambd`, in place."""
    return _filled(input, "exponential", (float(lambd),), generator)


def geometric_(input: Tensor, p: float, *, generator: Any = None) -> Tensor:
    """Fill with the number of trials until the first success, in place."""
    return _filled(input, "geometric", (float(p),), generator)


def cauchy_(input: Tensor, median: float = 0.0, sigma: float = 1.0, *, generator: Any = None) -> Tensor:
    """Fill with Cauchy distributed numbers, in place."""
    return _filled(input, "cauchy", (float(median), float(sigma)), generator)


def log_normal_(input: Tensor, mean: float = 1.0, std: float = 2.0, *, generator: Any = None) -> Tensor:
    """Fill with numbers whose logarithm is normally distributed, in place."""
    return _filled(input, "log_normal", (float(mean), float(std)), generator)
