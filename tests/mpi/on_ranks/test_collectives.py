"""Every collective on every kind of tensor, compared with the same computation on the list of all ranks' tensors."""

from types import FunctionType

import ml_dtypes
import numpy as np
import pytest

import rushlight_distributed as dist
import rushlight_jit as jit
import rushlight_tensor as T
from rushlight_distributed import ReduceOp, collectives
from rushlight_distributed.communicator import REDUCE_CHUNK_BYTES
from rushlight_tensor import files
from rushlight_tensor.core.tensor import wrap
from tests.mpi.ranks import RANK, SIZE

pytestmark = pytest.mark.mpi(min_size=2)


DTYPES = ["float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool", "complex64"]
SHAPES = [(), (1,), (5,), (3, 4), (0,), (2, 0, 3)]
CHUNKED = (REDUCE_CHUNK_BYTES // 4 * 2 + 7,)


def values(rank, dtype, shape):
    """What a rank contributes; every rank can compute every other's."""
    numbers = np.random.default_rng(rank).integers(0, 4, shape)
    return np.asarray(numbers).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def everyone(dtype, shape):
    return [values(r, dtype, shape) for r in range(SIZE)]


def strided(array):
    """The same values in every second element of a larger array."""
    if array.ndim == 0:
        return wrap(array.copy())
    wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    wide[..., ::2] = array
    return wrap(wide[..., ::2])


def check(tensor, expected):
    assert tensor._array.dtype == expected.dtype
    np.testing.assert_array_equal(tensor._array, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [*SHAPES, CHUNKED])
def test_all_reduce_sums(dtype, shape):
    wide = np.stack(everyone(dtype, shape)).astype("complex64" if dtype == "complex64" else "float64")
    expected = (
        wide.sum(0).astype(bool).astype(dtype) if dtype == "bool" else wide.sum(0).astype(values(0, dtype, ()).dtype)
    )
    for make in (lambda a: wrap(a.copy()), strided):
        x = make(values(RANK, dtype, shape))
        assert dist.all_reduce(x) is None
        check(x, expected)


@pytest.mark.parametrize(
    ("op", "numpy_op"),
    [
        (ReduceOp.SUM, np.add),
        (ReduceOp.PRODUCT, np.multiply),
        (ReduceOp.MIN, np.minimum),
        (ReduceOp.MAX, np.maximum),
        (ReduceOp.BAND, np.bitwise_and),
        (ReduceOp.BOR, np.bitwise_or),
        (ReduceOp.BXOR, np.bitwise_xor),
    ],
)
def test_every_operation(op, numpy_op):
    x = wrap(values(RANK, "int64", (7,)))
    dist.all_reduce(x, op=op)
    check(x, numpy_op.reduce(everyone("int64", (7,))))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_average(dtype):
    x = wrap(values(RANK, dtype, (6,)))
    dist.all_reduce(x, op=ReduceOp.AVG)
    check(x, np.mean([a.astype("float64") for a in everyone(dtype, (6,))], axis=0).astype(x._array.dtype))


def test_half_precision_is_summed_in_float32():
    # 2049 is no float16: added one by one the ones would be lost.
    x = wrap(np.array([2048.0 if RANK == 0 else 0.6], np.float16))
    dist.all_reduce(x)
    check(x, np.array([np.float32(2048) + np.float32(np.float16(0.6)) * (SIZE - 1)], np.float32).astype(np.float16))


def test_bool_sum_is_any_and_product_is_all():
    any_, all_ = T.tensor([RANK == 0, False, True]), T.tensor([RANK == 0, False, True])
    dist.all_reduce(any_)
    dist.all_reduce(all_, op=ReduceOp.PRODUCT)
    assert any_.tolist() == [True, False, True]
    assert all_.tolist() == [False, False, True]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("root", [0, SIZE - 1])
def test_what_is_only_moved(dtype, shape, root):
    mine, all_ = values(RANK, dtype, shape), everyone(dtype, shape)

    x = strided(mine)
    dist.broadcast(x, src=root)
    check(x, all_[root])

    outs = [strided(np.zeros(shape, mine.dtype)) for _ in range(SIZE)]
    dist.all_gather(outs, strided(mine))
    for out, expected in zip(outs, all_, strict=True):
        check(out, expected)

    whole = wrap(np.zeros((SIZE, *shape), mine.dtype))
    dist.all_gather_into_tensor(whole, wrap(mine))
    check(whole, np.stack(all_))

    outs = [strided(np.zeros(shape, mine.dtype)) for _ in range(SIZE)] if root == RANK else None
    dist.gather(wrap(mine), outs, dst=root)
    for out, expected in zip(outs or [], all_, strict=root == RANK):
        check(out, expected)

    x = strided(np.zeros(shape, mine.dtype))
    dist.scatter(x, [wrap(a) for a in all_] if root == RANK else None, src=root)
    check(x, all_[RANK])

    outs = [strided(np.zeros(shape, mine.dtype)) for _ in range(SIZE)]
    dist.all_to_all(outs, [wrap(values(RANK * 100 + r, dtype, shape)) for r in range(SIZE)])
    for r, out in enumerate(outs):
        check(out, values(r * 100 + RANK, dtype, shape))


def test_reduce_leaves_the_other_ranks_alone():
    x = wrap(values(RANK, "float32", (9,)))
    dist.reduce(x, dst=1)
    check(x, np.sum(everyone("float32", (9,)), axis=0) if RANK == 1 else values(RANK, "float32", (9,)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int64"])
@pytest.mark.parametrize("width", [3, 0, REDUCE_CHUNK_BYTES // 8])
def test_reduce_scatter(dtype, width):
    everything = [values(r, dtype, (SIZE, width)) for r in range(SIZE)]
    expected = np.sum([a.astype("float64") for a in everything], axis=0)[RANK].astype(everything[0].dtype)
    out = wrap(np.zeros(width, everything[0].dtype))
    dist.reduce_scatter(out, [wrap(a) for a in everything[RANK]])
    check(out, expected)
    out = wrap(np.zeros(width, everything[0].dtype))
    dist.reduce_scatter_tensor(out, wrap(everything[RANK].reshape(-1)))
    check(out, expected)


def test_all_to_all_single_with_uneven_parts():
    # Rank r sends r + 1 rows of value 10 r + s to every rank s.
    sent = T.tensor([10.0 * RANK + s for s in range(SIZE) for _ in range(RANK + 1)])
    got = T.zeros(sum(r + 1 for r in range(SIZE)))
    dist.all_to_all_single(got, sent, [r + 1 for r in range(SIZE)], [RANK + 1] * SIZE)
    assert got.tolist() == [10.0 * r + RANK for r in range(SIZE) for _ in range(r + 1)]


@pytest.mark.parametrize("kind", ["longer", "shorter", "dtype", "empty"])
def test_all_to_all_that_does_not_fit_is_refused_on_all_ranks(kind):
    # Rank 0 sends rank 1 something else than rank 1 has room for; everything else fits.
    odd = {"longer": T.ones(3), "shorter": T.ones(1), "dtype": T.ones(2).int(), "empty": T.ones(0)}[kind]
    parts = [odd if (RANK, r) == (0, 1) else T.ones(2) for r in range(SIZE)]
    outs = [T.full((2,), -1.0) for _ in range(SIZE)]
    with pytest.raises(dist.ContractError) as caught:
        dist.all_to_all(outs, parts)
    sent = f"{odd._array.dtype}{list(odd.shape)}"
    assert f"rank 0 sends {sent} to rank 1, which has room for float32[2]" in str(caught.value)
    assert str(caught.value).count(" sends ") == 1
    assert f"rank {RANK}: all_to_all() at {__file__}:" in str(caught.value)
    assert all(out.tolist() == [-1.0, -1.0] for out in outs)
    dist.barrier()


def test_all_to_all_single_that_does_not_fit_is_refused_on_all_ranks():
    # All send one row to each; rank 1 expects two of rank 0 and none of itself.
    expected = [2, 0] + [1] * (SIZE - 2) if RANK == 1 else [1] * SIZE
    out = T.full((SIZE, 3), -1.0)
    with pytest.raises(dist.ContractError) as caught:
        dist.all_to_all_single(out, T.ones(SIZE, 3), expected, [1] * SIZE)
    assert "rank 0 sends float32[1, 3] to rank 1, which has room for float32[2, 3]" in str(caught.value)
    assert "rank 1 sends float32[1, 3] to rank 1, which has room for float32[0, 3]" in str(caught.value)
    assert (out._array == -1).all()
    dist.barrier()


@pytest.mark.parametrize(
    ("out", "sent", "splits", "says"),
    [
        ((SIZE, 2), (SIZE, 2), ([SIZE + 1, -1] + [0] * (SIZE - 2), None), "must be .* numbers that add up to"),
        ((SIZE,), (SIZE,), (None, [SIZE]), "must be .* numbers that add up to"),
        ((SIZE + 1,), (SIZE,), (None, None), "cannot share equally"),
        ((), (SIZE,), (None, None), "output is 0-dimensional"),
    ],
)
def test_split_that_makes_no_sense_is_refused(out, sent, splits, says):
    with pytest.raises(ValueError, match=says):
        dist.all_to_all_single(T.zeros(*out) if out else T.tensor(0.0), T.zeros(*sent), *splits)


def test_larger_tensor_holds_the_ranks_parts():
    x = T.zeros(2, 3)
    for shape in [(SIZE, 2, 3), (2 * SIZE, 3), (6 * SIZE,)]:
        dist.all_gather_into_tensor(T.zeros(*shape), x)
        dist.reduce_scatter_tensor(x, T.zeros(*shape))
    for shape in [(2, 3 * SIZE), (3, 2 * SIZE), (SIZE, 3, 2), (6 * SIZE + 1,), (0,)]:
        with pytest.raises(ValueError, match="must hold one part per rank"):
            dist.all_gather_into_tensor(T.zeros(*shape), x)
        with pytest.raises(ValueError, match="must hold one part per rank"):
            dist.reduce_scatter_tensor(x, T.zeros(*shape))
    with pytest.raises(ValueError, match="one dtype, got float64 and float32"):
        dist.all_gather_into_tensor(T.zeros(2 * SIZE, 3).double(), x)


def test_what_is_no_group_is_refused():
    for group in (7, "world", [0, 1]):
        with pytest.raises(ValueError, match="is not initialized in the world group map"):
            dist.all_reduce(T.zeros(1), group=group)
        with pytest.raises(ValueError, match="is not initialized in the world group map"):
            dist.get_rank(group)


OF_A_DTYPE = {  # which operations a dtype has; MPI knows more than PyTorch for some
    "float32": "SUM AVG PRODUCT MIN MAX",
    "bfloat16": "SUM AVG PRODUCT MIN MAX",
    "int32": "SUM PRODUCT MIN MAX BAND BOR BXOR",
    "uint8": "SUM PRODUCT MIN MAX BAND BOR BXOR",
    "bool": "SUM PRODUCT MIN MAX BAND BOR BXOR",
    "complex64": "SUM AVG PRODUCT",
}
IN_NUMPY = {
    "SUM": np.add,
    "PRODUCT": np.multiply,
    "MIN": np.minimum,
    "MAX": np.maximum,
    "BAND": np.bitwise_and,
    "BOR": np.bitwise_or,
    "BXOR": np.bitwise_xor,
}


@pytest.mark.parametrize("op", list(ReduceOp))
@pytest.mark.parametrize("dtype", OF_A_DTYPE)
def test_every_operation_on_every_dtype_in_all_three_collectives(dtype, op):
    mine, all_ = values(RANK, dtype, (3,)), np.stack(everyone(dtype, (3,)))
    calls = {
        "all_reduce": lambda x: dist.all_reduce(x, op),
        "reduce": lambda x: dist.reduce(x, 0, op),
        "reduce_scatter": lambda x: dist.reduce_scatter(x, [x] * SIZE, op),
    }
    if op.name not in OF_A_DTYPE[dtype].split():
        for call in calls.values():
            with pytest.raises(TypeError):
                call(wrap(mine.copy()))
        return
    wide = all_.astype("float64") if dtype == "bfloat16" else all_
    if op is ReduceOp.AVG:
        expected = wide.mean(0)
    elif dtype == "bool":
        expected = {"SUM": np.logical_or, "PRODUCT": np.logical_and}.get(op.name, IN_NUMPY[op.name]).reduce(wide)
    else:
        expected = IN_NUMPY[op.name].reduce(wide, dtype=wide.dtype)
    for name, call in calls.items():
        x = wrap(mine.copy())
        call(x)
        if op is ReduceOp.AVG and not (name == "reduce" and RANK):  # a division, whose last bit may differ
            assert x._array.dtype == mine.dtype
            tolerance = 1e-2 if dtype == "bfloat16" else 1e-6
            np.testing.assert_allclose(x._array.astype(wide.dtype), expected, rtol=tolerance)
        else:
            check(x, mine if name == "reduce" and RANK else expected.astype(mine.dtype))


def test_started_collectives_keep_their_order_among_waiting_ones():
    xs = [T.full((1000,), float(RANK + i)) for i in range(6)]
    works = [dist.all_reduce(x, async_op=True) for x in xs[:3]]
    dist.all_reduce(xs[3])  # runs after the three, on every rank
    works += [dist.all_reduce(x, async_op=RANK % 2 == 0) for x in xs[4:]]
    for work in works:
        assert work is None or work.wait()
    for i, x in enumerate(xs):
        assert x._array[0] == sum(r + i for r in range(SIZE))
    assert all(work is None or (work.is_completed() and work.is_success()) for work in works)


def test_point_to_point_around_a_ring():
    x, y = strided(values(RANK, "bfloat16", (5,))), strided(values(99, "bfloat16", (5,)))
    left, right = (RANK - 1) % SIZE, (RANK + 1) % SIZE
    work = dist.isend(x, right, tag=4)
    assert dist.recv(y, left, tag=4) == left
    work.wait()
    check(y, values(left, "bfloat16", (5,)))
    if RANK == 0:
        seen = set()
        for _ in range(SIZE - 1):
            z = T.zeros(1)
            source = dist.recv(z)
            assert z.item() == source
            seen.add(source)
        assert seen == set(range(1, SIZE))
    else:
        dist.send(T.tensor([float(RANK)]), 0)


def test_objects():
    got = [None] * SIZE
    dist.all_gather_object(got, {"rank": RANK})
    assert got == [{"rank": r} for r in range(SIZE)]
    listed = ["seed", 7] if RANK == 1 else [None, None]
    dist.broadcast_object_list(listed, src=1)
    assert listed == ["seed", 7]
    got = [None] * SIZE if RANK == 0 else None
    dist.gather_object(RANK * 2, got, dst=0)
    assert got == ([r * 2 for r in range(SIZE)] if RANK == 0 else None)
    one = [None]
    dist.scatter_object_list(one, [f"for {r}" for r in range(SIZE)] if RANK == 0 else None, src=0)
    assert one == [f"for {RANK}"]


def test_one_rank_saves_and_all_load(mpi_tmp_path):
    path = mpi_tmp_path / "weights.pt"
    if RANK == SIZE - 1:
        files.save({"w": T.arange(4.0)}, path)
    dist.barrier()
    assert files.load(path)["w"].tolist() == [0, 1, 2, 3]
    dist.barrier()


def test_groups():
    ends, rest = (
        dist.new_group([SIZE - 1, 0]),
        dist.new_group([r for r in range(SIZE) if r not in (0, SIZE - 1)] or [0]),
    )
    x = T.tensor([float(RANK)])
    if RANK in (0, SIZE - 1):
        assert dist.get_process_group_ranks(ends) == [0, SIZE - 1]
        assert dist.get_rank(ends) == (0 if RANK == 0 else 1)
        dist.all_reduce(x, group=ends)
        assert x.item() == SIZE - 1
        dist.broadcast(x, src=SIZE - 1, group=ends)
        dist.broadcast(x, group_src=1, group=ends)
        with pytest.raises(ValueError, match="Global rank 99 is not part of group"):
            dist.broadcast(x, src=99, group=ends)
    else:
        assert ends == dist.group.NON_GROUP_MEMBER
        assert dist.all_reduce(x, group=ends) is None
        assert x.item() == RANK
        assert dist.get_rank(ends) == -1
    if rest != dist.group.NON_GROUP_MEMBER:
        dist.barrier(rest)
        dist.destroy_process_group(rest)
    assert dist.is_initialized()
    dist.barrier()


def test_wrong_arguments_are_refused_before_anything_is_sent():
    x = T.zeros(3)
    with pytest.raises(TypeError, match="Expected parameter `tensor` of type"):
        dist.all_reduce([1.0])
    with pytest.raises(TypeError, match="AVG needs a floating point tensor, got int64"):
        dist.all_reduce(T.tensor([1, 2]), op=ReduceOp.AVG)
    with pytest.raises(TypeError, match="op must be a ReduceOp"):
        dist.all_reduce(x, op="sum")
    with pytest.raises(ValueError, match=f"one tensor per rank is needed: {SIZE}, got 1"):
        dist.all_gather([x], x)
    with pytest.raises(ValueError, match=r"tensor_list\[0\] is float32\[2\], but the tensor is float32\[3\]"):
        dist.all_gather([T.zeros(2)] * SIZE, x)
    with pytest.raises(ValueError, match="src is needed"):
        dist.broadcast(x)
    with pytest.raises(ValueError, match="twice"):
        dist.init_process_group("mpi")
    dist.barrier()


COMMUNICATING = {
    "all_reduce": lambda x: dist.all_reduce(x),
    "all_reduce that is started": lambda x: dist.all_reduce(x, async_op=True).wait(),
    "send": lambda x: dist.send(x, (RANK + 1) % SIZE),
    "recv": lambda x: dist.recv(x, (RANK + 1) % SIZE),
    "all_gather_object": lambda x: dist.all_gather_object([None] * SIZE, 1),
    "new_group": lambda x: dist.new_group([0]),
}


@pytest.mark.parametrize("how", COMMUNICATING)
def test_trace_refuses_what_communicates(how):
    def f(x):
        y = x * 2
        COMMUNICATING[how](y)
        return y

    with pytest.raises(RuntimeError, match=rf"\.py:\d+: {how.split()[0]} exchanges data with other ranks"):
        jit.trace(f, T.ones(2))
    dist.barrier()


def test_compiled_function_that_communicates_does_so_at_every_call():
    """A replay would not: from the second call on it would return what each rank has alone."""

    @jit.compile
    def f(x):
        y = x * 2
        dist.all_reduce(y)
        return y + 1

    for i in range(4):
        total = sum(2 * (r + i) for r in range(SIZE))
        assert f(T.full((2,), float(RANK + i))).tolist() == [total + 1, total + 1]


def fresh():
    return T.ones(2 * SIZE)


def listed():
    return [T.ones(2) for _ in range(SIZE)]


EVERYONE, ROOT, OTHERS = {*range(SIZE)}, {0}, {*range(1, SIZE)}
WRITTEN = {  # name: what is written, on which ranks, the call
    "all_reduce": (lambda: [fresh()], EVERYONE, lambda x: dist.all_reduce(x[0])),
    "reduce": (lambda: [fresh()], ROOT, lambda x: dist.reduce(x[0], 0)),
    "broadcast": (lambda: [fresh()], OTHERS, lambda x: dist.broadcast(x[0], 0)),
    "all_gather": (listed, EVERYONE, lambda x: dist.all_gather(x, T.zeros(2))),
    "all_gather_into_tensor": (lambda: [fresh()], EVERYONE, lambda x: dist.all_gather_into_tensor(x[0], T.zeros(2))),
    "gather": (listed, ROOT, lambda x: dist.gather(T.zeros(2), None if RANK else x, 0)),
    "scatter": (lambda: [T.ones(2)], EVERYONE, lambda x: dist.scatter(x[0], None if RANK else listed(), 0)),
    "reduce_scatter": (lambda: [T.ones(2)], EVERYONE, lambda x: dist.reduce_scatter(x[0], listed())),
    "reduce_scatter_tensor": (lambda: [T.ones(2)], EVERYONE, lambda x: dist.reduce_scatter_tensor(x[0], fresh())),
    "all_to_all": (listed, EVERYONE, lambda x: dist.all_to_all(x, listed())),
    "all_to_all_single": (lambda: [fresh()], EVERYONE, lambda x: dist.all_to_all_single(x[0], fresh())),
    "recv": (lambda: [fresh()], EVERYONE, lambda x: exchange(x[0])),
    "irecv": (lambda: [fresh()], EVERYONE, lambda x: exchange(x[0], wait=True)),
}


def exchange(x, wait=False):
    """Receive from the rank before while the one after receives."""
    sent = dist.isend(fresh(), (RANK + 1) % SIZE)
    got = (dist.irecv if wait else dist.recv)(x, (RANK - 1) % SIZE)
    for work in (sent, got) if wait else (sent,):
        work.wait()


@pytest.mark.parametrize("name", WRITTEN)
def test_a_graph_that_has_saved_what_a_collective_writes_is_refused(name):
    made, ranks, collective = WRITTEN[name]
    written = made()
    losses = [(T.full(x.shape, 2.0).requires_grad_() * x).sum() for x in written]
    collective(written)
    for loss in losses:
        if RANK in ranks:
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                loss.backward()
        else:
            loss.backward()
    dist.barrier()


def test_every_collective_that_writes_is_among_these():
    takes = {"result_of", "results_of", "list_of_root"}
    mine = [
        f for f in vars(collectives).values() if isinstance(f, FunctionType) and f.__module__ == collectives.__name__
    ]
    writing = {f.__name__ for f in mine if takes & {*f.__code__.co_names}}
    assert writing == {*WRITTEN} - {"recv", "irecv"}


def test_local_rank_counts_the_ranks_of_this_host():
    assert dist.get_node_local_rank() == RANK
    assert dist.get_backend() == "mpi"


def test_world_can_be_taken_down_and_made_again():
    dist.destroy_process_group()
    assert not dist.is_initialized()
    with pytest.raises(ValueError, match="Default process group has not been initialized"):
        dist.get_rank()
    dist.init_process_group()
    x = T.ones(1)
    dist.all_reduce(x)
    assert x.item() == SIZE
