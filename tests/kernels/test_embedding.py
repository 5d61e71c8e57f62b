import numpy as np
import pytest

from rushlight_tensor.core.op import REGISTRY


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("count", "rows", "d"), [(0, 3, 4), (1, 1, 1), (50, 7, 5), (400, 30, 130)])
def test_gradients_of_a_row_add_up_and_that_of_padding_is_zero(dtype, count, rows, d):
    rng = np.random.default_rng(0)
    g, index = rng.standard_normal((count, d)).astype(dtype), rng.integers(0, rows, count)
    want = np.zeros((rows, d))
    np.add.at(want, index, g)
    backward = REGISTRY["embedding_backward"].cpu
    attrs = {"weight_shape": (rows, d), "needs": (True, False)}
    np.testing.assert_allclose(backward(g, index, padding_idx=-1, **attrs), want, rtol=1e-5, atol=1e-5)
    want[rows - 1] = 0
    got = backward(g, index.astype(np.int32), padding_idx=rows - 1, **attrs)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    assert got.dtype == dtype


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("wrong", [-1, -8, 7, 2**40])
def test_an_index_that_was_changed_between_the_passes_is_refused(dtype, wrong):
    """Beside no padding, which is -1, too."""
    attrs = {"weight_shape": (7, 3), "needs": (True, False), "padding_idx": -1}
    with pytest.raises(IndexError):
        REGISTRY["embedding_backward"].cpu(np.ones((4, 3), dtype), np.array([0, 6, wrong, 2]), **attrs)
