"""Attention and optimizer kernels: float32 against the NumPy text in double precision."""

from itertools import chain

import numpy as np
import pytest

import rushlight_nn  # noqa: F401 - these declare records
import rushlight_optim  # noqa: F401
from rushlight_tensor.core.op import REGISTRY
from rushlight_tensor.kernels.threads import get_num_threads, set_num_threads

rng = np.random.default_rng(2)


def attention(q, k, v, mask=None, causal=False, scale=None):
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return REGISTRY["scaled_dot_product_attention"].cpu(q, k, v, mask, is_causal=causal, scale=scale)


def attention_backward(g, q, k, v, saved, causal=False, mask=None, needs=(True, True, True, False), scale=None):
    how = {"is_causal": causal, "scale": q.shape[-1] ** -0.5 if scale is None else scale, "needs": needs}
    return REGISTRY["scaled_dot_product_attention_backward"].cpu(g, q, k, v, mask, saved, **how)


def heads(b, h, t, d, split):
    """(B, H, T, D), optionally as the view that splitting (B, T, H * D) gives."""
    shape = (b, t, h, d) if split else (b, h, t, d)
    x = rng.standard_normal(shape).astype(np.float32)
    return x.transpose(0, 2, 1, 3) if split else x


SIZES = [
    (2, 3, 64, 64, 16, 16),
    (1, 2, 130, 130, 8, 8),
    (2, 1, 70, 100, 16, 24),
    (2, 1, 100, 30, 16, 24),
    (1, 1, 1, 1, 1, 1),
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("split", [False, True])
def test_attention_and_its_gradients(size, causal, split):
    b, h, t, s, d, e = size
    q, k, v, g = heads(b, h, t, d, split), heads(b, h, s, d, split), heads(b, h, s, e, split), heads(b, h, t, e, split)
    out, saved = attention(q, k, v, causal=causal)
    double = [x.astype(np.float64) for x in (q, k, v)]
    expected, expected_saved = attention(*double, causal=causal)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)
    assert out.dtype == np.float32
    gradients = attention_backward(g, q, k, v, saved, causal)
    for got, wanted in zip(
        gradients, attention_backward(g.astype(float), *double, expected_saved, causal), strict=True
    ):
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=2e-5)
    for i in range(3):  # what is not needed changes nothing
        (alone,) = attention_backward(g, q, k, v, saved, causal, needs=tuple(j == i for j in range(4)))
        np.testing.assert_array_equal(alone, gradients[i])
    text = REGISTRY["scaled_dot_product_attention_backward"].numpy  # takes what the kernel has kept
    how = {"is_causal": causal, "scale": d**-0.5, "needs": (True, True, True, False)}
    for got, wanted in zip(text(g, q, k, v, None, saved, **how), gradients, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=2e-5)


