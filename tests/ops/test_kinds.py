"""Kinds: every record has one, and those of which nothing follows are few and say why."""

from __future__ import annotations

import numpy as np
import pytest

from rushlight_tensor import REGISTRY
from rushlight_tensor.core import kinds
from rushlight_tensor.core.infer import Aval
from rushlight_tensor.core.op import Op
from tests.ops import test_registry

OPAQUE_AT_MOST = 40


def test_opaque_records_are_few_and_say_why():
    opaque = {op.name: op.kind.why for op in REGISTRY.values() if isinstance(op.kind, kinds.Opaque)}
    assert len(opaque) <= OPAQUE_AT_MOST
    assert all(len(why.split()) >= 2 for why in opaque.values()), opaque


@pytest.mark.parametrize(
    ("says", "fields"),
    [
        ("which kind", {}),
        ("wrong_name", {"kind": kinds.rows("wrong_name")}),
        ("wrong_name", {"kind": kinds.rows("dim", shared=("wrong_name",))}),
    ],
)
def test_a_record_without_a_kind_or_with_unknown_names_in_it_is_refused(says, fields):
    def infer(x, dim=0):
        return x

    with pytest.raises(AssertionError, match=says):
        Op("op_of_no_kind", infer=infer, numpy=np.copy, vjp=None, **fields)
    assert "op_of_no_kind" not in REGISTRY


def test_views_are_of_the_kind_of_views():
    views = {op.name for op in REGISTRY.values() if op.view}
    assert views == {op.name for op in REGISTRY.values() if isinstance(op.kind, kinds.View)}


ELEMENTWISE = [p for p in test_registry.PURE if isinstance(p.values[0].kind, kinds.Elementwise)]


@pytest.mark.parametrize(("op", "sample"), ELEMENTWISE)
def test_results_of_elementwise_records_have_the_broadcast_shape(op, sample):
    avals = [Aval(x.shape, x.dtype) if isinstance(x, np.ndarray) else x for x in sample.arrays(sample.dtypes[0])]
    out = op.infer(*avals, **sample.attrs)
    first = out if isinstance(out, Aval) else out[0]
    assert tuple(first.shape) == np.broadcast_shapes(*[a.shape for a in avals if isinstance(a, Aval)])
