"""The outcome of a small program under one module, in a form that compares with that under the other."""

from __future__ import annotations

import re
import warnings

import numpy as np


def outcome(program, t):
    """What `program(t)` returns, tensors as (dtype, shape, values), or the type and first sentence of its error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return plain(program(t))
        except Exception as e:
            first = re.split(r"\. |\n|; ", str(e))[0].rstrip(".").replace("torch.", "")
            return type(e).__name__, "stale" if "modified by an inplace operation" in first else first


def plain(value):
    if hasattr(value, "requires_grad"):
        kind = "Parameter" if type(value).__name__ == "Parameter" else "Tensor"
        array = np.asarray(value.detach().to(value.dtype).tolist())
        values = array if array.dtype == bool else np.round(array, 5)
        return kind, str(value.dtype), tuple(value.shape), bool(value.requires_grad), values.tolist()
    if isinstance(value, (tuple, list)):
        return tuple(plain(v) for v in value)
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, float):
        return round(value, 5)
    if isinstance(value, (int, complex, str, bytes, bool, type(None))):
        return value
    return type(value).__name__
