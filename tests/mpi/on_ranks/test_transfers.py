"""Point to point: what arrives is what was sent, or an error that names both ranks, tensors and lines."""

import re
import time

import numpy as np
import pytest

import rushlight_distributed as dist
import rushlight_tensor as T
from rushlight_tensor.core.tensor import wrap
from tests.mpi.on_ranks.test_collectives import check, strided, values
from tests.mpi.ranks import RANK, SIZE

pytestmark = pytest.mark.mpi(min_size=2)

LONG = (300_000,)  # past what MPI sends before the receiver is there


def of(kind, shape):
    return T.zeros(*shape).to(getattr(T, kind))


# What rank 0 sends, and what rank 1 has room for.
MISFITS = [
    ("float32", (2,), "float32", (4,)),  # would fill a part
    ("float32", (4,), "float32", (2,)),  # would be MPI's bare error
    ("float32", (2,), "int32", (2,)),  # would be other bits
    ("float32", (4,), "float64", (2,)),
    ("float16", (3,), "bfloat16", (3,)),
    ("bool", (8,), "float32", (2,)),
    ("complex64", (2,), "float32", (4,)),
    ("float32", (0,), "float32", (1,)),
    ("float32", (1,), "float32", (0,)),
    ("float32", (), "float32", (2,)),
    ("float32", LONG, "float32", (3,)),
    ("float32", (3,), "float32", LONG),
]


@pytest.mark.parametrize(("kind", "shape", "room_kind", "room"), MISFITS)
@pytest.mark.parametrize("way", ["from one", "asked for", "from anybody", "into strides"])
def test_message_that_does_not_fit_is_named(kind, shape, room_kind, room, way):
    if RANK == 0:
        dist.send(of(kind, shape), 1, tag=3)
    elif RANK == 1:
        tensor = of(room_kind, room)
        if way == "into strides":
            tensor = strided(tensor._array)
        work = dist.irecv(tensor, None if way == "from anybody" else 0, tag=3)
        while way == "asked for" and not work.is_completed():
            pass
        with pytest.raises(RuntimeError) as caught:
            work.wait()
        said = str(caught.value)
        assert "what rank 0 sent is not what rank 1 has room for" in said
        assert re.search(rf"rank 0: send\({kind}{re.escape(str(list(shape)))}, dst=1, tag=3\) at .*\.py:\d+", said)
        assert re.search(rf"rank 1: recv\({room_kind}{re.escape(str(list(room)))}, src=.*, tag=3\) at .*\.py:\d+", said)
    dist.barrier()


def test_message_after_one_that_did_not_fit_arrives():
    if RANK == 0:
        dist.send(T.ones(5), 1)
        dist.send(T.full((2,), 3.0), 1)
    elif RANK == 1:
        x = T.zeros(2)
        with pytest.raises(RuntimeError, match="is not what rank 1 has room for"):
            dist.recv(x, 0)
        assert dist.recv(x, 0) == 0
        assert x.tolist() == [3.0, 3.0]
    dist.barrier()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "bool", "complex64", "int8"])
@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (0,), LONG])
def test_what_is_sent_arrives(dtype, shape):
    left, right = (RANK - 1) % SIZE, (RANK + 1) % SIZE
    x, y = strided(values(RANK, dtype, shape)), strided(values(99, dtype, shape))
    works = [dist.isend(x, right), dist.irecv(y, left)]
    for work in works:
        while not work.is_completed():
            pass
        assert work.wait()
    check(y, values(left, dtype, shape))
    assert works[1].source_rank() == left


def test_shape_may_differ_as_in_pytorch():
    if RANK == 0:
        dist.send(T.arange(6.0).reshape(2, 3), 1)
    elif RANK == 1:
        x = T.zeros(6)
        dist.recv(x, 0)
        assert x.tolist() == [0, 1, 2, 3, 4, 5]


def test_receives_that_are_open_keep_their_order():
    if RANK == 0:
        works = [dist.isend(T.full((n,), float(n)), 1, tag=n % 2) for n in range(1, 9)]
        for work in works:
            work.wait()
    elif RANK == 1:
        xs = [T.zeros(n) for n in range(1, 9)]
        works = [dist.irecv(x, 0, tag=n % 2) for n, x in enumerate(xs, 1)]
        for work in reversed(works):
            work.wait()
        for n, x in enumerate(xs, 1):
            assert x.tolist() == [n] * n
    dist.barrier()


def test_both_ranks_send_before_they_receive_what_was_already_asked_for():
    if RANK < 2:
        x, y = T.full(LONG, float(RANK)), T.zeros(*LONG)
        coming = dist.irecv(y, 1 - RANK)
        dist.send(x, 1 - RANK)
        coming.wait()
        assert y._array[-1] == 1 - RANK
    dist.barrier()


def test_long_messages_travel_in_pieces(monkeypatch):
    monkeypatch.setattr("rushlight_distributed.communicator.MOVE_CHUNK_BYTES", 1000)
    if RANK == 0:
        dist.send(T.arange(5000.0), 1)
        dist.send(T.arange(300.0), 1)
    elif RANK == 1:
        x = T.zeros(5000)
        assert dist.recv(x) == 0
        assert x.tolist() == list(range(5000))
        with pytest.raises(RuntimeError, match=r"send\(float32\[300\]"):
            dist.recv(T.zeros(260), 0)
    dist.barrier()


def test_transfers_that_are_forgotten_keep_their_memory():
    if RANK == 0:
        for n in range(20):
            dist.isend(T.full(LONG, float(n)), 1)  # nobody holds the work, the tensor or its memory
            np.full(LONG, -1.0, np.float32)
    elif RANK == 1:
        time.sleep(0.05)
        for n in range(20):
            x = T.zeros(*LONG)
            dist.recv(x, 0)
            assert (x._array == n).all()
    dist.barrier()


def test_ranks_that_do_not_exist_and_oneself_are_refused():
    x = T.zeros(1)
    for call, word in ((dist.send, "dst"), (dist.isend, "dst"), (dist.recv, "src"), (dist.irecv, "src")):
        with pytest.raises(ValueError, match=f"{word}={RANK} is this rank itself"):
            call(x, RANK)
        for wrong in (SIZE, -1):
            with pytest.raises(ValueError, match=f"Global rank {wrong} is not part of group"):
                call(x, wrong)
        with pytest.raises(TypeError, match="Expected parameter `tensor`"):
            call([1.0], 0)


def test_memory_that_must_not_be_written_is_refused_before_anything_is_sent():
    frozen = np.zeros(3, np.float32)
    frozen.flags.writeable = False
    for tensor in (wrap(frozen), T.zeros(1).expand(3)):
        for call in (lambda t: dist.recv(t, 0), dist.all_reduce, lambda t: dist.all_gather([t] * SIZE, T.zeros(3))):
            with pytest.raises(RuntimeError, match="clone\\(\\) it first"):
                call(tensor)
    dist.barrier()
