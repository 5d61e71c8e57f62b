"""Every record that claims to run on a GPU does: each sample in each dtype, forward and gradient, as on the host.

On the strict stand-in for CuPy, with the CUDA text on the CPU; and on a GPU, where there is one.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial

import pytest

from rushlight_tensor import REGISTRY
from rushlight_tensor.core import cuda
from tests.cuda.machines import ONE_OF_EACH, WHOLE, using
from tests.device.walk import CLAIMING, check, compile_kernels, dtypes_of, samples_of
from tests.ops.harness import backward_ops


def chosen(op):
    """Number, sample and dtype: all of an op, or the first (see `WHOLE`)."""
    every = [(i, s, d) for i, s in enumerate(samples_of(op)) for d in dtypes_of(s)]
    return every if WHOLE else every[:1]


ALL = [(op, s, d) for op in CLAIMING for _, s, d in chosen(op)]
NOT_ON_A_GPU = {"random_draw": "numbers are drawn on the host and sent: `device=` of the factories does it"}


@pytest.fixture(scope="module", params=ONE_OF_EACH)
def machine(request):
    with using(request.param) as machine:
        if machine.order is not None:
            compile_kernels(ALL)
        yield machine


def failures(checks):
    """All failures are shown, not the first: time on a GPU is short."""
    seen = defaultdict(list)
    for where, check_one in checks:
        try:
            check_one()
        except Exception as e:
            seen[f"{type(e).__name__}: {' '.join(str(e).split())[:400]}"].append(where)
    return "\n".join(f"samples {', '.join(where)}: {what}" for what, where in seen.items())


@pytest.mark.parametrize("op", CLAIMING, ids=lambda op: op.name)
def test_record_does_on_a_device_what_it_does_on_the_host(machine, op):
    found = failures((f"{i} in {d}", partial(check, op, s, d)) for i, s, d in chosen(op))
    assert not found, found


@pytest.mark.parametrize("op", [op for op in CLAIMING if not op.view], ids=lambda op: op.name)
def test_layout_in_memory_does_not_matter(machine, op):
    one = [(i, s, d) for i, s, d in chosen(op) if d == "float32" and not s.mutates]
    found = failures((f"{i}", partial(check, op, s, d, gaps=True)) for i, s, d in one)
    assert not found, found


WITH_A_GRADIENT = [op for op in CLAIMING if op.backward is not None]


@pytest.mark.parametrize("op", WITH_A_GRADIENT, ids=lambda op: op.name)
def test_records_of_gradients_run_on_the_device_too(machine, op, monkeypatch):
    seen, run = set(), cuda.run
    monkeypatch.setattr(cuda, "run", lambda op, *rest: (seen.add(op.name), run(op, *rest))[1])
    for sample in samples_of(op):
        if "float32" in sample.dtypes and op.backward.name not in seen:
            check(op, sample, "float32")
    assert op.backward.name in seen


def test_every_record_claims_to_run_on_a_gpu():
    assert {op.name for op in REGISTRY.values()} - {op.name for op in CLAIMING} == set(NOT_ON_A_GPU)
    untried = {op.name for op in CLAIMING if not samples_of(op)} - set(backward_ops())
    assert not untried
