"""Bools, integers and numbers beyond a dtype: what is refused, what wraps around (against PyTorch: tests/parity)."""

import itertools
import math

import pytest

import rushlight_tensor as T

ZERO = {
    "//": lambda x, y: x // y,
    "%": lambda x, y: x % y,
    "fmod": lambda x, y: x.fmod(y),
    "trunc": lambda x, y: x.div(y, rounding_mode="trunc"),
    "in place": lambda x, y: x.clone().floor_divide_(y),
    "reflected": lambda x, y: 5 // (x * y),
}


@pytest.mark.parametrize("divide", ZERO.values(), ids=ZERO)
@pytest.mark.parametrize("dtype", [T.int64, T.uint8, T.int16])
def test_integers_are_not_divided_by_zero(divide, dtype):
    x = T.tensor([7, 3], dtype=dtype)
    for zero in (0, T.tensor(0, dtype=dtype), T.tensor([1, 0], dtype=dtype)):
        with pytest.raises(RuntimeError, match="ZeroDivisionError"):
            divide(x, zero)
    assert divide(x[:0], T.tensor([0], dtype=dtype)).numel() == 0
    assert not math.isfinite(divide(x.float(), T.tensor([0.0, 1.0]))[0]) or divide is ZERO["reflected"]


@pytest.mark.parametrize("bits", [8, 16, 32, 64])
def test_shifts_are_those_of_unbounded_integers_cut_to_size(bits):
    dtype = getattr(T, f"int{bits}")
    values = [0, 1, -1, 5, -8, 2 ** (bits - 1) - 1, -(2 ** (bits - 1))]
    x = T.tensor(values, dtype=dtype)
    for n in (0, 1, bits - 1):
        cut = [((v << n) + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1) for v in values]
        assert (x << n).tolist() == cut
        assert (x >> n).tolist() == [v >> n for v in values]
    assert (x << bits).tolist() == [0] * len(values)
    assert (x >> bits).tolist() == (x >> -1).tolist() == [-1 if v < 0 else 0 for v in values]


def test_powers_of_integers_by_negative_ones_are_integers_or_zero():
    bases, exponents = [1, -1, 2, -3], [-1, -2, -3]
    for b, e in itertools.product(bases, exponents):
        exact = float(b) ** e
        assert (T.tensor([b]) ** T.tensor([e])).item() == (exact if exact == int(exact) else 0)
    with pytest.raises(RuntimeError, match="negative integer powers"):
        T.tensor([2]) ** -1


@pytest.mark.parametrize(
    "case",
    [
        lambda m: 1 - m,
        lambda m: T.ones(2) - m,
        lambda m: -m,
        lambda m: m**m,
        lambda m: m // True,
        lambda m: m.round(),
        lambda m: m.abs(),
        lambda m: m.argmax(),
        lambda m: T.ones(2) & m,
        lambda m: m << m,
    ],
)
def test_bools_are_no_numbers(case):
    with pytest.raises(RuntimeError, match=r"[bB]ool|Float"):
        case(T.tensor([True, False]))


def test_numbers_wrap_around_in_arithmetic_and_are_checked_where_they_fill():
    x = T.tensor([1, 2], dtype=T.uint8)
    assert (x + 300).tolist() == [45, 46]
    assert (x * -1).tolist() == [255, 254]
    assert x.clone().add_(-3).tolist() == [254, 255]
    for fill in (
        lambda n: T.tensor(n, dtype=T.uint8),
        lambda n: T.full((1,), n, dtype=T.uint8),
        lambda n: x.clone().fill_(n),
        lambda n: x.masked_fill(x == 1, n),
        lambda n: T.where(x == 1, x, n),
        lambda n: x.clamp(max=n),
        lambda n: x.clone().__setitem__(0, n),
    ):
        fill(255)
        fill(-1)
        for n in (256, -256):
            with pytest.raises(RuntimeError, match=r"cannot be converted to type uint8(_t)? without overflow"):
                fill(n)


def test_sums_of_einsum_do_not_overflow_in_the_dtype_of_the_operand():
    x = T.tensor([[100, 100, 100], [1, 2, 3]], dtype=T.uint8)
    assert T.einsum("bi->b", x).tolist() == [300, 6]
    assert T.einsum("bi->b", x).dtype == T.int64
    assert T.einsum("ii->i", x[:, :2]).dtype == T.uint8  # nothing is summed
    with pytest.raises(RuntimeError, match="repeated for operand 0 but the sizes don't match, 3 != 2"):
        T.einsum("ii->i", x)
