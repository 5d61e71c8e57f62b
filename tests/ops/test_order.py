"""How results lie in memory: as the record of each op says, without gaps, whatever order its inputs have.

That the records say what PyTorch does is `tests/parity/test_order.py`.
"""

import numpy as np
import pytest

import rushlight as rl
import rushlight.nn.functional as F
from rushlight_tensor.core import layout, order, placement
from rushlight_tensor.core.layout import PrivateOrder
from tests.ops.harness import call, tensors
from tests.ops.test_registry import PURE

MAKING = [p for p in PURE if p.values[0].order is not None]


def backwards(x):
    """The same elements from the end of memory to its start."""
    return np.flip(np.flip(x).copy()) if isinstance(x, np.ndarray) and x.ndim else x


def swapped(x):
    """The same elements with the last two dimensions exchanged in memory."""
    return x.swapaxes(-1, -2).copy().swapaxes(-1, -2) if isinstance(x, np.ndarray) and x.ndim > 1 else x


def repeated(x):
    """Reversed in memory, where the dimension in the middle (of two, the first) has the same elements everywhere."""
    if not isinstance(x, np.ndarray) or x.ndim < 2:
        return x
    return np.broadcast_to(x.take([0], (x.ndim - 1) // 2).copy("F"), x.shape)


def arrangements(sample):
    """The inputs in several orders; the last: the first one alone."""
    name = sample.dtypes[0]
    plain = sample.arrays(name)
    yield plain
    yield sample.arrays(name, "F")
    yield [backwards(x) for x in plain]
    yield [swapped(x) for x in plain]
    yield [swapped(plain[0]), *plain[1:]] if plain else plain
    yield [repeated(x) for x in plain] if all(getattr(x, "size", 1) for x in plain) else plain


@pytest.mark.parametrize(("op", "sample"), MAKING)
def test_results_lie_as_the_record_says(op, sample):
    for arrays in arrangements(sample):
        xs = tensors(arrays)
        inputs = [layout.operand(getattr(x, "_array", x)) for x in xs]
        attrs = {**op.defaults, **sample.attrs}
        for out in call(op, xs, sample.attrs)[: 1 if op.side_results else None]:
            steps = layout.strides(out._array)
            assert placement.is_dense(out.shape, steps) or op.order is placement.GIVEN
            assert min(steps, default=0) >= 0
            if out._array.size:
                want = op.order.strides(tuple(out.shape), inputs, attrs)
                assert seen(out.shape, steps) == seen(out.shape, want)


def seen(shape, steps):
    return [s for n, s in zip(shape, steps, strict=True) if n != 1]


def test_one_operand_decides_for_all_later_ones():
    a, b = rl.ones(2, 3, 4), rl.ones(2, 4, 3).transpose(1, 2)
    assert (b + a).stride() == (12, 1, 3)
    assert (a + b).stride() == (12, 4, 1)
    assert (rl.ones(4) + b).stride() == (12, 1, 3)  # a row decides nothing
    assert (b.exp() + a.double()).stride() == (12, 1, 3)


@pytest.mark.parametrize(
    "work",
    [
        lambda x: -x,
        lambda x: x * 2,
        lambda x: 2 - x,
        lambda x: x > 1,
        lambda x: x // 2,
        lambda x: x % 2,
        lambda x: x * x,
        lambda x: x.abs(),
        lambda x: x.sin(),
        lambda x: x.clamp(0, 1),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64"])
def test_repeated_elements_lie_as_pytorch_puts_them_with_data_and_without(work, dtype):
    """NumPy's ufuncs put the dimension that is repeated last; of one operand, its order was taken as it came."""
    x = rl.arange(6, dtype=getattr(rl, dtype)).reshape(2, 3).t().unsqueeze(1).expand(3, 4, 2)
    with rl.autograd.detect_anomaly():
        general = work(x)
    for y in (work(x), work(x), general, work(x.to("meta"))):
        assert y.stride() == (1, 3, 12)


def test_an_image_in_private_order_decides_as_a_contiguous_one():
    x = rl.ones(2, 3, 5, 5).contiguous(memory_format=rl.channels_last)
    y = F.conv2d(rl.ones(2, 3, 5, 5), rl.ones(3, 3, 1, 1))
    assert type(y._array) is PrivateOrder
    assert (x + y).stride() == (75, 1, 15, 3)
    assert (y + x).stride() == (75, 25, 5, 1)
    assert y.softmax(1).is_contiguous()
    assert rl.zeros_like(y).stride() == (75, 25, 5, 1)
    assert F.conv2d(x, rl.ones(4, 3, 1, 1)).stride() == (100, 1, 20, 4)


def test_a_batch_norm_of_a_contiguous_image_looks_contiguous():
    for shape in ((2, 3, 4, 4), (2, 3, 4)):
        for training in (True, False):
            y = F.batch_norm(rl.ones(shape), rl.zeros(3), rl.ones(3), training=training)
            assert y.view(2, -1).shape == (2, y.numel() // 2)
            y.flatten(1).fill_(1)
            assert y.sum() == y.numel()


def test_compiled_functions_put_their_results_where_eager_ones_do():
    def fn(x, y):
        return (x + y).exp() * 2, x.exp().sigmoid() + 1, x.softmax(1).relu() * y, (x > y) & (x > 0.1), x.sum(0)

    compiled = rl.compile(fn)
    for x in (
        rl.ones(2, 4, 3).mT,
        rl.ones(2, 3, 4),
        rl.ones(4, 3, 2).permute(2, 1, 0),
        rl.ones(2, 3, 1).expand(2, 3, 4),
    ):
        y = rl.ones(2, 3, 4)
        want = [t.stride() for t in fn(x, y)]
        for _ in range(3):
            assert [t.stride() for t in compiled(x, y)] == want


def test_gradients_that_are_kept_can_be_written_to():
    x = rl.ones(2, 3, requires_grad=True)
    y = x * 1
    y.retain_grad()
    (y + rl.ones(2, 3)).sum().backward()
    y.grad[0, 0] = 5
    y.grad.mul_(2)
    assert y.grad.tolist() == [[10, 2, 2], [2, 2, 2]]
    assert x.grad.tolist() == [[1, 1, 1], [1, 1, 1]]


def test_a_gradient_lies_as_its_leaf():
    for leaf in (rl.ones(3, 4).t(), rl.ones(2, 4, 3).mT, rl.ones(4, 1).expand(4, 3), rl.ones(4, 6)[:, ::2]):
        leaf = leaf.detach().requires_grad_()
        (leaf.exp() * rl.ones(leaf.shape)).sum().backward()
        dense = placement.is_dense(tuple(leaf.shape), leaf.stride())
        assert leaf.grad.stride() == (leaf.stride() if dense else placement.contiguous(leaf.shape))


def test_what_is_known_of_orders_is_bounded(monkeypatch):
    monkeypatch.setattr(layout, "_VERDICTS", {})
    monkeypatch.setattr(layout, "_MOST_VERDICTS", 8)
    for n in range(2, 30):
        assert (rl.ones(n, 3).t() * 2).stride() == (1, 3)
        assert len(layout._VERDICTS) <= 8


def test_the_order_of_a_result_is_that_of_numpys_ufuncs():
    """Whatever the strides of dimensions of size 1, which have no say."""
    rng = np.random.default_rng(0)
    for _ in range(2000):
        xs = []
        for _ in range(2):
            shape = tuple(rng.integers(1, 4, 3).tolist())
            steps = rng.integers(1, 9, 3) * 4
            xs.append(np.lib.stride_tricks.as_strided(np.zeros(100, np.float32), shape, steps))
        try:
            made = np.add(*xs)
        except ValueError:
            continue
        kept = [4 * step for step in order.kept(made.shape, *xs)]
        assert seen(made.shape, kept) == seen(made.shape, made.strides), [(x.shape, x.strides) for x in xs]
