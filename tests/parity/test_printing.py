"""Every tensor prints as PyTorch's, character by character."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import rushlight_tensor as rl
from rushlight_nn import Parameter
from rushlight_tensor.core.tensor import wrap
from tests.printing.corpus import OPTIONS, arrays

torch = pytest.importorskip("torch")


def of_torch(array):
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy())


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_corpus_prints_the_same(options):
    limit = 300 if options.get("profile") == "full" else 2000
    try:
        torch.set_printoptions(**options)
        rl.set_printoptions(**options)
        for array in arrays(limit):
            assert repr(wrap(array)) == repr(of_torch(array))
    finally:
        for t in (torch, rl):
            t.set_printoptions(profile="default")


@pytest.mark.parametrize(
    "make",
    [
        lambda t: t.ones(3, requires_grad=True),
        lambda t: t.ones(3, requires_grad=True) * 2,
        lambda t: t.ones(20, requires_grad=True) * 1.5,
        lambda t: t.ones(3, requires_grad=True).exp(),
        lambda t: t.zeros(0, requires_grad=True),
        lambda t: t.ones(15, dtype=t.float64, requires_grad=True),
        lambda t: t.ones(3, 4, 5, dtype=t.float16, requires_grad=True) + 1,
        lambda t: t.ones(2, requires_grad=True).detach(),
        lambda t: t.tensor(2.5, requires_grad=True) * t.tensor(2.0),
    ],
)
def test_gradients_are_named_the_same(make):
    assert repr(make(rl)) == repr(make(torch))
    assert str(make(rl)) == str(make(torch))


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_the_default_dtype_needs_no_name(dtype):
    try:
        for t in (torch, rl):
            t.set_default_dtype(getattr(t, dtype))
        for other in ("float32", "float64", "complex64", "complex128", "int64", "bool"):
            assert repr(rl.ones(2, dtype=getattr(rl, other))) == repr(torch.ones(2, dtype=getattr(torch, other)))
    finally:
        for t in (torch, rl):
            t.set_default_dtype(t.float32)


@pytest.mark.parametrize("spec", ["", ".2f", "10.3e"])
def test_formatting_of_numbers(spec):
    for value in (3.14159, 2, True):
        assert format(rl.tensor(value), spec) == format(torch.tensor(value), spec)
    assert f"{rl.ones(2)}" == f"{torch.ones(2)}"
    with pytest.raises(TypeError, match="unsupported format string passed to Tensor"):
        format(rl.ones(2), ".2f")


def test_parameters_say_what_they_are():
    for show in (repr, str, "{}".format):
        assert show(Parameter(rl.ones(2))) == show(torch.nn.Parameter(torch.ones(2)))
