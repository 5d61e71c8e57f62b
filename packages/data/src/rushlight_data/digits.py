"""Handwritten digits: 1,797 real 8×8 images that come with the package, with one fixed split for training and test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.resources import as_file, files
from typing import Any, ClassVar

import numpy as np

from rushlight_data.collate import default_collate
from rushlight_data.dataset import Dataset
from rushlight_tensor.core.tensor import Tensor
from rushlight_tensor.ops.create import from_numpy

_BRIGHTEST = 16  # a pixel counts how many of 4×4 points are set
_TEST_EVERY = 5


class Digits(Dataset[tuple[Any, Any]]):
    """The UCI handwritten digits: sample `i` is `(image, label)`.

    The image is a float32 tensor (1, 8, 8) in [0, 1], the label an int from 0 to 9.  The split is fixed: ordered by
    label, and within a label as in the file, every fifth image from the first on is for the test: 360 of them, which
    leaves 1,437 for training.

    Args:
        train: Which part; None: both, in the file's order.
        transform: Applied to the image.
        target_transform: Applied to the label.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998,
    https://doi.org/10.24432/C50P49, CC BY 4.0; see `files/digits.LICENSE.txt`.
    """

    classes: ClassVar[list[str]] = [str(digit) for digit in range(10)]

    def __init__(
        self,
        train: bool | None = True,
        transform: Callable[[Tensor], Any] | None = None,
        target_transform: Callable[[int], Any] | None = None,
    ) -> None:
        with as_file(files("rushlight_data") / "files" / "digits.npz") as path, np.load(path) as archive:
            images, labels = archive["images"], archive["labels"]
        if train is not None:
            rows = split()[0 if train else 1]
            images, labels = images[rows], labels[rows]
        self.train = train
        self.transform = transform
        self.target_transform = target_transform
        self._images = (images.astype(np.float32) / _BRIGHTEST)[:, np.newaxis]  # (N, 1, 8, 8)
        self._labels = labels.astype(np.int64)

    @property
    def data(self) -> Tensor:
        """All images, (N, 1, 8, 8)."""
        return from_numpy(self._images)

    @property
    def targets(self) -> Tensor:
        """All labels, (N,), int64."""
        return from_numpy(self._labels)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image: Any = from_numpy(self._images[index])
        label: Any = int(self._labels[index])
        if self.transform is not None:
            image = self.transform(image)
        if self.target_transform is not None:
            label = self.target_transform(label)
        return image, label

    def __getbatch__(self, indices: Sequence[int]) -> Any:
        if self.transform is not None or self.target_transform is not None:
            return default_collate([self[i] for i in indices])
        rows = np.asarray(indices, dtype=np.int64)
        return [from_numpy(self._images[rows]), from_numpy(self._labels[rows])]

    def __len__(self) -> int:
        return len(self._labels)

    def __repr__(self) -> str:
        part = {True: "training", False: "test", None: "all"}[self.train]
        return f"Digits({part}, {len(self)} images of 1×8×8)"


def split() -> tuple[np.ndarray, np.ndarray]:
    """Rows of the file that are for training, and for the test, each in ascending order."""
    with as_file(files("rushlight_data") / "files" / "digits.npz") as path, np.load(path) as archive:
        by_label = np.argsort(archive["labels"], kind="stable")
    test = np.sort(by_label[::_TEST_EVERY])
    return np.setdiff1d(by_label, test), test
