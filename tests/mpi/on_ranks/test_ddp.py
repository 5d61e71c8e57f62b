"""DistributedDataParallel on n ranks computes what one process computes on the whole batch."""

import time

import numpy as np
import pytest

import rushlight_distributed as dist
import rushlight_tensor as T
from rushlight_autograd import enable_grad
from rushlight_distributed import DistributedDataParallel
from rushlight_distributed.exchange import MpiExchange, SharedExchange
from rushlight_distributed.reducer import FIRST_BUCKET_BYTES, assign_buckets
from rushlight_nn.modules.module import Module
from rushlight_nn.parameter import Parameter
from tests.mpi.ranks import RANK, SIZE

pytestmark = pytest.mark.mpi(min_size=2)

BATCH = 4 * SIZE


@pytest.fixture(autouse=True, params=["shared memory", "mpi"])
def way_of_exchange(request, monkeypatch):
    def no_room(size, folders):
        raise OSError("no room, says the test")

    if request.param == "mpi":
        monkeypatch.setattr("rushlight_distributed.exchange.make_file", no_room)
    return request.param


class Net(Module):
    """A few layers of different sizes, a 0-d parameter, a frozen one, and a buffer that forward changes."""

    def __init__(self, seed=0, dtype="float32"):
        super().__init__()
        random = np.random.default_rng(seed)

        def parameter(*shape):
            return Parameter(T.tensor(random.normal(size=shape) / 8).to(getattr(T, dtype)))

        self.first, self.bias = parameter(64, 96), parameter(96)
        self.second, self.scale = parameter(96, 10), parameter()
        self.frozen = Parameter(T.ones(10).to(getattr(T, dtype)), requires_grad=False)
        self.register_buffer("calls", T.tensor(seed))

    def forward(self, x):
        self.calls.add_(1)
        return T.matmul(T.tanh(T.matmul(x, self.first) + self.bias), self.second) * self.scale * self.frozen


def whole_batch(seed=1):
    return T.tensor(np.random.default_rng(seed).normal(size=(BATCH, 64)).astype("float32"))


def shard(x, rank=RANK, parts=SIZE):
    return T.tensor(np.ascontiguousarray(np.split(x._array, parts)[rank]))


def loss_of(y):
    return (y * y).mean()


def gradients(module):
    return {name: p.grad._array.copy() for name, p in module.named_parameters() if p.grad is not None}


def reference(x, **kwargs):
    net = Net(**kwargs)
    loss_of(net(x)).backward()
    return gradients(net)


def assert_close(found, expected, rtol=1e-5):
    assert found.keys() == expected.keys()
    for name, g in expected.items():
        wide = g.astype("float64")
        np.testing.assert_allclose(found[name].astype("float64"), wide, rtol=rtol, atol=rtol * np.abs(wide).max())


@pytest.mark.parametrize("as_views", [False, True])
@pytest.mark.parametrize("bucket_mb", [None, 0.001, 1000])
def test_gradients_are_those_of_the_whole_batch(bucket_mb, as_views):
    x, net = whole_batch(), Net()
    ddp = DistributedDataParallel(net, bucket_cap_mb=bucket_mb, gradient_as_bucket_view=as_views)
    for _ in range(3):
        for p in net.parameters():
            p.grad = None
        loss_of(ddp(shard(x))).backward()
        assert_close(gradients(net), reference(x))
    if as_views:
        bucket = ddp.reducer.buckets[0]
        assert np.may_share_memory(net.scale.grad._array, bucket.views[0])


def test_buckets_are_shared_where_there_is_room(way_of_exchange):
    ddp = DistributedDataParallel(Net())
    expected = SharedExchange if way_of_exchange == "shared memory" else MpiExchange
    assert type(ddp.reducer._exchange) is expected


def test_gradients_that_are_zeroed_in_place_serve_again():
    x, net = whole_batch(), Net()
    for as_views in (False, True):
        ddp = DistributedDataParallel(net, gradient_as_bucket_view=as_views)
        for _ in range(2):
            for p in net.parameters():
                if p.grad is not None:
                    p.grad._array[...] = 0
            loss_of(ddp(shard(x))).backward()
            assert_close(gradients(net), reference(x))
        for handle in ddp.reducer._handles:
            handle.remove()


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_accumulation_without_exchange_equals_the_big_batch(steps):
    x, net = whole_batch(), Net()
    ddp = DistributedDataParallel(net, broadcast_buffers=False)
    mine = shard(x)
    for k in range(steps - 1):
        with ddp.no_sync():
            (loss_of(ddp(shard(mine, k, steps))) * (1 / steps)).backward()
    (loss_of(ddp(shard(mine, steps - 1, steps))) * (1 / steps)).backward()
    assert_close(gradients(net), reference(x))


