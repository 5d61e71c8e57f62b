"""What ops compute, by other means: SciPy, mpmath and loops over elements, in float64, with no import of rushlight.

`REFERENCES[name](*arrays, **attrs)` is a result or a tuple of them; `EXCUSED[name]` is why an op has none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.ops.reference import elementwise, layers, rows

REFERENCES: dict[str, Callable[..., Any]] = {**elementwise.REFERENCES, **rows.REFERENCES, **layers.REFERENCES}

_VIEW = (
    "moves elements and computes nothing: tests/ops/test_shape.py and test_index.py compare it with NumPy's indexing"
)
_COPY = "copies or converts: what came out is compared with the input elsewhere"
_RANDOM = "random numbers: tests/random and tests/parity/test_random.py compare the streams"
_STEP = "steps of optimizers: tests/parity/test_optim.py runs each beside PyTorch's"
_HELPER = "a piece of an op that has a reference"

EXCUSED: dict[str, str] = {
    **dict.fromkeys(
        [
            "alias",
            "detach",
            "slice",
            "view",
            "view_dtype",
            "permute",
            "expand",
            "diagonal",
            "unfold",
            "split",
            "unbind",
            "as_strided",
        ],
        _VIEW,
    ),
    **dict.fromkeys(
        ["slice_backward", "diagonal_backward", "unfold_backward", "as_strided_backward", "clone_strided"], _VIEW
    ),
    **dict.fromkeys(
        [
            "index_select",
            "index_select_backward",
            "index_put",
            "flat_index",
            "cat",
            "stack",
            "constant_pad_nd",
            "embedding",
        ],
        _VIEW,
    ),
    **dict.fromkeys(["view_as_real", "view_as_complex"], _VIEW),
    **dict.fromkeys(["cast", "clone", "copy", "to_device"], _COPY),
    **dict.fromkeys(["dropout", "random_draw", "random_like", "bernoulli_like", "multinomial"], _RANDOM),
    **dict.fromkeys(["sgd_step", "adam_step", "rmsprop_step", "adagrad_step", "adadelta_step"], _STEP),
    **dict.fromkeys(["adamax_step", "nadam_step", "radam_step", "scale_all"], _STEP),
    **dict.fromkeys(["class_weights", "batch_norm_update"], _HELPER),
    "one_hot": "integers: tests/ops/test_sort_and_create.py",
    "searchsorted": "NumPy's own function, and integers",
    "histc": "NumPy's own function",
    "bitwise_left_shift": "tests/parity compares all pairs of integer dtypes",
    "bitwise_right_shift": "tests/parity compares all pairs of integer dtypes",
}
