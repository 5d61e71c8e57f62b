"""Checkpointed programs: results, gradients, hooks and the number of runs are PyTorch's."""

from __future__ import annotations

import inspect

import pytest

import rushlight as rl
from tests.parity.outcome import outcome

torch = pytest.importorskip("torch")


class Programs:
    """Each method is a program; `cp` is checkpoint without reentrance, `lin` a layer whose weights are 1."""

    def outer_inner(torch, cp, lin, sequential):
        layer = lin()
        s = []
        layer.weight.register_post_accumulate_grad_hook(lambda p: s.append(p.grad.item()))
        layer(cp(layer, torch.ones(1, 1) * 3)).sum().backward()
        return s

    def two_share(torch, cp, lin, sequential):
        layer = lin()
        s = []
        layer.weight.register_post_accumulate_grad_hook(lambda p: s.append(p.grad.item()))
        cp(layer, cp(layer, torch.ones(1, 1) * 3)).sum().backward()
        return s

    def nested(torch, cp, lin, sequential):
        layer = lin()
        s = []
        layer.weight.register_post_accumulate_grad_hook(lambda p: s.append(p.grad.item()))
        layer.weight.register_hook(lambda g: s.append(("h", g.item())))
        cp(lambda x: cp(layer, layer(x)), torch.ones(1, 1) * 3).sum().backward()
        return s

    def plain(torch, cp, lin, sequential):
        x = torch.ones(2, requires_grad=True)
        cp(lambda x: x.sin().exp(), x).sum().backward()
        return x.grad

    def twice_no_retain(torch, cp, lin, sequential):
        x = torch.ones(2, requires_grad=True)
        n = []

        def f(x):
            n.append(1)
            return x.sin().exp()

        y = cp(f, x).sum()
        y.backward()
        y.backward()
        return x.grad, len(n)

    def grad(torch, cp, lin, sequential):
        x = torch.ones(2, requires_grad=True)
        y = cp(lambda x: x.sin().exp(), x).sum()
        return torch.autograd.grad(y, x)

    def grad_params(torch, cp, lin, sequential):
        layer = lin()
        x = torch.ones(1, 1, requires_grad=True)
        y = cp(layer, x).sum()
        return torch.autograd.grad(y, [x, layer.weight])

    def several(torch, cp, lin, sequential):
        x = torch.ones(2, requires_grad=True)
        n = []

        def f(x):
            n.append(torch.is_grad_enabled())
            return x.sin(), x.cos(), 3, None

        r = cp(f, x)
        (r[0] + r[1]).sum().backward()
        return r[2:], x.grad, n, type(r)

    def list(torch, cp, lin, sequential):
        x = torch.ones(2, requires_grad=True)
        r = cp(lambda x: [x.sin(), x.cos()], x)
        r[1].sum().backward()
        return x.grad, type(r)

    def dict(torch, cp, lin, sequential):
        x = torch.ones(2, requires_grad=True)
        r = cp(lambda x: {"a": x.sin()}, x)
        r["a"].sum().backward()
        return x.grad

    def identity(torch, cp, lin, sequential):
        x = torch.ones(2, requires_grad=True)
        r = cp(lambda x: x, x)
        r.sum().backward()
        return x.grad, r is x

    def view(torch, cp, lin, sequential):
        x = torch.ones(2, requires_grad=True)
        r = cp(lambda x: x.view(1, 2), x)
        r.sum().backward()
        return x.grad

    def dropout(torch, cp, lin, sequential):
        torch.manual_seed(0)
        x = torch.ones(8, requires_grad=True)
        r = cp(lambda x: torch.nn.functional.dropout(x, 0.5) * 2, x)
        s0 = torch.rand(1)
        r.sum().backward()
        s1 = torch.rand(1)
        return r.detach(), x.grad, s0, s1

    def no_grad_input(torch, cp, lin, sequential):
        x = torch.ones(2)
        r = cp(lambda x: x * 2, x)
        return r.requires_grad

    def closure_param(torch, cp, lin, sequential):
        w = torch.ones(2, requires_grad=True)
        r = cp(lambda x: x * w, torch.ones(2) * 3)
        r.sum().backward()
        return w.grad

    def closure_nonleaf(torch, cp, lin, sequential):
        w = torch.ones(2, requires_grad=True)
        h = w * 2
        s = []
        h.register_hook(lambda g: s.append(g.tolist()))
        r = cp(lambda x: x * h, torch.ones(2) * 3)
        (r + h).sum().backward()
        return w.grad, s

    def under_no_grad(torch, cp, lin, sequential):
        x = torch.ones(2, requires_grad=True)
        with torch.no_grad():
            r = cp(lambda x: x * 2, x)
        return r.requires_grad

    def early_stop(torch, cp, lin, sequential):
        x = torch.ones(2, requires_grad=True)
        n = []

        def f(x):
            n.append("a")
            y = x.sin()
            n.append("b")
            z = y.exp()
            n.append("c")
            return z + 1

        cp(f, x).sum().backward()
        return n

    def nothing_saved(torch, cp, lin, sequential):
        x = torch.ones(2, requires_grad=True)
        n = []

        def f(x):
            n.append("a")
            return x + 1

        cp(f, x).sum().backward()
        return n, x.grad

    def hooks_inside(torch, cp, lin, sequential):
        x = torch.ones(2, requires_grad=True)
        s = []

        def f(x):
            y = x.sin()
            y.register_hook(lambda g: (s.append(g.tolist()), g * 2)[1])
            return y.exp()

        cp(f, x).sum().backward()
        return s, x.grad

    def kwargs(torch, cp, lin, sequential):
        x = torch.ones(2, requires_grad=True)
        r = cp(lambda x, k=1: x.exp() * k, x, k=3)
        r.sum().backward()
        return x.grad

    def nested_input(torch, cp, lin, sequential):
        x = torch.ones(2, requires_grad=True)
        r = cp(lambda d: d["x"].exp(), {"x": x})
        r.sum().backward()
        return x.grad

    def function(torch, cp, lin, sequential):
        class F(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                ctx.save_for_backward(x)
                return x * x

            @staticmethod
            def backward(ctx, g):
                return g * 2 * ctx.saved_tensors[0]

        x = torch.ones(2, requires_grad=True)
        cp(F.apply, x).sum().backward()
        return x.grad

    def bn(torch, cp, lin, sequential):
        m = torch.nn.BatchNorm1d(2)
        x = torch.randn(4, 2, requires_grad=True)
        cp(m, x).sum().backward()
        return m.num_batches_tracked

    def seq(torch, cp, lin, sequential):
        x = torch.ones(2, requires_grad=True)
        layer = torch.nn.Sequential(*[torch.nn.ReLU() for i in range(4)])
        sequential(layer, 2, x, use_reentrant=False).sum().backward()
        return x.grad

    def same_twice(torch, cp, lin, sequential):
        x = torch.ones(2, requires_grad=True)
        y = x * 2
        out = cp(lambda a, b: a * b, y, y)
        out.sum().backward()
        return x.grad

    def inputs(torch, cp, lin, sequential):
        x = torch.ones(2, requires_grad=True)
        outs = [cp(lambda v: v.sin(), x) for i in range(3)]
        sum(outs).sum().backward(inputs=[x])
        return x.grad

    def retain_inside(torch, cp, lin, sequential):
        x = torch.ones(2, requires_grad=True)

        def f(x):
            y = x.exp()
            y.retain_grad()
            f.y = y
            return y * y

        cp(f, x).sum().backward()
        return f.y.grad


@pytest.mark.parametrize("name", [n for n, _ in inspect.getmembers(Programs, inspect.isfunction)])
def test_programs(name):
    def program(t):
        def lin(n=1):
            layer = t.nn.Linear(n, n, bias=False)
            t.nn.init.ones_(layer.weight)
            return layer

        def cp(fn, *args, **kwargs):
            return t.utils.checkpoint.checkpoint(fn, *args, use_reentrant=False, **kwargs)

        t.manual_seed(0)
        return getattr(Programs, name)(t, cp, lin, t.utils.checkpoint.checkpoint_sequential)

    want, got = outcome(program, torch), outcome(program, rl)
    assert got == want, f"PyTorch {want!r}, here {got!r}"


DIFFERENT = {
    "fewer": lambda n, x: x.sin().exp() if n == 1 else x.sin(),
    "shape": lambda n, x: x.exp() if n == 1 else x[:1].exp(),
    "dtype": lambda n, x: x.exp() if n == 1 else x.double().exp(),
}


@pytest.mark.parametrize("how", DIFFERENT)
def test_a_second_run_that_differs_is_refused(how):
    for t in (torch, rl):
        runs = []

        def fn(x, runs=runs):
            runs.append(1)
            return DIFFERENT[how](len(runs), x)

        y = t.utils.checkpoint.checkpoint(fn, t.ones(2, requires_grad=True), use_reentrant=False)
        with pytest.raises(t.utils.checkpoint.CheckpointError):
            y.sum().backward()


@pytest.mark.parametrize("how", ["in the function", "between the passes"])
def test_inputs_that_changed_are_refused(how):
    for t in (torch, rl):
        y = t.ones(2, requires_grad=True) * 2
        fn = (lambda y: y.mul_(3).exp()) if how == "in the function" else (lambda y: y.exp())
        out = t.utils.checkpoint.checkpoint(fn, y, use_reentrant=False)
        with t.no_grad():
            y.mul_(1 if how == "in the function" else 5)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            out.sum().backward()
