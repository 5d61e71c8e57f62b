"""Communicators: collectives on contiguous NumPy arrays, by one process alone or by the ranks of an MPI communicator.

Every method blocks until this rank's part is done, and works on C-contiguous arrays in host memory; whoever holds a
strided tensor or one on a GPU copies first (`collectives.py`).  Nothing is checked here that MPI itself or the contract
(`contract.py`) checks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

# Note [Chunks on the wire]
# Measured: a 64 MB allreduce in pieces of 1 MB is 3 to 4 times faster than in one (a piece stays in the cache while it
# is summed), and counts above 2^31 fail.  Pieces that are only moved gain nothing, so those are as large as is safe.
REDUCE_CHUNK_BYTES = 1 << 20
MOVE_CHUNK_BYTES = 1 << 28

_COPIED_BYTES = 1 << 16  # of a message between two ranks
_PAIRWISE_TAG = 31999  # of all_to_all, so that no receive of the user matches it


class ReduceOp(Enum):
    """How `all_reduce` and its family combine the ranks' values; PyTorch's names."""

    SUM = "sum"
    AVG = "avg"
    PRODUCT = "prod"
    MIN = "min"
    MAX = "max"
    BAND = "band"
    BOR = "bor"
    BXOR = "bxor"


_MPI_NAMES = {ReduceOp.AVG: "SUM", ReduceOp.PRODUCT: "PROD"}
_BOOL = {ReduceOp.SUM: ReduceOp.MAX, ReduceOp.PRODUCT: ReduceOp.MIN}


class Pending(ABC):
    """A point-to-point transfer that was started."""

    @abstractmethod
    def wait(self) -> int:
        """Block until it is done; the peer's rank. A message that is too long for its buffer is no error here."""

    @abstractmethod
    def done(self) -> bool: ...


class Communicator(ABC):
    """A set of ranks that exchange arrays; `rank` is this process's place among `size`."""

    rank: int
    size: int

    @abstractmethod
    def all_reduce(self, array: Array, op: ReduceOp) -> None:
        """Combine in place; every rank holds the result."""

    @abstractmethod
    def reduce(self, array: Array, op: ReduceOp, root: int) -> None:
        """Combine into root's array; the others keep theirs."""

    @abstractmethod
    def broadcast(self, array: Array, root: int) -> None: ...

    @abstractmethod
    def all_gather(self, out: Array, array: Array) -> None:
        """`out[r]` becomes rank r's array: out is (size, *array.shape)."""

    @abstractmethod
    def gather(self, out: Array | None, array: Array, root: int) -> None:
        """As `all_gather`, on root only."""

    @abstractmethod
    def scatter(self, out: Array, array: Array | None, root: int) -> None:
        """`out` becomes root's `array[rank]`."""

    @abstractmethod
    def reduce_scatter(self, out: Array, array: Array, op: ReduceOp) -> None:
        """`out` becomes the combination of every rank's `array[rank]`: array is (size, *out.shape)."""

    @abstractmethod
    def all_to_all(self, outs: Sequence[Array], arrays: Sequence[Array]) -> None:
        """`outs[r]` becomes rank r's `arrays[rank]`; sizes may differ from pair to pair."""

    @abstractmethod
    def all_to_all_rows(self, out: Array, array: Array) -> None:
        """`out[r]` becomes rank r's `array[rank]`: both are (size, n), of one n on all ranks, and small."""

    @abstractmethod
    def barrier(self) -> None: ...

    @abstractmethod
    def start_send(self, head: Array, array: Array, to: int, tag: int) -> Pending:
        """Send a head and an array.  See Note [One message, two parts] in envelope.py."""

    @abstractmethod
    def start_receive(self, head: Array, array: Array, source: int | None, tag: int) -> Pending:
        """From `source`, or from whoever sends first if it is None; both arrays must live until it is done."""

    @abstractmethod
    def all_gather_object(self, value: Any) -> list[Any]: ...

    @abstractmethod
    def broadcast_object(self, value: Any, root: int) -> Any: ...

    @abstractmethod
    def gather_object(self, value: Any, root: int) -> list[Any] | None: ...

    @abstractmethod
    def scatter_object(self, values: Sequence[Any] | None, root: int) -> Any: ...

    @abstractmethod
    def post(self, value: Any, to: int) -> Pending:
        """Start to send an object, which `collect` on the other side gives."""

    @abstractmethod
    def collect(self) -> list[Any]:
        """The objects that were posted to this rank and have arrived, in their order."""

    @abstractmethod
    def subgroup(self, ranks: Sequence[int]) -> Communicator:
        """A new communicator of these ranks, called by them and by no other."""

    @abstractmethod
    def on_this_host(self) -> list[int]:
        """The ranks that share memory with this one, in order; collective."""


