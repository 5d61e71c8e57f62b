"""The contract: all ranks of a group call the same collectives, in the same order, on the same shapes and dtypes.

Note [Fingerprints]
    Before a collective, a rank writes on the group's board: its number in the sequence, a hash of (operation, shape,
    dtype), and where in the program it stands.  It compares its neighbours' entries for the same number, before the
    call and after it: if two ranks differ, some neighbours do, and the later of them sees it before it does harm,
    unless both enter in the same microsecond.  That costs about 2 µs.  A rank that is stuck inside is looked after by
    the watchdog (`guard.py`), which compares with everybody.

    The neighbour on another host is told by message: the last rank of a host tells the first of the next one, which
    compares when both have come to that number, at one of its later collectives or at the end of the program.
"""

from __future__ import annotations

import itertools
import sys
import zlib
from collections import deque
from types import CodeType

from rushlight_distributed.board import Board
from rushlight_distributed.communicator import Communicator, Pending
from rushlight_tensor.core.straight import module_of

_ENTERED, _LEFT, _PEER, _TEXT, _SENT, _RING = range(6)  # cells of a row
_ANYBODY = -(1 << 40)  # in _PEER: a receive from whoever sends; else peer + 1 for a send, its negative for a receive
_KEPT = 16  # collectives that the ring remembers, three cells each
_TEXT_BYTES, _TEXTS = 256, 256
_REMEMBERED = 1000  # collectives by which another host may be late and still be compared with
# Modules through which a program's call comes to us: the line to tell is that of the innermost other one.
BETWEEN = ("rushlight_distributed", "rushlight_nn", "rushlight_autograd", "rushlight_tensor", "threading")

_made = itertools.count(1)

Call = tuple[object, ...]
"""What must agree: the operation's name, the shape, the dtype, and what else it has, such as the root."""


Site = tuple[CodeType, int]
"""A place in the program: code, which is held so that its identity stays its own, and an instruction of it."""


class ContractError(RuntimeError):
    """Ranks of a group did not call the same collective, or one will never come."""


