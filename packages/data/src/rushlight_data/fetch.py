"""Fetching: from the indices of one batch to what the training loop gets; the same code with and without workers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from rushlight_data.collate import default_collate
from rushlight_data.dataset import IterableDataset, batch_method


def make_fetch(
    dataset: Any, batched: bool, collate_fn: Callable[[Any], Any], drop_last: bool, at: Any = None
) -> Callable[[Any], Any]:
    """A function from indices (or one index, where not `batched`) to collated data.

    Args:
        dataset: By index, or an `IterableDataset`, for which the function raises `Exhausted` at the end.
        at: Where to note the position in the batch of the sample that is being loaded, as `at[0]`
            (-1: none of them); None: nowhere.
    """
    if isinstance(dataset, IterableDataset):
        return _from_iterator(iter(dataset), batched, collate_fn, drop_last)
    if not batched:
        return lambda index: collate_fn(dataset[index])
    whole = batch_method(dataset) if collate_fn is default_collate else None
    if whole is not None:
        return whole
    many = getattr(dataset, "__getitems__", None)
    if callable(many):
        return lambda indices: collate_fn(many(indices))
    if at is None:
        return lambda indices: collate_fn([dataset[i] for i in indices])

    def fetch(indices: Any) -> Any:
        samples = []
        for position, index in enumerate(indices):
            at[0] = position
            samples.append(dataset[index])
        at[0] = -1
        return collate_fn(samples)

    return fetch


class Exhausted(Exception):
    """An iterable dataset has no more samples."""


def _from_iterator(
    samples: Iterator[Any], batched: bool, collate_fn: Callable[[Any], Any], drop_last: bool
) -> Callable[[Any], Any]:
    def fetch_one(_: Any) -> Any:
        for sample in samples:
            return collate_fn(sample)
        raise Exhausted

    def fetch(indices: Any) -> Any:
        batch = list(itertools.islice(samples, len(indices)))
        if not batch or (drop_last and len(batch) < len(indices)):
            raise Exhausted
        return collate_fn(batch)

    return fetch if batched else fetch_one
