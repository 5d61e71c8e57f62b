"""Random tensors: shapes, dtypes, gradients, generators and mistakes, as in PyTorch."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import rushlight_jit as jit
import rushlight_tensor as torch
from rushlight_autograd import no_grad
from rushlight_nn import functional as F
from rushlight_tensor.random import default_generator

F32, I64 = "float32", "int64"


@pytest.fixture(autouse=True)
def seed_0():
    state = torch.get_rng_state()
    torch.manual_seed(0)
    yield
    torch.set_rng_state(state)


@pytest.mark.parametrize(
    ("make", "shape", "dtype"),
    [
        (lambda: torch.rand(2, 3), (2, 3), F32),
        (lambda: torch.rand((2, 3)), (2, 3), F32),
        (lambda: torch.rand([]), (), F32),
        (lambda: torch.rand(2, dtype=torch.float64), (2,), "float64"),
        (lambda: torch.randn(torch.Size([4, 0])), (4, 0), F32),
        (lambda: torch.randn(2, dtype=torch.complex64), (2,), "complex64"),
        (lambda: torch.randint(10, (3,)), (3,), I64),
        (lambda: torch.randint(-5, 10, (3, 1)), (3, 1), I64),
        (lambda: torch.randint(low=3, high=9, size=(3,)), (3,), I64),
        (lambda: torch.randint(3, 9, size=(2,), dtype=torch.uint8), (2,), "uint8"),
        (lambda: torch.randperm(5), (5,), I64),
        (lambda: torch.randperm(5, dtype=torch.float32), (5,), F32),
        (lambda: torch.normal(0.0, 1.0, (2, 3)), (2, 3), F32),
        (lambda: torch.normal(torch.zeros(3, 1), torch.ones(4)), (3, 4), F32),
        (lambda: torch.normal(2.0, torch.ones(4)), (4,), F32),
        (lambda: torch.normal(torch.zeros(4, dtype=torch.float64)), (4,), "float64"),
        (lambda: torch.bernoulli(torch.rand(5)), (5,), F32),
        (lambda: torch.bernoulli(torch.zeros(5, dtype=torch.int64), 0.5), (5,), I64),
        (lambda: torch.multinomial(torch.rand(3, 5), 2), (3, 2), I64),
        (lambda: torch.rand_like(torch.zeros(2, 2, dtype=torch.float64)), (2, 2), "float64"),
        (lambda: torch.randn_like(torch.zeros(2, 2), dtype=torch.float16), (2, 2), "float16"),
        (lambda: torch.randint_like(torch.zeros(4), 5), (4,), F32),
        (lambda: torch.randint_like(torch.zeros(4), 3, 5), (4,), F32),
    ],
)
def test_shapes_and_dtypes_and_the_same_seed_the_same_numbers(make, shape, dtype):
    first = make()
    assert first.shape == shape
    assert first.dtype is getattr(torch, dtype)
    torch.manual_seed(0)
    assert make().tolist() == first.tolist()


def test_a_generator_leaves_the_default_one_alone():
    before = torch.get_rng_state().tolist()
    g = torch.Generator().manual_seed(1)
    drawn = [
        torch.rand(2, generator=g), torch.randn(2, generator=g), torch.randint(5, (2,), generator=g),
        torch.randperm(4, generator=g), torch.bernoulli(torch.rand(2, generator=g), generator=g),
        torch.multinomial(torch.ones(3), 2, generator=g), torch.normal(0.0, 1.0, (2,), generator=g),
        torch.zeros(3).uniform_(generator=g), torch.zeros(3).exponential_(generator=g),
    ]  # fmt: skip
    assert len(drawn) == 9
    assert torch.get_rng_state().tolist() == before


def test_in_place_draws_return_the_tensor_and_share_its_memory():
    x = torch.zeros(4, 4)
    row = x[1]
    for draw in (
        lambda t: t.uniform_(2, 3),
        lambda t: t.normal_(5.0, 0.1),
        lambda t: t.random_(1, 9),
        lambda t: t.random_(5),
        lambda t: t.random_(),
        lambda t: t.bernoulli_(1.0),
        lambda t: t.bernoulli_(torch.ones(4)),
        lambda t: t.exponential_(2.0),
        lambda t: t.geometric_(0.5),
        lambda t: t.cauchy_(),
        lambda t: t.log_normal_(),
    ):
        x.zero_()
        assert draw(row) is row
        assert (x[1]._array == row._array).all()
        assert x[0]._array.any() == x[2]._array.any() == False  # noqa: E712 - three values
        assert row._array.any()


def test_in_place_draws_count_as_changes_for_autograd():
    leaf = torch.ones(3, requires_grad=True)
    with pytest.raises(RuntimeError, match="a leaf Variable that requires grad is being used in an in-place operation"):
        leaf.uniform_()
    with no_grad():
        leaf.uniform_()
    y = leaf * 2
    y.normal_()
    y.sum().backward()
    assert leaf.grad.tolist() == [0, 0, 0]
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        leaf.exp().uniform_().sum().backward()


def test_draws_have_no_gradient_history():
    x = torch.ones(3, requires_grad=True)
    assert not torch.rand_like(x).requires_grad
    assert torch.rand(2, requires_grad=True).is_leaf


def test_draws_like_a_transposed_tensor_have_its_memory_order():
    x = torch.zeros(3, 4).transpose(0, 1)
    y = torch.rand_like(x)
    assert y.stride() == x.stride()
    torch.manual_seed(0)
    assert y.transpose(0, 1).tolist() == torch.rand(3, 4).tolist()


def test_out_is_filled():
    out = torch.zeros(3)
    assert torch.rand(3, out=out) is out
    assert out._array.any()
    with pytest.raises(RuntimeError, match=r"out= has shape \[3\], the result has \[2\]; give one of that shape"):
        torch.rand(2, out=out)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: torch.rand(-1), RuntimeError, r"negative dimension -1: \[-1\]"),
        (lambda: torch.rand(2.5), TypeError, "sizes must be ints"),
        (lambda: torch.rand(3, dtype=torch.int64), NotImplementedError, "not implemented for 'Long'"),
        (lambda: torch.randn(3, dtype=torch.int64), NotImplementedError, "not implemented for 'Long'"),
        (lambda: torch.randint(5, 5, (2,)), RuntimeError, "'from' to be less than 'to', but got from=5 >= to=5"),
        (lambda: torch.randint((2,)), TypeError, "give low, high and a size"),
        (lambda: torch.randint(2.5, (2,)), TypeError, "cannot be interpreted as an integer"),
        (lambda: torch.randint(0, 300, (2,), dtype=torch.uint8), RuntimeError, "out of bounds for unsigned char"),
        (lambda: torch.randperm(300, dtype=torch.uint8), RuntimeError, "without overflow"),
        (lambda: torch.randperm(-1), RuntimeError, "negative dimension"),
        (lambda: torch.normal(0.0, 1.0), TypeError, "two numbers, no size; give size="),
        (lambda: torch.normal(torch.zeros(2), 1.0, (2,)), TypeError, "a tensor and a size; leave size= out"),
        (lambda: torch.normal(torch.zeros(2), torch.tensor([-1.0, 1])), RuntimeError, "all elements of std >= 0.0"),
        (lambda: torch.bernoulli(torch.tensor([2.0])), RuntimeError, "p_in >= 0 && p_in <= 1"),
        (lambda: torch.bernoulli(torch.tensor([1, 0])), NotImplementedError, "bernoulli_tensor_cpu_p_"),
        (lambda: torch.zeros(2).bernoulli_(torch.ones(3)), RuntimeError, "must match the size of tensor b|broadcast"),
        (lambda: torch.zeros(1, 2).expand(3, 2).uniform_(), RuntimeError, "single memory location|read-only"),
        (lambda: torch.multinomial(torch.ones(2), 3), RuntimeError, "without replacement: 3 samples of 2"),
    ],
)
def test_mistakes(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_compiled_functions_draw_new_numbers_on_each_call():
    g = torch.Generator()

    def noisy(x):
        dropped = x * torch.zeros(8).bernoulli_(0.5, generator=g)
        return dropped + torch.rand(8, generator=g) + torch.randn_like(x, generator=g) + torch.randperm(8, generator=g)

    compiled = jit.compile(noisy)
    want, got = ([f(torch.ones(8)).tolist() for _ in range(3)] for f in (noisy, compiled) if g.manual_seed(0))
    assert want == got
    assert want[0] != want[1]
    assert compiled.traces == 1


def test_fork_rng_restores_the_stream():
    with torch.random.fork_rng():
        torch.manual_seed(5)
        torch.rand(3)
    again = torch.rand(3).tolist()
    torch.manual_seed(0)
    assert torch.rand(3).tolist() == again


def test_the_distributions_have_their_means():
    n = 200_000
    for x, mean, std in (
        (torch.rand(n), 0.5, 12**-0.5),
        (torch.randn(n), 0.0, 1.0),
        (torch.zeros(n).exponential_(2.0), 0.5, 0.5),
        (torch.zeros(n).geometric_(0.25), 4.0, 12**0.5),
        (torch.zeros(n).bernoulli_(0.3), 0.3, 0.21**0.5),
        (torch.randint(0, 11, (n,)), 5.0, 10**0.5),
        (torch.zeros(n).log_normal_(0.0, 0.5), np.exp(0.125), np.exp(0.125) * (np.exp(0.25) - 1) ** 0.5),
    ):
        values = x._array.astype(np.float64)
        assert abs(values.mean() - mean) < 5 * std / n**0.5
        assert abs(values.std() - std) < 0.03 * std


@pytest.mark.parametrize("n", [64, 40_000])  # small ones keep the interpreter, large ones let go of it
def test_dropout_of_two_threads_draws_what_one_would(n):
    x, together = torch.ones(n), threading.Barrier(2)
    for _ in range(3):
        F.dropout(x)  # from the second one on a plan is known

    def work():
        together.wait()
        for _ in range(50):
            F.dropout(x)

    torch.manual_seed(3)
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = torch.rand(5).tolist()
    torch.manual_seed(3)
    for _ in range(100):
        F.dropout(x)
    assert torch.rand(5).tolist() == after


def test_dropout_waits_for_who_has_the_generator():
    x, done = torch.ones(8), threading.Event()
    for _ in range(3):
        F.dropout(x)
    thread = threading.Thread(target=lambda: (F.dropout(x), done.set()))
    with default_generator.lock:
        before = default_generator.get_state().tolist()
        thread.start()
        assert not done.wait(0.1)
        assert default_generator.get_state().tolist() == before
    thread.join()
    assert done.is_set()
    assert default_generator.get_state().tolist() != before


@pytest.mark.parametrize("layers", [F.dropout, F.dropout1d])
def test_dropping_everything_draws_nothing(layers):
    """As PyTorch does: the numbers after it were others."""
    torch.manual_seed(3)
    assert layers(torch.ones(2, 3, 4), 1.0).tolist() == torch.zeros(2, 3, 4).tolist()
    after = torch.rand(3).tolist()
    torch.manual_seed(3)
    assert torch.rand(3).tolist() == after


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (2, 0, 3)])
@pytest.mark.parametrize("name", ["uniform_", "normal_", "bernoulli_", "exponential_", "random_", "geometric_"])
def test_nothing_is_drawn_into_nothing(name, shape):
    """What is empty was taken for an expanded tensor: NumPy gives it strides of 0."""
    x = torch.empty(shape)
    assert getattr(x, name)(*((0.5,) if name == "geometric_" else ())) is x


@pytest.mark.parametrize(("dtype", "step"), [(torch.float32, 2.0**-23), (torch.float64, 2.0**-52)])
def test_the_upper_bound_is_never_drawn(dtype, step):
    """Every other number between 1 and the next one is rounded up to it."""
    for n in (5, 1000):
        assert (torch.empty(n, dtype=dtype).uniform_(1.0, 1.0 + step) == 1.0).all()
