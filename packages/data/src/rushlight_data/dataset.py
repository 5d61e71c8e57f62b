"""Datasets: what has samples by index, what has them only in order, and how datasets are combined and split."""

from __future__ import annotations

import bisect
import itertools
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar, cast

import numpy as np

from rushlight_tensor.core.tensor import Tensor
from rushlight_tensor.random import Generator, default_generator

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")


class Dataset(Generic[T_co]):
    """Samples by index: subclasses define `__getitem__`, and `__len__` where a sampler or loader has to know it.

    Two methods are optional and only make loading faster:
        `__getitems__(indices)`: a list of the samples.
        `__getbatch__(indices)`: what `default_collate` would make of these samples, in one step.  The loader asks for
        it when samples are collated by default; a subclass that changes `__getitem__` alone switches it off.
    """

    def __getitem__(self, index: Any) -> T_co:
        raise NotImplementedError("Subclasses of Dataset should implement __getitem__.")

    def __add__(self, other: Dataset[Any]) -> ConcatDataset[Any]:
        return ConcatDataset([self, other])


class IterableDataset(Dataset[T_co], Iterable[T_co]):
    """Samples in order only: subclasses define `__iter__`.

    Every worker process iterates over a copy of its own; `get_worker_info()` tells it which samples to leave to others.
    """

    def __add__(self, other: Dataset[Any]) -> ChainDataset[Any]:  # type: ignore[override]
        return ChainDataset([self, other])


class TensorDataset(Dataset[tuple[Tensor, ...]]):
    """Tensors cut along their first dimension: sample `i` is `(tensors[0][i], tensors[1][i], …)`.

    Args:
        tensors: Tensors of equal first dimension N.
    Raises:
        AssertionError: When the first dimensions differ.
    """

    tensors: tuple[Tensor, ...]

    def __init__(self, *tensors: Tensor) -> None:
        if any(len(tensor) != len(tensors[0]) for tensor in tensors):
            sizes = [len(tensor) for tensor in tensors]
            raise AssertionError(f"Size mismatch between tensors: first dimensions are {sizes}, must be equal")
        self.tensors = tensors

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        return tuple(tensor[index] for tensor in self.tensors)

    def __getbatch__(self, indices: Sequence[int]) -> list[Tensor]:
        rows = np.asarray(indices, dtype=np.int64)
        return [tensor[rows] for tensor in self.tensors]

    def __len__(self) -> int:
        return len(self.tensors[0])


