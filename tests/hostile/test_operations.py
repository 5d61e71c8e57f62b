"""Whatever an op that reaches C is given: NumPy's value, or the kind of error that the NumPy path raises."""

from typing import Any

import numpy as np
import pytest

from rushlight_tensor.kernels.compile import find_compiler
from tests.hostile.cases import about_to_run, counted, hostile
from tests.hostile.operations import ERRORS, Case, draw_case, little_memory, numpy_only, reaching

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="no C compiler, or RUSHLIGHT_CC=none")


def outcome(case: Case) -> Any:
    """The results, or the kind of error: PyTorch has four, and memory may be short."""
    try:
        return case.run()
    except (MemoryError, OverflowError):
        return MemoryError
    except ERRORS as error:
        if "no memory" in str(error) or "allocate" in str(error):
            return MemoryError
        if not str(error):
            raise AssertionError(f"{case}: {type(error).__name__} without a message") from error
        return next(kind for kind in (IndexError, TypeError, RuntimeError, ValueError) if isinstance(error, kind))


def test_the_ops_that_reach_c_are_found():
    found = reaching()
    wanted = {"conv2d", "max_pool2d", "layer_norm", "softmax", "cross_entropy", "adam_step", "lstm_sequence"}
    assert wanted | {"scaled_dot_product_attention", "linear", "embedding"} <= set(found)


def compare(case: Case) -> None:
    """One case on both paths."""
    with little_memory(), np.errstate(all="ignore"):
        with_c = outcome(case)
        with numpy_only():
            with_numpy = outcome(case)
    if with_c is MemoryError or with_numpy is MemoryError:
        return  # one of the two needs less
    counted[f"op {case.op}"] += 1
    if isinstance(with_c, type) or isinstance(with_numpy, type):
        assert with_c is with_numpy, f"{case}: {with_c}, NumPy: {with_numpy}"
        return
    assert [x.shape for x in with_c] == [x.shape for x in with_numpy], str(case)
    for ours, theirs in zip(with_c, with_numpy, strict=True):
        scale = float(np.abs(theirs[np.isfinite(theirs)]).max(initial=1.0)) if theirs.dtype.kind == "f" else 1.0
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4 * scale, equal_nan=True, err_msg=str(case))


@hostile("operations", short=1200, share=0.6)
def test_c_and_numpy_agree(data):
    case = draw_case(data)
    about_to_run(str(case))
    compare(case)
