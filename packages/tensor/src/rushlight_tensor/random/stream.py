"""The source of random numbers: MT19937 with PyTorch's seeding, its state bytes, uniform draws (Note [Streams])."""

from __future__ import annotations

import ctypes
import functools
import os
import struct
import threading
from typing import Any, Self

import numpy as np

from rushlight_tensor.core import cuda, devices
from rushlight_tensor.core.tensor import Tensor, wrap

Array = np.ndarray[Any, np.dtype[Any]]

DEFAULT_SEED = 67280421310721
_STATE = struct.Struct("<Q i i Q 4992s d d d i 4x f ? 3x")  # PyTorch's CPUGeneratorImplState
_WORDS = 624


class Stream:
    """MT19937 as PyTorch's CPU generator runs it; a source of `kernels.random`, see Note [Sources] there."""

    __slots__ = ("__weakref__", "_bits", "_device", "_seed", "_source", "kept", "lock", "words")

    def __init__(self, device: Any = "cpu") -> None:
        self._device = devices.device(device)
        if self._device.type == "cuda":
            cuda.cupy()
        self.lock = threading.RLock()
        self._bits = np.random.MT19937(0)
        self._source = np.random.RandomState(self._bits)
        self.words = _words(self._bits) if _lie_as_known() else None
        self.kept = np.zeros(2)  # the second of a pair of normals, and whether it is there
        self.manual_seed(DEFAULT_SEED)

    @property
    def device(self) -> devices.device:
        """Where the numbers go."""
        return self._device

    def manual_seed(self, seed: int) -> Self:
        """Start the stream of `seed` and return the generator.

        Args:
            seed: From -2**63 to 2**64 - 1; a negative one means `2**64 + seed`.
        Raises:
            RuntimeError: `seed` is no integer.
            ValueError: `seed` is out of range.
        """
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
            raise RuntimeError(f"manual_seed expected a long, but got {type(seed).__name__}")
        seed = int(seed)
        if not -(2**63) <= seed < 2**64:
            raise ValueError(f"Overflow when unpacking long long: seed {seed} does not fit into 64 bits")
        with self.lock:
            self._seed = seed % 2**64
            self._source.seed(self._seed % 2**32)
            self.kept[:] = 0.0
        return self

    def seed(self) -> int:
        """Start a stream from the operating system's entropy; returns its seed."""
        self.manual_seed(int.from_bytes(os.urandom(8), "little"))
        return self._seed

    def initial_seed(self) -> int:
        """The seed this stream was started with."""
        return self._seed

    def get_state(self) -> Tensor:
        """The state as PyTorch's 5056 bytes (uint8), which its `set_state` takes as well."""
        with self.lock:
            state = self._bits.state["state"]
            key, position = state["key"], int(state["pos"])
            kept, is_kept = self.kept.tolist()
            just_seeded = position == 624 and int(key[0]) == self._seed % 2**32  # word 0 is the seed, until drawn
            packed = _STATE.pack(
                self._seed, 625 - position, 1, 0 if just_seeded else position, key.astype("<u8").tobytes(),
                0.0, kept if is_kept else 0.0, 0.0, bool(is_kept), 0.0, False,
            )  # fmt: skip
        return wrap(np.frombuffer(packed, np.uint8).copy())

    def set_state(self, state: Tensor) -> Self:
        """Continue where `get_state` was called, here or in PyTorch.

        Raises:
            TypeError: `state` is no uint8 tensor.
            RuntimeError: It has another size, or is no state of MT19937.
        """
        if not isinstance(state, Tensor):
            raise TypeError(f"expected a torch.ByteTensor, but got {type(state).__name__}")
        array = cuda.to_host(state._array)
        if array.dtype != np.uint8:
            raise TypeError("RNG state must be a torch.ByteTensor")
        if array.size != _STATE.size:
            raise RuntimeError(
                f"Expected a CPUGeneratorImplState of size {_STATE.size} but found the input RNG state size to be "
                f"{array.size}"
            )
        seed, left, seeded, position, words, _, kept, _, is_kept, _, _ = _STATE.unpack(array.tobytes())
        if seeded != 1 or not 1 <= left <= 624 or position > 624:
            raise RuntimeError("Invalid mt19937 state: use what get_state() returned")
        key = np.frombuffer(words, "<u8").astype(np.uint32)
        with self.lock:
            self._bits.state = {"bit_generator": "MT19937", "state": {"key": key, "pos": 625 - left}}
            self._seed = seed
            self.kept[:] = kept if is_kept else 0.0, is_kept
        return self

    def clone_state(self) -> Self:
        """Another generator that will give the same numbers."""
        return type(self)(self._device).set_state(self.get_state())

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), str(self._device), self.get_state()._array)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} device={self._device} initial_seed={self._seed}>"

    def draws(self, n: int) -> Array:
        """n draws of 32 bits, as uint64, by NumPy."""
        return np.asarray(self._bits.random_raw(n))


def _words(bits: np.random.MT19937) -> Array:
    """The state of a bit generator where NumPy has it: (625,) uint32, the words and how many have been drawn."""
    memory: Any = (ctypes.c_uint32 * (_WORDS + 1)).from_address(bits.ctypes.state_address)
    memory.owner = bits  # which stays as long as an array shows its memory
    return np.frombuffer(memory, np.uint32)


@functools.cache
def _lie_as_known() -> bool:
    """Whether the words lie where `_words` takes them from: seen from a state that is known."""
    bits = np.random.MT19937()
    key = np.arange(1, _WORDS + 1, dtype=np.uint32)
    bits.state = {"bit_generator": "MT19937", "state": {"key": key, "pos": 77}}
    return _words(bits).tolist() == [*key.tolist(), 77]


def _restored(kind: type[Stream], device: str, state: Array) -> Stream:
    return kind(device).set_state(wrap(state))
