"""Messages between the training process and a worker: what is sent, in which frame, with which descriptors.

A frame is a pickled message and a tail of raw bytes behind it.  Large arrays of a message are in neither: they lie in
shared blocks, and the message says where (see Note [Blocks] in `blocks.py`).
"""

from __future__ import annotations

import contextlib
import copyreg
import io
import os
import pickle
import socket
import struct
from collections import ChainMap, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any, ClassVar, cast

import cloudpickle  # type: ignore[import-untyped]
import numpy as np

from rushlight_tensor.core.dispatch import settle
from rushlight_tensor.core.tensor import Tensor, wrap

_FRAME = struct.Struct("<QQQ")  # bytes of the message, bytes of the tail, number of descriptors
_MOST_FDS = 250  # the kernel takes 253 descriptors in one message
_READ_BYTES = 1 << 16
_INT_BYTES = struct.calcsize("i")
_ANCILLARY_BYTES = socket.CMSG_LEN(_MOST_FDS * _INT_BYTES)
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class Closed(Exception):
    """The other side is gone."""


# --------------------------------------------------------------------------------------------------------------- pickle


def _array(buffer: Any, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    return np.ndarray(shape, dtype, buffer)


def _reduce_array(array: np.ndarray) -> Any:
    dtype = array.dtype
    if dtype.hasobject or array.nbytes == 0:
        return array.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
    # As plain bytes: extension dtypes such as bfloat16 have no buffer, and strided memory would be pickled in pieces.
    raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return _array, (pickle.PickleBuffer(cast(Any, raw)), dtype.str if dtype.isbuiltin == 1 else dtype, array.shape)


def _tensor(array: np.ndarray, requires_grad: bool) -> Tensor:
    tensor = wrap(array)
    tensor._requires_grad = requires_grad
    return tensor


def _reduce_tensor(tensor: Tensor) -> Any:
    if not isinstance(tensor._array, np.ndarray):
        raise TypeError(
            "a CUDA tensor cannot leave a worker process; return x.cpu() and move the batch in the training loop"
        )
    if not tensor.is_leaf:
        raise TypeError("a tensor with a gradient history cannot leave a worker process; return x.detach()")
    return _tensor, (settle(tensor), tensor.requires_grad)


def _refuse_file(file: io.TextIOWrapper) -> Any:
    raise TypeError(f"cannot pickle the open file {file.name!r}")  # cloudpickle would send all that is in it


_REDUCERS: dict[type, Any] = {np.ndarray: _reduce_array, Tensor: _reduce_tensor}


class _Pickler(pickle.Pickler):
    dispatch_table = ChainMap(_REDUCERS, cast(Any, copyreg.dispatch_table))  # noqa: RUF012


class _ByValuePickler(cloudpickle.Pickler):  # type: ignore[misc]
    dispatch_table: ClassVar[Any] = ChainMap(
        {**_REDUCERS, io.TextIOWrapper: _refuse_file}, cloudpickle.Pickler.dispatch_table
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.modules: set[str] = set()

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, (type, FunctionType)):
            self.modules.add(obj.__module__)
        return super().reducer_override(obj)


def dumps(obj: Any, by_value: bool) -> tuple[bytes, list[np.ndarray], set[str]]:
    """`obj` pickled; the bytes of its arrays, apart from it; with `by_value` the modules that loading it imports.

    Args:
        by_value: Send what `__main__` defines along with it, for a process that has another `__main__`.
    """
    stream = io.BytesIO()
    buffers: list[pickle.PickleBuffer] = []
    pickler: Any = (_ByValuePickler if by_value else _Pickler)(stream, protocol=5, buffer_callback=buffers.append)
    pickler.dump(obj)
    raw = [np.frombuffer(buffer.raw(), dtype=np.uint8) for buffer in buffers]
    return stream.getvalue(), raw, pickler.modules - {"__main__", "builtins"} if by_value else set()


def loads(data: Any, buffers: Iterable[Any] = ()) -> Any:
    """The object that `dumps` was given."""
    return pickle.loads(data, buffers=buffers)


# --------------------------------------------------------------------------------------------------------------- frames


@dataclass(slots=True)
class Frame:
    """What came: the message, the raw bytes behind it and the descriptors that travelled along."""

    message: Any
    tail: memoryview
    fds: list[int]


class Channel:
    """One end of a connection.  `send` and `receive` wait; `post` and `poll` never do.

    The training process only posts and polls: were both sides to wait until the other has read, neither would go on.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._incoming = bytearray()
        self._fds: deque[int] = deque()
        self._outgoing: deque[memoryview] = deque()

    def fileno(self) -> int:
        return self.sock.fileno()

    def send(self, message: Any, tail: Sequence[np.ndarray] = (), fds: Sequence[int] = ()) -> None:
        """Send a message, waiting until it is handed over.  Raises Closed."""
        data = pickle.dumps(message, protocol=5)
        assert len(fds) <= _MOST_FDS, f"{len(fds)} descriptors in one message"
        head = _FRAME.pack(len(data), sum(part.nbytes for part in tail), len(fds))
        try:
            sent = socket.send_fds(self.sock, [head, data], list(fds)) if fds else self.sock.sendmsg([head, data])
            if sent < len(head) + len(data):
                self.sock.sendall(memoryview(head + data)[sent:])
            for part in tail:
                self.sock.sendall(memoryview(cast(Any, part)))
        except (BrokenPipeError, ConnectionError) as error:
            raise Closed from error

    def post(self, message: Any) -> None:
        """Send a message as far as there is room; the rest goes out at the next `post` or `flush`."""
        data = pickle.dumps(message, protocol=5)
        self._outgoing.append(memoryview(_FRAME.pack(len(data), 0, 0) + data))
        self.flush()

    def flush(self) -> bool:
        """Send what was posted as far as there is room; returns whether all of it is out."""
        while self._outgoing:
            part = self._outgoing[0]
            try:
                sent = self.sock.send(part, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            except (BrokenPipeError, ConnectionError):
                self._outgoing.clear()  # whoever polls learns that the other side is gone
                break
            if sent == len(part):
                self._outgoing.popleft()
            else:
                self._outgoing[0] = part[sent:]
        return True

    def receive(self) -> Frame:
        """Wait for a message.  Raises Closed."""
        while (frame := self._frame()) is None:
            self._read(0)
        return frame

    def poll(self) -> list[Frame]:
        """Every message that has come completely; never waits.  Raises Closed when there is none and never will be."""
        frames: list[Frame] = []
        try:
            while self._read(socket.MSG_DONTWAIT):
                while (frame := self._frame()) is not None:
                    frames.append(frame)
        except Closed:
            if not frames:
                raise
        return frames

    def close(self) -> None:
        """Hang up, also where another process holds a copy of the socket."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        while self._fds:
            os.close(self._fds.popleft())

    def _read(self, flags: int) -> bool:
        try:
            # Not socket.recv_fds, which ignores its flags.
            data, ancillary, _, _ = self.sock.recvmsg(_READ_BYTES, _ANCILLARY_BYTES, flags | _CLOSE_ON_EXEC)
        except BlockingIOError:
            return False
        except ConnectionError as error:
            raise Closed from error
        for level, kind, raw in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                self._fds.extend(memoryview(raw[: len(raw) // _INT_BYTES * _INT_BYTES]).cast("i"))
        if not data:
            raise Closed
        self._incoming += data
        return True

    def _frame(self) -> Frame | None:
        incoming = self._incoming
        if len(incoming) < _FRAME.size:
            return None
        data_bytes, tail_bytes, fds = _FRAME.unpack_from(incoming)
        start, end = _FRAME.size + data_bytes, _FRAME.size + data_bytes + tail_bytes
        if len(incoming) < end:
            return None
        message = pickle.loads(memoryview(incoming)[_FRAME.size : start])
        frame = Frame(message, memoryview(incoming[start:end]), [self._fds.popleft() for _ in range(fds)])
        del incoming[:end]
        return frame
