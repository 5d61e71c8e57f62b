"""DataLoader: a dataset, an order and a collation, iterated over in this process or with workers."""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from rushlight_data.collate import default_collate, default_convert
from rushlight_data.dataset import Dataset, IterableDataset
from rushlight_data.fetch import Exhausted, make_fetch
from rushlight_data.parallel import WorkerIterator
from rushlight_data.sampler import BatchSampler, RandomSampler, Sampler, SequentialSampler, draw_seed
from rushlight_data.worker import Plan
from rushlight_tensor.core import cuda
from rushlight_tensor.core.tensor import Tensor
from rushlight_tensor.random import Generator, default_generator

T_co = TypeVar("T_co", covariant=True)

_FIXED = ("batch_size", "batch_sampler", "sampler", "drop_last", "dataset", "persistent_workers")
_START_METHODS = ["fork", "spawn", "forkserver"]


class DataLoader(Generic[T_co]):
    """Batches of a dataset, with PyTorch's arguments, defaults, order and random numbers.

    Args:
        dataset: By index, or an `IterableDataset`.
        batch_size: Samples in a batch; None: samples one by one, not collated.
        shuffle: Visit samples in a new random order in each epoch.
        sampler: The order of samples, instead of `shuffle`.
        batch_sampler: Lists of indices, instead of `batch_size`, `shuffle`, `sampler` and `drop_last`.
        num_workers: Processes that load; 0: this one does.  See Note [How workers start] in `start.py`; for
            datasets of millions of Python objects see `PackedList`.
        collate_fn: From a list of samples to a batch; `default_collate` unless told.
        pin_memory, pin_memory_device: Accepted for PyTorch's signature; host memory is pageable here.
        drop_last: Leave out a last batch that is not full.
        timeout: Seconds to wait for a batch from a worker; 0: without limit.
        worker_init_fn: Called in each worker with its number, after seeding.
        multiprocessing_context: "fork", "spawn", "forkserver" or such a context; by default the safe one.
        generator: Draws the order and the workers' base seed; the default generator unless told.
        prefetch_factor: Batches that a worker prepares ahead (2).
        persistent_workers: Keep the workers from one epoch to the next.
        in_order: With workers: batches in the sampler's order, rather than as they get ready.
    Raises:
        ValueError, TypeError: For arguments that are out of range or exclude one another.
    """

    dataset: Dataset[T_co]
    batch_size: int | None
    num_workers: int
    sampler: Any
    batch_sampler: Any

    def __init__(
        self,
        dataset: Dataset[T_co],
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Sampler[Any] | Iterable[Any] | None = None,
        batch_sampler: Sampler[list[Any]] | Iterable[list[Any]] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], Any] | None = None,
        multiprocessing_context: Any = None,
        generator: Generator | None = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
    ) -> None:
        _check_workers(num_workers, timeout, prefetch_factor, persistent_workers)
        iterable = isinstance(dataset, IterableDataset)
        if iterable:
            _check_iterable(shuffle, sampler, batch_sampler)
        if sampler is not None and shuffle:
            raise ValueError("sampler option is mutually exclusive with shuffle")
        if batch_sampler is not None:
            if batch_size != 1 or shuffle or sampler is not None or drop_last:
                raise ValueError(
                    "batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, and drop_last"
                )
            batch_size = None
        elif batch_size is None and drop_last:
            raise ValueError("batch_size=None option disables auto-batching and is mutually exclusive with drop_last")
        if sampler is None:
            if iterable:
                sampler = _Endless()
            else:
                sampler = RandomSampler(dataset, generator=generator) if shuffle else SequentialSampler(dataset)  # type: ignore[arg-type]
        if batch_size is not None and batch_sampler is None:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.dataset = dataset
        self.batch_size = batch_size
        self.sampler = sampler
        self.batch_sampler = batch_sampler
        self.num_workers = num_workers
        self.collate_fn = collate_fn or (default_convert if batch_sampler is None else default_collate)
        self.pin_memory = pin_memory
        self.pin_memory_device = pin_memory_device
        self.drop_last = drop_last
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.generator = generator
        self.prefetch_factor = 2 if num_workers > 0 and prefetch_factor is None else prefetch_factor
        self.persistent_workers = persistent_workers
        self.in_order = in_order
        self.multiprocessing_context = multiprocessing_context
        self._iterator: WorkerIterator | None = None  # of persistent workers
        self._base_seed = 0
        self._progress: _Progress | None = None  # of the latest iteration
        self._resumed: dict[str, Any] | None = None  # where the next one goes on
        self._told_length: int | None = None  # what `len` said for an iterable dataset, which may turn out to be wrong
        self._initialized = True

    @property
    def multiprocessing_context(self) -> Any:
        """How workers are started, as it was asked for; None: the safe way."""
        return self._multiprocessing_context

    @multiprocessing_context.setter
    def multiprocessing_context(self, context: Any) -> None:
        if context is not None:
            if self.num_workers == 0:
                raise ValueError(
                    "multiprocessing_context can only be used with multi-process loading (num_workers > 0), "
                    f"but got num_workers={self.num_workers}"
                )
            if isinstance(context, str) and context not in _START_METHODS:
                raise ValueError(
                    "multiprocessing_context option should specify a valid start method in "
                    f"{_START_METHODS}, but got multiprocessing_context={context!r}"
                )
            if not isinstance(context, str) and not hasattr(context, "get_start_method"):
                raise TypeError(
                    "multiprocessing_context option should be a valid context object or a string specifying the start "
                    f"method, but got multiprocessing_context={context}"
                )
        self._multiprocessing_context = context

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _FIXED and "_initialized" in self.__dict__:
            raise ValueError(f"{name} attribute should not be set after {type(self).__name__} is initialized")
        super().__setattr__(name, value)

    def __len__(self) -> int:
        """Batches in an epoch.  For an `IterableDataset` from its `__len__`, where it has one."""
        if not isinstance(self.dataset, IterableDataset):
            return len(self._indices)
        samples = len(self.dataset)  # type: ignore[arg-type]
        size = self.batch_size or 1
        self._told_length = samples // size if self.drop_last else -(-samples // size)
        return self._told_length

    @property
    def _indices(self) -> Any:
        return self.sampler if self.batch_sampler is None else self.batch_sampler

    def __iter__(self) -> LoaderIterator:
        if self.num_workers == 0 and self.timeout:
            raise ValueError(f"timeout={self.timeout} needs workers to wait for: set num_workers > 0")
        workers = self._iterator
        if workers is not None and not (workers.close.alive and workers.owner == os.getpid()):
            workers = None
        resumed, self._resumed = self._resumed, None
        if workers is None:  # drawn without workers too: the stream does not depend on their number
            self._base_seed = draw_seed(self.generator) if resumed is None else int(resumed["base_seed"])
        indices = iter(self._indices)
        progress = self._progress = _Progress(_stream(self.generator).get_state(), self._base_seed)
        if resumed is not None:
            indices = self._catch_up(indices, resumed)
        if self.num_workers == 0:
            return LoaderIterator(_Serial(self, indices), self, progress)
        if workers is None:
            workers = self._start()
        if self.persistent_workers:
            self._iterator = workers
        workers.start_epoch(indices)
        return LoaderIterator(workers, self, progress)

    def state_dict(self) -> dict[str, Any]:
        """Where the latest iteration stands: `load_state_dict` goes on behind the batch given last.

        Save it with the random state (`get_rng_state`).  Then the samples are those of a run without a break, in the
        same order; random numbers that a dataset draws itself in a worker are not.

        Returns:
            The number of batches given, the base seed of the workers, and the random state from which the order was
            drawn (None where no epoch is under way).
        Raises:
            TypeError: For an `IterableDataset`, whose position nobody but itself knows.
        """
        self._check_resumable()
        progress = self._progress
        if progress is None or progress.finished:
            return {"batches": 0, "base_seed": None, "random": None}
        return {"batches": progress.given, "base_seed": progress.base_seed, "random": progress.random}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Make the next iteration go on where `state_dict` was called; `num_workers` may be another.

        Raises:
            ValueError: When `state` is not from `state_dict`.
        """
        self._check_resumable()
        if set(state) != {"batches", "base_seed", "random"}:
            raise ValueError(
                f"expected the state of a DataLoader (batches, base_seed, random), got the keys {sorted(state)}"
            )
        self._resumed = state if state["random"] is not None else None

    def _check_resumable(self) -> None:
        if isinstance(self.dataset, IterableDataset):
            raise TypeError(
                f"the position in {type(self.dataset).__name__}, an IterableDataset, is not known to the loader; "
                "let the dataset save and restore it, or use a Dataset with __getitem__"
            )

    def _catch_up(self, indices: Iterator[Any], state: dict[str, Any]) -> Iterator[Any]:
        """The rest of an epoch, drawn from the state it began with; the default generator is left as it is."""
        stream = _stream(self.generator)
        now = stream.get_state()
        stream.set_state(state["random"])
        rest = itertools.islice(indices, int(state["batches"]), None)
        first = list(itertools.islice(rest, 1))  # samplers draw at their first index
        if self.generator is None:
            stream.set_state(now)
        assert self._progress is not None, "an iteration has begun"
        self._progress.random, self._progress.given = state["random"], int(state["batches"])
        return itertools.chain(first, rest)

    def _start(self) -> WorkerIterator:
        _warn_of_many(self.num_workers)
        plan = Plan(
            dataset=self.dataset,
            batched=self.batch_sampler is not None,
            collate_fn=self.collate_fn,
            drop_last=self.drop_last,
            init_fn=self.worker_init_fn,
            num_workers=self.num_workers,
            base_seed=self._base_seed,
        )
        context = self.multiprocessing_context
        method = context if context is None or isinstance(context, str) else context.get_start_method()
        prefetch = 2 if self.prefetch_factor is None else self.prefetch_factor
        return WorkerIterator(plan, method, prefetch, self.timeout, self.in_order, self.persistent_workers)


@dataclass(slots=True)
class _Progress:
    """How far an epoch is, and from what its order was drawn."""

    random: Tensor
    base_seed: int
    given: int = 0
    finished: bool = False


def _stream(generator: Generator | None) -> Generator:
    return default_generator if generator is None else generator


class LoaderIterator:
    """One epoch of a loader."""

    def __init__(self, batches: Iterator[Any], loader: DataLoader[Any], progress: _Progress) -> None:
        self._batches = batches
        self._loader = loader
        self._progress = progress
        if loader.pin_memory and not cuda.is_available():
            _warn_of_pinning()

    def __iter__(self) -> LoaderIterator:
        return self

    def __next__(self) -> Any:
        progress = self._progress
        try:
            batch = next(self._batches)
        except StopIteration:
            progress.finished = True
            raise
        progress.given += 1
        told = self._loader._told_length
        if told is not None and progress.given == told + 1:
            _warn_of_length(self._loader, told)
        return batch

    def __len__(self) -> int:
        return len(self._loader._indices)  # of an iterable dataset nobody knows: TypeError


class _Serial:
    """Batches loaded in this process."""

    __slots__ = ("_fetch", "_indices")

    def __init__(self, loader: DataLoader[Any], indices: Iterator[Any]) -> None:
        self._indices = indices
        self._fetch = make_fetch(loader.dataset, loader.batch_sampler is not None, loader.collate_fn, loader.drop_last)

    def __iter__(self) -> _Serial:
        return self

    def __next__(self) -> Any:
        indices = next(self._indices)
        try:
            return self._fetch(indices)
        except Exhausted:
            raise StopIteration from None
        except StopIteration as error:  # would end the epoch, silently without the rest of the data
            raise RuntimeError("the dataset or collate_fn raised StopIteration") from error


class _Endless(Sampler[None]):
    """Tasks for an iterable dataset: it says itself when it ends."""

    def __iter__(self) -> Iterator[None]:
        return itertools.repeat(None)


# --------------------------------------------------------------------------------------------------------------- checks


def _check_workers(num_workers: int, timeout: float, prefetch_factor: int | None, persistent_workers: bool) -> None:
    if not isinstance(num_workers, int):
        raise TypeError(f"num_workers should be an integer, but got num_workers={num_workers!r}")
    if num_workers < 0:
        raise ValueError("num_workers option should be non-negative; use num_workers=0 to disable multiprocessing.")
    if timeout < 0:
        raise ValueError("timeout option should be non-negative")
    if num_workers == 0 and prefetch_factor is not None:
        raise ValueError(
            "prefetch_factor option could only be specified in multiprocessing."
            "let num_workers > 0 to enable multiprocessing, otherwise set prefetch_factor to None."
        )
    if prefetch_factor is not None and prefetch_factor < 0:
        raise ValueError("prefetch_factor option should be non-negative")
    if persistent_workers and num_workers == 0:
        raise ValueError("persistent_workers option needs num_workers > 0")


def _check_iterable(shuffle: bool | None, sampler: Any, batch_sampler: Any) -> None:
    if shuffle not in (False, None):
        raise ValueError(
            f"DataLoader with IterableDataset: expected unspecified shuffle option, but got shuffle={shuffle}"
        )
    for name, value in (("sampler", sampler), ("batch_sampler", batch_sampler)):
        if value is not None:
            raise ValueError(
                f"DataLoader with IterableDataset: expected unspecified {name} option, but got {name}={value}"
            )


def _warn_of_many(num_workers: int) -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if cores is not None and num_workers > cores:
        warnings.warn(
            f"This DataLoader will create {num_workers} worker processes in total. Our suggested max number of worker "
            f"in current system is {cores}, which is smaller than what this DataLoader is going to create. Please be "
            "aware that excessive worker creation might get DataLoader running slow or even freeze, lower the worker "
            "number to avoid potential slowness/freeze if necessary.",
            UserWarning,
            stacklevel=4,
        )


def _warn_of_pinning() -> None:
    warnings.warn(
        "'pin_memory' argument is set as true but no accelerator is found, then device pinned memory won't be used.",
        UserWarning,
        stacklevel=4,
    )


def _warn_of_length(loader: DataLoader[Any], length: int) -> None:
    hint = (
        " For multiprocessing data-loading, this could be caused by not properly configuring the IterableDataset "
        "replica at each worker: let each give its own share, which get_worker_info() tells."
    )
    warnings.warn(
        f"Length of IterableDataset {loader.dataset} was reported to be {length} (when accessing len(dataloader)), but "
        f"more samples have been fetched.{hint if loader.num_workers else ''}",
        UserWarning,
        stacklevel=3,
    )
