"""Lengths are checked where pointers are taken: a wrong one is a ValueError and never reaches C."""

import subprocess

import numpy as np
import pytest

from rushlight_tensor.kernels.binding import HEADER, wrappers
from rushlight_tensor.kernels.compile import SOURCES, compile_c, find_compiler
from rushlight_tensor.kernels.prototype import MOST, prototypes
from rushlight_tensor.kernels.threads import get_num_threads, set_num_threads

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="no C compiler, or RUSHLIGHT_CC=none")

TEXT = """
EXPORT void product(LENGTH(m * k + 1) const float *x, OPTIONAL LENGTH(pick(turned, m, k)) float *y, long m, long k,
    long turned) {}
EXPORT void strided(EXTENT(span(n, down, m, 1)) const double *x, long n, POSITIVE long down, long m) {}
EXPORT void many(LENGTH(count, sizes[i]) float *const *xs, OPTIONAL LENGTH(count, sizes[i]) const float *const *ys,
    LENGTH(count) const int64_t *sizes, long count) {}
#define HALF (n / 2)
#define PART \\
    least(HALF, m / 0 + 3)
EXPORT long named(LENGTH(PART) const float *x, SCRATCH LENGTH(threads * n) int64_t *work, long n, POSITIVE long m,
    long threads) {
    for (long i = 0; i < threads * n; i++) work[i] = i;
    return threads;
}
"""


def floats(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


@needs_compiler
@pytest.mark.parametrize(
    "arguments",
    [
        (floats(7), floats(3), 2, 3, 0),
        (floats(7), floats(2), 2, 3, 1),
        (floats(7), None, 2, 3, 0),
        (floats(1), floats(0, 5), 0, 3, 1),
    ],
)
def test_right_lengths_pass(arguments):
    assert compile_c(TEXT).product(*arguments) is None


@needs_compiler
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((floats(6), None, 2, 3, 0), "product: argument x has 6 elements, its sizes ask for 7"),
        ((floats(8), None, 2, 3, 0), "argument x has 8 elements, its sizes ask for 7"),
        ((floats(7), floats(2), 2, 3, 0), "argument y has 2 elements, its sizes ask for 3"),
        ((floats(7), None, -2, -3, 0), "argument m must be at least 0, got -2"),
        ((floats(7), None, 2, -1, 0), "argument k must be at least 0, got -1"),
        ((floats(1), None, 2**32, 2**32, 0), "argument x has 1 elements, its sizes ask for more than 2\\^63"),
        ((floats(1), None, 2**62, 4, 0), "more than 2\\^63"),
    ],
)
def test_wrong_lengths_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        compile_c(TEXT).product(*arguments)


@needs_compiler
def test_number_beyond_64_bits_is_an_error_of_its_own():
    with pytest.raises(OverflowError):
        compile_c(TEXT).product(floats(1), None, 2**64, 0, 0)


@needs_compiler
def test_extent_is_what_an_array_spans():
    strided, x = compile_c(TEXT).strided, np.zeros((4, 6))
    strided(x[:, :3], 4, 6, 3)
    strided(x[:, :3], 3, 6, 3)  # a part of it
    strided(x[:0], 0, 6, 3)
    strided(np.broadcast_to(x[0, :3], (4, 3)), 1, 6, 3)
    for wrong in ((x[:, :3], 4, 6, 4), (x[:, :3], 5, 6, 1), (x[:, :3], 2, 19, 3), (x[:0], 1, 6, 1), (x[1:2], 2, 6, 3)):
        with pytest.raises(ValueError, match="argument x spans"):
            strided(*wrong)
    with pytest.raises(ValueError, match="negative stride"):
        strided(x[::-1], 4, 6, 6)
    with pytest.raises(ValueError, match="argument down must be at least 1, got 0"):
        strided(x, 1, 0, 1)
    with pytest.raises(ValueError, match="more than 2"):
        strided(x, 2**40, 2**40, 1)


