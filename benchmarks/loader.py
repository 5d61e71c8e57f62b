"""DataLoader against PyTorch's: an epoch without workers, with one and two, and what starting and stopping costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.utils.data as theirs

import rushlight_data as ours
from benchmarks.harness import Row, run
from rushlight_tensor import tensor

IMAGES = np.random.default_rng(0).random((512, 3, 64, 64), dtype=np.float32)
ROWS = np.random.default_rng(0).random((20_000, 32), dtype=np.float32)


class Samples(theirs.Dataset):
    """Rows of an array and their number, one by one."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, index: int) -> Any:
        return self.array[index], index


def epoch(package: Any, dataset: Any, workers: int) -> Callable[[], None]:
    """A function that goes once through the loader."""
    loader = package.DataLoader(dataset, 64, shuffle=True, num_workers=workers, persistent_workers=workers > 0)

    def program() -> None:
        for _ in loader:
            pass

    return program


def first_batch(package: Any) -> Callable[[], None]:
    """A function that starts two workers, takes a batch and stops them."""
    loader = package.DataLoader(Samples(IMAGES), 64, num_workers=2)

    def program() -> None:
        for _ in loader:
            break

    return program


def rows() -> list[Row]:
    """What is compared; the bars are what PyTorch's users would notice."""
    numbers = np.arange(len(ROWS))
    tensors = {
        ours: ours.TensorDataset(tensor(ROWS), tensor(numbers)),
        theirs: theirs.TensorDataset(torch.tensor(ROWS), torch.tensor(numbers)),
    }
    made = []
    for workers in (0, 1, 2):
        for name, datasets in (
            ("tensors, 20000x32", tensors),
            ("NumPy, 20000x32", dict.fromkeys((ours, theirs), Samples(ROWS))),
            ("NumPy, 512x3x64x64", dict.fromkeys((ours, theirs), Samples(IMAGES))),
        ):
            programs = {
                "torch": epoch(theirs, datasets[theirs], workers),
                "rushlight": epoch(ours, datasets[ours], workers),
            }
            made.append(Row(f"{name}, {workers} workers", programs, bar=("torch", "rushlight", 1.0)))
    both = {"torch": first_batch(theirs), "rushlight": first_batch(ours)}
    return [*made, Row("start 2 workers, 1 batch, stop", both, bar=("torch", "rushlight", 1.0))]


if __name__ == "__main__":
    torch.set_num_threads(1)
    run("loader", rows(), rounds=5)