class LocalCommunicator(Communicator):
    """World size 1 without MPI: every collective is a copy, or nothing."""

    rank, size = 0, 1

    def all_reduce(self, array: Array, op: ReduceOp) -> None: ...

    def reduce(self, array: Array, op: ReduceOp, root: int) -> None: ...

    def broadcast(self, array: Array, root: int) -> None: ...

    def all_gather(self, out: Array, array: Array) -> None:
        out[0] = array

    def gather(self, out: Array | None, array: Array, root: int) -> None:
        assert out is not None
        out[0] = array

    def scatter(self, out: Array, array: Array | None, root: int) -> None:
        assert array is not None
        out[...] = array[0]

    def reduce_scatter(self, out: Array, array: Array, op: ReduceOp) -> None:
        out[...] = array[0]

    def all_to_all(self, outs: Sequence[Array], arrays: Sequence[Array]) -> None:
        outs[0][...] = arrays[0]

    def all_to_all_rows(self, out: Array, array: Array) -> None:
        out[...] = array

    def barrier(self) -> None: ...

    def start_send(self, head: Array, array: Array, to: int, tag: int) -> Pending:
        raise RuntimeError("send: world size is 1, there is no other rank; start the script with mpirun -n N")

    def start_receive(self, head: Array, array: Array, source: int | None, tag: int) -> Pending:
        raise RuntimeError("recv: world size is 1, there is no other rank; start the script with mpirun -n N")

    def all_gather_object(self, value: Any) -> list[Any]:
        return [value]

    def broadcast_object(self, value: Any, root: int) -> Any:
        return value

    def gather_object(self, value: Any, root: int) -> list[Any] | None:
        return [value]

    def scatter_object(self, values: Sequence[Any] | None, root: int) -> Any:
        assert values is not None
        return values[0]

    def post(self, value: Any, to: int) -> Pending:
        raise RuntimeError("post: world size is 1, there is no other rank")

    def collect(self) -> list[Any]:
        return []

    def subgroup(self, ranks: Sequence[int]) -> Communicator:
        return LocalCommunicator()

    def on_this_host(self) -> list[int]:
        return [0]


