"""Random streams: a Generator whose numbers are those of PyTorch's CPU generator, seed for seed and bit for bit.

Samplers fill a NumPy array they are given, in the order of its memory (as PyTorch does for transposed tensors), and
return it.  Tensor functions on top of them are in `ops/random/draws.py`.

Note [Streams]
    The source is MT19937 with the original seeding; a seed counts modulo 2**32.  From its 32-bit draws come

        float32, half     24 low bits of one draw
        float64           53 low bits of two, high word first
        integers          one draw modulo the range where that is below 2**28, else 64 bits of two draws
        normal, n >= 16   contiguous: Box-Muller on blocks of 16; the last 16 are drawn anew where 16 does not divide n
        normal, else      float64 Box-Muller in pairs; the second of a pair is kept for the next call

    Bernoulli with one probability, exponential, geometric and Cauchy numbers take 53 bits each whatever their dtype.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from rushlight_tensor.core import dtypes
from rushlight_tensor.core.dtypes import dtype_title
from rushlight_tensor.core.layout import empty_like
from rushlight_tensor.core.tensor import Tensor
from rushlight_tensor.kernels import random as kernels
from rushlight_tensor.random.stream import Stream

Array = np.ndarray[Any, np.dtype[Any]]

_DIGITS = {dtypes.float16.np: 11, dtypes.bfloat16.np: 8, dtypes.float32.np: 24, dtypes.float64.np: 53}
_LARGEST = {d.np: dtypes.finfo(d).max for d in dtypes.ALL if d.is_floating_point}
_HALF = (dtypes.float16.np, dtypes.bfloat16.np)
_WIDER = dict.fromkeys((*_HALF, dtypes.float32.np), dtypes.float32.np)  # PyTorch rounds to it first
_SINGLE_OR_DOUBLE = (dtypes.float32.np, dtypes.float64.np)
_WIDE_RANGE = 1 << 28
_WIDE_PERMUTATION = (2**32 - 1) // 20


class Generator(Stream):
    """A stream of random numbers: `Generator().manual_seed(0)` gives PyTorch's numbers for seed 0.

    Safe to use from several threads.  On a CUDA device it draws the CPU's numbers, which are then copied.

    Args:
        device: `"cpu"` or a CUDA device.
    Raises:
        RuntimeError: There is no such device.
    """

    __slots__ = ()

    def uniform(self, out: Array, low: float = 0.0, high: float = 1.0) -> Array:
        """Fill with numbers in [low, high).

        Raises:
            RuntimeError: `low > high`, or their distance has no finite value in the dtype.
            NotImplementedError: The dtype is no floating point or complex one.
        """
        real = _real(out, "check_uniform_bounds")
        _check_uniform(real.dtype, low, high)
        if real.dtype not in _HALF:
            self._fill(real, "uniform", low, high)
            return out
        flat = self._apart(real, "uniform", low, high).astype(real.dtype)
        flat[flat >= np.asarray(high).astype(real.dtype)] = low  # rounded up to the excluded end
        _store(real, flat)
        return out

    def integers(self, out: Array, low: int, high: int | None) -> Array:
        """Fill with integers in [low, high), in any real dtype; `None` means up to the largest that the dtype holds.

        Raises:
            RuntimeError: The range is empty, or does not fit into the dtype.
        """
        least, greatest = _integer_range(out.dtype)
        if high is None:
            high = greatest + 1
        if low >= high:
            raise RuntimeError(f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}")
        for name, value in (("from", low), ("to - 1", high - 1)):
            if not least <= value <= greatest:
                raise RuntimeError(f"{name} is out of bounds for {_title(out.dtype)}: got {value}")
        return self._remainders(out, high - low, high - low >= _WIDE_RANGE, low)

    def full_range(self, out: Array) -> Array:
        """Fill with all the non-negative integers of the dtype; for floating point those up to 2**digits."""
        if out.dtype.kind == "c":
            raise RuntimeError("random_ handles only integral, floating-point and boolean types")
        top = _integer_range(out.dtype)[1]
        return self._remainders(out, top + 1, out.dtype.itemsize == 8, 0)

    def _remainders(self, out: Array, span: int, wide: bool, low: int) -> Array:
        """Fill with draws modulo `span`, plus `low`."""
        direct = out.dtype == np.int64 and out.flags.carray
        flat = out.reshape(-1) if direct else np.empty(out.size, np.int64)
        with self.lock:
            kernels.integers(self, flat, span, low, wide)
        return out if direct else _store(out, flat)

    def permutation(self, out: Array) -> Array:
        """Fill with the integers from 0 to n-1 in random order, (n,) of any dtype that holds them."""
        direct = out.dtype == np.int64 and out.flags.carray
        items = out if direct else np.empty(out.size, np.int64)
        with self.lock:
            kernels.permutation(self, items, out.size >= _WIDE_PERMUTATION)
        return out if direct else _store(out, items)

    def _fill(self, out: Array, sampler: str, *numbers: float) -> Array:
        """Fill with what the sampler of `kernels.random` makes, where it lies, if it lies as kernels write."""
        if out.dtype not in _SINGLE_OR_DOUBLE or not out.flags.carray:
            return _store(out, self._apart(out, sampler, *numbers))
        with self.lock:
            kernels.sample(sampler, self, out.reshape(-1), *numbers)
        return out

    def _apart(self, out: Array, sampler: str, *numbers: float) -> Array:
        """The same numbers in an array of their own, for half types float32."""
        flat = np.empty(out.size, _WIDER.get(out.dtype, np.float64))
        with self.lock:
            kernels.sample(sampler, self, flat, *numbers)
        return flat

    def bernoulli(self, out: Array, p: Any) -> Array:
        """Fill with ones and zeros: one with probability `p`, a number or an array that broadcasts to `out`.

        Raises:
            RuntimeError: A probability is not in [0, 1].
        """
        if isinstance(p, (int, float)):
            if not 0 <= p <= 1:
                raise RuntimeError(f"bernoulli_ expects p to be in [0, 1], but got p={p:g}")
            return self._fill(out, "bernoulli", p)
        if p.dtype not in _DIGITS:
            raise NotImplementedError(f"\"bernoulli_tensor_cpu_p_\" not implemented for '{dtype_title(p.dtype)}'")
        wanted = np.broadcast_to(p, out.shape).transpose(_memory_order(out))
        wanted = np.ascontiguousarray(wanted.reshape(-1), _WIDER.get(p.dtype, p.dtype))
        direct = out.dtype == wanted.dtype and out.flags.carray
        if not direct or not np.may_share_memory(wanted, p):
            kernels.refuse_recording("probabilities of another order or dtype are copied")
        flat = out.reshape(-1) if direct else np.empty(out.size, wanted.dtype)
        with self.lock:
            fine = kernels.bernoulli_each(self, flat, wanted)
        if not fine:
            raise RuntimeError("Expected p_in >= 0 && p_in <= 1 to be true, but got false: probabilities are in [0, 1]")
        return out if direct else _store(out, flat)

    def exponential(self, out: Array, rate: float = 1.0) -> Array:
        """Fill with exponentially distributed numbers of mean `1 / rate`.  Raises RuntimeError unless `rate > 0`."""
        if not rate > 0.0:
            raise RuntimeError(f"exponential_ expects lambda > 0.0, but found lambda={rate:g}")
        if out.dtype not in _DIGITS:
            raise RuntimeError(
                "Exponential distribution is a continuous probability distribution. dtype must be a floating point "
                f"but you specified {dtype_title(out.dtype)}"
            )
        return self._fill(out, "exponential", rate)

    def geometric(self, out: Array, p: float) -> Array:
        """Fill with the number of trials until the first success.  Raises RuntimeError unless `0 < p < 1`."""
        if not 0 < p < 1:
            raise RuntimeError(f"geometric_ expects p to be in (0, 1), but got p={p:g}")
        return self._fill(out, "geometric", p)

    def cauchy(self, out: Array, median: float = 0.0, sigma: float = 1.0) -> Array:
        """Fill with Cauchy distributed numbers.  Raises RuntimeError unless `sigma > 0`."""
        if not sigma > 0.0:
            raise RuntimeError(f"cauchy_ expects sigma > 0.0, but found sigma={sigma:g}")
        self._fill(_real(out, "cauchy_cpu"), "cauchy", median, sigma)
        return out

    # --------------------------------------------------------------------------------------------------------- normals

    def normal(self, out: Array, mean: float = 0.0, std: float = 1.0) -> Array:
        """Fill with normally distributed numbers.

        Raises:
            RuntimeError: `std < 0`.
            NotImplementedError: The dtype is no floating point or complex one.
        """
        if not std >= 0.0:
            raise RuntimeError(f"normal expects std >= 0.0, but found std {std:g}")
        real = _real(out, "normal_kernel_cpu")
        if real is not out:
            std /= math.sqrt(2)
        if real.size < 16 or not real.flags.c_contiguous:
            self._fill(real, "normal_few", mean, std)
        else:  # half precision draws no numbers for the incomplete block: it is part of the last 16 anyway
            self._fill(real, "normal", 0 if real.dtype in _HALF else real.size % 16, mean, std)
        return out

    def log_normal(self, out: Array, mean: float = 1.0, std: float = 2.0) -> Array:
        """Fill with numbers whose logarithm is normally distributed.  Raises RuntimeError unless `std > 0`."""
        if not std > 0.0:
            raise RuntimeError(f"log_normal_ expects std > 0.0, but found std={std:g}")
        self._fill(_real(out, "log_normal_cpu"), "log_normal", mean, std)
        return out

    # --------------------------------------------------------------------------------------------------------- choices

    def multinomial(self, weights: Array, num_samples: int, replacement: bool = False) -> Array:
        """Indices drawn with the probabilities that each row of `weights` gives.

        Args:
            weights: (k,) or (rows, k), floating point, not negative; rows need not sum to one.
        Returns:
            (num_samples,) or (rows, num_samples) int64.
        Raises:
            RuntimeError: Weights are negative, not finite or all zero; or without replacement there are fewer than
                `num_samples`.
        """
        _check_multinomial(weights, num_samples, replacement)
        rows = weights.reshape(-1, weights.shape[-1])
        if not replacement or num_samples == 1:
            # Gumbel's trick: the largest weight / exponential is a draw, the next largest one without replacement.
            score = rows / self.exponential(empty_like(weights)).reshape(rows.shape)
            one = num_samples == 1
            found = score.argmax(1)[:, None] if one else np.argsort(-score, 1, kind="stable")[:, :num_samples]
        else:
            cumulated = np.cumsum(rows, 1, dtype=np.float32 if rows.dtype in _HALF else rows.dtype)
            cumulated = (cumulated / cumulated[:, -1:]).astype(np.float64)
            with self.lock:
                unit = kernels.unit(self, len(rows) * num_samples).reshape(len(rows), num_samples)
            found = np.empty(unit.shape, np.int64)
            for row, at, result in zip(cumulated, unit, found, strict=True):
                result[...] = np.minimum(np.searchsorted(row, at), row.size - 1)
        return np.ascontiguousarray(found.reshape(*weights.shape[:-1], num_samples), dtype=np.int64)


def _check_uniform(dtype: np.dtype[Any], low: float, high: float) -> None:
    limit = _LARGEST[dtype]
    for name, value in (("from", low), ("to", high)):
        if not -limit <= value <= limit:
            raise RuntimeError(f"{name} is out of bounds for {_title(dtype)}: uniform_ got {name}={value:g}")
    if low > high:
        raise RuntimeError(f"uniform_ expects to return a [from, to) range, but found from={low:g} > to={high:g}")
    if high - low > limit:
        raise RuntimeError(
            f"uniform_ expects to-from <= std::numeric_limits<{_title(dtype)}>::max(), but found to={high:g} and "
            f"from={low:g} which result in to-from to exceed the limit"
        )


def _check_multinomial(weights: Array, num_samples: int, replacement: bool) -> None:
    if weights.dtype not in _DIGITS:
        kind = dtype_title(weights.dtype)
        raise RuntimeError(f"multinomial only supports floating-point dtypes for input, got: {kind}")
    if weights.ndim not in (1, 2):
        raise RuntimeError(f"prob_dist must be 1 or 2 dim, got shape {weights.shape}")
    if num_samples <= 0:
        raise RuntimeError("cannot sample n_sample <= 0 samples")
    if not replacement and num_samples > weights.shape[-1]:
        raise RuntimeError(
            "cannot sample n_sample > prob_dist.size(-1) samples without replacement: "
            f"{num_samples} samples of {weights.shape[-1]}"
        )
    if not (np.isfinite(weights) & (weights >= 0)).all():
        raise RuntimeError("probability tensor contains either `inf`, `nan` or element < 0")
    if (weights.astype(np.float64).sum(-1) <= 0).any():
        raise RuntimeError("invalid multinomial distribution (sum of probabilities <= 0)")


def _real(out: Array, kernel: str) -> Array:
    """The array itself, or a complex one as pairs of real numbers."""
    if out.dtype.kind == "c":
        return as_strided(out.real, (*out.shape, 2), (*out.strides, out.itemsize // 2))
    if out.dtype not in _DIGITS:
        raise NotImplementedError(f"\"{kernel}\" not implemented for '{dtype_title(out.dtype)}'")
    return out


def _memory_order(out: Array) -> list[int]:
    """The dimensions from the slowest to the fastest in memory."""
    return sorted(range(out.ndim), key=lambda i: -abs(out.strides[i]))


def _store(out: Array, flat: Array) -> Array:
    """Write `flat` into `out` in the order of memory."""
    kernels.refuse_recording(f"random numbers are put into {out.dtype}, or into another order than C's")
    if out.flags.c_contiguous:
        out.reshape(-1)[...] = flat
    else:
        target = out.transpose(_memory_order(out))
        target[...] = flat.reshape(target.shape)
    return out


def _integer_range(dtype: np.dtype[Any]) -> tuple[int, int]:
    """The integers that a dtype can hold without a gap."""
    if dtype.kind == "b":
        return 0, 1
    if dtype in _DIGITS:
        top = 1 << _DIGITS[dtype]
        return -top, top
    if dtype.kind == "c":
        raise RuntimeError("check_random_bounds handles only integral, floating-point and boolean types")
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)


_TITLES = {"float32": "float", "float64": "double", "int64": "long", "int32": "int", "int16": "short", "int8": "char"}
_TITLES |= {"uint8": "unsigned char", "float16": "c10::Half", "bfloat16": "c10::BFloat16", "bool": "bool"}


def _title(dtype: np.dtype[Any]) -> str:
    """The name of a dtype in PyTorch's messages."""
    return _TITLES.get(dtype.name, dtype.name)


