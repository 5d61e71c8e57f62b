"""What users give, in `.grad`, `.data`, hooks and `Function.backward`: all outcomes are PyTorch's."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import rushlight as rl
from tests.parity.outcome import outcome

torch = pytest.importorskip("torch")

DTYPES = (
    "float16", "float32", "float64", "bfloat16", "int8", "int16", "int32", "int64", "uint8", "bool", "complex64",
    "complex128",
)  # fmt: skip


def same(program):
    want, got = outcome(program, torch), outcome(program, rl)
    assert got == want, f"PyTorch {want!r}, here {got!r}"


# ------------------------------------------------------------------------------------------------ .grad = …

GIVEN = {
    "same": lambda t, p: t.ones(2, 3),
    "shape": lambda t, p: t.ones(3),
    "turned": lambda t, p: t.ones(3, 2),
    "scalar": lambda t, p: t.ones(()),
    "empty": lambda t, p: t.ones(0),
    "more": lambda t, p: t.ones(1, 2, 3),
    "number": lambda t, p: 1.0,
    "list": lambda t, p: [1.0],
    "array": lambda t, p: np.ones((2, 3), np.float32),
    "string": lambda t, p: "x",
    "itself": lambda t, p: p,
    "parameter": lambda t, p: t.nn.Parameter(t.ones(2, 3)),
    "expanded": lambda t, p: t.ones(1).expand(2, 3),
    "strided": lambda t, p: t.ones(3, 2).t(),
    "none": lambda t, p: None,
}


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("leaf", ["parameter", "plain", "result", "without grad"])
def test_grad_setter(given, leaf):
    def program(t):
        p = t.zeros(2, 3, requires_grad=leaf != "without grad")
        p = t.nn.Parameter(p.detach()) if leaf == "parameter" else p * 1 if leaf == "result" else p
        p.grad = GIVEN[given](t, p)
        kept = p.grad
        del p.grad
        return kept, p.grad

    same(program)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("of", ["gradient", "tensor"])
def test_grad_setter_compares_dtypes(dtype, of):
    def program(t):
        p = t.ones(2, dtype=getattr(t, dtype if of == "tensor" else "float32"))
        p.grad = t.ones(2, dtype=getattr(t, dtype if of == "gradient" else "float32"))
        return p.grad

    same(program)


@pytest.mark.parametrize("have", ["expanded", "strided", "array", "requires grad", "parameter", "result"])
def test_backward_adds_into_the_gradient_that_was_given(have):
    def program(t):
        p = t.zeros(3, requires_grad=True)
        g = {
            "expanded": lambda: t.ones(1).expand(3),
            "strided": lambda: t.ones(6)[::2],
            "array": lambda: t.from_numpy(np.ones(3, np.float32)),
            "requires grad": lambda: t.ones(3, requires_grad=True),
            "parameter": lambda: t.nn.Parameter(t.ones(3)),
            "result": lambda: (t.ones(3, requires_grad=True) * 2).detach(),
        }[have]()
        p.grad = g
        (p * 2).sum().backward()
        return p.grad, p.grad is g

    same(program)


# ------------------------------------------------------------------------------------------------ .data = …

DATA = {
    "same": lambda t: t.ones(2, 3) * 7,
    "shape": lambda t: t.ones(4),
    "double": lambda t: t.ones(2, 3, dtype=t.float64),
    "integers": lambda t: t.ones(2, 3, dtype=t.int64),
    "complex": lambda t: t.ones(2, 3, dtype=t.complex64),
    "result": lambda t: t.ones(2, 3, requires_grad=True) * 2,
    "strided": lambda t: t.ones(3, 2).t(),
    "number": lambda t: 1.0,
    "none": lambda t: None,
    "array": lambda t: np.ones((2, 3), np.float32),
}


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("leaf", ["parameter", "plain", "without grad"])
def test_data_setter(data, leaf):
    def program(t):
        p = t.zeros(2, 3, requires_grad=leaf == "plain")
        p = t.nn.Parameter(p) if leaf == "parameter" else p
        p.data = DATA[data](t)
        return p, p.is_leaf, p.grad_fn, tuple(p.stride())

    same(program)


def test_data_shares_memory_but_no_versions():
    def program(t):
        p, d = t.zeros(3, requires_grad=True), t.ones(3)
        p.data = d
        d.add_(1)
        p.data.mul_(2)
        return p, d, p._version, d._version, p.data._base, p.data.requires_grad

    same(program)


@pytest.mark.parametrize("data", ["same", "shape"])
@pytest.mark.parametrize("of", ["leaf", "result that nobody saved", "saved by its own node"])
def test_data_that_changes_between_the_passes(of, data):
    def program(t):
        p, q = t.zeros(2, 3, requires_grad=True), t.ones(2, 3, requires_grad=True)
        if of == "leaf":
            y = p * q
            p.data = DATA[data](t)
        elif of == "saved by its own node":
            y = q.exp()
            y.data = DATA[data](t)
        else:
            y = q * 2
            y.data = DATA[data](t)
        y.sum().backward()
        return q.grad

    want, got = outcome(program, torch), outcome(program, rl)
    if data == "shape":
        assert want[0] == got[0] == "RuntimeError"
    else:
        assert got == want


def test_result_whose_data_was_swapped_is_refused_where_it_was_saved():  # PyTorch goes on with the elements before
    x = rl.ones(3, requires_grad=True)
    h = x * 1
    y = h * h
    h.data = rl.zeros(3)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_view_whose_data_was_swapped_leaves_its_base_alone():
    def program(t):
        base = t.zeros(4)
        v = base[:2]
        v.data = t.ones(3)
        v.mul_(5)
        return base, v

    same(program)


# ------------------------------------------------------------------------------------------------------ hooks

RETURNED = {
    "nothing": lambda t, g: None,
    "twice": lambda t, g: g * 2,
    "row": lambda t, g: g[0],
    "one": lambda t, g: t.ones(1),
    "larger": lambda t, g: t.ones(5, 2, 3),
    "turned": lambda t, g: g.reshape(3, 2),
    "number": lambda t, g: 1.0,
    "list": lambda t, g: [g],
    "tuple": lambda t, g: (g,),
    "array": lambda t, g: np.ones((2, 3), np.float32),
    "false": lambda t, g: False,
    "in place": lambda t, g: g.mul_(2),
    **{d: functools.partial(lambda t, g, d: g.to(getattr(t, d)), d=d) for d in DTYPES},
}


@pytest.mark.parametrize("returned", RETURNED)
@pytest.mark.parametrize("on", ["leaf", "result", "piece", "view"])
def test_what_a_tensor_hook_returns(on, returned):
    def program(t):
        x = t.ones(2, 3, requires_grad=True)
        y = x if on == "leaf" else x * 2
        y = y.view(1, 2, 3)[0] if on == "view" else y.split([2, 0])[0] if on == "piece" else y

        def hook(g):
            return RETURNED[returned](t, g)

        y.register_hook(hook)
        (y * t.ones(2, 3)).sum().backward()
        return x.grad

    same(program)


@pytest.mark.parametrize("kind", ["partial", "object", "method"])
def test_name_of_a_hook_in_its_error(kind):
    class Hook:
        def __call__(self, g):
            return g[0]

    def program(t):
        x = t.ones(2, requires_grad=True)
        hook = {"partial": functools.partial(lambda a, g: g[0], 1), "object": Hook(), "method": Hook().__call__}[kind]
        x.register_hook(hook)
        x.sum().backward()

    same(program)


@pytest.mark.parametrize("returned", ["none", "number", "tensor", "removes"])
def test_post_accumulate_hooks_return_nothing(returned):
    def program(t):
        def hook(p):
            if returned == "removes":
                p.grad = None
            return {"number": 1.0, "tensor": p}.get(returned)

        x = t.ones(2, requires_grad=True)
        x.register_post_accumulate_grad_hook(hook)
        x.sum().backward()
        return x.grad

    same(program)


@pytest.mark.parametrize("kind", ["register_hook", "register_post_accumulate_grad_hook", "retain_grad"])
@pytest.mark.parametrize("on", ["leaf", "result", "without grad", "integers"])
def test_who_may_have_hooks(kind, on):
    def program(t):
        x = t.ones(2, requires_grad=True)
        y = {
            "leaf": lambda: x,
            "result": lambda: x * 2,
            "without grad": lambda: t.ones(2),
            "integers": lambda: t.ones(2).long(),
        }
        getattr(y[on](), kind)(*([] if kind == "retain_grad" else [print]))

    same(program)


MODULE_RETURNED = {
    "nothing": lambda t, g: None,
    "twice": lambda t, g: (g[0] * 2,),
    "list": lambda t, g: [g[0] * 2],
    "two": lambda t, g: (g[0], g[0]),
    "shape": lambda t, g: (t.ones(7),),
    "double": lambda t, g: (g[0].double(),),
    "number": lambda t, g: (2.0,),
    "bare number": lambda t, g: 2.0,
    "bare": lambda t, g: g[0] * 2,
}


@pytest.mark.parametrize("returned", MODULE_RETURNED)
@pytest.mark.parametrize("kind", ["register_full_backward_hook", "register_full_backward_pre_hook"])
def test_what_a_module_hook_returns(kind, returned):
    def program(t):
        layer = t.nn.Linear(2, 3)
        t.nn.init.ones_(layer.weight)

        def hook(module, *grads):
            return MODULE_RETURNED[returned](t, grads[0])

        getattr(layer, kind)(hook)
        x = t.ones(1, 2, requires_grad=True)
        layer(x).sum().backward()
        return x.grad, layer.weight.grad

    same(program)


# --------------------------------------------------------------------------------------------- Function.backward

OF_FUNCTION = {
    **{k: v for k, v in RETURNED.items() if k not in ("in place", "complex64", "complex128")},
    "no gradients": lambda t, g: (),
    "one too many": lambda t, g: (g, g),
    "forgotten nones": lambda t, g: (g, None, None),
    "scalar": lambda t, g: t.ones(()),
    "trailing ones": lambda t, g: t.ones(2, 3, 1),
    "transposed": lambda t, g: g.t(),
    "parameter": lambda t, g: t.nn.Parameter(g.clone()),
}


@pytest.mark.parametrize("returned", OF_FUNCTION)
@pytest.mark.parametrize("inner", [False, True], ids=["of a leaf", "of a result"])
def test_what_a_function_returns(returned, inner):
    def program(t):
        class Twice(t.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x * 2

            @staticmethod
            def backward(ctx, g):
                return OF_FUNCTION[returned](t, g)

        x = t.ones(2, 3, requires_grad=True)
        seen = []
        y = x * 1 if inner else x
        if inner:
            y.register_hook(lambda g: None if g is None else seen.append(g.dtype == t.float32))
        Twice.apply(y).sum().backward()
        return x.grad, seen

    same(program)


@pytest.mark.parametrize(
    "returned",
    [
        "g",
        "(g,)",
        "[g, g]",
        "(g, g * 3)",
        "(None, g)",
        "(g, torch.ones(7))",
        "(g, 3.0)",
        "(3.0, None)",
        "(g, None, None)",
        "(g, None, g)",
    ],
)
@pytest.mark.parametrize("frozen", [None, 0, 1])
def test_what_a_function_of_two_returns(returned, frozen):
    def program(t):
        class Product(t.autograd.Function):
            @staticmethod
            def forward(ctx, x, y):
                return x * y

            @staticmethod
            def backward(ctx, g):
                return eval(returned, {"g": g, "torch": t})

        xs = [t.ones(2, requires_grad=i != frozen) for i in range(2)]
        Product.apply(*xs).sum().backward()
        return [x.grad for x in xs]

    same(program)


def test_a_complex_gradient_of_a_real_input_is_refused():  # PyTorch refuses it, in the words of an internal check
    class Twice(rl.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            return g.to(rl.complex64)

    with pytest.raises(RuntimeError, match="one is complex, the other is not"):
        Twice.apply(rl.ones(2, requires_grad=True)).sum().backward()


@pytest.mark.parametrize("given", ["float64", "int64", "bool", "complex64", "shape", "number", "string"])
@pytest.mark.parametrize("how", ["backward", "grad"])
def test_gradients_of_the_roots(how, given):
    def program(t):
        g = {"shape": lambda: t.ones(1), "number": lambda: [1.0], "string": lambda: ["x"]}.get(
            given, lambda: t.ones(2, dtype=getattr(t, given))
        )()
        x = t.ones(2, requires_grad=True)
        y = x * 2
        if how == "grad":
            return t.autograd.grad(y, x, g)
        t.autograd.backward(y, g)
        return x.grad

    same(program)


# ------------------------------------------------------------------------------------------------ what forward says

SAID = {
    "dirty leaf": lambda t, f, x: f.apply(x),
    "dirty view of a leaf": lambda t, f, x: f.apply(x.view(-1)),
    "dirty result": lambda t, f, x: t.autograd.grad(f.apply(x * 1).sum(), x),
    "dirty without grad": lambda t, f, x: f.apply(x.detach()),
}


@pytest.mark.parametrize("case", SAID)
def test_a_function_that_writes_into_its_input(case):
    def program(t):
        class Twice(t.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                ctx.mark_dirty(x)
                return x.mul_(2)

            @staticmethod
            def backward(ctx, g):
                return g * 2

        return SAID[case](t, Twice, t.ones(3, requires_grad=True))

    same(program)


@pytest.mark.parametrize("kept", [(1,), (None, "x"), ([1],), (None,)])
def test_what_a_function_saves(kept):
    def program(t):
        class Kept(t.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                ctx.save_for_backward(*kept)
                return x * 2

            @staticmethod
            def backward(ctx, g):
                return g * 2

        return Kept.apply(t.ones(3, requires_grad=True))

    same(program)
