"""Descriptions with a symbol for the first size: the same as with numbers, for every number, or refused by name."""

from __future__ import annotations

import numpy as np
import pytest

import rushlight_nn  # noqa: F401 - these declare ops, too
import rushlight_optim  # noqa: F401
from rushlight_autograd import grad
from rushlight_nn import functional as F
from rushlight_tensor import REGISTRY, tensor
from rushlight_tensor.core import abstract
from rushlight_tensor.core.abstract import AbstractArray
from rushlight_tensor.core.describe import describe
from rushlight_tensor.core.infer import Aval
from rushlight_tensor.core.symbol import Symbol, Undecided, put
from rushlight_tensor.core.tensor import wrap
from tests.ops.samples import SAMPLES

N = Symbol("N")


def first_size(sample):
    """The first size of the first input that has one; 0 where that is nothing to be replaced."""
    for x in sample.arrays(sample.dtypes[0]):
        if isinstance(x, np.ndarray) and x.ndim:
            return x.shape[0] if x.shape[0] > 1 and x.size else 0
    return 0


LEADING = {name: [s for s in samples if not s.mutates and first_size(s)] for name, samples in SAMPLES.items()}
REFUSED = {
    "slice": "whether positions from the end, or beyond it, lie within",
    "view": "whether all elements fit into sizes that are numbers",
    "diagonal": "how long the diagonal of a matrix with N rows is",
    "unbind": "how many results there are",
    "masked_fill": "whether a mask of a number of rows fits N of them",
    "matmul": "whether a contracted size that is a number is N",
    "linear": "whether a contracted size that is a number is N",
    "index_select_backward": "whether an index with N rows fits a gradient whose second size is a number",
    "view_as_complex": "whether the last dimension, which is the first, is 2",
}
"""Ops some of whose samples are refused: what it is that depends on N."""


def described(sample, op, size):
    """The inputs and attributes of a sample, with another first size where that of the first input stands."""
    arrays = sample.arrays(sample.dtypes[0])
    n = first_size(sample)

    def sized(shape):
        return (size, *shape[1:]) if len(shape) and shape[0] == n else shape

    def asked(shape):
        at = shape.index(n) if n in shape else len(shape)
        return tuple(size if i == at else m for i, m in enumerate(shape))

    xs = [
        abstract.of(x)._replace(shape=sized(x.shape), strides=None, device="cpu") if isinstance(x, np.ndarray) else x
        for x in arrays
    ]
    attrs = {**op.defaults, **sample.attrs}
    return xs, {k: asked(v) if k in op.kind.shapes and type(v) is tuple else v for k, v in attrs.items()}


def alike(a, b):
    a, b = ((x,) if isinstance(x, Aval) else x for x in (a, b))
    if [x._replace(strides=None) for x in a] != [x._replace(strides=None) for x in b]:
        return False
    steps = [zip(x.shape, x.strides, y.strides, strict=True) for x, y in zip(a, b, strict=True)]
    return all(n == 1 or s == t for of_one in steps for n, s, t in of_one)


@pytest.mark.parametrize("name", [name for name, samples in LEADING.items() if samples])
def test_a_symbol_stands_for_every_number(name):
    op, refused = REGISTRY[name], []
    for sample in LEADING[name]:
        xs, attrs = described(sample, op, N)
        try:
            said = describe(op, xs, attrs)
        except Undecided as e:
            refused.append(str(e))
            continue
        n = first_size(sample)
        for number in (n, n + 3):
            xs, attrs = described(sample, op, number)
            assert alike(put(said, {"N": number}), describe(op, xs, attrs))
    assert len(refused) < len(LEADING[name]), "no sample is described"
    assert all("N" in why for why in refused)
    assert bool(refused) == (name in REFUSED), refused


def test_arithmetic():
    m = Symbol("M")
    assert (N + 1) * (N - 1) == N * N - 1
    assert N * 6 // 3 == N * 2
    assert N * m // N == m
    assert (N * 4) % 2 == 0
    assert (N - N, 2 + N - N, N * 0) == (0, 2, 0)
    assert ((N + 3) // 2).at({"N": 4}) == 3
    assert ((N + 3) // N).at({"N": 4}) == 1
    assert ((N * N - 7) % 3).at({"N": 5}) == 0
    assert put((N, Aval((N + 1, 2), np.dtype("f4"))), {"N": 5}) == (5, Aval((6, 2), np.dtype("f4")))
    assert {N + 1: "a"}[1 + N] == "a"


def test_decisions():
    assert N > 1
    assert N >= 2
    assert N != 1
    assert N + 1 > N
    assert N * 2 != N
    assert not N * N < 4
    assert (N + 1) // 2 >= 1
    for undecided in (
        lambda: N == 3,
        lambda: N < 3,
        lambda: Symbol("M") == N,
        lambda: N - 2 == 0,
        lambda: N < 2 * N - 2,
        lambda: range(N),
    ):
        with pytest.raises(Undecided, match="N"):
            undecided()
    with pytest.raises(ZeroDivisionError):
        N // 0


def batch(*shape, dtype=np.float32):
    return wrap(AbstractArray(Aval((N, *shape), np.dtype(dtype))))


def test_a_network_is_described_for_every_batch():
    x = batch(3, 8, 8).requires_grad_()
    weight = tensor(np.ones((4, 3, 3, 3), np.float32)).to("meta").requires_grad_()
    y = F.max_pool2d(F.relu(F.conv2d(x, weight)), 2).flatten(1)
    assert y._array.shape == (N, 36)
    scores = y @ tensor(np.ones((36, 5), np.float32)).to("meta")
    loss = F.cross_entropy(scores, batch(dtype=np.int64))
    dx, dw = grad(loss, [x, weight])
    assert (dx._array.shape, dw._array.shape) == ((N, 3, 8, 8), (4, 3, 3, 3))
    assert x.reshape(-1, 64)._array.shape == (3 * N, 64)
    with pytest.raises(Undecided, match="whether 192\\*N == 1920"):
        x.reshape(1920)
