"""True, False and 0-d bool tensors among other indices: reads, writes and gradients are PyTorch's."""

from __future__ import annotations

import itertools

import pytest

import rushlight as rl
from tests.parity.outcome import outcome

torch = pytest.importorskip("torch")
ENTRIES = {
    "True": lambda t: True,
    "False": lambda t: False,
    "true": lambda t: t.tensor(True),
    "false": lambda t: t.tensor(False),
    "1": lambda t: 1,
    "None": lambda t: None,
    "...": lambda t: ...,
    ":": lambda t: slice(None),
    "[1, 0]": lambda t: t.tensor([1, 0]),
    "[[0], [1]]": lambda t: t.tensor([[0], [1]]),
    "mask": lambda t: t.tensor([[True, False, True], [False, False, True]]),
}
BOOLS = {"True", "False", "true", "false"}
INDICES = [
    c
    for n in (1, 2, 3)
    for c in itertools.product(ENTRIES, repeat=n)
    if BOOLS & set(c) and c.count("...") < 2 and (n < 3 or len(BOOLS & set(c)) == 1)
]


def same(program):
    want, got = outcome(program, torch), outcome(program, rl)
    return got == want or (want[0] == "IndexError" == got[0]), f"PyTorch {want}, here {got}"


@pytest.mark.parametrize("first", sorted({c[0] for c in INDICES}))
def test_reads_gradients_and_writes(first):
    for names in (c for c in INDICES if c[0] == first):

        def read(t, names=names):
            x = t.arange(12.0).reshape(2, 3, 2).requires_grad_()
            y = x[tuple(ENTRIES[n](t) for n in names)]
            (y * t.arange(1.0, 1 + y.numel()).reshape(y.shape)).sum().backward()
            return y, x.grad

        def write(t, names=names):
            index = tuple(ENTRIES[n](t) for n in names)
            x, y = t.arange(12.0).reshape(2, 3, 2), t.arange(12.0).reshape(2, 3, 2)
            x[index] = -1.0
            value = t.arange(100.0, 100.0 + y[index].numel()).reshape(y[index].shape).requires_grad_()
            y[index] = value
            (y * t.arange(12.0).reshape(2, 3, 2)).sum().backward()
            return x, y, value.grad

        for program in (read, write):
            fine, difference = same(program)
            assert fine, f"{names}: {difference}"


HOW = {
    "mask": lambda t, x, v: x.__setitem__(t.tensor([[True, False, True], [False, True, False]]), v),
    "mask of rows": lambda t, x, v: x.__setitem__(t.tensor([True, False]), v),
    "mask of columns": lambda t, x, v: x.__setitem__((slice(None), t.tensor([True, False, True])), v),
    "nothing": lambda t, x, v: x.__setitem__(t.tensor([False, False]), v),
    "True": lambda t, x, v: x.__setitem__(True, v),
    "False": lambda t, x, v: x.__setitem__(False, v),
    "index_put_": lambda t, x, v: x.index_put_((t.tensor([True, False]),), v),
    "two masks": lambda t, x, v: x.__setitem__((t.tensor([True, False]), t.tensor([True, False, False])), v),
    "masked_fill_": lambda t, x, v: x.masked_fill_(t.tensor([True, False, True]), v.reshape(())),
}


@pytest.mark.filterwarnings("ignore:Casting complex values to real")
@pytest.mark.parametrize("value", ["float32", "float64", "int64", "bool", "complex64"])
@pytest.mark.parametrize("own", ["float32", "float16", "int64", "uint8", "bool", "complex64"])
@pytest.mark.parametrize("how", HOW)
def test_one_number_of_another_dtype_is_written_where_a_mask_says(how, own, value):
    for shape in ((), (1,), (1, 1)):

        def program(t, shape=shape):
            x = t.zeros(2, 3).to(getattr(t, own))
            HOW[how](t, x, t.tensor(2.5 + 1j if value == "complex64" else 2.5).to(getattr(t, value)).reshape(shape))
            return x

        (kind, got), (wanted_kind, wanted) = (_kind_and_value(program, t) for t in (rl, torch))
        assert (kind, got) == (wanted_kind, wanted)


def _kind_and_value(program, t):
    try:
        return "value", program(t).tolist()
    except (RuntimeError, IndexError) as error:
        return type(error).__name__, None
