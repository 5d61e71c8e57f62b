"""Point to point: one rank sends a tensor, another receives it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from rushlight_distributed.arguments import Group, array_of, is_plain, peer_of, to_host, write
from rushlight_distributed.communicator import Pending
from rushlight_distributed.contract import Call
from rushlight_distributed.group import ProcessGroup, resolve
from rushlight_distributed.worker import Work
from rushlight_tensor import Tensor
from rushlight_tensor.inplace import touch


class TransferWork(Work):
    """A transfer that `isend` or `irecv` started."""

    def __init__(
        self,
        pg: ProcessGroup,
        call: Call,
        pending: Pending,
        peer: int | None,
        finish: Callable[[], None],
        *,
        sending: bool,
    ) -> None:
        super().__init__(finish)
        self._pg, self._call, self._pending, self._peer, self._sending = pg, call, pending, peer, sending

    def wait(self, timeout: Any = None) -> bool:
        """Block until it is done; True."""
        if not self._done.is_set():
            self._source = self._pg.transfer(self._call, self._peer, self._pending.wait, sending=self._sending)
            self._perform()
        return super().wait(timeout)

    def is_completed(self) -> bool:
        return self._done.is_set() or self._pending.done()

    def source_rank(self) -> int:
        """The world's number of the rank that sent, after `wait`."""
        return self._pg.ranks[self._source]


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
    call: Call = ("send", array.dtype, array.shape, f"dst={pg.ranks[peer]}", f"tag={tag}")
    return TransferWork(pg, call, pg.comm.start_send(to_host(array), peer, tag), peer, lambda: None, sending=True)


def irecv(
    tensor: Tensor, src: int | None = None, group: Group = None, tag: int = 0, group_src: int | None = None
) -> TransferWork | None:
    """Start to receive into `tensor` from rank `src`, or from any; it holds the data after `wait()`."""
    pg = resolve(group)
    if pg is None:
        return None
    array = array_of("tensor", tensor)
    peer = None if src is None and group_src is None else peer_of("src", pg, src, group_src)
    host = array if is_plain(array) else np.empty(array.shape, array.dtype)
    touch(tensor)
    pending = pg.comm.start_receive(host, peer, tag)
    source = "any" if peer is None else pg.ranks[peer]
    call: Call = ("recv", array.dtype, array.shape, f"src={source}", f"tag={tag}")
    finish = (lambda: None) if host is array else (lambda: write(array, host))
    return TransferWork(pg, call, pending, peer, finish, sending=False)


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
    """Receive into `tensor` from rank `src`, or from any; the sender's rank, -1 outside the group."""
    work = irecv(tensor, src, group, tag, group_src)
    if work is None:
        return -1
    work.wait()
    return work.source_rank()
