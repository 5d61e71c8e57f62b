"""The contract costs no false alarm: what is allowed to differ, may."""

import os
import threading
import time

import numpy as np
import pytest

import rushlight_distributed as dist
import rushlight_tensor as T
from rushlight_distributed.contract import Contract
from rushlight_distributed.group import default_group
from rushlight_distributed.guard import TICK_S
from tests.mpi.ranks import RANK, SIZE

pytestmark = pytest.mark.mpi(min_size=2)


def test_no_false_alarm_in_many_collectives():
    enough = 50_000 if (os.cpu_count() or 1) >= SIZE else 3_000  # waiting ranks that share a core are slow
    choices = np.random.default_rng(0).integers(0, 5, enough)
    xs = [T.zeros(n) for n in (1, 2, 3, 1000, 0)]
    for choice in choices:
        if choice == 3:
            dist.broadcast(xs[choice], src=int(choice) % SIZE)  # ranks may run ahead of one another
        else:
            dist.all_reduce(xs[choice])
    dist.barrier()


def test_lines_may_differ():
    x = T.zeros(2)
    if RANK == 0:
        dist.all_reduce(x)
    else:
        dist.all_reduce(x)
    dist.barrier()


def test_more_lines_than_the_board_remembers():
    program = "\n".join(["dist.all_reduce(x)"] * 700)
    exec(compile(program, "generated", "exec"), {"dist": dist, "x": T.zeros(1)})


def test_line_that_the_board_forgot_is_written_again(monkeypatch):
    monkeypatch.setattr("rushlight_distributed.contract._TEXTS", 2)
    contract = Contract(default_group().comm, [*range(SIZE)], "test")
    calls = [(f"call {i}", np.dtype(np.float32), (i,)) for i in range(3)]
    for i in (0, 1, 2, 0, 1, 2, 2):
        contract._number += 1
        text = contract._entry(calls[i], None)[1]
        assert contract.said(contract.rank, text).startswith(f"call {i}")


def test_long_waits_in_both_directions_are_no_deadlock():
    x = T.zeros(1)
    for late in range(2):
        if late == RANK:
            time.sleep(3 * TICK_S)
        dist.all_reduce(x)
    if RANK == 0:
        time.sleep(6 * TICK_S)
        dist.send(x, 1)
    elif RANK == 1:
        dist.recv(x, 0)
    dist.barrier()


def test_many_transfers_in_turn_are_not_one_long_wait():
    """The watchdog took them for one: ranks that send to each other all the time were reported as a deadlock."""
    contract = default_group().contract
    seen = set()
    for _ in range(3):
        contract.wait_for((RANK + 1) % SIZE, ("send",), None, sending=True)
        seen.add(contract.pending())
        contract.done_waiting()
        assert contract.pending() == 0
    assert len(seen) == 3
    assert max(seen) < 0
    dist.barrier()


def test_groups_wait_independently():
    pair = dist.new_group([0, 1])
    work = dist.all_reduce(T.zeros(4), async_op=True)
    if RANK == 0:
        time.sleep(8 * TICK_S)
    if RANK < 2:
        dist.barrier(pair)
    work.wait()
    dist.barrier()


def test_only_the_watchdog_runs_beside_the_program():
    names = [t.name for t in threading.enumerate()]
    assert names.count("rushlight-watchdog") == 1
