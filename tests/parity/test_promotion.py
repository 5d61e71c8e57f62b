"""Type promotion: every pair of dtypes, tensors with and without dimensions, and numbers, against PyTorch."""

from __future__ import annotations

import itertools

import pytest

import rushlight_tensor as rl

torch = pytest.importorskip("torch")

NAMES = (
    "uint8", "int8", "int16", "int32", "int64",
    "float16", "bfloat16", "float32", "float64", "bool", "complex64", "complex128",
)  # fmt: skip


def operands(t):
    full = [t.ones(2, dtype=getattr(t, n)) for n in NAMES]
    return [*full, *[t.ones((), dtype=getattr(t, n)) for n in NAMES], True, 2, 1.5, 1j]


def test_promote_types_and_can_cast():
    for a, b in itertools.product(NAMES, NAMES):
        theirs, ours = (getattr(torch, a), getattr(torch, b)), (getattr(rl, a), getattr(rl, b))
        assert str(rl.promote_types(*ours)) == str(torch.promote_types(*theirs)), (a, b)
        assert rl.can_cast(*ours) == torch.can_cast(*theirs), (a, b)


def test_result_type_of_tensors_and_numbers():
    pairs = itertools.product(zip(operands(torch), operands(rl), strict=True), repeat=2)
    for (x, p), (y, q) in pairs:
        if not isinstance(x, torch.Tensor) and not isinstance(y, torch.Tensor):
            continue
        want = str(torch.result_type(x, y)).replace("complex32", "complex64")  # which NumPy does not have
        assert str(rl.result_type(p, q)) == want, (x, y)


@pytest.mark.parametrize("name", ["add", "mul", "div", "pow", "maximum", "eq", "atan2"])
def test_operations_return_the_promoted_dtype(name):
    real = [i for i, n in enumerate((*NAMES, *NAMES)) if not n.startswith("complex")]
    ours, theirs = operands(rl), operands(torch)
    for i, j in itertools.product(real, real):
        try:
            want = getattr(torch, name)(theirs[i], theirs[j]).dtype
        except (RuntimeError, NotImplementedError):
            continue
        assert str(getattr(rl, name)(ours[i], ours[j]).dtype) == str(want), (theirs[i], theirs[j])
