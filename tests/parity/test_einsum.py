"""einsum over dtypes: which integers become int64, what is promoted and what is refused, as in PyTorch."""

from __future__ import annotations

import math

import numpy as np
import pytest

import rushlight as rl
from tests.parity.outcome import outcome

torch = pytest.importorskip("torch")
SPECS = [
    ("bi->b", (2, 3)), ("bi->", (2, 3)), ("ii->i", (3, 3)), ("ii->", (3, 3)), ("ii", (3, 3)), ("ij->ji", (2, 3)),
    ("...i->...", (2, 3)), ("iij->j", (3, 3, 2)), ("iij->ij", (3, 3, 2)), ("ii->i", (3, 1)), ("ii->i", (1, 3)),
    ("ii->", (1, 3)), ("ii->i", (1, 1)), ("i,i->i", (3,), (3,)), ("i,i->", (3,), (3,)), ("i,j->ij", (3,), (2,)),
    ("ij,jk->ik", (2, 3), (3, 2)), ("bij,bjk->bik", (2, 2, 3), (2, 3, 2)), ("...i,...i->...", (2, 3), (2, 3)),
    ("...i,...i->...i", (2, 3), (2, 3)), ("ij,j->i", (2, 3), (3,)), ("ij,k->i", (2, 3), (2,)),
    ("ij,ik->i", (2, 3), (2, 4)), ("ij,ij->", (2, 3), (2, 3)), ("ij,i->", (2, 3), (2,)), ("i,->i", (3,), ()),
    (",->", (), ()), ("i,->", (3,), ()), ("->", ()), ("ij,jk,kl->il", (2, 3), (3, 2), (2, 2)),
    ("i,i,i->i", (3,), (3,), (3,)), ("i,i,i->", (3,), (3,), (3,)), ("i,j,k->ijk", (2,), (2,), (2,)),
    ("ij,jk,l->ik", (2, 3), (3, 2), (2,)), ("ij,jk->ik", (2, 3), (1, 2)), ("ij,ij->ij", (2, 3), (1, 3)),
    ("ii,i->i", (3, 3), (3,)), ("ii,jj->", (3, 3), (2, 2)), ("ij,jk->", (2, 3), (3, 2)),
    ("ij,kj->ik", (2, 1), (2, 1)), ("i,i->", (1,), (1,)), ("ij->i", (2, 1)), ("ij->i", (2, 0)),
    ("...,...->...", (2, 3), (3,)), ("i...,i->...", (2, 3), (2,)), ("ij,ij->i", (2, 3), (2, 1)),
    ("ij,ij->i", (2, 1), (2, 1)), ("ij,jk->ik", (2, 1), (1, 2)), ("ij,jk->ik", (2, 1), (3, 2)),
    ("bij,bjk->bik", (1, 2, 3), (2, 3, 2)),
]  # fmt: skip
DTYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float32", "float64", "complex64"]
MIXED = {
    2: [("int32", "int64"), ("float32", "int64"), ("float32", "float64"), ("uint8", "int16"), ("bool", "int32")],
    3: [("int32", "int64", "int64"), ("int64", "int64", "int32"), ("int32", "int32", "int64")],
}


def operand(t, shape, dtype):
    n = math.prod(shape)
    values = t.ones(n) if dtype == "bool" else t.arange(1, n + 1) * 37 % 100 + 1
    return values.reshape(shape).to(getattr(t, dtype))


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: " ".join(map(str, s)))
def test_values_dtypes_and_refusals(spec):
    equation, *shapes = spec
    for dtypes in [*((d,) * len(shapes) for d in DTYPES), *MIXED.get(len(shapes), ())]:

        def program(t, dtypes=dtypes):
            return t.einsum(equation, *[operand(t, s, d) for s, d in zip(shapes, dtypes, strict=True)])

        want, got = outcome(program, torch), outcome(program, rl)
        if want[0].endswith("Error"):
            assert got[0].endswith("Error"), f"{dtypes}: PyTorch {want}, here {got}"
        else:
            assert got == want, f"{dtypes}: PyTorch {want}, here {got}"


def test_gradients_of_diagonals():
    def program(t):
        x = t.arange(18.0, dtype=t.float64).reshape(3, 3, 2).requires_grad_()
        y = t.einsum("iij,ji->ji", x, x[0].t() ** 2)
        (g,) = t.autograd.grad((y * y).sum(), x, create_graph=True)
        return y, g, t.autograd.grad(g.sum(), x)

    assert outcome(program, rl) == outcome(program, torch)


SIZES = dict(zip("abcdef", (2, 3, 4, 5, 2, 3), strict=True))


def _equation(rng, terms):
    left = []
    for _ in range(terms):
        letters = rng.permutation(list(SIZES))[: rng.integers(1, 5)].tolist()
        if rng.random() < 0.2:
            letters.insert(rng.integers(len(letters) + 1), "...")
        left.append(letters)
    result = [c for c in sorted({c for term in left for c in term}) if c == "..." or rng.random() < 0.6]
    return ",".join(map("".join, left)) + "->" + "".join(rng.permutation(result).tolist())


def _strides(t, equation):
    operands = []
    for term in equation.partition("->")[0].split(","):
        shape = [n for c in term.replace("...", ".") for n in ((2, 3) if c == "." else (SIZES[c],))]
        operands.append(t.ones(shape))
    made = t.einsum(equation, *operands)
    return tuple(made.shape), made.stride()


@pytest.mark.parametrize("terms", [1, 2])
def test_products_lie_as_in_pytorch(terms):
    rng = np.random.default_rng(terms)
    equations = ["ij,kj->ki", "bij,bkj->bki", "ijk,ljk->li", "bij,bjk->kib", "ijk->ki"]
    equations = [e.translate(str.maketrans("ijkl", "acde")) for e in equations if e.count(",") + 1 == terms]
    for equation in (*equations, *(_equation(rng, terms) for _ in range(400))):
        assert _strides(rl, equation) == _strides(torch, equation), equation
