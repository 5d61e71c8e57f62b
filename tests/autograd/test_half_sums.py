"""Sums of many numbers of half types: bfloat16 has nothing between 256 and 258, so adding ones to it stops there."""

import numpy as np
import pytest

import rushlight_tensor as rl
from rushlight_autograd import grad
from rushlight_nn import functional as F

N = 6000
ONES = {
    "add": lambda b, o: o(N, 2) + b,
    "mul": lambda b, o: o(N, 2) * b,
    "where": lambda b, o: rl.where(o(N, 2) > 0, b, o(N, 2)),
    "maximum": lambda b, o: rl.maximum(o(N, 2) - 2, b),
    "expand": lambda b, o: b.expand(N, 2),
    "repeat": lambda b, o: b.repeat(N, 1),
    "repeat_interleave": lambda b, o: b.repeat_interleave(N),
    "as_strided": lambda b, o: b.as_strided((N, 2), (0, 1)),
    "unfold": lambda b, o: b.expand(N, 2).unfold(0, N // 2, 1),
    "copy_": lambda b, o: (o(N, 2) * 1).copy_(b),
    "add_": lambda b, o: (o(N, 2) * 1).add_(b),
    "index": lambda b, o: b.view(1, 2)[rl.zeros(N, dtype=rl.int64)],
    "index_select": lambda b, o: b.index_select(0, rl.zeros(N, dtype=rl.int64)),
    "gather": lambda b, o: b.gather(0, rl.zeros(N, dtype=rl.int64)),
    "outer": lambda b, o: rl.outer(b, o(N)),
    "matmul": lambda b, o: o(N, 2, 2) @ b.expand(2, 2),
    "prelu": lambda b, o: F.prelu(-o(N, 2), b),
    "conv_transpose": lambda b, o: F.conv_transpose2d(o(64, 2, 8, 8), o(2, 2, 1, 1), b),
    "group_norm": lambda b, o: F.group_norm(o(N, 2, 1), 1, o(2), b),
    "layer_norm": lambda b, o: F.layer_norm(o(N, 2), (2,), o(2), b),
    "interpolate": lambda b, o: F.interpolate(b.view(1, 1, 2), scale_factor=N),
    "embedding_bag": lambda b, o: F.embedding_bag(rl.zeros(N, 1, dtype=rl.int64), b.view(1, 2), mode="sum"),
    "pad": lambda b, o: F.pad(b.view(1, 1, 2), (N, N), mode="replicate"),
}
VALUES = {
    "sum": lambda o: o(N, 2).sum(0),
    "cumsum": lambda o: o(N).cumsum(0),
    "scatter_add": lambda o: (o(1) * 0).scatter_add(0, rl.zeros(N, dtype=rl.int64), o(N)),
    "scatter_add_": lambda o: (o(1) * 0).scatter_add_(0, rl.zeros(N, dtype=rl.int64), o(N)),
    "scatter_reduce": lambda o: (o(1) * 0).scatter_reduce(0, rl.zeros(N, dtype=rl.int64), o(N), "sum"),
    "scatter mean": lambda o: (o(1) * 0).scatter_reduce(0, rl.zeros(N, dtype=rl.int64), o(N), "mean"),
    "scatter prod": lambda o: o(1).scatter_reduce(0, rl.zeros(999, dtype=rl.int64), o(999) * 1.0078125, "prod"),
    "index_add": lambda o: (o(1, 2) * 0).index_add(0, rl.zeros(N, dtype=rl.int64), o(N, 2)),
    "index_put": lambda o: (o(1, 2) * 0).index_put((rl.zeros(N, dtype=rl.int64),), o(N, 2), accumulate=True),
}


def agree(run):
    exact = run(rl.float64).numpy()
    for dtype in (rl.bfloat16, rl.float16):
        if np.abs(exact).max() < (65504 if dtype == rl.float16 else np.inf):
            np.testing.assert_allclose(run(dtype).double().numpy(), exact, rtol=0.01)


@pytest.mark.parametrize("name", ONES)
def test_gradients_of_what_is_used_often(name):
    def run(dtype):
        b = rl.tensor([0.25, 0.5]).to(dtype).requires_grad_()
        out = ONES[name](b, lambda *shape: rl.ones(*shape, dtype=dtype))
        return grad(out, b, rl.ones_like(out))[0]

    agree(run)


@pytest.mark.parametrize("name", VALUES)
def test_values(name):
    agree(lambda dtype: VALUES[name](lambda *shape: rl.ones(*shape, dtype=dtype)))


def test_a_running_sum_is_added_up_in_double():
    x = rl.ones(40)
    x[0] = 2.0**24
    assert x.cumsum(0)[-1].item() == 2.0**24 + 40  # 39 more, as float32 has them
    assert rl.cumsum(x.flip(0), 0)[-2].item() == 39
