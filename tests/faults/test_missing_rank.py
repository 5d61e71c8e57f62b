"""One rank calls something that all must call: who waits, who is missing, and both lines are told within seconds."""

import pytest

from tests.launch.job import mpirun

pytestmark = [pytest.mark.mpirun, pytest.mark.mpi_skip]

START = """
import time
import rushlight_distributed as dist
import rushlight_tensor as T
from rushlight_distributed import DistributedDataParallel, guard
from rushlight_nn.modules.module import Module
from rushlight_nn.parameter import Parameter

guard.WARN_S = 0.5

class Net(Module):
    def __init__(self):
        super().__init__()
        self.w, self.b = Parameter(T.ones(3)), Parameter(T.ones(1))
        self.register_buffer("calls", T.zeros(1))

    def forward(self, x):
        return (x * self.w + self.b).sum()

dist.init_process_group()
RANK = dist.get_rank()
x = T.ones(3)
ddp = DistributedDataParallel(Net())
loss = ddp(x)
alone = DistributedDataParallel(Net(), broadcast_buffers=False)
"""

# What rank 0 calls, and how messages name it.
CALLS = {
    "barrier": ("dist.barrier()", "barrier()"),
    "new_group": ("dist.new_group([0, 1])", "new_group(ranks=[0, 1])"),
    "new_group of others": ("dist.new_group([1])", "new_group(ranks=[1])"),
    "new_group of members": (
        "dist.new_group([0, 1], use_local_synchronization=True)",
        "new_group(ranks=[0, 1])",
    ),
    "DDP": ("DistributedDataParallel(Net())", "DistributedDataParallel()"),
    "backward": ("loss.backward()", "gradients of b, w(float32[4])"),
    "started": ("dist.all_reduce(x, async_op=True).wait()", "all_reduce(float32[3], SUM)"),
    "objects": ("dist.all_gather_object([None, None], 1)", "all_gather_object()"),
}


@pytest.fixture
def run(tmp_path):
    def on_two_ranks(text):
        path = tmp_path / "program.py"
        path.write_text(START + text)
        return mpirun(2, [path])

    return on_two_ranks


def line_of(text, mark):
    return next(n for n, line in enumerate((START + text).splitlines(), 1) if line.endswith(f"# {mark}"))


def test_late_rank_is_told_of_in_every_call(run):
    text = ""
    for i, (call, _) in enumerate(CALLS.values()):
        text += f"dist.barrier()\nif RANK == 1:\n    time.sleep(0.9)  # late {i}\n{call}  # call {i}\n"
    ended = run(text + "dist.barrier()\nprint('arrived')")
    assert ended.code == 0, ended.err
    assert ended.out.count("arrived") == 2
    for i, (_, name) in enumerate(CALLS.values()):
        first = f"in {name} at "
        told = [at for at in ended.err.split("rank 0 has waited ") if first in at]
        told = [at for at in told if f"program.py:{line_of(text, f'call {i}')}, " in at.partition("\n")[0]]
        assert told, f"{name}: {ended.err}"
        assert f"program.py:{line_of(text, f'late {i}')}" in told[0].partition("rank 1 is at ")[2]


@pytest.mark.parametrize("kind", ["new_group of members", "DDP", "backward"])
def test_rank_that_has_left_is_named(run, kind):
    call, name = CALLS[kind]
    text = f"if RANK == 0:\n    {call}  # here\n"
    ended = run(text)
    assert ended.code != 0
    last = ended.err[ended.err.rindex("Traceback") :]
    assert f"rank 0 waits in vain in {name} at " in last
    assert f"program.py:{line_of(text, 'here')}, " in last
    assert "rank 1 has left" in last


@pytest.mark.parametrize("kind", ["new_group", "new_group of others", "new_group of members", "DDP", "backward"])
def test_rank_that_is_in_another_call_is_named(run, kind):
    call, name = CALLS[kind]
    text = f"if RANK == 0:\n    {call}  # here\nelse:\n    dist.all_reduce(x)  # there\n"
    ended = run(text)
    assert ended.code != 0
    last = ended.err[ended.err.rindex("Traceback") :]
    assert name.partition("(")[0] in last
    assert "all_reduce(float32[3], SUM)" in last
    for mark in ("here", "there"):
        assert f"program.py:{line_of(text, mark)}" in last, ended.err


