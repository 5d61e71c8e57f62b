"""Functions made of several ops round half types once: what they give is float32's result, rounded."""

from __future__ import annotations

import itertools
import sys
from types import FunctionType

import numpy as np
import pytest

import rushlight_tensor as T
from rushlight_tensor.core.tensor import Tensor
from rushlight_tensor.ops.math.cast import widely


def _is_wide(f) -> bool:
    return isinstance(f, FunctionType) and (
        f.__code__ is widely(len).__code__ or _is_wide(getattr(f, "__wrapped__", None))
    )


WIDE = {
    f.__name__: f
    for name, module in sorted(sys.modules.items())
    if name.startswith("rushlight_tensor.ops")
    for f in vars(module).values()
    if _is_wide(f)
}
# Shapes of tensors; what is no shape is given as it is.
ARGUMENTS = {
    "_add_times": [(5, 7), (5, 7), 0.3],
    "_sub_times": [(5, 7), (5, 7), 0.3],
    "_lerp": [(5, 7), (5, 7), (5, 7)],
    "addcmul": [(5, 7), (5, 7), (5, 7)],
    "addcdiv": [(5, 7), (5, 7), (5, 7)],
    "_composed": [(2, 5, 4), (2, 6, 4), (2, 6, 3), None, False, 0.5, 0.0],
    "_scatter_mean": [(5, 7), 0, T.tensor(np.arange(35).reshape(5, 7) % 4), (5, 7), True],
    "_cosine": [(5, 7), (5, 7), 1, 1e-8],
    "addmm": [(5, 7), (5, 6), (6, 7)],
    "addmv": [(5,), (5, 6), (6,)],
    "addr": [(5, 7), (5,), (7,)],
    "baddbmm": [(2, 5, 7), (2, 5, 6), (2, 6, 7)],
    "huber_loss": [(5, 7), (5, 7)],
    "local_response_norm": [(2, 5, 7), 3],
    "renorm": [(5, 7), 2.0, 0, 1.0],
    "sinc": [(5, 7)],
    "smooth_l1_loss": [(5, 7), (5, 7)],
}
BESIDE = ["half", "int64", "bool", "number"]
EACH = {
    "_lerp",
    "_add_times",
    "_sub_times",
    "addcmul",
    "addcdiv",
}  # element by element: a tensor without dimensions is a number
HALVES = [T.float16, T.bfloat16]


def test_every_such_function_is_tried():
    assert set(ARGUMENTS) == set(WIDE), "say in ARGUMENTS how it is called"


def drawn(shape, kind, half, seed):
    """An argument of a kind; no zeros, by which some divide."""
    values = np.random.default_rng(seed).uniform(0.3, 3, shape)
    if kind == "half":
        return T.tensor(values.tolist(), dtype=half)
    if kind in ("int64", "bool"):
        return T.tensor((values + 0.7).tolist()).to(getattr(T, kind))
    other = T.float32 if kind == "0-d" else next(d for d in HALVES if d is not half)
    return 1.7 if kind == "number" else T.tensor(1.7, dtype=other)


def outcome(function, args):
    try:
        return function(*args)
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
        return type(error)


@pytest.mark.parametrize("half", HALVES, ids=str)
@pytest.mark.parametrize("name", ARGUMENTS)
def test_half_types_are_rounded_once(name, half):
    shapes = ARGUMENTS[name]
    places = [i for i, shape in enumerate(shapes) if isinstance(shape, tuple)]
    tried = 0
    for kinds in itertools.product(BESIDE + ["0-d", "0-d half"] * (name in EACH), repeat=len(places)):
        if "half" not in kinds or sum(k != "half" for k in kinds) > 1:
            continue
        args = list(shapes)
        for i, kind in zip(places, kinds, strict=True):
            args[i] = drawn(shapes[i], kind, half, i)
        rounded = [x.to(half) if isinstance(x, Tensor) and not x.shape else x for x in args]
        wide = [x.float() if isinstance(x, Tensor) and x.dtype is half else x for x in rounded]
        got, want = outcome(WIDE[name], args), outcome(WIDE[name], wide)
        if isinstance(want, type) or isinstance(got, type):
            assert isinstance(got, type), f"{kinds}: {got} where float32 is refused with {want}"
            continue
        assert got.dtype is half, f"{kinds}: {got.dtype}"
        np.testing.assert_array_equal(got.float().numpy(), want.to(half).float().numpy(), err_msg=str(kinds))
        tried += 1
    assert tried