def test_buckets_are_sent_in_their_order_when_gradients_come_in_another():
    class Backwards(Module):
        """Layers that are used in the reverse order of their registration, and so are final in its order."""

        def __init__(self):
            super().__init__()
            random = np.random.default_rng(0)
            for i in range(6):
                weight = T.tensor((random.normal(size=(64, 64)) / 8).astype("float32"))
                setattr(self, f"layer{i}", Parameter(weight))

        def forward(self, x):
            for i in reversed(range(6)):
                x = T.tanh(T.matmul(x, getattr(self, f"layer{i}")))
                x.register_hook(lambda g: time.sleep(0.01))  # what is sent too early is not yet there
            return x

    x, net = whole_batch(), Backwards()
    loss_of(net(x)).backward()
    expected = gradients(net)
    net = Backwards()
    ddp = DistributedDataParallel(net, bucket_cap_mb=0.01)
    assert len(ddp.reducer.buckets) == 6
    for _ in range(2):
        net.zero_grad()
        loss_of(ddp(shard(x))).backward()
        assert_close(gradients(net), expected)


def test_backward_inside_the_backward_of_a_wrapped_module_is_refused():
    net = Net()
    ddp = DistributedDataParallel(net)
    x = shard(whole_batch())
    y = ddp(x)

    def again(g):
        with enable_grad():
            loss_of(net(x)).backward()

    y.register_hook(again)
    with pytest.raises(RuntimeError, match=r"the gradient of .* became final twice before the end of a backward pass"):
        loss_of(y).backward()
    net.zero_grad()
    loss_of(ddp(x)).backward()  # and the next pass is as ever
    assert_close(gradients(net), reference(whole_batch()))


def test_values_of_rank_0_count_as_a_write():
    net = Net(seed=RANK)
    before = net.first._version
    product = net.first.detach() * T.ones(64, 96, requires_grad=True)
    DistributedDataParallel(net)
    assert (net.first._version > before) == (RANK != 0)
    if RANK:
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            product.sum().backward()


def test_gradients_stay_on_their_rank_without_exchange():
    x, net, alone = whole_batch(), Net(), Net()
    ddp = DistributedDataParallel(net)
    with ddp.no_sync():
        loss_of(ddp(shard(x))).backward()
    loss_of(alone(shard(x))).backward()
    assert_close(gradients(net), gradients(alone))


def test_half_precision_is_averaged_in_float32():
    net = Net(dtype="bfloat16")
    ddp = DistributedDataParallel(net)
    loss_of(ddp(shard(whole_batch()).to(T.bfloat16))).backward()
    assert all(b.views[0].dtype == np.float32 for b in ddp.reducer.buckets)
    assert str(net.first.grad._array.dtype) == "bfloat16"
    assert_close(gradients(net), dict(reference(whole_batch()).items()), rtol=0.05)


def test_ranks_start_as_rank_0_and_stay_equal():
    net = Net(seed=RANK)  # every rank its own weights and buffer
    ddp = DistributedDataParallel(net)
    expected = Net(seed=0)
    for (name, p), (_, e) in zip(net.named_parameters(), expected.named_parameters(), strict=True):
        np.testing.assert_array_equal(p._array, e._array, err_msg=name)
    assert net.calls.item() == 0
    for step in range(5):
        for p in net.parameters():
            p.grad = None
        loss_of(ddp(shard(whole_batch(step)))).backward()
        for p in net.parameters():
            if p.grad is not None:
                p._array[...] -= 0.1 * p.grad._array
    mine = b"".join(p._array.tobytes() for p in net.parameters())
    everyone = [None] * SIZE
    dist.all_gather_object(everyone, mine)
    assert all(theirs == mine for theirs in everyone)


def test_buffers_are_those_of_rank_0_in_training_only():
    net = Net()
    ddp = DistributedDataParallel(net)
    net.calls.copy_(T.tensor(RANK + 5))
    ddp(shard(whole_batch()))
    assert net.calls.item() == 6
    net.calls.copy_(T.tensor(RANK + 5))
    ddp.eval()
    if RANK == 0:  # evaluation on one rank alone must not wait for the others
        ddp(shard(whole_batch()))
    assert net.calls.item() == (6 if RANK == 0 else RANK + 5)
    dist.barrier()


class Branches(Module):
    def __init__(self):
        super().__init__()
        self.always, self.sometimes, self.never = (Parameter(T.ones(3)) for _ in range(3))

    def forward(self, use):
        y = self.always * 2.0
        return (y * self.sometimes if use else y).sum()


