"""Text: the source of Python's standard library as characters, real text that every machine has."""

from __future__ import annotations

import os
import string
import sys
import sysconfig
from collections.abc import Sequence
from importlib.machinery import PathFinder
from typing import Any

import numpy as np

from rushlight_data.dataset import Dataset
from rushlight_tensor.core.tensor import Tensor
from rushlight_tensor.ops.create import from_numpy

# Modules that Python 3.11 to 3.14 all have as one file of some length.
_NAMES = """
    argparse ast base64 bdb bisect calendar cmd code codeop configparser contextlib copy csv dataclasses difflib dis
    doctest enum fileinput fnmatch fractions ftplib functools getopt gettext glob gzip hashlib heapq hmac imaplib
    inspect ipaddress linecache locale lzma mailbox mimetypes modulefinder netrc numbers optparse pdb pickle
    pickletools pkgutil platform plistlib poplib pprint profile pstats pyclbr queue quopri random reprlib sched
    selectors shelve shlex shutil smtplib socket socketserver ssl statistics string stringprep subprocess symtable
    tabnanny tarfile tempfile textwrap threading timeit tokenize trace traceback tracemalloc types typing uuid
    warnings wave weakref webbrowser zipapp
"""
MODULES = tuple(_NAMES.split())
HELD_OUT = MODULES[5::10]  # whole modules, so that no validation text was seen in training

# The same on every machine and for every Python, so that a trained model fits all of them.
VOCABULARY = "\n " + string.digits + string.ascii_letters + string.punctuation
_LETTERS = np.frombuffer(VOCABULARY.encode("ascii"), dtype=np.uint8)
_UNKNOWN = "?"


class StdlibText(Dataset[tuple[Tensor, Tensor]]):
    """The standard library's source, character by character: sample `i` is `(x, y)`, both int64 of `(block_size,)`.

    `y` is `x` one character further: what a language model predicts.  Which modules are read and which of them are held
    out for validation is fixed (`MODULES`, `HELD_OUT`); their text is that of the running Python.

    Args:
        train: The training text; False: the text held out for validation.
        block_size: Characters in a sample.
        stride: From the start of one sample to the next; by default `block_size`, so that an epoch predicts every
            character once.  1 gives every window of the text.
    Raises:
        ValueError: When block_size or stride is less than 1, or longer than the text.
        RuntimeError: When this Python comes without its source.
    """

    vocabulary = VOCABULARY

    def __init__(self, train: bool = True, block_size: int = 128, stride: int | None = None) -> None:
        stride = block_size if stride is None else stride
        if block_size < 1 or stride < 1:
            raise ValueError(f"block_size and stride must be at least 1, got {block_size} and {stride}")
        self.train = train
        self.block_size = block_size
        self.stride = stride
        names = [name for name in MODULES if (name in HELD_OUT) != train]
        self._codes = _encoded(_source_of(names))
        if len(self._codes) <= block_size:
            raise ValueError(
                f"block_size={block_size} is longer than the text, which has {len(self._codes)} characters"
            )

    @property
    def vocab_size(self) -> int:
        """How many characters there are."""
        return len(VOCABULARY)

    @property
    def text(self) -> str:
        """The whole text."""
        return self.decode(from_numpy(self._codes))

    def encode(self, text: str) -> Tensor:
        """The numbers of a text's characters, int64 (len(text),); characters outside the vocabulary become `?`."""
        return from_numpy(_encoded(text).astype(np.int64))

    def decode(self, codes: Any) -> str:
        """The text of a tensor or sequence of characters' numbers."""
        numbers = codes.numpy() if isinstance(codes, Tensor) else np.asarray(codes, dtype=np.int64)
        return _LETTERS[numbers].tobytes().decode("ascii")

    def __len__(self) -> int:
        return (len(self._codes) - self.block_size - 1) // self.stride + 1

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} samples")
        start = (index % len(self)) * self.stride
        window = self._codes[start : start + self.block_size + 1].astype(np.int64)
        return from_numpy(window[:-1]), from_numpy(window[1:])

    def __getbatch__(self, indices: Sequence[int]) -> list[Tensor]:
        rows = np.asarray(indices, dtype=np.int64)
        if rows.size and not (-len(self) <= rows.min() and rows.max() < len(self)):
            raise IndexError(f"an index is out of range for {len(self)} samples: {list(indices)}")
        starts = (rows % len(self)) * self.stride
        places = starts[:, np.newaxis] + np.arange(self.block_size)  # (B, block_size)
        return [from_numpy(self._codes[places].astype(np.int64)), from_numpy(self._codes[places + 1].astype(np.int64))]

    def __repr__(self) -> str:
        part = "training" if self.train else "validation"
        return (
            f"StdlibText({part}, {len(self._codes):,} characters, block_size={self.block_size}, stride={self.stride})"
        )


def _source_of(names: Sequence[str]) -> str:
    archive = f"python{sys.version_info.major}{sys.version_info.minor}.zip"
    # Not by import: a user's own random.py must not become a part of the text, and nothing is to be run.
    places = [sysconfig.get_path("stdlib"), *(entry for entry in sys.path if os.path.basename(entry) == archive)]
    texts, missing = [], []
    for name in names:
        spec = PathFinder.find_spec(name, places)
        get_source = getattr(spec and spec.loader, "get_source", None)
        source = get_source(name) if get_source is not None else None
        if source is None:
            missing.append(name)
        else:
            texts.append(source)
    if missing:
        raise RuntimeError(
            f"StdlibText needs the source of Python's standard library, but {len(missing)} of {len(names)} modules "
            f"have none in {' or '.join(places)}: {', '.join(missing[:5])}{', …' if len(missing) > 5 else ''}; install "
            "the full library (Debian, Ubuntu: libpython3-stdlib) or use a Python that keeps its .py files"
        )
    return "\n".join(texts)


def _encoded(text: str) -> np.ndarray:
    """Places in the vocabulary, uint8; a tab counts as four spaces."""
    points = np.frombuffer(text.replace("\t", "    ").encode("utf-32-le"), dtype=np.uint32)
    table = np.full(128, VOCABULARY.index(_UNKNOWN), dtype=np.uint8)
    table[_LETTERS] = np.arange(len(_LETTERS), dtype=np.uint8)
    return table[np.where(points < len(table), points, ord(_UNKNOWN))]
