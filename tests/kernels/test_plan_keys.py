"""What a plan is kept for: a call that differs from the one before in a single thing gives what it gives alone."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

import rushlight  # noqa: F401 - declares every record
from rushlight_autograd import grad
from rushlight_tensor import REGISTRY, manual_seed, tensor
from rushlight_tensor.core import dispatch
from rushlight_tensor.core.tensor import Tensor, wrap
from rushlight_tensor.kernels import accelerator
from rushlight_tensor.kernels.plan import PLANNED
from tests.ops.harness import LAYOUTS, call, laid_out, numpy_dtype, tensors
from tests.ops.samples import SAMPLES

RECORDS = {p.op.name: p for p in PLANNED}
MOST_CALLS = 5  # of one record
OTHERS = {"f": ("float64", "int32", "float16"), "i": ("int32", "int64", "float32"), "b": ("uint8",)}


class Calls:
    """An interceptor that keeps the calls of records with plans, gradients among them; of each kind one."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, tuple[list[Any], dict[str, Any]]]] = {name: {} for name in RECORDS}

    def keep(self, op, arrays, attrs):
        kept = self.kept.get(op.name)
        if kept is not None and len(kept) < MOST_CALLS:
            key = repr(([getattr(x, "shape", x) for x in arrays], attrs))
            kept.setdefault(key, ([np.array(x) if isinstance(x, np.ndarray) else x for x in arrays], dict(attrs)))

    def execute(self, op, arrays, attrs):
        self.keep(op, arrays, attrs)
        return dispatch.run(op, arrays, attrs)

    def recorded(self, node):
        pass

    def read(self, x):
        pass


@functools.cache
def calls_of_samples() -> dict[str, list[Any]]:
    calls = Calls()
    before = dispatch.set_intercept(calls)
    try:
        for op, sample in [(REGISTRY[name], s) for name, samples in SAMPLES.items() for s in samples]:
            arrays = sample.arrays("float32" if "float32" in sample.dtypes else sample.dtypes[0])
            if sample.mutates:
                calls.keep(op, arrays, {**op.defaults, **sample.attrs})
                continue
            xs = tensors(arrays, sample.varied() if sample.grad else None)
            outs = [o for o in call(op, xs, sample.attrs) if o.requires_grad]
            if outs:
                leaves = [x for x in xs if isinstance(x, Tensor) and x.requires_grad]
                grad(outs, leaves, [tensor(np.ones(o.shape), dtype=o.dtype) for o in outs], allow_unused=True)
    finally:
        dispatch.set_intercept(before)
    return {name: list(kept.values()) for name, kept in calls.kept.items()}


def neighbours(arrays, attrs):
    """Calls that differ from this one in the dtype, the order in memory or a size of inputs, in one missing, or in an
    attribute.  Which make sense is not asked: an error has to be the same, too."""
    solid = [x for x in arrays if isinstance(x, np.ndarray)]
    for before in {x.dtype for x in solid}:
        for name in OTHERS.get(before.kind, ()):
            to = numpy_dtype(name)
            yield (
                f"{before} as {to}",
                [x.astype(to) if isinstance(x, np.ndarray) and x.dtype == before else x for x in arrays],
                attrs,
            )
    for i, x in enumerate(arrays):
        if isinstance(x, np.ndarray):
            for layout in LAYOUTS[1:] if x.ndim else ():
                yield f"input {i}: {layout}", [*arrays[:i], laid_out(x, layout), *arrays[i + 1 :]], attrs
            yield f"no input {i}", [*arrays[:i], None, *arrays[i + 1 :]], attrs
    for size in {n for x in solid for n in x.shape if n > 1}:  # one that may stand in several inputs and attributes
        shorter = [
            x[tuple(slice(n - (n == size)) for n in x.shape)].copy() if isinstance(x, np.ndarray) else x for x in arrays
        ]
        sizes = {k: tuple(n - (n == size) for n in v) if "shape" in k else v for k, v in attrs.items()}
        yield f"{size} - 1 for {size}", shorter, sizes
    for name, value in attrs.items():
        for other in others(value):
            yield f"{name}={other!r}", arrays, {**attrs, name: other}


def others(value):
    """Some values beside one of an attribute."""
    if type(value) is bool:
        return [not value]
    if type(value) is int:
        return [value + 1, value - 1, float(value)]
    if type(value) is float:
        return [value / 2, -value, value + 1]
    if type(value) is tuple and value:
        return [(*value[:i], other, *value[i + 1 :]) for i, v in enumerate(value) for other in others(v)]
    return []


def outcome(run, arrays, attrs):
    """The bits of what is made, and of the inputs, which it may write into; or the error."""
    manual_seed(0)
    arrays = [x.copy(order="K") if isinstance(x, np.ndarray) else x for x in arrays]
    try:
        with np.errstate(all="ignore"):
            made = run(*arrays, **attrs)
    except Exception as error:
        return type(error), str(error)
    made = [m._array if isinstance(m, Tensor) else m for m in (made if isinstance(made, tuple) else (made,))]
    return [(z.dtype, z.shape, z.strides, z.tobytes()) for z in map(np.asarray, (*made, *arrays))]


def by_dispatch(op):
    """The op on tensors: there the accelerator keeps plans of its own."""

    def run(*arrays, **attrs):
        return dispatch.call(op, tuple([wrap(x) if isinstance(x, np.ndarray) else x for x in arrays]), attrs)

    return run


def test_every_record_with_a_kernel_has_calls():
    assert [name for name, calls in calls_of_samples().items() if not calls] == []


@pytest.mark.parametrize("name", RECORDS)
def test_a_call_that_differs_in_one_thing_gives_what_it_gives_alone(name):
    planned, found = RECORDS[name], 0
    for arrays, attrs in calls_of_samples()[name]:
        base = outcome(type(planned)(planned.op, planned.kernel, first=False).run, arrays, attrs)
        for what, xs, how in neighbours(arrays, attrs):
            want = outcome(type(planned)(planned.op, planned.kernel, first=False).run, xs, how)
            planned.plans.clear()
            for given, hows, expected in ((arrays, attrs, base), (xs, how, want), (arrays, attrs, base)):
                assert outcome(planned.run, given, hows) == expected, f"after another call: {what}"
            found += isinstance(want, list) and want != base
    assert found > 5


@pytest.mark.parametrize("name", [name for name, p in RECORDS.items() if not p.op.writes])
def test_the_accelerator_keeps_such_calls_apart(name):
    planned, run = RECORDS[name], by_dispatch(RECORDS[name].op)
    for arrays, attrs in calls_of_samples()[name]:
        cases = list(neighbours(arrays, attrs))
        with accelerator.held_off():
            wanted = []
            for _, xs, how in [("itself", arrays, attrs), *cases]:
                planned.plans.clear()
                wanted.append(outcome(run, xs, how))
        for (what, xs, how), want in zip(cases, wanted[1:], strict=True):
            for given, hows, expected in (*[(arrays, attrs, wanted[0])] * 3, *[(xs, how, want)] * 3):
                assert outcome(run, given, hows) == expected, f"after another call: {what}"
