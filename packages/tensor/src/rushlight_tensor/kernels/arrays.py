"""NumPy's functions that need care when the arrays may be CuPy's.

Note [One text for both]
    The NumPy text of a kernel is also what runs on a GPU where there is no CUDA kernel: CuPy takes over NumPy's
    functions by the array protocols.  It refuses to mix the two kinds, so such a text makes new arrays from old ones
    (`empty_like`, `like=`) and never by their shape alone (tests/kernels/test_on_device_arrays.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray


def on_host(*arrays: Array | None) -> bool:
    """Whether C can be given these arrays: NumPy's own, not CuPy's, nor subclasses."""
    return all(x is None or type(x) is np.ndarray for x in arrays)


def contiguous(x: Array) -> Array:
    """`x`, or a copy of it in C order; unlike np.ascontiguousarray also of a CuPy array."""
    return x if x.flags.c_contiguous else x.copy(order="C")


def like(x: Array, values: Any) -> Array:
    """A NumPy array of constants as an array of the kind of `x`."""
    return np.asarray(values, like=x)
