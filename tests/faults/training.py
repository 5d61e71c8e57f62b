"""A small data-parallel training in which rank 1 fails in its second step: `python training.py KIND PLACE`."""

import ctypes
import os
import signal
import sys

import rushlight_distributed as dist
import rushlight_tensor as T
from rushlight_distributed import DistributedDataParallel
from rushlight_nn.modules.module import Module
from rushlight_nn.parameter import Parameter

KIND, PLACE = sys.argv[1:3]
FAILURES = {
    "raise": lambda: exec("raise RuntimeError('boom on rank 1')"),
    "exit 3": lambda: sys.exit(3),
    "exit 0": lambda: sys.exit(0),
    "os._exit 0": lambda: os._exit(0),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": lambda: ctypes.string_at(0),
    "none": lambda: None,
}


def maybe_fail(place, step):
    if (place, step, dist.get_rank()) == (PLACE, 1, 1):
        FAILURES[KIND]()


class Net(Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = Parameter(T.ones(300, 300)), Parameter(T.ones(300))

    def forward(self, x, step):
        maybe_fail("forward", step)
        hidden = x * self.first
        hidden.register_hook(lambda g: maybe_fail("backward", step))
        return (hidden * self.second).sum()


dist.init_process_group("mpi")
model = DistributedDataParallel(Net(), bucket_cap_mb=0.1)
for step in range(3):
    loss = model(T.ones(300, 300), step)
    loss.backward()
    maybe_fail("allreduce", step)
    dist.all_reduce(loss.detach())
print("trained")
