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
from typing import Any

import numpy as np

from rushlight_distributed.contract import Call, Site, described

HEAD_BYTES = 256
_FIXED = struct.Struct("<4s16sq")  # a mark, the dtype's name, the number of elements; the text fills the rest
_MARK = b"rlp2"


@dataclass(frozen=True)
class Envelope:
    """What a head says: dtype and number of elements of the whole array, and the sender's call and line."""

    dtype: str
    count: int
    text: str

    def fits(self, array: np.ndarray[Any, Any]) -> bool:
        """Whether the message is what `array` is for: PyTorch, too, does not ask that the shapes are equal."""
        return (self.dtype, self.count) == (str(array.dtype), array.size)


def sealed(array: np.ndarray[Any, Any], call: Call, site: Site | None) -> np.ndarray[Any, Any]:
    """The head of a message that holds `array`."""
    fixed = _FIXED.pack(_MARK, str(array.dtype).encode(), array.size)
    text = described(call, site).encode(errors="replace")[: HEAD_BYTES - _FIXED.size]
    return np.frombuffer(bytearray((fixed + text).ljust(HEAD_BYTES, b"\0")), np.uint8)


def opened(head: np.ndarray[Any, Any]) -> Envelope | None:
    """What a head says; None if these bytes are none."""
    mark, dtype, count = _FIXED.unpack(head[: _FIXED.size].tobytes())
    if mark != _MARK:
        return None
    text = head[_FIXED.size :].tobytes().rstrip(b"\0").decode(errors="replace")
    return Envelope(dtype.rstrip(b"\0").decode(errors="replace"), count, text)
