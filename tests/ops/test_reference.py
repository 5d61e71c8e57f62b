"""Every op against a reference that shares no code with its kernels: `tests/ops/reference`."""

from __future__ import annotations

import ast
import math
from pathlib import Path

import numpy as np
import pytest

from rushlight_tensor import REGISTRY
from tests.ops.harness import FLOATS, backward_ops, call, numpy_dtype, tensors
from tests.ops.reference import EXCUSED, REFERENCES
from tests.ops.test_registry import EVERY_SAMPLE, close, widened

COMPUTED = [p for p in EVERY_SAMPLE if p.values[0].name in REFERENCES and not p.values[1].mutates and p.values[1].exact]
POINTS = [
    0.0,
    -0.0,
    math.inf,
    -math.inf,
    math.nan,
    1.0,
    -1.0,
    0.5,
    -0.5,
    3.0,
    -3.0,
    6.0,
    20.0,
    25.0,
    -25.0,
    2.5,
    1.5,
    1e-9,
]
NO_POINTS = {"sgn", "bitwise_not", "trigamma", "polygamma"}  # other dtypes; large and rounded beside poles
UNARY = [
    op
    for op in REGISTRY.values()
    if op.name in REFERENCES and op.arity == 1 and op.promote is not None and op.name not in NO_POINTS
]


def test_every_op_has_a_reference_or_a_reason():
    ops = set(REGISTRY) - set(backward_ops())
    missing = ops - set(REFERENCES) - set(EXCUSED)
    assert not missing, f"write a reference in tests/ops/reference, or say why not: {', '.join(sorted(missing))}"
    assert not (set(REFERENCES) | set(EXCUSED)) - ops, "references of ops that do not exist"
    assert not set(REFERENCES) & set(EXCUSED)


def test_references_import_nothing_of_ours():
    for path in Path(__file__).with_name("reference").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(n.startswith("rushlight") for n in names), path.name


def wanted(op, arrays, attrs):
    with np.errstate(all="ignore"):
        out = REFERENCES[op.name](*widened(arrays), **attrs)
    return out if isinstance(out, tuple) else (out,)


@pytest.mark.parametrize(("op", "sample"), COMPUTED)
def test_values_are_those_of_the_reference(op, sample):
    for name in sample.dtypes:
        arrays = sample.arrays(name)
        got = call(op, tensors(arrays), sample.attrs)
        dtype = numpy_dtype(name)
        step = dtype if dtype.kind in "fcV" else np.dtype(np.float32)
        for g, w in zip(got, wanted(op, arrays, sample.attrs), strict=True):
            assert tuple(g.shape) == np.shape(w)
            close(g, w, step, max(sample.ulps, 64), name)


@pytest.mark.parametrize("op", UNARY, ids=lambda op: op.name)
def test_values_at_zeros_infinities_nan_and_kinks(op):
    attrs = {k: v for k, v in op.defaults.items() if v is not None}
    for name in FLOATS[:2]:
        x = np.array(POINTS, name)
        (got,) = call(op, tensors([x]), attrs)
        (want,) = wanted(op, [x], attrs)
        close(got, want, np.dtype(name), 64, name)