def test_forward_on_one_rank_alone_is_named(run):  # of a rank that waits for rank 0's buffers; rank 0 gives and goes on
    text = "if RANK == 1:\n    ddp(x)  # here\nelse:\n    dist.all_reduce(x)  # there\n"
    ended = run(text)
    assert ended.code != 0
    last = ended.err[ended.err.rindex("Traceback") :]
    assert "broadcast of buffers(uint8[4])" in last
    for mark in ("here", "there"):
        assert f"program.py:{line_of(text, mark)}" in last, ended.err


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ("dist.new_group([0, 1])", "dist.new_group([0])"),
        ("dist.new_group([0, 1], sort_ranks=False)", "dist.new_group([1, 0], sort_ranks=False)"),
        (
            "dist.new_group([0, 1], use_local_synchronization=True)",
            "dist.new_group([1, 0], sort_ranks=False, use_local_synchronization=True)",
        ),
    ],
)
def test_groups_that_differ_are_named(run, here, there):
    text = f"if RANK == 0:\n    {here}  # here\nelse:\n    {there}  # there\n"
    ended = run(text)
    assert ended.code != 0
    last = ended.err[ended.err.rindex("Traceback") :]
    for mark in ("here", "there"):
        assert f"program.py:{line_of(text, mark)}" in last, ended.err


def test_the_same_ranks_in_another_order_are_the_same_group(run):
    ended = run(
        "group = dist.new_group([0, 1] if RANK else [1, 0])\ndist.all_reduce(x, group=group)\nprint(x.tolist())"
    )
    assert ended.code == 0, ended.err
    assert ended.out.count("[2.0, 2.0, 2.0]") == 2


def test_exchange_that_one_rank_leaves_out_is_named(run):
    text = """
for step in range(3):
    if RANK == 1 and step == 1:
        with alone.no_sync():
            alone(x).backward()
    else:
        alone(x).backward()  # here
"""
    ended = run(text)
    assert ended.code != 0
    last = ended.err[ended.err.rindex("Traceback") :]
    assert "rank 0 waits in vain in gradients of b, w(float32[4]) at " in last
    assert f"program.py:{line_of(text, 'here')}, " in last


def test_world_that_one_rank_makes_again_is_named(run):
    text = "dist.destroy_process_group()\nif RANK == 0:\n    dist.init_process_group()  # here\n"
    ended = run(text)
    assert ended.code != 0
    assert "rank 0 waits in vain in init_process_group() at " in ended.err
    assert f"program.py:{line_of(text, 'here')}, all ranks" in ended.err


def test_group_that_one_rank_has_taken_down_is_named(run):
    text = """
group = dist.new_group([0, 1])
if RANK == 1:
    dist.destroy_process_group(group)
    time.sleep(1.2)  # there
else:
    dist.barrier(group)  # here
"""
    ended = run(text)
    assert ended.code != 0
    assert f"program.py:{line_of(text, 'there')}" in ended.err
    assert "rank 0 waits in vain in barrier() at " in ended.err


def test_error_that_nobody_waited_for_ends_the_job(run):
    text = """
x = [T.zeros(2 + RANK), T.zeros(2 + RANK)]
dist.all_to_all([T.zeros(2), T.zeros(2)], x, async_op=True)  # here
dist.barrier()
"""
    ended = run(text)
    assert ended.code != 0
    last = ended.err[ended.err.rindex("Traceback") :]
    assert "rank 1 sends float32[3] to rank 0, which has room for float32[2]" in last
    assert f"program.py:{line_of(text, 'here')}" in last


def test_first_call_of_one_rank_alone_is_told(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(
        "import time\nfrom mpi4py import MPI\nimport rushlight_distributed as dist\n"
        "from rushlight_distributed import guard\nguard.WARN_S = 0.4\n"
        "if MPI.COMM_WORLD.rank:\n    time.sleep(1.5)\n"
        "dist.init_process_group()\nprint('up')\n"
    )
    ended = mpirun(2, [path])
    assert (ended.code, ended.out) == (0, "up\nup\n"), ended.err
    assert f"rank 0 of 2 has waited 0 s in init_process_group at {path}:8: not all other ranks call it" in ended.err
