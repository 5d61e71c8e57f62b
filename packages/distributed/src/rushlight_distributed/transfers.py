"""Point to point: one rank sends a tensor, another receives it, and is told when it is not what it has room for."""

from __future__ import annotations

from typing import Any

import numpy as np

from rushlight_distributed.arguments import Group, array_of, is_plain, peer_of, result_of, to_host, write
from rushlight_distributed.communicator import Array, Pending
from rushlight_distributed.contract import Call, Site, call_site, described
from rushlight_distributed.envelope import HEAD_BYTES, fits, opened, sealed
from rushlight_distributed.group import ProcessGroup, resolve, told
from rushlight_distributed.worker import Work
from rushlight_tensor import Tensor
from rushlight_tensor.core.inplace import touch


class TransferWork(Work):
    """A transfer that `isend` or `irecv` started."""

    def __init__(self, pg: ProcessGroup, call: Call, site: Site | None, pending: Pending, peer: int | None) -> None:
        super().__init__(lambda: None)
        self._pg, self._call, self._site, self._pending, self._peer = pg, call, site, pending, peer
        self._source = -1

    def wait(self, timeout: Any = None) -> bool:
        """Block until it is done; True.

        Raises:
            RuntimeError: What arrived has another dtype or another number of elements than the tensor.
        """
        if not self._done.is_set():
            sending = self._call[0] == "send"
            self._source = self._pg.transfer(self._call, self._site, self._peer, self._pending.wait, sending=sending)
            self._perform([])  # whoever waits is told
        return super().wait(timeout)

    def is_completed(self) -> bool:
        return self._done.is_set() or self._pending.done()

    def source_rank(self) -> int:
        """The world's number of the rank that sent, after `wait`."""
        return self._pg.ranks[self._source]


class _Receive(TransferWork):
    """A receive: what arrived is looked at before anybody uses it."""

    def __init__(
        self,
        pg: ProcessGroup,
        call: Call,
        site: Site | None,
        pending: Pending,
        peer: int | None,
        head: Array,
        host: Array,
        array: Any,
    ) -> None:
        super().__init__(pg, call, site, pending, peer)
        self._head, self._host, self._array = head, host, array
        self._run = self._finish

    def _finish(self) -> None:
        if not fits(self._head, self._host):
            envelope = opened(self._head)
            me, sender = self._pg.ranks[self._pg.rank()], self._pg.ranks[self._source]
            contract = self._pg.contract
            if envelope is not None:
                said = envelope.text
            else:  # MPICH keeps the head of a long message that does not fit to itself
                said = (contract.last_sent_by(self._source) if contract is not None else "") or "something longer"
            raise RuntimeError(
                f"recv: what rank {sender} sent is not what rank {me} has room for:\n"
                f"  rank {sender}: {said}\n"
                f"  rank {me}: {described(self._call, self._site)}\n"
                "both tensors must have the same dtype and the same number of elements"
            )
        if self._host is not self._array:
            write(self._array, self._host)


def isend(
    tensor: Tensor, dst: int | None = None, group: Group = None, tag: int = 0, group_dst: int | None = None
) -> TransferWork | None:
    """Start to send `tensor` to rank `dst`; do not change it before `wait()`."""
    pg = resolve(group)
    if pg is None:
        return None
    array, peer = array_of("tensor", tensor), peer_of("dst", pg, dst, group_dst)
    if peer == pg.rank():
        raise ValueError(f"send: dst={pg.ranks[peer]} is this rank itself")
    site = call_site()
    call: Call = ("send", array.dtype, array.shape, f"dst={pg.ranks[peer]}", f"tag={tag}")
    host = to_host(array)
    told(call)
    if pg.contract is not None:
        pg.contract.sends(call, site)
    pending = pg.comm.start_send(sealed(host, call, site), host, peer, tag)
    return TransferWork(pg, call, site, pending, peer)


def irecv(
    tensor: Tensor, src: int | None = None, group: Group = None, tag: int = 0, group_src: int | None = None
) -> TransferWork | None:
    """Start to receive into `tensor` from rank `src`, or from any; it holds the data after `wait()`.

    Raises:
        RuntimeError: By `wait`: what arrived has another dtype or another number of elements.
    """
    pg = resolve(group)
    if pg is None:
        return None
    array = result_of("tensor", tensor)
    peer = None if src is None and group_src is None else peer_of("src", pg, src, group_src)
    if peer == pg.rank():
        raise ValueError(f"recv: src={pg.ranks[peer]} is this rank itself")
    site = call_site()
    source = "any" if peer is None else pg.ranks[peer]
    call: Call = ("recv", array.dtype, array.shape, f"src={source}", f"tag={tag}")
    told(call)
    host = array if is_plain(array) else np.empty(array.shape, array.dtype)
    touch(tensor)
    head = np.zeros(HEAD_BYTES, np.uint8)
    return _Receive(pg, call, site, pg.comm.start_receive(head, host, peer, tag), peer, head, host, array)


def send(
    tensor: Tensor, dst: int | None = None, group: Group = None, tag: int = 0, group_dst: int | None = None
) -> None:
    """Send `tensor` to rank `dst`; returns when it may be changed again."""
    work = isend(tensor, dst, group, tag, group_dst)
    if work is not None:
        work.wait()


def recv(
    tensor: Tensor, src: int | None = None, group: Group = None, tag: int = 0, group_src: int | None = None
) -> int:
    """Receive into `tensor` from rank `src`, or from any; the sender's rank, -1 outside the group.

    Raises:
        RuntimeError: What arrived has another dtype or another number of elements.
    """
    work = irecv(tensor, src, group, tag, group_src)
    if work is None:
        return -1
    work.wait()
    return work.source_rank()
