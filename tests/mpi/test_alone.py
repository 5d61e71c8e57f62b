"""A world of one: plain python, no MPI, no thread, no hook, and the same code."""

import subprocess
import sys
import time

import numpy as np
import pytest

import rushlight_distributed as dist
import rushlight_tensor as T
from rushlight_distributed.worker import Worker

pytestmark = pytest.mark.mpi_skip


@pytest.fixture
def world_of_one():
    dist.init_process_group("gloo")
    yield
    dist.destroy_process_group()


def test_collectives_are_copies_or_nothing(world_of_one):
    x = T.tensor([1.0, 2.0])
    assert dist.all_reduce(x, op=dist.ReduceOp.AVG) is None
    assert dist.all_reduce(x, async_op=True).wait()
    dist.broadcast(x, src=0)
    dist.reduce(x, dst=0)
    dist.barrier()
    outs = [T.zeros(2)]
    dist.all_gather(outs, x)
    dist.gather(x, outs, dst=0)
    dist.scatter(outs[0], [x], src=0)
    dist.reduce_scatter(outs[0], [x])
    dist.all_to_all(outs, [x])
    whole = T.zeros(1, 2)
    dist.all_gather_into_tensor(whole, x)
    assert x.tolist() == outs[0].tolist() == whole.tolist()[0] == [1.0, 2.0]
    objects = [None]
    dist.all_gather_object(objects, "mine")
    assert objects == ["mine"]
    assert (dist.get_rank(), dist.get_world_size(), dist.get_node_local_rank(), dist.get_backend()) == (0, 1, 0, "mpi")
    assert dist.get_rank(dist.new_group([0])) == 0


def test_data_parallel_module_adds_nothing(world_of_one):
    from rushlight_nn.modules.module import Module
    from rushlight_nn.parameter import Parameter

    class Net(Module):
        def __init__(self):
            super().__init__()
            self.weight = Parameter(T.ones(3))

        def forward(self, x):
            return (x * self.weight).sum()

    net = Net()
    ddp = dist.DistributedDataParallel(net)
    assert ddp.reducer is None
    assert net.weight._hooks is None
    with ddp.no_sync():
        ddp(T.tensor([1.0, 2.0, 3.0])).backward()
    np.testing.assert_array_equal(net.weight.grad._array, [1, 2, 3])


def test_sending_to_nobody_is_refused(world_of_one):
    with pytest.raises(ValueError, match="dst=0 is this rank itself"):
        dist.send(T.zeros(1), 0)
    with pytest.raises(ValueError, match="Global rank 1 is not part of group"):
        dist.send(T.zeros(1), 1)


@pytest.mark.parametrize(
    "call", [dist.get_rank, dist.get_world_size, dist.barrier, lambda: dist.all_reduce(T.zeros(1))]
)
def test_without_a_group_the_error_is_pytorchs(call):
    assert not dist.is_initialized()
    with pytest.raises(ValueError, match="Default process group has not been initialized"):
        call()


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"backend": "tcp"}, "unknown backend 'tcp'"),
        ({"init_method": "tcp://x:1"}, "is not needed; MPI knows the ranks"),
        ({"world_size": 4}, "world_size=4 was asked for, but MPI has 1 ranks"),
        ({"rank": 3}, "rank=3 was asked for, but MPI says 0"),
    ],
)
def test_arguments_that_cannot_be_met_are_refused(kwargs, says):
    with pytest.raises(ValueError, match=says):
        dist.init_process_group(**kwargs)
    assert not dist.is_initialized()


def test_failure_that_nobody_waited_for_is_there_as_soon_as_it_is_done():
    class Failures(list):
        def append(self, work):
            assert not work.is_completed()
            time.sleep(0.05)  # the thread may be held up here
            super().append(work)

    def fail():
        raise RuntimeError("lost")

    worker = Worker("test")
    worker._failed = Failures()
    worker.start(fail)
    worker.drain()
    with pytest.raises(RuntimeError, match="lost"):
        worker.tell_failure()
    worker.tell_failure()  # once


def test_import_starts_nothing():
    program = (
        "import sys, threading, rushlight_distributed as dist; dist.init_process_group();"
        "assert threading.active_count() == 1; assert not any(m.startswith('mpi4py') for m in sys.modules);"
        "assert sys.excepthook is sys.__excepthook__"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