class Contract:
    """One rank's side of a group's contract; used by one thread at a time.

    Args:
        comm: The group's communicator; all its ranks make the contract together.
        world_ranks: The world's number of each rank of `comm`.
        name: The group, for messages.
    """

    def __init__(self, comm: Communicator, world_ranks: list[int], name: str) -> None:
        self.board = Board(comm, _RING + 3 * _KEPT, _TEXT_BYTES * _TEXTS)
        self.name, self.rank, self.world_ranks = name, comm.rank, world_ranks
        # The same on all its ranks, and only there.
        self.id: int = comm.broadcast_object(world_ranks[0] << 32 | next(_made), 0)
        self.far = [world_ranks[r] for r in range(comm.size) if r not in self.board.ranks]
        self._bridge = _Bridge(self, comm) if self.far else None
        here = self.board.ranks
        self._cell, self._row = self.board.cell, self.board.row(comm.rank)
        place = here.index(comm.rank)
        self._left = self.board.row(here[place - 1])
        self._right = self.board.row(here[(place + 1) % len(here)])
        self._number = self._transfers = 0
        self._known: dict[Call, tuple[int, int, Site | None]] = {}
        self._keys: list[Call] = []  # by number of text; the oldest makes room for a new one

    def enter(self, call: Call, site: Site | None) -> None:
        """Announce a collective. Raises ContractError if a neighbour's announcement of the same number differs."""
        fingerprint, text = self._entry(call, site)
        cell, row = self._cell, self._row
        self._number = number = self._number + 1
        ring = _RING + number % _KEPT * 3
        cell[row + ring + 1], cell[row + ring + 2] = fingerprint, text
        cell[row + ring] = number
        cell[row + _TEXT] = text
        cell[row] = number
        left, right = self._left + ring, self._right + ring
        if (cell[left] == number and cell[left + 1] != fingerprint) or (
            cell[right] == number and cell[right + 1] != fingerprint
        ):
            self.compare()
        if self._bridge is not None:
            self._bridge.tell(number, fingerprint, text)

    def leave(self) -> None:
        """The collective is over. Raises ContractError as `enter` does."""
        cell, row, number = self._cell, self._row, self._number
        cell[row + _LEFT] = number
        ring = _RING + number % _KEPT * 3
        left = self._left + ring
        if cell[left] == number and cell[left + 1] != cell[row + ring + 1]:
            self.compare()

    def settle(self) -> None:
        """At the end of the program: compare with what another host told last."""
        if self._bridge is not None:
            self._bridge.listen()

    def wait_for(self, peer: int | None, call: Call, site: Site | None, *, sending: bool) -> None:
        """Announce a point-to-point transfer, which is no part of the sequence; `done_waiting` ends it."""
        self._transfers += 1
        self._cell[self._row + _TEXT] = self._entry(call, site)[1]
        self._cell[self._row + _PEER] = _ANYBODY if peer is None else peer + 1 if sending else -peer - 1

    def sends(self, call: Call, site: Site | None) -> None:
        """Note what this rank sends, for a receiver that cannot read the message itself."""
        self._cell[self._row + _SENT] = self._entry(call, site)[1] + 1

    def last_sent_by(self, rank: int) -> str:
        """What a rank of this group, on this host, has sent last; empty if that is unknown."""
        text = self._cell[self.board.row(rank) + _SENT] if rank in self.board.ranks else 0
        return self.said(rank, text - 1) if text else ""

    def done_waiting(self) -> None:
        self._cell[self._row + _PEER] = 0

    def _entry(self, call: Call, site: Site | None) -> tuple[int, int]:
        """The fingerprint of a call, and the number of the text that says what and where it is."""
        key = (call,) if site is None else (call, id(site[0]), site[1])
        known = self._known.get(key)
        if known is not None:
            return known[:2]
        text = len(self._keys)
        if text < _TEXTS:
            self._keys.append(key)
        else:
            text = self._number % _TEXTS
            del self._known[self._keys[text]]
            self._keys[text] = key
        self.board.write_text(self.rank, text * _TEXT_BYTES, described(call, site), _TEXT_BYTES)
        fingerprint = zlib.crc32(repr(call).encode())
        self._known[key] = (fingerprint, text, site)
        return fingerprint, text

    # -- for the watchdog: anything here may be read while others write it, so findings are confirmed a moment later --

    def pending(self) -> int:
        """The number of the collective that this rank is inside, or minus that of the transfer; 0 outside."""
        cell, row = self._cell, self._row
        if cell[row + _PEER]:
            return -self._transfers
        return cell[row] if cell[row] != cell[row + _LEFT] else 0

    def missing(self) -> list[int]:
        """The ranks of this host, by the world's numbers, that have not come to where this rank waits."""
        cell, number = self._cell, self.pending()
        if number < 0:
            peer = cell[self._row + _PEER]
            if peer in (0, _ANYBODY) or abs(peer) - 1 not in self.board.ranks:
                return []
            answer = cell[self.board.row(abs(peer) - 1) + _PEER]
            matched = abs(answer) - 1 == self.rank and (answer > 0) != (peer > 0)
            return [] if matched else [self.world_ranks[abs(peer) - 1]]
        return [self.world_ranks[r] for r in self.board.ranks if cell[self.board.row(r)] < number] if number else []

    def fingerprint(self) -> int:
        """Of the collective that this rank is inside."""
        return self._cell[self._row + _RING + self._number % _KEPT * 3 + 1]

    def here(self) -> str:
        """What this rank waits in: the operation and the line."""
        return self.said(self.rank, self._cell[self._row + _TEXT])

    def last_of(self, world_rank: int) -> str:
        """What a rank was last in, in this group."""
        rank = self.world_ranks.index(world_rank)
        row = self.board.row(rank)
        return self.said(rank, self._cell[row + _TEXT]) if self._cell[row] else "no collective yet"

    def compare(self) -> None:
        """Raise ContractError if any rank of this host announced something else under this rank's number."""
        cell, number = self._cell, self._number
        ring = _RING + number % _KEPT * 3
        mine = cell[self._row + ring + 1]
        for rank in self.board.ranks:
            row = self.board.row(rank)
            if cell[row + ring] == number and cell[row + ring + 1] != mine:
                mine_said = self.said(self.rank, cell[self._row + ring + 2])
                said = {
                    self.world_ranks[self.rank]: mine_said,
                    self.world_ranks[rank]: self.said(rank, cell[row + ring + 2]),
                }
                raise disagreement(number, self.name, said)

    def said(self, rank: int, text: int) -> str:
        """The text of that number on a rank's row: an operation and a line."""
        return self.board.read_text(rank, text * _TEXT_BYTES, _TEXT_BYTES)


