"""NumPy's error state and warning filters are the user's: no op warns, raises or computes otherwise for them."""

from __future__ import annotations

import contextlib
import importlib.util
import threading
import warnings

import numpy as np
import pytest

import rushlight_tensor as rl
from rushlight_autograd import Function, grad, queue_callback
from rushlight_tensor import REGISTRY, manual_seed, tensor
from rushlight_tensor.core import inplace
from rushlight_tensor.core.tensor import Tensor
from tests.ops.harness import call, tensors
from tests.ops.samples import SAMPLES

for package in ("rushlight_nn", "rushlight_optim"):  # they declare ops, too
    if importlib.util.find_spec(package):
        importlib.import_module(package)

SPECIAL = (0.0, np.inf, -np.inf, np.nan, 1e30, -1e30, 1e-30, -1000.0)


def refuse(kind, flag):
    raise AssertionError(f"NumPy called back: {kind}")


STATES = {
    "warnings are errors": lambda: filtered("error"),
    "raise": lambda: np.errstate(all="raise"),
    "call": lambda: np.errstate(all="call", call=refuse),
}


@contextlib.contextmanager
def filtered(action):
    with warnings.catch_warnings(), np.errstate(all="warn"):
        warnings.simplefilter(action)
        yield


def inputs(sample, special, requires_grad):
    """The tensors of a sample in float32 (or its first dtype); `special`: with odd values among random ones."""
    arrays = sample.arrays("float32" if "float32" in sample.dtypes else sample.dtypes[0])
    for x, random in zip(arrays, sample.varied(), strict=True):
        if special and random and x.dtype.kind == "f":
            x.reshape(-1)[: len(SPECIAL)] = SPECIAL[: x.size]
    return tensors(arrays, sample.varied() if requires_grad else None)


def outcomes(op, sample, special):
    """The results and gradients of an op, or its error."""
    manual_seed(0)
    xs = inputs(sample, special, op.vjp is not None and sample.grad and not sample.mutates)
    leaves = [x for x in xs if isinstance(x, Tensor) and x.requires_grad]
    try:
        if sample.mutates:
            inplace.mutate(op, tuple(xs), sample.attrs)
            return [x._array for x in xs if isinstance(x, Tensor)]
        outs = call(op, xs, sample.attrs)
        roots = [o for o in outs if o.requires_grad]
        found = (
            grad(
                roots, leaves, [tensor(np.full(o._array.shape, 3e38, o._array.dtype)) for o in roots], allow_unused=True
            )
            if roots
            else ()
        )
    except (RuntimeError, ValueError, IndexError, TypeError, NotImplementedError) as e:
        return [type(e).__name__]
    return [o._array for o in outs] + [None if g is None else g._array for g in found]


def same(a, b):
    if isinstance(a, np.ndarray):
        return (
            a.dtype == b.dtype
            and a.shape == b.shape
            and (a.tobytes() == b.tobytes() or np.array_equal(a, b, equal_nan=a.dtype.kind in "fc"))
        )
    return a == b


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_results_in_every_state(name, state):
    if name not in REGISTRY:
        pytest.skip(f"{name} is declared by a package that is not here")
    for sample in SAMPLES[name]:
        for special in (False, True):
            want = outcomes(REGISTRY[name], sample, special)
            with STATES[state]():
                got = outcomes(REGISTRY[name], sample, special)
            assert len(got) == len(want)
            assert all(same(a, b) for a, b in zip(got, want, strict=True)), f"{sample} special={special}"


