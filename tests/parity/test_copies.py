"""copy, deepcopy and pickle of tensors: what is shared, kept and lost is what PyTorch shares, keeps and loses."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import rushlight as rl
from tests.parity.outcome import outcome

torch = pytest.importorskip("torch")

WAYS = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
    "copy": lambda x: [copy.copy(v) for v in x],
}
LISTS = {
    "base and view": lambda t, a: [a, a[1:]],
    "view and base": lambda t, a: [a[1:], a],
    "two views": lambda t, a: [a[:1], a[:, 1:]],
    "three": lambda t, a: [a, a.t(), a.view(3, 2)],
    "twice the same": lambda t, a: [a, a],
    "transposed": lambda t, a: [a.t()],
    "every second": lambda t, a: [a[:, ::2], a],
    "expanded": lambda t, a: [a[:1].expand(4, 3)],
    "expanded and base": lambda t, a: [a[:1].expand(4, 3), a],
    "diagonal": lambda t, a: [a.diagonal(), a],
    "empty": lambda t, a: [a[:0], a],
    "scalar": lambda t, a: [a[0, 0], a],
    "permuted memory": lambda t, a: [t.arange(24.0).reshape(2, 3, 4).permute(2, 0, 1).contiguous().permute(1, 2, 0)],
    "columns first": lambda t, a: [t.arange(24.0).reshape(2, 3, 4).transpose(0, 2).clone()],
    "from numpy": lambda t, a: (lambda x: [x, x[2:]])(t.from_numpy(np.arange(6.0))),
    "bfloat16": lambda t, a: (lambda b: [b, b[0]])(a.to(t.bfloat16)),
    "integers": lambda t, a: (lambda b: [b.t(), b[0]])(a.long()),
    "another dtype": lambda t, a: [a.view(t.int32), a, a.view(t.int16)[1:]],
    "pairs": lambda t, a: (lambda b: [t.view_as_real(b)[1:], b, b.imag, b.real])(t.view_as_complex(a.view(3, 2))),
    "overlapping": lambda t, a: [a, a.as_strided((2, 2), (1, 1))],
    "bools": lambda t, a: (lambda b: [b.t(), b[0]])(a > 2),
    "complex": lambda t, a: (lambda b: [b.t(), b[0]])(a.to(t.complex64)),
    "detached": lambda t, a: (lambda r: [r, r.detach()[1:]])((a * 1).requires_grad_()),
    "gradient": lambda t, a: [with_grad(t, a)],
    "gradient and itself": lambda t, a: (lambda w: [w, w.grad])(with_grad(t, a)),
    "gradient that is a view": lambda t, a: (lambda w, g: [set_grad(w, g[:2]), g])(
        (a * 1).requires_grad_(), t.ones(4, 3)
    ),
    "convolution": lambda t, a: (lambda y: [y, y[:, :1]])(
        t.nn.functional.conv2d(t.ones(1, 2, 4, 4), t.ones(3, 2, 2, 2))
    ),
    "view under no_grad": lambda t, a: no_grad_view(t, a),
}


def with_grad(t, a):
    return set_grad((a * 1).requires_grad_(), a * 10)


def set_grad(w, g):
    w.grad = g
    return w


def no_grad_view(t, a):
    w = (a * 1).requires_grad_()
    with t.no_grad():
        return [w, w[1:]]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("which", LISTS)
def test_lists_of_tensors(way, which):
    def program(t):
        made = LISTS[which](t, t.arange(6.0).reshape(2, 3))
        copies = WAYS[way](made)
        said = [(tuple(c.stride()), c.is_contiguous(), c.requires_grad, c.is_leaf, c._base is None) for c in copies]
        with t.no_grad():
            if "expanded" not in which and copies[0].dtype != t.bool:
                copies[0].add_(100)
        return said, made, copies, [c.grad for c in copies], [a is b for a in copies for b in copies]

    want, got = outcome(program, torch), outcome(program, rl)
    assert got == want, f"PyTorch {want!r}, here {got!r}"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["tensor", "parameter", "requires grad"])
def test_attributes(way, kind):
    def program(t):
        w = t.nn.Parameter(t.ones(2)) if kind == "parameter" else t.ones(2, requires_grad=kind == "requires grad")
        w.tag, w.items = "embedding", [1]
        (c,) = WAYS[way]([w])
        return type(c).__name__, c, c.requires_grad, vars(c), getattr(c, "items", None) is w.items

    want, got = outcome(program, torch), outcome(program, rl)
    assert got == want, f"PyTorch {want!r}, here {got!r}"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("what", ["result", "view of a leaf", "view of a result"])
def test_what_is_part_of_a_graph(way, what):
    def program(t):
        x = t.ones(3, requires_grad=True)
        y = {"result": lambda: x * 2, "view of a leaf": lambda: x[1:], "view of a result": lambda: (x * 2)[1:]}[what]()
        return WAYS[way]([y])

    want, got = outcome(program, torch), outcome(program, rl)
    assert got == want, f"PyTorch {want!r}, here {got!r}"


@pytest.mark.parametrize("way", WAYS)
def test_hooks_are_left_behind(way):
    def program(t):
        x = t.ones(3, requires_grad=True)
        x.register_hook(lambda g: g * 2)
        (c,) = WAYS[way]([x])
        c.sum().backward()
        return c.grad

    want, got = outcome(program, torch), outcome(program, rl)
    assert got == want, f"PyTorch {want!r}, here {got!r}"


def test_an_array_and_the_tensor_on_it_go_on_sharing():
    array = np.arange(4.0)
    a, t = copy.deepcopy([array, rl.from_numpy(array)[1:]])
    a[1] = 7
    assert t[0].item() == 7


def test_a_pickle_holds_no_more_than_the_elements():
    assert len(pickle.dumps(rl.zeros(1_000_000)[5:8])) < 2000
    assert len(pickle.dumps(rl.zeros(1000, 1000)[:2, ::2])) < 10_000


FORMATS = {
    "contiguous": lambda m, y: y.contiguous(memory_format=m.channels_last),
    "to": lambda m, y: y.to(memory_format=m.channels_last),
    "to a dtype": lambda m, y: y.to(m.float64, memory_format=m.channels_last),
    "clone": lambda m, y: y.clone(memory_format=m.channels_last),
    "clone in order": lambda m, y: y.clone(memory_format=m.contiguous_format),
    "zeros_like": lambda m, y: m.zeros_like(y, memory_format=m.channels_last),
    "and on": lambda m, y: m.nn.functional.relu(y.contiguous(memory_format=m.channels_last)),
    "view of it": lambda m, y: y.contiguous(memory_format=m.channels_last).permute(0, 2, 3, 1).view(-1)[:3],
}


@pytest.mark.parametrize("name", FORMATS)
def test_an_order_that_is_asked_of_a_convolution(name):  # its result lies in that order, but privately
    def of(m):
        f, x = m.nn.functional, m.arange(180.0).reshape(2, 3, 6, 5)
        y = FORMATS[name](m, f.conv2d(x, m.ones(4, 3, 3, 3)))
        return y.stride(), y.is_contiguous(), y.tolist()

    assert of(rl) == of(torch)
