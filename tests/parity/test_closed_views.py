"""Views that nobody may write to, or use after their base was written to: all outcomes are PyTorch's."""

from __future__ import annotations

import itertools

import pytest

import rushlight as rl
from tests.parity.outcome import outcome

torch = pytest.importorskip("torch")

MODES = {"no_grad": lambda t: t.no_grad(), "inference": lambda t: t.inference_mode(), "grad": lambda t: t.enable_grad()}
BASES = {"leaf": lambda x: x, "result": lambda x: x * 1, "without grad": lambda x: x.detach().clone()}
VIEWS = {
    "slice": lambda y: y[:2],
    "select": lambda y: y[0],
    "view": lambda y: y.view(3, 2),
    "transpose": lambda y: y.transpose(0, 1),
    "split": lambda y: y.split(1)[0],
    "split into one": lambda y: y.split(2)[0],
    "chunk": lambda y: y.chunk(2)[1],
    "unbind": lambda y: y.unbind(0)[1],
    "rows": lambda y: next(iter(y)),
    "tensor_split": lambda y: y.tensor_split(2)[0],
    "hsplit": lambda y: y.hsplit(3)[0],
    "detach": lambda y: y.detach(),
    "view of detach": lambda y: y.detach()[:1],
    "detach of view": lambda y: y[:1].detach(),
    "data": lambda y: y.data,
    "expand": lambda y: y.expand(2, 2, 3),
    "chain": lambda y: y[:1][:, :2],
    "diagonal": lambda y: y.diagonal(),
    "unsqueeze": lambda y: y.unsqueeze(0),
    "view_as": lambda y: y.view_as(y),
    "flatten": lambda y: y.flatten(),
}
WRITES = {
    "mul_": lambda t, v: v.mul_(2),
    "zero_": lambda t, v: v.zero_(),
    "setitem": lambda t, v: v.__setitem__(0, 1.0),
    "copy_": lambda t, v: v.copy_(t.ones(v.shape)),
    "copy_ of what requires grad": lambda t, v: v.copy_(t.ones(v.shape, requires_grad=True)),
    "detach_": lambda t, v: v.detach_(),
    "nothing": lambda t, v: None,
}
LARGER = {  # here a piece of a tensor without grad may be written to: its gradient is right
    ("without grad", "grad", view, "copy_ of what requires grad", target)
    for target in ("the view", "its base")
    for view in ("split", "split into one", "chunk", "unbind", "rows")
} | {("result", "grad", "expand", "zero_", "the view")}
KEPT = ("no_grad", "inference")  # a base that is detached leaves the views made in these modes as they are


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("target", ["the view", "the view, under no_grad", "its base", "its base, under no_grad"])
def test_writes_around_views(base, mode, target):
    for view, write in itertools.product(VIEWS, WRITES):
        if (base, mode, view, write, target) in LARGER or (mode in KEPT and write == "detach_" and "base" in target):
            continue

        def program(t, view=view, write=write):
            x = t.ones(2, 3, requires_grad=True)
            y = BASES[base](x)
            with MODES[mode](t):
                v = VIEWS[view](y)
            to = v if "view" in target else y
            if "no_grad" in target:
                with t.no_grad():
                    WRITES[write](t, to)
            else:
                WRITES[write](t, to)
            after = [v.requires_grad, y.requires_grad, v.is_leaf, v._base is y, (v * 2).requires_grad]
            if y.requires_grad:
                (y.sum() + (v * 3).sum()).backward()
            return after, x.grad, y

        want, got = outcome(program, torch), outcome(program, rl)
        assert got == want, f"{view} {write}: PyTorch {want!r}, here {got!r}"


@pytest.mark.parametrize("how", ["view", "slice", "input", "chain", "dirty", "two views", "view and result"])
@pytest.mark.parametrize("write", ["mul_", "setitem", "nothing"])
@pytest.mark.parametrize("to", ["output", "input"])
def test_views_made_in_a_function(how, write, to):
    def program(t):
        class Made(t.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                if how == "dirty":
                    ctx.mark_dirty(x)
                    return x.mul_(2)
                return {
                    "view": lambda: x.view(3, 2),
                    "slice": lambda: x[:1],
                    "input": lambda: x,
                    "chain": lambda: x[:1][0],
                    "two views": lambda: (x[0], x[1]),
                    "view and result": lambda: (x[0], x * 2),
                }[how]()

            @staticmethod
            def backward(ctx, *gs):
                return t.ones(2, 3) * 5

        x = t.ones(2, 3, requires_grad=True)
        y = x * 1
        out = Made.apply(y)
        v = out[0] if isinstance(out, tuple) else out
        WRITES[write](t, v if to == "output" else y)
        (v * 2).sum().backward()
        return x.grad, v, y

    want, got = outcome(program, torch), outcome(program, rl)
    assert got == want, f"PyTorch {want!r}, here {got!r}"
