"""Embedding: rows of a table by index, with a gradient that adds up what comes back for each row; one-hot codes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rushlight_tensor.core import cuda, kinds, promote
from rushlight_tensor.core.dispatch import call, read
from rushlight_tensor.core.dtypes import dtype_title
from rushlight_tensor.core.infer import Aval
from rushlight_tensor.core.op import Gradient, Op
from rushlight_tensor.core.tensor import wrap
from rushlight_tensor.kernels import embedding as kernels
from rushlight_tensor.kernels.plan import C
from rushlight_tensor.ops.math.select import where


def _embedding_aval(weight: Any, indices: Any, padding_idx: int = -1) -> Aval:
    if len(weight.shape) != 2:
        raise RuntimeError("'weight' must be 2-D")
    if indices.dtype.name not in ("int64", "int32"):
        raise RuntimeError(
            "Expected tensor for argument #1 'indices' to have one of the following scalar types: Long, Int; but got "
            f"torch.{dtype_title(indices.dtype)}Tensor instead (while checking arguments for embedding)"
        )
    return Aval((*indices.shape, weight.shape[1]), weight.dtype)


def _table_grad(known: Any) -> Aval:
    g, indices, shape = known.g, known.indices, known.weight_shape
    if g.shape != (*indices.shape, *shape[1:]):
        raise RuntimeError(f"embedding: a gradient of {g.shape} for indices of {indices.shape} into {shape}")
    return Aval(shape, g.dtype)


def _table(x: Any, indices: Any, weight_shape: Any = None, **attrs: Any) -> dict[str, int]:
    """Sizes of the kernels: how many indices there are, and the table that they name rows of."""
    rows, d = weight_shape or x.shape
    return {"count": math.prod(indices.shape), "rows": rows, "d": d, "outer": 1, "wrap": 0}


def _again_rule(gg: Any, indices: Any, weight_shape: Any, padding_idx: int, needs: Any) -> Any:
    out = _embedding(gg, indices, padding_idx=padding_idx)
    return out if padding_idx < 0 else out.masked_fill((indices == padding_idx).unsqueeze(-1), 0)


def _of_tables(size: int, rows: int, batched: Any, indices: Any, like: Any) -> Any:
    """Indices into `size` tables of so many rows, one after the other."""
    indices = indices if batched else indices.expand(size, *indices._array.shape)
    first = wrap(cuda.like(like._array, np.arange(size) * rows)).to(indices.dtype)
    return indices + first.reshape(size, *[1] * (indices._array.ndim - 1))


def _embedding_samples(size: int, batched: Any, xs: Any, attrs: Any) -> Any:
    weight, indices = xs
    if not batched[0]:
        return call(_embedding, (weight, indices), attrs)
    rows, padding = weight._array.shape[1], attrs["padding_idx"]
    at = _of_tables(size, rows, batched[1], indices, weight)
    out = call(_embedding, (weight.reshape(size * rows, -1), at), {"padding_idx": -1})
    return out if padding < 0 else where((at % rows == padding).unsqueeze(-1), out.detach(), out)


def _embedding_backward_samples(size: int, batched: Any, xs: Any, attrs: Any) -> Any:
    g, indices = xs
    rows, width = attrs["weight_shape"]
    g = g if batched[0] else g.expand(size, *g._array.shape)
    at = _of_tables(size, rows, batched[1], indices, g)
    if attrs["padding_idx"] >= 0:
        g = where((at % rows == attrs["padding_idx"]).unsqueeze(-1), 0.0, g)
    out = call(_embedding.backward, (g, at), {**attrs, "weight_shape": (size * rows, width), "padding_idx": -1})
    return out.reshape(size, rows, width)


_embedding = Op(
    "embedding",
    kind=kinds.rows(shared=("weight",)),
    batch=_embedding_samples,
    infer=_embedding_aval,
    numpy=kernels.embedding,
    c=C("embedding", "embedding", _table, kernels.no_row, halves=False),
    save=("indices", "weight.shape"),
    vjp=Gradient(
        results=_table_grad,
        kind=kinds.linear(shapes=("weight_shape",)),
        batch=_embedding_backward_samples,
        numpy=kernels.embedding_backward,
        c=C("embedding", "embedding_backward", _table, kernels.changed),
        save=("indices",),
        vjp=(_again_rule, None),
    ),
    onnx="Gather",
)


def embedding(
    input: Any,
    weight: Any,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Any:
    """The rows of `weight` that `input` names.

    Args:
        input: Indices of any shape, int64 or int32.
        weight: (V, D).
        padding_idx: A row that gets no gradient.
    Returns:
        (*input.shape, D).
    Raises:
        IndexError: An index is outside the table.
        NotImplementedError: `max_norm`, `scale_grad_by_freq` or `sparse` is set.
    """
    if max_norm is not None or scale_grad_by_freq or sparse:
        raise NotImplementedError(
            "embedding: max_norm, scale_grad_by_freq and sparse are not supported; leave them out"
        )
    if padding_idx is None:
        return call(_embedding, (weight, input), {"padding_idx": -1})
    rows = weight._array.shape[0]
    if not -rows <= padding_idx < rows:
        raise AssertionError("Padding_idx must be within num_embeddings")
    return call(_embedding, (weight, input), {"padding_idx": padding_idx % rows})


def _one_hot_aval(x: Any, num_classes: int = -1) -> Aval:
    if x.dtype != promote.INT64:
        raise RuntimeError("one_hot is only applicable to index tensor of type LongTensor.")
    return Aval((*x.shape, num_classes), promote.INT64)


def _one_hot_kernel(x: Any, num_classes: int) -> Any:
    if x.dtype != np.int64:
        raise TypeError("one_hot of these")
    if x.size and x.min() < 0:
        raise RuntimeError("Class values must be non-negative.")
    if x.size and x.max() >= num_classes:
        raise RuntimeError("Class values must be smaller than num_classes.")
    classes = np.arange(num_classes) if isinstance(x, np.ndarray) else np.arange(num_classes, like=x)
    return (x[..., None] == classes).astype(np.int64, order="C")


_one_hot = Op("one_hot", kind=kinds.rows(), infer=_one_hot_aval, numpy=_one_hot_kernel, vjp=None)


def one_hot(input: Any, num_classes: int = -1) -> Any:
    """A 1 at the place of each class in `num_classes` zeros (default: up to the largest class), int64."""
    if num_classes == -1:
        classes = read(input, "one_hot")
        if classes.size == 0:
            raise RuntimeError("Can not infer total number of classes from empty tensor.")
        num_classes = int(classes.max()) + 1
    return _one_hot(input, num_classes=num_classes)