@needs_compiler
def test_lists_are_checked_one_by_one():
    many = compile_c(TEXT).many
    xs, sizes = [floats(2), floats(2, 3)], np.array([2, 6])
    many(xs, None, sizes, 2)
    many(xs, xs, sizes, 2)
    for wrong, message in (
        ((xs, None, np.array([2, 5]), 2), "argument xs has 6 elements, its sizes ask for 5"),
        ((xs, [xs[0], floats(5)], sizes, 2), "argument ys has 5 elements, its sizes ask for 6"),
        ((xs, xs[:1], sizes, 2), "argument ys: a list of 1 arrays, need 2"),
        ((xs, None, sizes, 1), "argument sizes has 2 elements, its sizes ask for 1"),
        ((xs, None, np.array([2, -6]), 2), "its sizes ask for -6"),
    ):
        with pytest.raises(ValueError, match=message):
            many(*wrong)


@needs_compiler
def test_names_stand_for_parts_of_lengths_and_threads_are_those_that_have_scratch():
    named, before = compile_c(TEXT).named, get_num_threads()
    try:
        for threads in (1, 3):
            set_num_threads(threads)
            assert named(floats(2), 5, 1) == named(floats(3), 9, 1) == threads
    finally:
        set_num_threads(before)
    with pytest.raises(ValueError, match="argument x has 3 elements, its sizes ask for 2"):
        named(floats(3), 5, 1)
    with pytest.raises(MemoryError):
        named(floats(3), 2**62, 1)


@pytest.mark.parametrize("operation", ["+", "-", "*", "/"])
def test_what_is_beyond_all_numbers_stays_there(operation):
    for length in (f"n * n {operation} m", f"ceil(n * n, m) {operation} 2"):
        (found,) = prototypes(f"EXPORT void f(LENGTH({length}) const float *x, long n, long m) {{}}")
        assert found.length(found.arguments[0], {"n": 2**62, "m": 3}) == MOST


@pytest.mark.parametrize(
    ("prototype", "message"),
    [
        ("void f(const float *x, long n)", "the array 'x' declares no length"),
        ("void f(OPTIONAL float *x, long n)", "the array 'x' declares no length"),
        ("void f(LENGTH(m) const float *x, long n)", "cannot read the length of 'x': 'm'"),
        ("void f(LENGTH(n * f) const float *x, long n, double f)", "cannot read the length of 'x'"),
        ("void f(LENGTH(n % 2) const float *x, long n)", "cannot read the length of 'x'"),
        ("void f(LENGTH(n, m) const float *x, long n, long m)", "cannot read the length of 'x'"),
        ("void f(LENGTH(n) const float *const *x, long n)", "cannot read the length of 'x'"),
        ("void f(LENGTH(n, s[i]) const float *const *x, LENGTH(m) const int64_t *s, long n, long m)", "length of 'x'"),
        ("void f(SCRATCH LENGTH(threads * n) float *x, long n)", "cannot read the length of 'x'"),
        ("void f(LENGTH(n *) const float *x, long n)", "cannot read the length of 'x'"),
    ],
)
def test_prototype_that_declares_no_length_is_refused(prototype, message):
    with pytest.raises(ValueError, match=message):
        wrappers(f"EXPORT {prototype} {{}}\n")


@needs_compiler
@pytest.mark.parametrize("path", sorted(SOURCES.glob("*.c")), ids=lambda path: path.stem)
def test_no_kernel_uses_the_stack_by_its_input(path):
    """A kernel of a million taps once needed 8 MB of stack, in an array whose size was a variable."""
    check = [*find_compiler().command, "-std=gnu11", "-fsyntax-only", "-Werror=vla", "-I", str(SOURCES), "-x", "c", "-"]
    done = subprocess.run(check, input=HEADER + path.read_text(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "alloca(" not in path.read_text()
