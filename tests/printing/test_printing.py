"""The printed form of tensors, recorded from PyTorch 2.13."""

from __future__ import annotations

import zlib

import pytest

import rushlight_tensor as torch
from rushlight_tensor.core.tensor import wrap
from tests.printing.corpus import OPTIONS, arrays

# CRC-32 over the printed corpus, for each of OPTIONS.
GOLDEN = [
    0xD2502B07,
    0xD8619F62,
    0xD8C147CC,
    0x971ED4F8,
    0x50254C95,
    0xCE16E3CE,
    0xAC989495,
    0x29CEB01C,
    0x3756A8B6,
    0x5BF53A51,
]


@pytest.fixture(autouse=True)
def default_options():
    yield
    torch.set_printoptions(profile="default")


@pytest.mark.parametrize(("options", "expected"), list(zip(OPTIONS, GOLDEN, strict=True)), ids=map(str, OPTIONS))
def test_the_corpus_prints_as_recorded(options, expected):
    torch.set_printoptions(**options)
    found = 0
    for array in arrays(300 if options.get("profile") == "full" else 2000):
        found = zlib.crc32(repr(wrap(array)).encode(), found)
    assert found == expected


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (1.0, "tensor(1.)"),
        (2, "tensor(2)"),
        (True, "tensor(True)"),
        ([], "tensor([])"),
        ([1.0, 2.5], "tensor([1.0000, 2.5000])"),
        ([1.0, 2.0, -3.0], "tensor([ 1.,  2., -3.])"),
        ([-0.0, 0.0], "tensor([-0., 0.])"),
        ([1e-5, 1.0], "tensor([1.0000e-05, 1.0000e+00])"),
        ([1.0, float("nan"), float("inf")], "tensor([1., nan, inf])"),
        ([1.5, float("nan"), -float("inf")], "tensor([1.5000,    nan,   -inf])"),
        ([1e10], "tensor([1.0000e+10])"),
        ([True, False], "tensor([ True, False])"),
        ([1 + 2j, -0.5j], "tensor([1.+2.0000j, -0.-0.5000j])"),
        ([[1, 2], [30, 4]], "tensor([[ 1,  2],\n        [30,  4]])"),
        ([[[1]], [[2]]], "tensor([[[1]],\n\n        [[2]]])"),
    ],
)
def test_forms_that_people_know(data, text):
    assert repr(torch.tensor(data)) == str(torch.tensor(data)) == text


def test_what_follows_the_numbers():
    x = torch.ones(2, requires_grad=True)
    assert repr(x) == "tensor([1., 1.], requires_grad=True)"
    assert repr(x * 2) == "tensor([2., 2.], grad_fn=<MulBackward0>)"
    assert repr(torch.zeros(2, dtype=torch.float64)) == "tensor([0., 0.], dtype=torch.float64)"
    assert repr(torch.zeros(0, 3, dtype=torch.int64)) == "tensor([], size=(0, 3), dtype=torch.int64)"
    long = repr(torch.ones(12, requires_grad=True) * 1.5)
    assert long == (
        "tensor([1.5000, 1.5000, 1.5000, 1.5000, 1.5000, 1.5000, 1.5000, 1.5000, 1.5000,\n"
        "        1.5000, 1.5000, 1.5000], grad_fn=<MulBackward0>)"
    )


def test_more_than_a_thousand_elements_are_summarised():
    assert repr(torch.zeros(1001)) == "tensor([0., 0., 0.,  ..., 0., 0., 0.])"
    torch.set_printoptions(threshold=2000)
    assert "..." not in repr(torch.zeros(1001))


def test_numbers_are_formatted_as_python_numbers():
    assert f"{torch.tensor(3.14159):.2f}" == "3.14"
    assert f"{torch.tensor(7)}" == "7"
    assert f"{torch.ones(2)}" == "tensor([1., 1.])"
    with pytest.raises(TypeError, match="unsupported format string"):
        format(torch.ones(2), ".2f")


def test_unknown_profiles_are_refused():
    with pytest.raises(ValueError, match="unknown profile 'tiny'; use one of default, short, full"):
        torch.set_printoptions(profile="tiny")
