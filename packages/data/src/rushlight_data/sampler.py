"""Samplers: in which order samples are visited.

Note [Seed for seed]
    A sampler draws from its generator exactly what PyTorch's draws, and when: a shuffle draws one seed from the default
    generator (or uses the generator it was given) at the first sample, not when it is made, and then takes a
    permutation of the whole data set, also where it needs only a part of it.  So a script with the same seed visits the
    same samples in the same order.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any, Generic, TypeVar, cast

import numpy as np

from rushlight_tensor.core.dtypes import float64
from rushlight_tensor.ops.create import as_tensor
from rushlight_tensor.random import Generator, default_generator

T_co = TypeVar("T_co", covariant=True)

_DRAWS_AT_ONCE = 32  # with replacement, PyTorch asks its generator for this many indices at a time


def draw_seed(generator: Generator | None) -> int:
    """One 63-bit number from `generator` (None: the default generator)."""
    return int((generator or default_generator).full_range(np.empty((), np.int64)))


def permutation(n: int, generator: Generator | None) -> list[int]:
    """The numbers from 0 to n-1 in random order, PyTorch's `randperm`."""
    order: list[int] = (generator or default_generator).permutation(np.empty(n, np.int64)).tolist()
    return order


def _check_positive(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise ValueError(f"{name} should be a positive integer value, but got {name}={value}")


def _check_bool(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name} should be a boolean value, but got {name}={value}")


class Sampler(Generic[T_co]):
    """An order of samples: subclasses define `__iter__`, which yields indices or lists of them; mostly `__len__`."""

    def __iter__(self) -> Iterator[T_co]:
        raise NotImplementedError(f"{type(self).__name__} must define __iter__, which yields indices")


class SequentialSampler(Sampler[int]):
    """0, 1, 2, … in order."""

    data_source: Sized

    def __init__(self, data_source: Sized) -> None:
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


class RandomSampler(Sampler[int]):
    """A new random order at each iteration.

    Args:
        data_source: What is sampled from, of length N.
        replacement: Whether the same sample may come more than once.
        num_samples: How many indices an iteration gives; N unless told.
        generator: Where randomness comes from; by default a seed is drawn from the default generator.
    Raises:
        TypeError, ValueError: As PyTorch; in particular for an empty data source.
    """

    data_source: Sized
    replacement: bool

    def __init__(
        self,
        data_source: Sized,
        replacement: bool = False,
        num_samples: int | None = None,
        generator: Generator | None = None,
    ) -> None:
        _check_bool("replacement", replacement)
        self.data_source = data_source
        self.replacement = replacement
        self._num_samples = num_samples
        self.generator = generator
        _check_positive("num_samples", self.num_samples)

    @property
    def num_samples(self) -> int:
        """How many indices an iteration gives; follows the data source when its length changes."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def __iter__(self) -> Iterator[int]:  # See Note [Seed for seed]
        n = len(self.data_source)
        generator = self.generator
        if generator is None:
            generator = Generator()
            generator.manual_seed(draw_seed(None))
        if self.replacement:
            for start in range(0, self.num_samples, _DRAWS_AT_ONCE):
                draws = np.empty(min(_DRAWS_AT_ONCE, self.num_samples - start), np.int64)
                yield from generator.integers(draws, 0, n).tolist()
        else:
            for _ in range(self.num_samples // n):
                yield from permutation(n, generator)
            yield from permutation(n, generator)[: self.num_samples % n]

    def __len__(self) -> int:
        return self.num_samples


class SubsetRandomSampler(Sampler[int]):
    """The given indices in a new random order at each iteration."""

    indices: Sequence[int]

    def __init__(self, indices: Sequence[int], generator: Generator | None = None) -> None:
        self.indices = indices
        self.generator = generator

    def __iter__(self) -> Iterator[int]:
        for i in permutation(len(self.indices), self.generator):
            yield self.indices[i]

    def __len__(self) -> int:
        return len(self.indices)


class WeightedRandomSampler(Sampler[int]):
    """Indices 0 … N-1 with probabilities in proportion to N weights, which need not add up to one.

    Raises:
        ValueError: When an argument is no such number, or the weights are not one-dimensional.
        RuntimeError: At iteration, for negative weights or more samples than weights without replacement.
    """

    def __init__(
        self,
        weights: Sequence[float],
        num_samples: int,
        replacement: bool = True,
        generator: Generator | None = None,
    ) -> None:
        _check_positive("num_samples", num_samples)
        if not isinstance(replacement, bool):
            raise ValueError(f"replacement should be a boolean value, but got replacement={replacement}")
        self.weights = as_tensor(weights, dtype=float64)
        if self.weights.ndim != 1:
            shape = tuple(self.weights.shape)
            raise ValueError(f"weights should be a 1d sequence but given weights have shape {shape}")
        self.num_samples = num_samples
        self.replacement = replacement
        self.generator = generator

    def __iter__(self) -> Iterator[int]:
        generator = self.generator or default_generator
        drawn: list[int] = generator.multinomial(self.weights.numpy(), self.num_samples, self.replacement).tolist()
        return iter(drawn)

    def __len__(self) -> int:
        return self.num_samples


class BatchSampler(Sampler[list[Any]]):
    """Lists of `batch_size` indices from another sampler; the last one is shorter, or left out with `drop_last`."""

    sampler: Sampler[Any] | Iterable[Any]
    batch_size: int
    drop_last: bool

    def __init__(self, sampler: Sampler[Any] | Iterable[Any], batch_size: int, drop_last: bool) -> None:
        _check_positive("batch_size", batch_size)
        if not isinstance(drop_last, bool):
            raise ValueError(f"drop_last should be a boolean value, but got drop_last={drop_last}")
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last

    def __iter__(self) -> Iterator[list[Any]]:
        indices = iter(self.sampler)
        while batch := list(itertools.islice(indices, self.batch_size)):
            if len(batch) == self.batch_size or not self.drop_last:
                yield batch

    def __len__(self) -> int:
        count = len(cast(Sized, self.sampler))
        return count // self.batch_size if self.drop_last else math.ceil(count / self.batch_size)