# What is not an op, or made of many, each in float32 unless it says otherwise.
ELSEWHERE = {
    "constructors": lambda: [
        rl.tensor([1e300, 1e-300]), rl.Tensor([1e300]), rl.arange(0, 1e39, 5e38),
        rl.linspace(-3e38, 3e38, 3), rl.logspace(30, 50, 3), rl.full((2,), 1e30, dtype=rl.float16), rl.eye(2) * 1e39,
    ],
    "conversions": lambda: [
        rl.tensor([1e300, float("nan")], dtype=rl.float64).to(d) for d in (rl.float32, rl.float16, rl.bfloat16)
    ],
    "writes": lambda: [
        rl.ones(3).mul_(1e38).mul_(1e38), rl.ones(2).div_(0), setitem(), copied(),
    ],
    "printed": lambda: [str(rl.tensor([float("inf"), 1e-38, 1e38, float("nan"), 0.0])), str(rl.tensor([1e-45, 3e38]))],
    "statistics": lambda: [
        f(rl.tensor([1e38, 3e38, float("inf"), -1.0]))
        for f in (rl.var, rl.std, rl.mean, rl.sum, rl.prod, rl.norm)
    ],
    "empty": lambda: [f(rl.zeros(0)) for f in (rl.mean, rl.var, rl.std, rl.sum)],
    "products": lambda: [
        rl.full((3, 3), 1e38) @ rl.full((3, 3), 1e38), rl.einsum("i,i", rl.full((3,), 1e38), rl.full((3,), 1e38)),
    ],
    "complex": lambda: [
        rl.tensor([1e38 + 1e38j]) * rl.tensor([1e38 + 1e38j]), rl.tensor([0j]).log(), 1 / rl.tensor([0j]),
    ],
    "reflected": lambda: [1 / rl.zeros(2), 2.0 ** rl.tensor([1e4]), 1e38 * rl.tensor([1e38]), rl.tensor([0.0]) / 0],
    "summed gradients": lambda: [summed()],
}  # fmt: skip


def setitem():
    x = rl.zeros(3)
    x[0] = rl.tensor(1e300, dtype=rl.float64)
    return x


def copied():
    return rl.zeros(2).copy_(rl.tensor([1e300, 2.0], dtype=rl.float64))


def summed():
    x = rl.tensor([3e38, 1.0], requires_grad=True)
    for _ in range(2):
        ((x * 3e38).sum() + (x.expand(3, 2) * 3e38).sum()).backward()
    return x.grad


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("what", ELSEWHERE)
def test_everything_else_in_every_state(what, state):
    def made():
        return [x if isinstance(x, str) else x.detach()._array for x in ELSEWHERE[what]()]

    with np.errstate(all="ignore"):
        want = made()
    with STATES[state]():
        got = made()
    assert all(same(a, b) for a, b in zip(got, want, strict=True))


def test_no_warning_is_made_and_hidden():
    with warnings.catch_warnings(record=True) as made, np.errstate(all="warn"):
        warnings.simplefilter("always")
        x = rl.tensor([0.0, -1.0, 1e38], requires_grad=True)
        y = (x.log() + x.exp() + x * 1e38 + x / 0 + 1 / x).sum()
        y.backward()
        x.detach().sqrt_().div_(0)
        x.detach().var()
    assert made == []


def test_user_keeps_warnings_of_their_own():
    with warnings.catch_warnings(record=True) as made, np.errstate(all="warn"):
        warnings.simplefilter("always")
        rl.zeros(1).log()
        np.log(np.zeros(1))
    assert [str(w.message) for w in made] == ["divide by zero encountered in log"]


@pytest.mark.parametrize("where", ["hook", "post", "function", "callback"])
def test_functions_of_the_user_keep_the_state_of_the_user(where):
    seen = []

    class Mine(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            seen.append(np.geterr()["divide"])
            return g

    x = rl.ones(2, requires_grad=True)
    if where == "hook":
        (x * 1).register_hook(lambda g: None)
        x.register_hook(lambda g: seen.append(np.geterr()["divide"]))
    if where == "post":
        x.register_post_accumulate_grad_hook(lambda p: seen.append(np.geterr()["divide"]))
    if where == "callback":
        x.register_hook(lambda g: queue_callback(lambda: seen.append(np.geterr()["divide"])))
    y = Mine.apply(x) if where == "function" else x * 2
    with np.errstate(divide="call", call=refuse):
        y.sum().backward()
    assert seen == ["call"]
    assert np.geterr()["divide"] == "warn"


def test_threads_beside_each_other_are_quiet():
    x = rl.tensor(np.full(300_000, 3e38, np.float32))
    found = []

    def work():
        with np.errstate(all="raise"):
            found.extend(
                [x.sigmoid().sum().item() for _ in range(20)] + [(x * x).isinf().all().item() for _ in range(20)]
            )

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(found) == 160
