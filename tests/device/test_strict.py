"""The stand-in itself: it knows what CuPy knows, and refuses the rest as CuPy does."""

import ml_dtypes
import numpy as np
import pytest

from tests.device import strict
from tests.device.standin import standing_in


@pytest.fixture
def cupy():
    with standing_in() as module:
        yield module


HOST = np.ones((2, 3), np.float32)


REFUSED = {
    "implicit conversion": (lambda x: np.asarray(x), "Implicit conversion"),
    "ascontiguousarray": (lambda x: np.ascontiguousarray(x), "Implicit conversion"),
    "a host operand": (lambda x: x + HOST, "Unsupported type"),
    "a host operand on the left": (lambda x: HOST * x, "Unsupported type"),
    "a host array among several": (lambda x: np.concatenate([x, HOST]), "Unsupported type"),
    "a host condition": (lambda x: np.where(HOST > 0, x, x), "Unsupported type"),
    "a host index": (lambda x: x[np.array([0])], "Unsupported type"),
    "a host index to write at": (lambda x: x.__setitem__(np.array([0]), 1.0), "Unsupported type"),
    "a host value": (lambda x: x.__setitem__(0, HOST[0]), "Unsupported type"),
    "a host value in place": (lambda x: x.__iadd__(HOST), "Unsupported type"),
    "a host out": (lambda x: np.add(x, x, out=HOST.copy()), "Unsupported type"),
    "host positions": (lambda x: np.take(x, np.array([0]), axis=0), "Unsupported type"),
    "initial=": (lambda x: x.max(initial=0.0), "initial"),
    "where= of a reduction": (lambda x: np.sum(x, where=True), "where"),
    "where= of a ufunc": (lambda x: np.add(x, x, where=x > 0), "where"),
    "maximum.accumulate": (lambda x: np.maximum.accumulate(x), "not supported yet"),
    "multiply.at": (lambda x: np.multiply.at(x, 0, 2.0), "not supported yet"),
    "maximum.reduce": (lambda x: np.maximum.reduce(x), "not supported yet"),
    "add.at of bfloat16": (lambda x: np.add.at(x.astype(ml_dtypes.bfloat16), 0, 1.0), "only supports"),
    "sort of bfloat16": (lambda x: np.sort(x.astype(ml_dtypes.bfloat16)), "bfloat16"),
    "- of bools": (lambda x: -(x > 0), "Wrong type"),
    "a function CuPy lacks": (lambda x: np.nanpercentile(x, 50), "no implementation found"),
    "a method it lacks": (lambda x: x.ctypes, "no attribute"),
    "writeable": (lambda x: x.flags.writeable, "writeable"),
    "isin of a number": (lambda x: np.isin(x, 1.0), "ravel"),
    "lists as values": (lambda x: x.__setitem__(0, [1.0, 2.0, 3.0]), "lists"),
    "float16 out of float32": (lambda x: np.add(x, x, out=(x > 0)), "could not be coerced"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(cupy, what):
    attempt, why = REFUSED[what]
    with pytest.raises((TypeError, AttributeError, NotImplementedError), match=why):
        attempt(cupy.asarray(HOST))


def test_reductions_and_single_elements_are_device_arrays(cupy):
    x = cupy.asarray(HOST)
    for made in (x.sum(), np.max(x), x[0, 0], np.add(x[0, 0], 1), x.mean(), np.argmax(x)):
        assert isinstance(made, strict.ndarray)
        assert made.shape == ()


def test_asking_for_a_value_waits_and_is_counted(cupy):
    strict.SYNCS.clear()
    x = cupy.asarray(HOST)
    assert (float(x[0, 0]), bool(x[0, 0]), int(x[0, 0]), x[0, 0].item(), x.tolist()) == (1, True, 1, 1, HOST.tolist())
    np.testing.assert_array_equal(x.get(), HOST)
    assert sum(strict.SYNCS.values()) == 6


def test_views_share_memory_and_know_their_base(cupy):
    x = cupy.asarray(HOST)
    for view in (x[1:], x.T, x.reshape(-1), np.diagonal(x), np.broadcast_to(x, (2, 2, 3)), np.moveaxis(x, 0, 1)):
        assert view.base is x
    x[1:][...] = 5
    assert x.sum().item() == 3 + 15
    np.diagonal(x)[...] = 0
    assert x[0, 0].item() == 0
    assert x.copy().base is None


@pytest.mark.parametrize(
    ("call", "dtype"),
    [
        (lambda x: x + 1, "float32"),
        (lambda x: x + np.float64(1), "float64"),
        (lambda x: x.astype("int8") / 2, "float64"),
        (lambda x: x.astype("int32").sum(), "int64"),
        (lambda x: x.astype(ml_dtypes.bfloat16) * 2.0, "float32"),  # as with NumPy, which knows no weak bfloat16
        (lambda x: x.astype(ml_dtypes.bfloat16).sum(), "bfloat16"),
        (lambda x: np.asarray([1, 2], like=x), "int64"),
        (lambda x: np.zeros_like(x, dtype=bool, shape=(2,)), "bool"),
        (lambda x: np.where(x > 0, x, 0), "float32"),
    ],
)
def test_dtypes(cupy, call, dtype):
    made = call(cupy.asarray(HOST))
    assert isinstance(made, strict.ndarray)
    assert made.dtype == strict.BFLOAT16 if dtype == "bfloat16" else made.dtype == dtype


def test_empty_shows_what_was_not_written(cupy):
    assert not np.isfinite(cupy.empty((3,), np.float32).get()).any() or cupy.empty((3,), np.float32).get()[0] < 0