class MpiCommunicator(Communicator):
    """The ranks of an mpi4py communicator, which this object owns: nobody else uses it, and one thread at a time."""

    def __init__(self, comm: Any) -> None:
        from mpi4py import MPI

        self._comm, self._mpi = comm, MPI
        self.rank, self.size = comm.Get_rank(), comm.Get_size()
        self._ops: dict[ReduceOp, Any] = {op: getattr(MPI, _MPI_NAMES.get(op, op.name)) for op in ReduceOp}
        self._under_way: list[_MpiPending] = []  # kept until they are done: MPI uses their memory, whoever forgets them

    def all_reduce(self, array: Array, op: ReduceOp) -> None:
        if array.nbytes <= REDUCE_CHUNK_BYTES and array.dtype.char in "fdlq":  # the hot path of small messages
            self._comm.Allreduce(self._mpi.IN_PLACE, array, self._ops[op])
        else:
            wire, op = _reducible(array, op)
            for piece in _pieces(wire, REDUCE_CHUNK_BYTES):
                self._comm.Allreduce(self._mpi.IN_PLACE, piece, self._ops[op])
            if op is ReduceOp.AVG:
                wire /= self.size
            if not np.may_share_memory(wire, array):
                array[...] = wire.reshape(array.shape)
            return
        if op is ReduceOp.AVG:
            array /= self.size

    def reduce(self, array: Array, op: ReduceOp, root: int) -> None:
        wire, op = _reducible(array, op)
        for piece in _pieces(wire, REDUCE_CHUNK_BYTES):
            if self.rank == root:
                self._comm.Reduce(self._mpi.IN_PLACE, piece, self._ops[op], root)
            else:
                self._comm.Reduce(piece, None, self._ops[op], root)
        if self.rank == root:
            if op is ReduceOp.AVG:
                wire /= self.size
            if not np.may_share_memory(wire, array):
                array[...] = wire.reshape(array.shape)

    def broadcast(self, array: Array, root: int) -> None:
        for piece in _pieces(_bytes(array), MOVE_CHUNK_BYTES):
            self._comm.Bcast(piece, root)

    def all_gather(self, out: Array, array: Array) -> None:
        sent, got = _bytes(array), _bytes(out).reshape(self.size, -1)
        for part in _columns(sent.size, self.size):
            box = _packed(got, part)
            self._comm.Allgather(sent[part], box)
            _unpack(box, got, part)

    def gather(self, out: Array | None, array: Array, root: int) -> None:
        sent = _bytes(array)
        got = None if out is None else _bytes(out).reshape(self.size, -1)
        for part in _columns(sent.size, self.size):
            box = None if got is None else _packed(got, part)
            self._comm.Gather(sent[part], box, root)
            if box is not None and got is not None:
                _unpack(box, got, part)

    def scatter(self, out: Array, array: Array | None, root: int) -> None:
        got = _bytes(out)
        sent = None if array is None else _bytes(array).reshape(self.size, -1)
        for part in _columns(got.size, self.size):
            box = None if sent is None else np.ascontiguousarray(sent[:, part])
            self._comm.Scatter(box, got[part], root)

    def reduce_scatter(self, out: Array, array: Array, op: ReduceOp) -> None:
        wire, op = _reducible(array, op)
        sent = wire.reshape(self.size, -1)
        got = out.reshape(-1) if wire.dtype == out.dtype else np.empty(out.size, wire.dtype)
        step = max(1, REDUCE_CHUNK_BYTES // (self.size * wire.itemsize))
        for at in range(0, got.size, step):
            part = slice(at, min(at + step, got.size))
            self._comm.Reduce_scatter_block(np.ascontiguousarray(sent[:, part]), got[part], self._ops[op])
        if op is ReduceOp.AVG:
            got /= self.size
        if not np.may_share_memory(got, out):
            out[...] = got.reshape(out.shape)

    def all_to_all(self, outs: Sequence[Array], arrays: Sequence[Array]) -> None:
        for shift in range(self.size):
            to, source = (self.rank + shift) % self.size, (self.rank - shift) % self.size
            sent, got = (
                list(_pieces(_bytes(arrays[to]), MOVE_CHUNK_BYTES)),
                _pieces(_bytes(outs[source]), MOVE_CHUNK_BYTES),
            )
            requests = [self._comm.Irecv(piece, source, _PAIRWISE_TAG) for piece in got]
            requests += [self._comm.Isend(piece, to, _PAIRWISE_TAG) for piece in sent]
            self._mpi.Request.Waitall(requests)

    def all_to_all_rows(self, out: Array, array: Array) -> None:
        self._comm.Alltoall(array, out)

    def barrier(self) -> None:
        self._comm.Barrier()

    def start_send(self, head: Array, array: Array, to: int, tag: int) -> Pending:
        messages = [
            _Message(self._mpi, head, piece, sending=True) for piece in _pieces(_bytes(array), MOVE_CHUNK_BYTES)
        ]
        return self._kept([self._comm.Isend(m.spec, to, tag) for m in messages], messages, to)

    def start_receive(self, head: Array, array: Array, source: int | None, tag: int) -> Pending:
        pieces = list(_pieces(_bytes(array), MOVE_CHUNK_BYTES))
        if source is None and len(pieces) > 1:
            # The pieces must come from one sender: whoever has sent is asked for all of them.
            status = self._mpi.Status()
            self._comm.Probe(self._mpi.ANY_SOURCE, tag, status)
            source = status.Get_source()
        peer = self._mpi.ANY_SOURCE if source is None else source
        # Every piece brings the head again; that of the first is the one that is read.
        heads = [head, *(np.empty_like(head) for _ in pieces[1:])]
        messages = [_Message(self._mpi, h, piece, sending=False) for h, piece in zip(heads, pieces, strict=True)]
        return self._kept([self._comm.Irecv(m.spec, peer, tag) for m in messages], messages, source)

    def _kept(self, requests: list[Any], messages: list[_Message], peer: int | None) -> Pending:
        pending = _MpiPending(self._mpi, requests, messages, peer)
        self._under_way = [other for other in self._under_way if not other.done()]
        self._under_way.append(pending)
        return pending

    def all_gather_object(self, value: Any) -> list[Any]:
        values: list[Any] = self._comm.allgather(value)
        return values

    def broadcast_object(self, value: Any, root: int) -> Any:
        return self._comm.bcast(value, root)

    def gather_object(self, value: Any, root: int) -> list[Any] | None:
        values: list[Any] | None = self._comm.gather(value, root)
        return values

    def scatter_object(self, values: Sequence[Any] | None, root: int) -> Any:
        return self._comm.scatter(values, root)

    def subgroup(self, ranks: Sequence[int]) -> Communicator:
        members = self._comm.Get_group().Incl(list(ranks))
        return MpiCommunicator(self._comm.Create_group(members))

    def on_this_host(self) -> list[int]:
        host = self._comm.Split_type(self._mpi.COMM_TYPE_SHARED, self.rank)
        ranks: list[int] = host.allgather(self.rank)
        host.Free()
        return ranks

    def post(self, value: Any, to: int) -> Pending:
        return _MpiPending(self._mpi, [self._comm.isend(value, to)], (), to)

    def collect(self) -> list[Any]:
        values = []
        while self._comm.iprobe():
            values.append(self._comm.recv())
        return values


class _Message:
    """A head and a piece of an array as one message; MPI reads or writes its memory until the transfer is done.

    Small ones are copied through one buffer: making a derived type takes longer than that.
    """

    def __init__(self, mpi: Any, head: Array, piece: Array, *, sending: bool) -> None:
        self._parts, self._sending = (head, piece), sending
        self._kind: Any = None
        if piece.nbytes <= _COPIED_BYTES:
            self._buffer = np.concatenate(self._parts) if sending else np.zeros(head.size + piece.size, np.uint8)
            self.spec = [self._buffer, mpi.BYTE]
        else:
            places = [mpi.Get_address(head), mpi.Get_address(piece)]
            self._kind = mpi.Datatype.Create_struct([head.nbytes, piece.nbytes], places, [mpi.BYTE, mpi.BYTE]).Commit()
            self.spec = [mpi.BOTTOM, 1, self._kind]

    def done(self) -> None:
        """The transfer is over: what was received is put in its place."""
        if self._kind is not None:
            self._kind.Free()
        elif not self._sending:
            head, piece = self._parts
            head[...], piece[...] = self._buffer[: head.size], self._buffer[head.size :]


class _MpiPending(Pending):
    def __init__(self, mpi: Any, requests: list[Any], messages: Sequence[_Message], peer: int | None) -> None:
        self._mpi, self._requests, self._messages, self._peer = mpi, requests, messages, peer
        self._statuses = [mpi.Status() for _ in requests]
        self._over = False

    def wait(self) -> int:
        if not self._over:
            self._end(lambda: self._mpi.Request.Waitall(self._requests, self._statuses))
        if self._peer is None:
            self._peer = self._statuses[0].Get_source()
        return self._peer

    def done(self) -> bool:
        return self._over or self._end(lambda: self._mpi.Request.Testall(self._requests, self._statuses))

    def _end(self, complete: Callable[[], Any]) -> bool:
        try:
            self._over = complete() is not False
        except self._mpi.Exception:
            # A message was longer than its buffer, which the head tells better; anything else is the caller's to know.
            kinds = {self._mpi.Get_error_class(status.Get_error()) for status in self._statuses}
            if not kinds <= {self._mpi.SUCCESS, self._mpi.ERR_TRUNCATE}:
                raise
            self._over = True
        if self._over:
            for message in self._messages:
                message.done()
        return self._over


def _bytes(array: Array) -> Array:
    """The array's memory: what is only moved needs no type, and MPI knows no bfloat16."""
    return array.reshape(-1).view(np.uint8)


def _pieces(flat: Array, chunk_bytes: int) -> Iterator[Array]:
    """Slices of a flat array; one empty slice for an empty array, since a collective must be entered by all."""
    step = max(1, chunk_bytes // flat.itemsize)
    for at in range(0, flat.size or 1, step):
        yield flat[at : at + step]


def _columns(width: int, rows: int) -> Iterator[slice]:
    step = max(1, MOVE_CHUNK_BYTES // rows)
    for at in range(0, width or 1, step):
        yield slice(at, min(at + step, width))


def _packed(rows: Array, part: slice) -> Array:
    """Contiguous room for `rows[:, part]`: the rows themselves when the part is all of them."""
    return (
        rows if part.stop - part.start == rows.shape[1] else np.empty((len(rows), part.stop - part.start), rows.dtype)
    )


def _unpack(box: Array, rows: Array, part: slice) -> None:
    if box is not rows:
        rows[:, part] = box


def _reducible(array: Array, op: ReduceOp) -> tuple[Array, ReduceOp]:
    """A flat array that MPI can add up, sharing memory where the dtype allows it, and the operation for it.

    Half precision is reduced in float32: MPI knows no bfloat16, and a sum of many ranks loses bits in it.
    """
    flat = array.reshape(-1)
    if flat.dtype.kind == "V" or flat.dtype == np.float16:
        return flat.astype(np.float32), op
    if flat.dtype == np.bool_:
        return flat.view(np.uint8), _BOOL.get(op, op)
    return flat, op