class _Bridge:
    """Tells the fingerprints of a host's last rank to the first rank of the next host."""

    def __init__(self, contract: Contract, comm: Communicator) -> None:
        self._contract = contract
        self._comm = comm.subgroup(range(comm.size))
        here = contract.board.here
        hosts = sorted(set(comm.all_gather_object((here[0], here[-1]))))
        at = hosts.index((here[0], here[-1]))
        self._next = hosts[(at + 1) % len(hosts)][0] if comm.rank == here[-1] else None
        self._previous = hosts[at - 1][1] if comm.rank == here[0] else None
        self._sent: deque[Pending] = deque()
        self._mine: dict[int, tuple[int, int]] = {}
        self._told: dict[int, tuple[int, str]] = {}

    def tell(self, number: int, fingerprint: int, text: int) -> None:
        if self._next is not None:
            said = self._contract.said(self._contract.rank, text)
            self._sent.append(self._comm.post((number, fingerprint, said), self._next))
            while self._sent and self._sent[0].done():
                self._sent.popleft()
        if self._previous is not None:
            self._mine[number] = (fingerprint, text)
            self._mine.pop(number - _REMEMBERED, None)
            self.listen()

    def listen(self) -> None:
        """Raise ContractError if the previous host's rank announced something else under a number."""
        if self._previous is None:
            return
        self._told.update({number: (fingerprint, said) for number, fingerprint, said in self._comm.collect()})
        for number in [n for n in self._told if n in self._mine]:
            (theirs, said), (mine, text) = self._told.pop(number), self._mine.pop(number)
            if theirs != mine:
                contract = self._contract
                raise disagreement(
                    number,
                    contract.name,
                    {
                        contract.world_ranks[contract.rank]: contract.said(contract.rank, text),
                        contract.world_ranks[self._previous]: said,
                    },
                )


def disagreement(number: int, group: str, said: dict[int, str]) -> ContractError:
    """The error that names the ranks, and what each of them is in."""
    lines = [f"  rank {rank}: {words}" for rank, words in said.items()]
    return ContractError(
        "\n".join([f"ranks disagree on collective {number} of {group}:", *lines])
        + "\nevery rank must call the same collectives in the same order, with equal shapes and dtypes"
    )


def call_site() -> Site | None:
    """Where the program called this package; None in a thread of ours."""
    frame = sys._getframe(2)  # this and its caller are ours
    while module_of(frame).startswith(BETWEEN):
        if frame.f_back is None:
            return None
        frame = frame.f_back
    return frame.f_code, frame.f_lasti


def line_of(site: Site | None) -> str:
    """`train.py:7`, as a clickable path."""
    if site is None:
        return "a background thread"
    code, instruction = site
    lines = (line for begin, end, line in code.co_lines() if begin <= instruction < end)
    return f"{code.co_filename}:{next(lines, None) or code.co_firstlineno}"


def described(call: Call, site: Site | None) -> str:
    """`all_reduce(float32[4, 2], SUM) at train.py:7` from ("all_reduce", "float32", (4, 2), "SUM")."""
    name, *rest = call
    words = [str(word) for word in rest]
    if len(rest) >= 2 and isinstance(rest[1], tuple):
        words[:2] = [f"{rest[0]}{list(rest[1])}"]
    where = f"in {line_of(site)}" if site is None else f"at {line_of(site)}"
    return f"{name}({', '.join(words)}) {where}"