default_generator = Generator()
default_generator.seed()


def _after_fork() -> None:
    """Another thread may have been drawing: the child, a loader's worker, would wait for its locks for ever."""
    locks: Any = (default_generator.lock, default_generator._bits.lock)
    for lock in locks:
        lock._at_fork_reinit()


os.register_at_fork(after_in_child=_after_fork)


def manual_seed(seed: Any) -> Generator:
    """Start the default generator's stream of `seed`; returns it.  Anything that `int()` takes, as in PyTorch."""
    return default_generator.manual_seed(int(seed))


def seed() -> int:
    """Start the default generator from the operating system's entropy; returns the seed."""
    return default_generator.seed()


def initial_seed() -> int:
    """The seed the default generator was started with."""
    return default_generator.initial_seed()


def get_rng_state() -> Tensor:
    """The state of the default generator, (5056,) uint8."""
    return default_generator.get_state()


def set_rng_state(new_state: Tensor) -> None:
    """Continue the default generator from a state of `get_rng_state`, ours or PyTorch's."""
    default_generator.set_state(new_state)


@contextmanager
def fork_rng(devices: Any = None, enabled: bool = True) -> Iterator[None]:
    """Leave the default generator as it was before the block.

    Args:
        devices: Accepted for PyTorch's signature; there is one stream for all devices.
    """
    state = get_rng_state()
    try:
        yield
    finally:
        if enabled:
            set_rng_state(state)
