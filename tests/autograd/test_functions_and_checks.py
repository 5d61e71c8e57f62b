"""User functions, gradient checks, checkpointing, anomaly mode, functional derivatives."""

import itertools
import threading
import weakref

import numpy as np
import pytest

import rushlight_tensor as T
from rushlight_autograd import (
    Function,
    GradcheckError,
    checkpoint,
    detect_anomaly,
    functional,
    grad,
    gradcheck,
    gradgradcheck,
    no_grad,
    set_detect_anomaly,
    set_grad_enabled,
)
from rushlight_tensor.core import dispatch
from tests.ops.harness import Watch

pytestmark = pytest.mark.usefixtures("text")


def leaf(*values):
    return T.tensor(values, dtype=T.float64, requires_grad=True)


class Cube(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x * x

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 3 * x * x * g


class Scale(Function):
    """The second form, with a number among the inputs."""

    @staticmethod
    def forward(x, factor):
        return x * factor, x + factor

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.factor = inputs[1]

    @staticmethod
    def backward(ctx, g, h):
        return g * ctx.factor + h, None


class WrongExp(Function):
    @staticmethod
    def forward(ctx, x):
        y = T.exp(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g * y * 2


def test_function_and_its_second_derivative():
    x = leaf(1.0, 2.0)
    assert gradcheck(Cube.apply, x)
    assert gradgradcheck(Cube.apply, x)


def test_function_with_several_results_and_an_unused_one():
    x = leaf(1.0, 2.0)
    first, second = Scale.apply(x, 3.0)
    (first * 1).sum().backward(retain_graph=True)
    np.testing.assert_array_equal(x.grad.numpy(), [3.0, 3.0])
    second.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [4.0, 4.0])


class Double(Function):
    """Saves both of its results, one of which is its input, written into."""

    @staticmethod
    def forward(ctx, x):
        y = x * 1
        x.exp_()
        ctx.mark_dirty(x)
        ctx.save_for_backward(x, y)
        return x, y

    @staticmethod
    def backward(ctx, g, h):
        x, y = ctx.saved_tensors
        return g * x + h * (y / y)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    "write",
    [
        lambda y: y.zero_(),
        lambda y: y.mul_(2),
        lambda y: y.detach().zero_(),
        lambda y: y.view(2, 1).zero_(),
        lambda y: y.detach_().zero_(),
    ],
    ids=range(5),
)
def test_result_that_a_function_saved_is_refused_when_it_was_written_to(write, which):
    for recorded in (False, True):
        outs = Double.apply(leaf(1.0, 2.0) * 1)
        z = sum(o.sum() for o in outs) * 1
        with set_grad_enabled(recorded):
            write(outs[which])
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            z.backward()


class Flat(Function):
    """Saves its result, a view, and does not look at it."""

    @staticmethod
    def forward(ctx, x):
        y = x.view(-1)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        return g


def test_write_is_noticed_by_all_that_saved_the_memory_as_their_result():
    y = WrongExp.apply(leaf(1.0, 2.0))
    total = Flat.apply(y).sum()
    y.detach().zero_()
    with pytest.raises(RuntimeError, match="saved by or written to by 'WrongExp'"):
        total.backward()


def test_results_that_a_function_saved_have_their_gradient():
    x = leaf(1.0, 2.0)
    sum(o.sum() for o in Double.apply(x * 1)).backward()
    np.testing.assert_allclose(x.grad.numpy(), np.exp([1.0, 2.0]) + 1)


def test_gradcheck_finds_a_wrong_gradient():
    assert not gradcheck(WrongExp.apply, leaf(0.3), raise_exception=False)
    with pytest.raises(GradcheckError, match="Jacobian mismatch for output 0 with respect to input 0"):
        gradcheck(WrongExp.apply, leaf(0.3))


def test_function_that_returns_too_few_gradients_is_named():
    class Two(Function):
        @staticmethod
        def forward(ctx, x, y):
            return x * y

        @staticmethod
        def backward(ctx, g):
            return g

    with pytest.raises(RuntimeError, match="TwoBackward returned an incorrect number of gradients"):
        Two.apply(leaf(1.0), leaf(2.0)).sum().backward()


def test_checkpoint_gives_the_same_gradients_and_keeps_no_intermediates():
    w = leaf(0.7)
    calls = []

    def segment(x):
        calls.append(1)
        return T.exp(x * w).sum()

    x = leaf(1.0, 2.0)
    segment(x).backward()
    expected = x.grad.numpy().copy(), w.grad.numpy().copy()
    x.grad = w.grad = None
    calls.clear()
    out = checkpoint(segment, x, use_reentrant=False)
    assert len(calls) == 1
    out.backward()
    assert len(calls) == 2
    np.testing.assert_array_equal(x.grad.numpy(), expected[0])
    np.testing.assert_array_equal(w.grad.numpy(), expected[1])


def test_checkpoint_forgets_what_its_nodes_saved():
    made = []

    def segment(x):
        y = T.exp(x)
        made.append(weakref.ref(y))
        return y * y * y

    out = checkpoint(segment, leaf(1.0, 2.0))
    assert made[0]() is None
    out.sum().backward()
    assert len(made) == 2
    del out
    assert made[1]() is None


def test_checkpoint_finishes_a_leaf_once_that_is_used_inside_and_outside():
    w = leaf(2.0)
    seen = []
    w.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.item()))
    (w * checkpoint(lambda x: checkpoint(lambda x: w * x, w * x), leaf(3.0))).sum().backward()
    assert seen == [36.0]