class StackDataset(Dataset[Any]):
    """Datasets side by side: sample `i` is a tuple (or, with keywords, a dict) of every dataset's sample `i`.

    Raises:
        ValueError: Without datasets, with both positional and keyword ones, or when their lengths differ.
    """

    datasets: tuple[Any, ...] | dict[str, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if args and kwargs:
            raise ValueError(
                "Supported either ``tuple``- (via ``args``) or``dict``- (via ``kwargs``) like input/output, "
                "but both types are given."
            )
        if not args and not kwargs:
            raise ValueError("At least one dataset should be passed")
        self.datasets = args or kwargs
        sizes = [len(dataset) for dataset in args or kwargs.values()]
        if any(size != sizes[0] for size in sizes):
            raise ValueError(f"Size mismatch between datasets: lengths are {sizes}, must be equal")
        self._length = sizes[0]

    def __getitem__(self, index: int) -> Any:
        if isinstance(self.datasets, dict):
            return {name: dataset[index] for name, dataset in self.datasets.items()}
        return tuple(dataset[index] for dataset in self.datasets)

    def __len__(self) -> int:
        return self._length


class ConcatDataset(Dataset[T_co]):
    """Datasets one after the other, by index.

    Raises:
        AssertionError: Without datasets, or with an `IterableDataset`.
    """

    datasets: list[Dataset[T_co]]
    cumulative_sizes: list[int]

    def __init__(self, datasets: Iterable[Dataset[T_co]]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise AssertionError("datasets should not be an empty iterable")
        if any(isinstance(dataset, IterableDataset) for dataset in self.datasets):
            raise AssertionError("ConcatDataset does not support IterableDataset")
        self.cumulative_sizes = list(itertools.accumulate(len(cast(Any, dataset)) for dataset in self.datasets))

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]

    def __getitem__(self, index: int) -> T_co:
        if index < 0:
            if -index > len(self):
                raise ValueError("absolute value of index should not exceed dataset length")
            index += len(self)
        which = bisect.bisect_right(self.cumulative_sizes, index)
        if which == len(self.datasets):
            raise IndexError(f"index {index} is out of range: the concatenated datasets have {len(self)} samples")
        start = self.cumulative_sizes[which - 1] if which else 0
        return self.datasets[which][index - start]


class ChainDataset(IterableDataset[T_co]):
    """Iterable datasets one after the other."""

    def __init__(self, datasets: Iterable[Dataset[Any]]) -> None:
        self.datasets = datasets

    def __iter__(self) -> Iterator[Any]:
        for dataset in self.datasets:
            if not isinstance(dataset, IterableDataset):
                raise AssertionError("ChainDataset only supports IterableDataset")
            yield from dataset

    def __len__(self) -> int:
        return sum(len(cast(Any, dataset)) for dataset in self.datasets)


class Subset(Dataset[T_co]):
    """The samples of `dataset` at `indices`, in that order."""

    dataset: Dataset[T_co]
    indices: Sequence[int]

    def __init__(self, dataset: Dataset[T_co], indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = indices

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, list):
            return self.dataset[[self.indices[i] for i in index]]
        return self.dataset[self.indices[index]]

    def __getitems__(self, indices: Sequence[int]) -> list[T_co]:
        inner = [self.indices[i] for i in indices]
        many = getattr(self.dataset, "__getitems__", None)
        return many(inner) if callable(many) else [self.dataset[i] for i in inner]

    def __getbatch__(self, indices: Sequence[int]) -> Any:
        batch = batch_method(self.dataset)
        assert batch is not None, "asked for a batch that batch_method did not offer"
        return batch([self.indices[i] for i in indices])

    def __len__(self) -> int:
        return len(self.indices)


def batch_method(dataset: Any) -> Any:
    """`dataset.__getbatch__` where it may stand in for `__getitem__` and `default_collate`, else None.

    It may not when a subclass overrides `__getitem__` below the class that defines `__getbatch__`.
    """
    for cls in type(dataset).__mro__:
        if "__getbatch__" in vars(cls):
            inner = dataset.dataset if cls is Subset else None
            return dataset.__getbatch__ if inner is None or batch_method(inner) is not None else None
        if "__getitem__" in vars(cls) or "__getitems__" in vars(cls):
            return None
    return None


def random_split(
    dataset: Dataset[T], lengths: Sequence[int | float], generator: Generator | None = default_generator
) -> list[Subset[T]]:
    """Cut `dataset` at random into subsets that share no sample.

    Args:
        dataset: A dataset with a length.
        lengths: Sizes that add up to `len(dataset)`, or fractions that add up to 1; of a fractional split each size is
            rounded down and what remains is given out one by one from the first subset on.
        generator: Where the permutation comes from; the default generator unless told.
    Raises:
        ValueError: When sizes or fractions do not add up, or a fraction is not between 0 and 1.
    """
    total = len(cast(Any, dataset))
    sizes = _sizes_of_fractions(lengths, total) if math.isclose(sum(lengths), 1) and sum(lengths) <= 1 else lengths
    if sum(sizes) != total:
        raise ValueError(
            "Sum of input lengths does not equal the length of the input dataset! "
            f"Got {list(lengths)} for {total} samples."
        )
    order = (generator or default_generator).permutation(np.empty(total, np.int64)).tolist()
    ends = itertools.accumulate(cast("Sequence[int]", sizes))
    return [
        Subset(dataset, order[end - size : end]) for size, end in zip(cast("Sequence[int]", sizes), ends, strict=True)
    ]


def _sizes_of_fractions(fractions: Sequence[float], total: int) -> list[int]:
    for i, fraction in enumerate(fractions):
        if not 0 <= fraction <= 1:
            raise ValueError(f"Fraction at index {i} is not between 0 and 1")
    sizes = [math.floor(total * fraction) for fraction in fractions]
    for i in range(total - sum(sizes)):
        sizes[i % len(sizes)] += 1
    for i, size in enumerate(sizes):
        if size == 0:
            warnings.warn(
                f"Length of split at index {i} is 0. This might result in an empty dataset.", UserWarning, stacklevel=3
            )
    return sizes
