"""Every record that claims to run on a GPU does: each sample in each dtype, forward and gradient, as on the host.

On the strict stand-in for CuPy, with the CUDA text on the CPU; and on a GPU, where there is one.
"""

from __future__ import annotations

from collections import defaultdict

import pytest

from rushlight_tensor import REGISTRY
from tests.cuda.machines import ONE_OF_EACH, using
from tests.device.walk import CLAIMING, check, compile_kernels, dtypes_of, samples_of
from tests.ops.harness import backward_ops

ALL = [(op, s, d) for op in CLAIMING for s in samples_of(op) for d in dtypes_of(s)]
NOT_ON_A_GPU = {"random_draw": "numbers are drawn on the host and sent: `device=` of the factories does it"}


@pytest.fixture(scope="module", params=ONE_OF_EACH)
def machine(request):
    with using(request.param) as machine:
        if machine.order is not None:
            compile_kernels(ALL)
        yield machine


@pytest.mark.parametrize("op", CLAIMING, ids=lambda op: op.name)
def test_record_does_on_a_device_what_it_does_on_the_host(machine, op):
    failures = defaultdict(list)
    for i, sample in enumerate(samples_of(op)):
        for dtype in dtypes_of(sample):
            try:
                check(op, sample, dtype)
            except Exception as e:  # all failures are shown, not the first: time on a GPU is short
                failures[f"{type(e).__name__}: {' '.join(str(e).split())[:400]}"].append(f"{i} in {dtype}")
    assert not failures, "\n".join(f"samples {', '.join(where)}: {what}" for what, where in failures.items())


def test_every_record_claims_to_run_on_a_gpu():
    assert {op.name for op in REGISTRY.values()} - {op.name for op in CLAIMING} == set(NOT_ON_A_GPU)
    untried = {op.name for op in CLAIMING if not samples_of(op)} - set(backward_ops())
    assert not untried