def test_checkpoint_lets_grad_ask_for_parameters_inside():
    w = leaf(2.0)
    (g,) = grad(checkpoint(lambda x: (x * w).exp(), leaf(0.5)).sum(), w)
    np.testing.assert_allclose(g.item(), 0.5 * np.exp(1.0))


def test_checkpoints_of_several_threads_leave_in_any_order():
    """The one that begins first ends first, in both passes: the other goes on, and nobody stays behind."""
    w, found = leaf(2.0), {}
    first_is_in, second_is_in, first_is_out = ([threading.Event() for _ in range(2)] for _ in range(3))

    def work(name, before, within, says, done):
        runs = iter(range(2))

        def segment(x):
            i = next(runs)
            y = w * x
            says[i].set()
            assert within[i].wait(20)
            return y.exp() * w

        x = leaf(0.5)
        assert before is None or before[0].wait(20)
        out = checkpoint(segment, x)
        done[0].set()
        assert before is None or before[1].wait(20)
        out.sum().backward()
        done[1].set()
        found[name] = x.grad.item()

    nobody = [threading.Event() for _ in range(2)]
    threads = [
        threading.Thread(target=work, args=("first", None, second_is_in, first_is_in, first_is_out)),
        threading.Thread(target=work, args=("second", first_is_in, first_is_out, second_is_in, nobody)),
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert dispatch.INTERCEPT is None
    np.testing.assert_allclose([found["first"], found["second"]], [4 * np.exp(1.0)] * 2)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_interceptors_leave_in_any_order(order):
    class Counter(Watch):
        outer = None

    entered = [Counter() for _ in range(3)]
    for one in entered:
        dispatch.enter_intercept(one)
    left = list(entered)
    for i in order:
        dispatch.leave_intercept(entered[i])
        left.remove(entered[i])
        chain, at = [], dispatch.INTERCEPT
        while at is not None:
            chain.append(at)
            at = at.outer
        assert chain == left[::-1]


@pytest.mark.parametrize("bad", [complex("nan"), complex(0, float("nan"))])
def test_anomaly_mode_sees_both_parts_of_a_complex_gradient(bad):
    x = T.tensor([1 + 1j], requires_grad=True)
    with detect_anomaly():
        y = x * T.tensor([bad])
        with pytest.raises(RuntimeError, match="Function 'MulBackward0' returned nan values in its 0th output"):
            y.backward(T.tensor([1 + 0j]))


def test_checkpoint_inside_a_checkpoint_need_not_be_its_last_operation():
    def inner(x, keep):
        return (x * 2).sin() * x

    def outer(x, keep):
        y = keep(inner, x * x, keep)
        return y.exp() * keep(inner, y, keep) * x

    found = []
    for keep in (checkpoint, lambda fn, *args: fn(*args)):
        x = leaf(0.5, 1.0)
        keep(outer, x, keep).sum().backward()
        found.append(x.grad.numpy())
    np.testing.assert_allclose(*found)


def test_result_that_a_checkpointed_function_writes_into_is_refused():
    def function(x):
        y = T.exp(x)
        z = y * 2
        with no_grad():
            y.mul_(3)
        return T.sin(z)

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        checkpoint(function, leaf(0.5, 1.0)).sum().backward()


def test_checkpoint_repeats_random_numbers():
    T.manual_seed(0)
    x = T.ones(100, requires_grad=True)
    masks = []

    def segment(x):
        masks.append(T.rand(100))
        return (x * masks[-1]).sum()

    checkpoint(segment, x).backward()
    np.testing.assert_array_equal(masks[0].numpy(), masks[1].numpy())


def test_anomaly_mode_names_the_forward_line():
    with detect_anomaly():
        x = leaf(0.0)
        y = (x * 0) / x  # the guilty line
        with pytest.raises(RuntimeError, match=r"test_functions_and_checks\.py:\d+: y = \(x \* 0\) / x"):
            y.sum().backward()


def test_anomaly_mode_can_be_switched():
    set_detect_anomaly(True)
    try:
        with pytest.raises(RuntimeError, match="DivBackward0"):
            (leaf(0.0) / leaf(0.0)).sum().backward()
    finally:
        set_detect_anomaly(False)
    (leaf(0.0) / leaf(0.0)).sum().backward()


def test_jacobian_hessian_and_products():
    x = T.tensor([1.0, 2.0], dtype=T.float64)
    np.testing.assert_allclose(functional.jacobian(lambda t: t * t, x).numpy(), np.diag([2.0, 4.0]))
    np.testing.assert_allclose(functional.hessian(lambda t: (t**3).sum(), x).numpy(), np.diag([6.0, 12.0]))
    v = T.tensor([1.0, -1.0], dtype=T.float64)
    np.testing.assert_allclose(functional.jvp(lambda t: t * t, x, v)[1].numpy(), [2.0, -4.0])
    np.testing.assert_allclose(functional.vjp(lambda t: t * t, x, v)[1].numpy(), [2.0, -4.0])
    np.testing.assert_allclose(functional.hvp(lambda t: (t**3).sum(), x, v)[1].numpy(), [6.0, -12.0])


def test_gradient_penalty_trains_through_a_gradient():
    w = leaf(2.0)
    x = leaf(1.0, 3.0)
    (g,) = grad((w * x * x).sum(), x, create_graph=True)
    ((g * g).sum()).backward()
    assert w.grad.item() == pytest.approx(2 * 2.0 * (2.0**2 + 6.0**2))
