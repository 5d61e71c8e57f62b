"""Samples of shape, indexing, gather, sort and join."""

from __future__ import annotations

import numpy as np

from tests.ops.harness import EVERY, FLOATS, INTS, R, sample

ALL = (None, None, None)
ROWS = np.array([2, 0, 2])
SMALL = (*FLOATS, "int64", "bool")

SAMPLES = {
    "slice": [
        sample(R(3, 4), at=(1,)).but(dtypes=EVERY),
        sample(R(3, 4), at=(-1, (None, 3, 2))),
        sample(R(3, 4), at=((0, 2, None), None, (3, 1, None))),
        sample(R(3, 4), at=((None, None, -1),)),
        sample(R(3), at=(2,)),
        sample(R(), at=(None,)),
        sample(R(0, 3), at=(ALL, 1)),
    ],
    "slice_backward": [
        sample(R(4), shape=(3, 4), at=(1,)).but(dtypes=SMALL),
        sample(R(2), shape=(3, 4), at=(-1, (None, 3, 2))),
        sample(R(), shape=(3,), at=(2,)),
        sample(R(0, 4), shape=(2, 4), at=((2, 1, None),)),
    ],
    "view": [
        sample(R(3, 4), shape=(2, 6)).but(dtypes=EVERY),
        sample(R(3, 4), shape=(-1,)),
        sample(R(1), shape=()),
        sample(R(0, 3), shape=(3, 0)),
    ],
    "view_dtype": [sample(R(3, 4), dtype=np.dtype(np.int8)).but(dtypes=FLOATS, exact=False)],
    "permute": [
        sample(R(2, 3, 4), dims=(2, 0, 1)).but(dtypes=EVERY),
        sample(R(2, 3), dims=(-1, 0)),
        sample(R(), dims=()),
        sample(R(0, 2), dims=(1, 0)),
    ],
    "expand": [
        sample(R(3, 1), shape=(2, 3, 4)).but(dtypes=EVERY),
        sample(R(), shape=(2,)),
        sample(R(1, 3), shape=(0, 3)).but(grad=False),
    ],
    "diagonal": [
        sample(R(3, 4)).but(dtypes=EVERY),
        sample(R(2, 3, 4), offset=-1, dim1=2, dim2=0),
        sample(R(3, 4), offset=9),
    ],
    "diagonal_backward": [sample(R(2, 3), shape=(2, 3, 4), dim1=1, dim2=2), sample(R(2), shape=(3, 3), offset=-1)],
    "unfold": [
        sample(R(3, 5), dimension=1, size=3, step=2).but(dtypes=EVERY),
        sample(R(4, 2), dimension=0, size=2, step=1),
        sample(R(), dimension=0, size=1, step=1),
        sample(R(3, 2), dimension=0, size=0, step=1),
    ],
    "unfold_backward": [
        sample(R(3, 2, 3), shape=(3, 5), dimension=1, size=3, step=2),
        sample(R(1), shape=(), dimension=0, size=1, step=1),
    ],
    "split": [
        sample(R(3, 4), sizes=(1, 2)).but(dtypes=EVERY),
        sample(R(3, 4), sizes=(1, 0, 3), dim=1),
    ],
    "unbind": [sample(R(3, 4)).but(dtypes=EVERY), sample(R(2, 3, 2), dim=1), sample(R(2))],
    "as_strided": [
        sample(R(12), size=(2, 3), stride=(4, 1), offset=1, own=(1,)).but(dtypes=EVERY),
        sample(R(3, 2), size=(3, 2), stride=(1, 2), own=(2, 1)),
        sample(R(3), size=(), stride=(), offset=2, own=(1,)),
        sample(R(3, 2), size=(4, 2), stride=(1, 0), own=(2, 1)),
    ],
    "as_strided_backward": [
        sample(R(3, 2), size=(6,), stride=(1,), own=(1, 2)),
        sample(R(3, 2), size=(2, 3), stride=(0, 2), own=(1, 1), offset=-1),
        sample(R(), size=(3,), stride=(1,), offset=-2),
    ],
    "clone_strided": [sample(R(3, 2), stride=(1, 3)).but(dtypes=EVERY), sample(R(3, 2), stride=(5, 2))],
    "cat": [
        sample(R(2, 3), R(1, 3), R(2, 3)).but(dtypes=EVERY),
        sample(R(2, 3), R(2, 1), dim=-1),
        sample(R(2), R(0), dim=0),
        sample(R(2, 3), R(0), dim=1),
        sample(R(2, 3), np.ones((1, 3), np.int64)),
    ],
    "stack": [
        sample(R(2, 3), R(2, 3), R(2, 3)).but(dtypes=EVERY),
        sample(R(2, 3), R(2, 3), dim=1),
        sample(R(2, 3), R(2, 3), dim=-1),
        sample(R(), R(), dim=0),
        sample(R(2, 0), dim=2),
        sample(R(2, 3), np.ones((2, 3), np.int64)),
    ],
    "index_select": [
        sample(R(3, 4), ROWS).but(dtypes=EVERY),
        sample(R(3, 4), np.array([[-1, 0], [1, 1]]), dim=1),
        sample(R(2, 3), np.array(1, np.int32), dim=-1),
        sample(R(3, 2), np.array([], np.int64)),
        sample(R(0, 2), np.array([], np.int64)),
    ],
    "index_select_backward": [
        sample(R(3, 4), ROWS, shape=(5, 4)),
        sample(R(2, 2, 2), np.array([[-1, 0], [1, 1]]), shape=(2, 3), dim=1),
        sample(R(0, 2), np.array([], np.int64), shape=(3, 2)),
    ],
    "index_put": [
        sample(R(3, 4), np.array([2, 0]), R(2, 4)).but(dtypes=EVERY),
        sample(R(3, 4), np.array([[-1], [0]]), R(2, 1), dim=1),
        sample(R(3, 4), np.array([1, 0]), R()),
        sample(R(3, 4), ROWS, R(3, 4), accumulate=True),
        sample(R(3, 4), ROWS, R(), dim=1, accumulate=True),
        sample(R(0, 4), np.array([], np.int64), R(0, 4)),
    ],
    "flat_index": [
        sample(np.array([0, -1]), np.array([[3], [1]]), sizes=(2, 4)),
        sample(np.array(1), np.array(2), sizes=(2, 4)),
    ],
    "gather": [
        sample(R(3, 4), np.array([[0, 1, 2, 2], [2, 2, 0, 0]])).but(dtypes=EVERY),
        sample(R(3, 4), np.array([[0], [3], [3]]), dim=1),
        sample(R(3, 4), np.array([[0, 0], [3, 1]], np.int32), dim=-1),
        sample(R(2, 3, 4), np.array([[[2, 0]]]), dim=1),
        sample(R(3, 4), np.zeros((0, 4), np.int64)),
        sample(R(4, 3), np.array([[0, 2], [1, 1]]), dim=1),
    ],
    "scatter": [
        sample(R(3, 4), np.array([[0, 1, 2, 2], [2, 2, 0, 0]]), R(2, 4)).but(dtypes=EVERY),
        sample(R(3, 4), np.array([[0], [3]]), R(2, 1), dim=1),
    ],
    "scatter_add": [
        sample(R(3, 4), np.array([[0, 1, 2, 2], [0, 2, 0, 0]]), R(2, 4)).but(dtypes=(*FLOATS, *INTS)),
        sample(R(3, 4), np.array([[3, 3], [3, 1]]), R(2, 2), dim=-1),
        sample(R(3, 4), np.zeros((0, 4), np.int64), R(0, 4)),
    ],
    "scatter_reduce": [
        sample(R(3, 4), np.array([[0, 1, 0, 0], [0, 0, 0, 0]]), R(2, 4), reduce=reduce, include_self=include_self)
        for reduce in ("prod", "amax", "amin")
        for include_self in (True, False)
    ],
    "masked_fill": [
        sample(R(3, 4), np.eye(3, 4, dtype=bool), R()).but(dtypes=EVERY),
        sample(R(3, 4), np.array([True, False, False, True]), R()),
        sample(R(4), np.eye(3, 4, dtype=bool), R()),
        sample(R(3, 1), np.eye(3, 4, dtype=bool), R()),
        sample(R(), np.array(True), R()),
    ],
    "argsort": [
        sample(R(3, 4)).but(dtypes=EVERY),
        sample(R(3, 4), dim=0, descending=True).but(dtypes=EVERY),
        sample(R()),
        sample(R(0, 2), dim=0),
    ],
    "topk": [
        sample(R(3, 6), k=2).but(dtypes=(*FLOATS, *INTS)),
        sample(R(50), k=2),
        sample(R(40, 2), k=2, dim=0, largest=False),
        sample(R(), k=1),
        sample(R(3), k=0),
    ],
    "searchsorted": [
        sample(np.array([-1.0, 0.0, 1.0], np.float32), R(3, 4), right=True),
        sample(np.array([[0, 1, 2], [1, 1, 3]]), R(2, 4), int32=True),
    ],
    "isin": [sample(R(3, 4), R(5)).but(dtypes=("float32", "int64", "uint8")), sample(R(3), 1.0)],
    "histc": [sample(R(30), bins=5, min=-1, max=1), sample(R(3, 4), bins=4)],
}