def test_unused_parameters_are_named():
    ddp = DistributedDataParallel(Branches())
    with pytest.raises(RuntimeError, match=r"2 parameter\(s\) got no gradient in this .*: sometimes, never;"):
        ddp(False).backward()
    dist.barrier()


def test_unused_parameters_are_allowed_when_asked_for():
    net = Branches()
    ddp = DistributedDataParallel(net, find_unused_parameters=True)
    for _ in range(2):
        for p in net.parameters():
            p.grad = None
        ddp(RANK == 0).backward()
        np.testing.assert_allclose(net.always.grad._array, 2.0)
        np.testing.assert_allclose(net.sometimes.grad._array, 2.0 / SIZE)
        assert net.never.grad is None


def wider(net):
    net.bias = Parameter(T.ones(5))


def frozen(net):
    net.bias = Parameter(T.ones(96), requires_grad=False)


def longer(net):
    net.more = Parameter(T.ones(1))


def other_buffer(net):
    net.register_buffer("calls", T.zeros(3))


@pytest.mark.parametrize(
    ("change", "options", "says"),
    [
        (wider, {}, r"rank 1 has bias, a parameter of .*\[5\]; rank 0 has bias, a parameter of .*\[96\]"),
        (frozen, {}, "rank 1 has bias, a frozen parameter of .*; rank 0 has bias, a parameter of"),
        (longer, {}, "rank 1 has 6 parameters, rank 0 has 5, such as more"),
        (other_buffer, {}, r"rank 1 has calls, a buffer of .*float32\[3\]; rank 0 has calls, a buffer of .*int64\[\]"),
        (lambda net: None, {"bucket_cap_mb": 1}, "rank 1 was given bucket_cap_mb=1, rank 0 bucket_cap_mb=None"),
        (lambda net: None, {"find_unused_parameters": True}, "rank 1 was given find_unused_parameters=True"),
    ],
)
def test_modules_that_differ_are_refused_on_all_ranks(change, options, says):
    net = Net()
    if RANK == 1:
        change(net)
    with pytest.raises(RuntimeError, match=says):
        DistributedDataParallel(net, **(options if RANK == 1 else {}))


def test_looks_like_the_module_behind_a_prefix():
    net = Net()
    ddp = DistributedDataParallel(net)
    assert ddp.module is net
    assert list(ddp.state_dict()) == [f"module.{name}" for name in net.state_dict()]
    with pytest.raises(RuntimeError, match="doesn't have any parameters that require a gradient"):
        DistributedDataParallel(Module())


def test_group_of_some_ranks():
    pair = dist.new_group([0, 1])
    if RANK < 2:
        x, net = whole_batch(), Net()
        ddp = DistributedDataParallel(net, process_group=pair)
        loss_of(ddp(shard(x, RANK, 2))).backward()
        assert_close(gradients(net), reference(x))
    dist.barrier()


class Mixed(Module):
    """Parameters of several dtypes side by side."""

    def __init__(self):
        super().__init__()
        for i, dtype in enumerate([T.float32, T.float64, T.float16, T.float64, T.float32]):
            setattr(self, f"p{i}", Parameter(T.full((3,), 0.5, dtype=dtype)))

    def forward(self, x):
        return sum((p.double() * x).sum() for p in self.parameters())


@pytest.mark.parametrize("views", [False, True])
def test_gradients_of_several_dtypes_are_summed_and_kept_in_their_own(views):
    model = DistributedDataParallel(Mixed(), gradient_as_bucket_view=views)
    fine = 1 + 2.0**-40  # which float32 does not hold
    for _ in range(2):
        model.zero_grad()
        model(T.full((3,), fine * (RANK + 1), dtype=T.float64)).backward()
        mean = fine * (SIZE + 1) / 2
        for p in model.parameters():
            assert p.grad.dtype is p.dtype
            np.testing.assert_array_equal(p.grad.numpy(), np.asarray(mean).astype(p.grad.numpy().dtype))


def test_buckets_begin_with_a_small_one_from_the_last_parameter_on():
    params = [T.zeros(FIRST_BUCKET_BYTES // 8) for _ in range(12)]  # half of the first bucket
    buckets = assign_buckets(params, 4 * FIRST_BUCKET_BYTES)
    assert buckets == [[11, 10], [9, 8, 7, 6, 5, 4, 3, 2], [1, 0]]
    assert assign_buckets(params[:3], 1) == [[2], [1], [0]]
    dtypes = [T.float16, T.float32, T.float64]  # half types travel as float32
    assert assign_buckets([T.zeros(2, dtype=d) for d in dtypes], 1 << 20) == [[2], [1, 0]]