BATCHES = {  # of queries, keys and values
    "none": ((), (), ()),
    "one": ((3,), (3,), (3,)),
    "broadcast": ((2, 3), (1, 3), (3,)),
    "many": ((2, 2, 3), (2, 2, 3), (2, 2, 3)),
    "many, broadcast in the middle": ((2, 4, 3), (2, 1, 3), (2, 4, 1)),
}


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("turned", [False, True])
def test_attention_of_any_batch_and_order(name, turned):
    def made(batch, *shape):
        x = rng.standard_normal((*batch, *(shape[::-1] if turned else shape))).astype(np.float32)
        return x.swapaxes(-1, -2) if turned else x

    q, k, v = (made(batch, *shape) for batch, shape in zip(BATCHES[name], ((5, 4), (7, 4), (7, 6)), strict=True))
    out, saved = attention(q, k, v, causal=True)
    double = [x.astype(np.float64) for x in (q, k, v)]
    expected, expected_saved = attention(*double, causal=True)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)
    g = np.broadcast_to(rng.standard_normal(6).astype(np.float32), out.shape)
    got = attention_backward(g, q, k, v, saved, True)
    for d, wanted in zip(got, attention_backward(g.astype(float), *double, expected_saved, True), strict=True):
        assert d.shape == wanted.shape
        np.testing.assert_allclose(d, wanted, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("kind", ["bool", "added"])
def test_attention_with_a_mask(kind):
    q, k, v = heads(2, 3, 5, 4, True), heads(2, 3, 6, 4, True), heads(2, 3, 6, 4, True)
    seen = rng.random((5, 6)) < 0.7
    seen[:, 0] = True
    mask = seen if kind == "bool" else np.where(seen, 0, -np.inf).astype(np.float32)
    scores = np.where(seen, q @ k.swapaxes(-1, -2) / 2, -np.inf)
    p = np.exp(scores - scores.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    out, saved = attention(q, k, v, mask)
    np.testing.assert_allclose(out, p @ v, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        attention_backward(out, q, k, v, saved)[2], p.swapaxes(-1, -2) @ out, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("scale", [-40.0, -1.0, -1e-6, 0.0, 1e-6, 1.0, 40.0])
@pytest.mark.parametrize("kind", ["", "causal", "bool", "added"])
def test_attention_of_any_scale_and_size_of_scores(kind, scale):
    """Large scores leave one key a weight of 1, and which one a negative scale turns round."""
    for size in (0.01, 1.0, 30.0):
        q, k, v, g = (heads(1, 2, n, 4, False) for n in (5, 7, 7, 5))
        q = (q * size).round(2)
        k = k.round(2)
        mask = {"bool": rng.random((5, 7)) < 0.6, "added": rng.standard_normal((5, 7)).astype(np.float32)}.get(kind)
        if kind == "bool":
            mask[:, 0] = True
        out, saved = attention(q, k, v, mask, kind == "causal", scale)
        double = [x.astype(np.float64) for x in (q, k, v)]
        wider = mask.astype(float) if kind == "added" else mask
        expected, expected_saved = attention(*double, wider, kind == "causal", scale)
        np.testing.assert_allclose(out, expected, rtol=2e-3, atol=2e-4)
        got = attention_backward(g, q, k, v, saved, kind == "causal", mask, scale=scale)
        wide = attention_backward(g.astype(float), *double, expected_saved, kind == "causal", wider, scale=scale)
        for d, wanted in zip(got, wide, strict=True):
            np.testing.assert_allclose(d, wanted, rtol=5e-3, atol=1e-3 * max(1.0, abs(wanted).max()))


def test_merging_the_heads_of_a_split_array_copies_nothing():
    q = heads(2, 4, 32, 8, True)
    out, _ = attention(q, q, q)
    merged = out.transpose(0, 2, 1, 3).reshape(2, 32, 32)
    assert np.shares_memory(merged, out) or not merged.base.flags.owndata or out.flags.c_contiguous


SHAPES = [(3,), (70, 50), (1, 1), (0,), (200, 200)]
SGD = {"lr": 0.1, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.01, "nesterov": False, "maximize": False}


def step(name, *columns, **options):
    """A record over columns of arrays, as an optimizer runs it on a CPU."""
    return REGISTRY[name].cpu(*chain(*columns), **{**REGISTRY[name].defaults, **options})


def total_norm(xs):
    return REGISTRY["total_norm"].cpu(*xs, norm_type=2.0)


def arrays(dtype=np.float32):
    generator = np.random.default_rng(3)
    return [generator.standard_normal(shape).astype(dtype) for shape in SHAPES]


def adam_state(dtype):
    p, g = arrays(dtype), [x * 2 for x in arrays(dtype)]
    counters = [np.array(n, np.float32) for n in (0, 1, 0, 0, 0)]
    return p, counters, [np.zeros_like(x) for x in p], [np.zeros_like(x) for x in p], g


@pytest.mark.parametrize("decoupled", [True, False])
@pytest.mark.parametrize("maximize", [True, False])
def test_adam(decoupled, maximize):
    options = {"lr": 0.01, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.1, "maximize": maximize}
    options["decoupled"] = decoupled
    single, double = adam_state(np.float32), adam_state(np.float64)
    for _ in range(3):
        for state in (single, double):
            step("adam_step", *state, **options)
    for got, wanted in zip(chain(*single), chain(*double), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-6)
    assert [c.item() for c in single[1]] == [3, 4, 3, 3, 3]


def test_adam_takes_mixed_layouts_and_dtypes_in_one_list():
    p = [np.ones((4, 6), np.float32), np.ones((6, 4), np.float32).T, np.ones((4, 6))]
    g = [np.full_like(x, 0.5) for x in p]
    counters, (means, squares) = [np.zeros((), np.float32) for _ in p], ([np.zeros_like(x) for x in p] for _ in "mv")
    step("adam_step", p, counters, means, squares, g, lr=0.1, eps=0.0, weight_decay=0.0, decoupled=True)
    for x, counter in zip(p, counters, strict=True):
        np.testing.assert_allclose(x, 0.9, rtol=1e-6)
        assert counter == 1


def test_a_state_of_another_shape_is_refused_before_anything_is_written():
    p, counters, means, squares, g = adam_state(np.float32)
    means[1] = means[1].T.copy()
    before = [x.copy() for x in p]
    with pytest.raises(RuntimeError, match="must match the size"):
        step("adam_step", p, counters, means, squares, g)
    for x, y in zip(p, before, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize(
    "options",
    [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"momentum": 0.5, "dampening": 0.5, "maximize": True}],
)
def test_sgd(options):
    results = []
    for dtype in (np.float32, np.float64):
        p, g = arrays(dtype), [x * 2 for x in arrays(dtype)]
        buffers = [np.full_like(x, np.nan) for x in p] if options else []
        for n in range(3):
            step("sgd_step", p, buffers, g, **{**SGD, **options, "first": n == 0})
        results.append(p + buffers)
    for got, wanted in zip(*results, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


def test_gradient_norm_and_scale_on_any_number_of_threads():
    xs, before, results = arrays(), get_num_threads(), set()
    try:
        for threads in (1, 2, 3):
            set_num_threads(threads)
            results.add(total_norm(xs).item())
    finally:
        set_num_threads(before)
    assert len(results) == 1
    assert results.pop() ** 2 == pytest.approx(sum(float((x.astype(float) ** 2).sum()) for x in xs), rel=1e-6)
    step("scale_all", xs, [np.array(0.5, np.float32)])
    for got, original in zip(xs, arrays(), strict=True):
        np.testing.assert_array_equal(got, original * np.float32(0.5))
    assert total_norm([np.zeros(0, np.float32)]) == 0


def test_columns_of_different_lengths_are_refused_with_and_without_c():
    p, counters, means, squares, g = adam_state(np.float32)
    for run in (REGISTRY["adam_step"].cpu, REGISTRY["adam_step"].numpy):
        with pytest.raises(RuntimeError, match="expected 5 columns of equally many tensors, got 24 tensors"):
            run(*chain(p, counters, means, squares, g[1:]), **REGISTRY["adam_step"].defaults)
