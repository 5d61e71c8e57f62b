"""Sequences of different lengths: padded into one tensor, or packed so that no step computes on padding.

Note [Packed layout]
    Sequences are sorted by length, longest first, and stored step by step: first all first steps, then all second
    steps, ….  `batch_sizes[t]` counts the sequences that are longer than t; it never grows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from rushlight_tensor import Tensor
from rushlight_tensor.core import dtypes
from rushlight_tensor.ops.create import from_numpy, full, tensor
from rushlight_tensor.ops.shape.join import cat, stack


class _Packed(NamedTuple):
    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None
    unsorted_indices: Tensor | None


class PackedSequence(_Packed):
    """A batch of sequences in packed form; see Note [Packed layout].  Made by `pack_padded_sequence`.

    Args:
        data: (sum of lengths, *), the steps.
        batch_sizes: (longest length,), int64 on the CPU.
        sorted_indices: How the batch was sorted, None if it came sorted.
        unsorted_indices: The inverse.
    """

    __slots__ = ()

    def __new__(
        cls, data: Tensor, batch_sizes: Tensor, sorted_indices: Tensor | None = None,
        unsorted_indices: Tensor | None = None,
    ) -> Self:  # fmt: skip
        if unsorted_indices is None:
            unsorted_indices = invert_permutation(sorted_indices)
        return super().__new__(cls, data, batch_sizes, sorted_indices, unsorted_indices)

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """The same sequences with `data.to(...)`; the indices follow to its device."""
        data = self.data.to(*args, **kwargs)
        if data is self.data:
            return self
        order = None if self.sorted_indices is None else self.sorted_indices.to(data.device)
        return type(self)(data, self.batch_sizes, order)

    def cpu(self) -> Self:
        """The same sequences in main memory."""
        return self.to("cpu")

    def cuda(self) -> Self:
        """The same sequences on a GPU."""
        return self.to("cuda")

    @property
    def is_cuda(self) -> bool:
        """Whether the data are on a GPU."""
        return bool(self.data.is_cuda)


def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """The permutation that undoes `permutation`; None for None."""
    if permutation is None:
        return None
    inverse: Tensor = from_numpy(np.argsort(permutation.cpu().numpy(), kind="stable")).to(permutation.device)
    return inverse


def _lengths(lengths: Tensor | Sequence[int]) -> Any:
    return np.asarray(lengths.cpu().numpy() if isinstance(lengths, Tensor) else lengths, dtype=np.int64)


def pack_padded_sequence(
    input: Tensor, lengths: Tensor | Sequence[int], batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """Pack a padded batch.

    Args:
        input: (T, B, *), or (B, T, *) if `batch_first`.
        lengths: (B,), each from 1 to T.
        enforce_sorted: Require that the lengths do not grow; otherwise the batch is sorted here.
    Raises:
        RuntimeError: Lengths that are not positive, too large, not sorted, or not one per sequence.
    """
    sizes = _lengths(lengths)
    time_major = input.transpose(0, 1) if batch_first else input
    steps, batch = time_major.shape[:2]
    if len(sizes) != batch:
        raise RuntimeError(
            f"Expected `len(lengths)` to be equal to batch_size, but got {len(sizes)} (batch_size={batch})"
        )
    if sizes.min() <= 0:
        raise RuntimeError(
            "Length of all samples has to be greater than 0, but found an element in 'lengths' that is <= 0"
        )
    if sizes.max() > steps:
        raise RuntimeError(f"pack_padded_sequence: lengths reach {sizes.max()}, but the input has {steps} steps")
    order = None
    if not enforce_sorted:
        permutation = np.argsort(-sizes, kind="stable")
        sizes = sizes[permutation]
        order = from_numpy(permutation).to(input.device)
        time_major = time_major.index_select(1, order)
    elif (np.diff(sizes) > 0).any():
        raise RuntimeError(
            "`lengths` array must be sorted in decreasing order when `enforce_sorted` is True. You can pass "
            "`enforce_sorted=False` to pack_padded_sequence and/or pack_sequence to sidestep this requirement if you "
            "do not need ONNX exportability."
        )
    kept = np.arange(sizes[0])[:, None] < sizes  # (T, B)
    rows = from_numpy(np.flatnonzero(kept)).to(input.device)
    flat = time_major[: int(sizes[0])].reshape(-1, *time_major.shape[2:])  # (T B, *)
    return PackedSequence(flat.index_select(0, rows), from_numpy(kept.sum(axis=1)), order)


def pad_packed_sequence(
    sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0, total_length: int | None = None
) -> tuple[Tensor, Tensor]:
    """The inverse of `pack_padded_sequence`.

    Args:
        sequence: The packed batch.
        batch_first: Return (B, T, *) instead of (T, B, *).
        padding_value: What stands after the end of a sequence.
        total_length: T, at least the longest length, which it is if omitted.
    Returns:
        The padded batch, and the lengths (B,) on the CPU.
    """
    counts = _lengths(sequence.batch_sizes)
    longest = len(counts)
    if total_length is not None and total_length < longest:
        raise ValueError(
            "Expected total_length to be at least the length of the longest sequence in input, but got "
            f"total_length={total_length} and max sequence length being {longest}"
        )
    steps = longest if total_length is None else total_length
    batch = int(counts[0])
    data = sequence.data
    kept = np.arange(batch) < counts[:, None]  # (T, B)
    rows = np.full((steps, batch), len(data), dtype=np.int64)  # past the end: the padding row
    rows[:longest][kept] = np.arange(len(data))
    padding = full((1, *data.shape[1:]), padding_value, dtype=data.dtype, device=data.device)
    table = cat([data, padding], 0)
    padded = table.index_select(0, from_numpy(rows.reshape(-1)).to(data.device)).reshape(steps, batch, *data.shape[1:])
    lengths = from_numpy(kept.sum(axis=0))
    if sequence.unsorted_indices is not None:
        padded = padded.index_select(1, sequence.unsorted_indices)
        lengths = lengths[sequence.unsorted_indices.cpu()]
    return (padded.transpose(0, 1) if batch_first else padded), lengths


def pad_sequence(
    sequences: Tensor | Iterable[Tensor], batch_first: bool = False, padding_value: float = 0.0,
    padding_side: str = "right",
) -> Tensor:  # fmt: skip
    """Sequences (T_i, *) as one (T, B, *) tensor, or (B, T, *) if `batch_first`, filled up with `padding_value`."""
    if not isinstance(sequences, Iterable):
        raise RuntimeError(
            f"pad_sequence: Expected iterable for input sequences, but got arg of type: {type(sequences)}"
        )
    if padding_side not in ("left", "right"):
        raise RuntimeError(f"Expected padding_side to be one of left or right, but got {padding_side}.")
    items = list(sequences)
    if not items:
        raise RuntimeError("received an empty list of sequences")
    longest = max(len(s) for s in items)
    padded = []
    for s in items:
        if len(s) < longest:
            shape = (longest - len(s), *s.shape[1:])
            padding = full(shape, padding_value, dtype=s.dtype, device=s.device)
            s = cat([s, padding] if padding_side == "right" else [padding, s], 0)
        padded.append(s)
    return stack(padded, 0 if batch_first else 1)


def unpad_sequence(padded_sequences: Tensor, lengths: Tensor, batch_first: bool = False) -> list[Tensor]:
    """The sequences of a padded batch, each cut to its length."""
    batch = padded_sequences if batch_first else padded_sequences.transpose(0, 1)
    return [sequence[: int(n)] for sequence, n in zip(batch, _lengths(lengths), strict=True)]


def pack_sequence(sequences: list[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Pack a list of sequences (T_i, *)."""
    lengths = tensor([len(s) for s in sequences], dtype=dtypes.int64)
    return pack_padded_sequence(pad_sequence(sequences), lengths, enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """The sequences of a packed batch."""
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, lengths, batch_first=True)
