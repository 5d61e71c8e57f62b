"""Small datasets for the loader's tests; module-level, so that workers from a clean process can import them."""

import os
import random
import signal
import time

import numpy as np

from rushlight_data import Dataset, IterableDataset, get_worker_info
from rushlight_tensor.random import initial_seed


class Numbers(Dataset):
    """Sample `i` is `i`, except where it fails."""

    def __init__(self, n, fail_at=None, error=None):
        self.n = n
        self.fail_at = fail_at
        self.error = error

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        if index == self.fail_at:
            raise self.error
        return index


class Images(Numbers):
    """Sample `i` is an array (3, 40, 40) filled with `i`, its transpose, and `i`."""

    def __getitem__(self, index):
        image = np.full((3, 40, 40), index, np.float32)
        return {"image": image, "turned": image.T, "label": index, "name": f"image {index}"}


class Count(IterableDataset):
    """0, 1, 2, …, shared out among workers; with a length where one is given."""

    def __init__(self, n, length=None):
        self.n = n
        if length is not None:
            self.length = length
            self.__class__ = CountWithLength

    def __iter__(self):
        info = get_worker_info()
        return iter(range(self.n)) if info is None else iter(range(info.id, self.n, info.num_workers))


class CountWithLength(Count):
    def __len__(self):
        return self.length


class Uneven(IterableDataset):
    """Worker `w` has the samples 100 w, 100 w + 1, …, of which there are `lengths[w]`."""

    def __init__(self, lengths):
        self.lengths = lengths

    def __iter__(self):
        worker = get_worker_info().id
        return iter(range(100 * worker, 100 * worker + self.lengths[worker]))


class Who(Numbers):
    """Sample `i` tells which worker made it and with which random numbers."""

    def __getitem__(self, index):
        info = get_worker_info()
        assert info.dataset is self
        return info.id, info.num_workers, info.seed, initial_seed(), random.random(), np.random.rand(), os.getpid()


class Ends(Numbers):
    """Sample `fail_at` ends its worker: by a signal, by exiting, or by taking forever."""

    def __getitem__(self, index):
        if index == self.fail_at:
            if self.error == "exit":
                os._exit(3)
            if self.error == "sleep":
                time.sleep(100)
            os.kill(os.getpid(), getattr(signal, self.error))
        return index


class Unpicklable(Exception):
    """An exception whose type is not made from a text, and whose text fails."""

    def __init__(self, a, b):
        super().__init__(a, b)

    def __str__(self):
        raise ValueError("no text")
