"""What travels in front of a point-to-point message, so that the receiver knows whose it is and what it is.

Note [One message, two parts]
    MPI moves bytes: a message that is shorter than its buffer fills a part of it, one of another dtype is taken for
    what it is not, a longer one is an error without a name.  So each message starts with a head that says what it
    holds.  Head and data are one message of a derived type: no copy, and whatever receive matches the one has the
    other, which two messages could not promise to a receive from anybody.  Of a message that is too long the head
    still arrives (not with MPICH if it is longer than 64 KB or so; then the contract's board tells what was sent).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from rushlight_distributed.contract import Call, Site, described

HEAD_BYTES = 256
_FIXED = struct.Struct("<4s16sq")  # a mark, the dtype's name, the number of elements; the text fills the rest
_MARK = b"rlp2"
_KEPT = 1000

# Heads by (call, place): texts are slow to make, and a program sends from few places. The place is held with its head,
# so that its identity stays its own.
_heads: dict[tuple[object, ...], tuple[np.ndarray[Any, Any], Site | None]] = {}


@dataclass(frozen=True)
class Envelope:
    """What a head says: dtype and number of elements of the whole array, and the sender's call and line."""

    dtype: str
    count: int
    text: str


@lru_cache(_KEPT)
def _fixed(dtype: np.dtype[Any], count: int) -> bytes:
    return _FIXED.pack(_MARK, str(dtype).encode(), count)


def sealed(array: np.ndarray[Any, Any], call: Call, site: Site | None) -> np.ndarray[Any, Any]:
    """The head of a message that holds `array`; not to be written into."""
    key = (call, array.size) if site is None else (call, array.size, id(site[0]), site[1])
    known = _heads.get(key)
    if known is None:
        if len(_heads) >= _KEPT:
            _heads.clear()
        text = described(call, site).encode(errors="replace")[: HEAD_BYTES - _FIXED.size]
        whole = (_fixed(array.dtype, array.size) + text).ljust(HEAD_BYTES, b"\0")
        _heads[key] = known = (np.frombuffer(bytearray(whole), np.uint8), site)
    return known[0]


def fits(head: np.ndarray[Any, Any], array: np.ndarray[Any, Any]) -> bool:
    """Whether a message is what `array` is for: PyTorch, too, does not ask that the shapes are equal."""
    return head[: _FIXED.size].tobytes() == _fixed(array.dtype, array.size)


def opened(head: np.ndarray[Any, Any]) -> Envelope | None:
    """What a head says; None if these bytes are none."""
    mark, dtype, count = _FIXED.unpack(head[: _FIXED.size].tobytes())
    if mark != _MARK:
        return None
    text = head[_FIXED.size :].tobytes().rstrip(b"\0").decode(errors="replace")
    return Envelope(dtype.rstrip(b"\0").decode(errors="replace"), count, text)
