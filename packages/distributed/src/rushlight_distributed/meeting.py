"""Some ranks of a group meet without the others: `new_group(use_local_synchronization=True)`.

The first member hears from all the others what they are about to do, and tells them to go on. Everybody waits in the
watchdog's sight for one rank at a time, so a rank that does not come is named.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from rushlight_distributed.communicator import Communicator, Pending
from rushlight_distributed.contract import Call, ContractError, Site, call_site, described
from rushlight_distributed.envelope import HEAD_BYTES, opened, sealed

_TAG = 31998  # of these messages, so that no receive of the user matches them
_WORDS = 1


class Transfer(Protocol):
    """`ProcessGroup.transfer`."""

    def __call__(
        self, call: Call, site: Site | None, peer: int | None, wait: Callable[[], int], *, sending: bool
    ) -> int: ...


def meet(comm: Communicator, transfer: Transfer, call: Call, members: Sequence[int]) -> None:
    """Wait until all `members` are in the same call. ContractError, naming two ranks and lines, if they are not."""
    site = call_site()
    mine = described(call, site)
    said = {comm.rank: mine}

    def tell(rank: int) -> None:
        word = np.zeros(_WORDS, np.uint8)
        head = sealed(word, call, site)
        pending: Pending = comm.start_send(head, word, rank, _TAG)
        transfer(call, site, rank, pending.wait, sending=True)

    def hear(rank: int) -> None:
        head, word = np.zeros(HEAD_BYTES, np.uint8), np.zeros(_WORDS, np.uint8)
        pending: Pending = comm.start_receive(head, word, rank, _TAG)
        transfer(call, site, rank, pending.wait, sending=False)
        envelope = opened(head)
        said[rank] = "" if envelope is None else envelope.text

    first, *others = members
    if comm.rank == first:
        for rank in others:
            hear(rank)
        for rank in others:
            tell(rank)
    else:
        tell(first)
        hear(first)
    for rank, words in said.items():
        if words.partition(" at ")[0] != mine.partition(" at ")[0]:
            raise ContractError(
                f"ranks that meet do different things:\n  rank {comm.rank}: {mine}\n  rank {rank}: {words}\n"
                "every member must make the same group"
            )
