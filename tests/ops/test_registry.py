"""Properties that hold for every op of the registry.  A new op is tested by giving it samples, nothing else."""

from __future__ import annotations

import gc
import importlib.util
import weakref

import numpy as np
import pytest

import rushlight_jit as jit
import rushlight_tensor as rl
from rushlight_autograd import grad, gradcheck, gradgradcheck
from rushlight_tensor import REGISTRY, tensor
from rushlight_tensor.core import inplace
from tests.ops.harness import Watch, backward_ops, call, numpy_dtype, tensors
from tests.ops.samples import SAMPLES

for package in ("rushlight_nn", "rushlight_optim"):  # they declare ops, too
    if importlib.util.find_spec(package):
        importlib.import_module(package)

EVERY_SAMPLE = [
    pytest.param(REGISTRY[name], s, id=f"{name}-{i}")
    for name, samples in SAMPLES.items()
    if name in REGISTRY
    for i, s in enumerate(samples)
]
PURE = [p for p in EVERY_SAMPLE if not p.values[1].mutates]
DIFFERENTIABLE = [p for p in PURE if p.values[0].vjp is not None and p.values[1].grad]


def test_every_op_has_samples():
    missing = set(REGISTRY) - set(SAMPLES) - set(backward_ops())
    assert not missing, f"declare samples in tests/ops/samples_*.py for: {', '.join(sorted(missing))}"
    unknown = set(SAMPLES) - set(REGISTRY)
    assert not unknown, f"samples of ops that do not exist: {', '.join(sorted(unknown))}"


def close(got, want, dtype, ulps, what=""):
    """Within so many rounding steps of `dtype` at the size of the values."""
    got, want = (parts(np.asarray(a.detach()._array if hasattr(a, "_array") else a)) for a in (got, want))
    finite = np.abs(want[np.isfinite(want)])
    size = max(1.0, finite.max()) if finite.size else 1.0
    step = float(np.finfo(dtype).eps if dtype != numpy_dtype("bfloat16") else 2.0**-7) if dtype.kind in "fcV" else 0.0
    np.testing.assert_allclose(got, want, rtol=ulps * step, atol=ulps * step * size, err_msg=what, equal_nan=True)


def parts(array):
    """As real numbers in float64."""
    if array.dtype.kind == "c":
        return np.stack([array.real, array.imag]).astype(np.float64)
    return array.astype(np.float64)


def widened(arrays):
    wide = {"f": np.float64, "V": np.float64, "c": np.complex128}
    return [x.astype(wide[x.dtype.kind]) if isinstance(x, np.ndarray) and x.dtype.kind in wide else x for x in arrays]


@pytest.mark.parametrize(("op", "sample"), [p for p in PURE if p.values[1].exact])
def test_results_agree_with_float64(op, sample):
    for name in sample.dtypes:
        dtype = numpy_dtype(name)
        if name in ("float64", "complex128") or dtype.kind not in "fcV":
            continue
        arrays = sample.arrays(name)
        got = call(op, tensors(arrays), sample.attrs)
        want = call(op, tensors(widened(arrays)), sample.attrs)
        for g, w in zip(got, want, strict=True):
            close(g, w, dtype, sample.ulps, name)


@pytest.mark.parametrize(("op", "sample"), DIFFERENTIABLE)
def test_gradients_agree_with_float64(op, sample):
    for name in sample.dtypes:
        dtype = numpy_dtype(name)
        if name in ("float64", "complex128") or dtype.kind not in "fcV":
            continue
        arrays = sample.arrays(name)
        results = []
        for inputs in (arrays, widened(arrays)):
            xs = tensors(inputs, sample.varied())
            leaves = [x for x in xs if getattr(x, "requires_grad", False)]
            outs = [o for o in call(op, xs, sample.attrs) if o.requires_grad]
            weights = [tensor(np.cos(np.arange(o.numel())).reshape(o.shape), dtype=o.dtype) for o in outs]
            results.append(grad(outs, leaves, weights, allow_unused=True) if outs else ())
        for g, w in zip(*results, strict=True):
            assert (g is None) == (w is None)
            if g is not None:
                assert g._array.dtype == dtype
                close(g, w, dtype, 4 * sample.ulps, name)


@pytest.mark.parametrize(("op", "sample"), DIFFERENTIABLE)
def test_graphs_are_freed_by_reference_count(op, sample):
    gc.disable()
    try:
        xs = tensors(sample.arrays(sample.widest), sample.varied())
        leaves = [x for x in xs if getattr(x, "requires_grad", False)]
        outs = [o for o in call(op, xs, sample.attrs) if o.requires_grad]
        weights = [tensor(np.ones(o.shape), dtype=o.dtype, requires_grad=True) for o in outs]
        grads = grad(outs, leaves, weights, create_graph=sample.second, allow_unused=True) if outs else ()
        nodes = [weakref.ref(t.grad_fn) for t in (*outs, *grads) if t is not None and t.grad_fn is not None]
        del xs, leaves, outs, weights, grads
        assert [r() for r in nodes if r() is not None] == []
    finally:
        gc.enable()


@pytest.mark.parametrize(("op", "sample"), PURE)
def test_inferred_shapes_and_dtypes_are_what_came_out_and_memory_is_shared_by_views_alone(op, sample):
    for name in sample.dtypes:
        arrays = sample.arrays(name)
        before = [x.copy() if isinstance(x, np.ndarray) else x for x in arrays]
        xs = tensors(arrays, sample.varied() if sample.grad else None)
        with Watch() as watch:
            outs = call(op, xs, sample.attrs)
            rooted = [o for o in outs if o.requires_grad]
            leaves = [x for x in xs if getattr(x, "requires_grad", False)]
            if rooted:
                grad(rooted, leaves, [tensor(np.ones(o.shape), dtype=o.dtype) for o in rooted], allow_unused=True)
        assert op.name in watch.seen
        for x, was in zip(arrays, before, strict=True):
            if isinstance(x, np.ndarray):
                np.testing.assert_array_equal(x, was, err_msg="an input was changed")
        for o in outs if not sample.shares else ():
            shared = any(isinstance(x, np.ndarray) and np.shares_memory(o._array, x) for x in arrays)
            assert shared == (op.view and o.numel() > 0), f"{name}: memory shared: {shared}"


@pytest.mark.parametrize(("op", "sample"), [p for p in PURE if p.values[1].exact])
def test_layout_in_memory_does_not_matter(op, sample):
    for name in ("float32", "float64"):
        if name not in sample.dtypes:
            continue
        want = call(op, tensors(sample.arrays(name)), sample.attrs)
        for layout in ("F", "gaps"):
            xs = sample.arrays(name, layout)
            try:
                got = call(op, tensors(xs), sample.attrs)
            except (RuntimeError, ValueError):
                assert op.view, f"{op.name} refuses a layout, and is no view"
                continue
            for g, w in zip(got, want, strict=True):
                close(g, w, numpy_dtype(name), sample.ulps, layout)


SMALL = 24  # elements up to which the whole Jacobian is compared; beyond that, derivatives along a few directions


@pytest.mark.parametrize(("op", "sample"), DIFFERENTIABLE)
def test_first_and_second_derivative(op, sample):
    xs = tensors(sample.arrays(sample.widest), sample.varied())

    def outputs(*args):
        return tuple(o for o in call(op, list(args), sample.attrs) if o.dtype.is_floating_point or o.dtype.is_complex)

    leaves = [x for x in xs if getattr(x, "requires_grad", False)]
    if any(x.numel() == 0 for x in (*leaves, *outputs(*xs))):
        return  # nothing to vary; that the gradient has the right shape is tested above
    if sum(x.numel() for x in leaves) <= SMALL:
        checks = [(outputs, xs)]
    else:
        checks = [
            (along_a_line(outputs, xs, seed), tensor(0.0, dtype=rl.float64, requires_grad=True)) for seed in (0, 1)
        ]
    for function, arguments in checks:
        assert gradcheck(function, arguments)
        if sample.second:
            assert gradgradcheck(function, arguments)


def along_a_line(function, xs, seed):
    """`function` of the inputs x + t u, with a random direction u, and weighted to one number: a function of t."""
    rng = np.random.default_rng(seed)
    us = [tensor(rng.standard_normal(x.shape)) if getattr(x, "requires_grad", False) else None for x in xs]
    ws = [tensor(rng.standard_normal(o.shape)) for o in function(*xs)]

    def of_t(t):
        outs = function(*[x if u is None else x.detach() + t * u for x, u in zip(xs, us, strict=True)])
        return sum((o * w).sum() for o, w in zip(outs, ws, strict=True))

    return of_t


@pytest.mark.parametrize(("op", "sample"), [p for p in PURE if p.values[1].exact])
def test_compiled_gives_the_same(op, sample):
    name = sample.dtypes[min(1, len(sample.dtypes) - 1)]
    arrays = sample.arrays(name)
    held = [None if isinstance(x, np.ndarray) else (x,) for x in arrays]
    attrs = {**op.defaults, **sample.attrs}
    copied = op.view or sample.shares  # memory of an argument is no result of a replay

    def function(*xs):  # refers to nothing but values: a function that is not replayed would be compared with itself
        given = iter(xs)
        outs = call(op, [next(given) if x is None else x[0] for x in held], attrs)
        return [o.clone() for o in outs] if copied else outs

    compiled = jit.compile(function)  # inside fused kernels: tests/jit/test_fused_walk.py
    want = call(op, tensors(arrays), sample.attrs)
    for _ in range(2):  # traced, then replayed
        xs = [x for x in tensors(sample.arrays(name)) if hasattr(x, "_array")]
        got = compiled(*xs)
        for g, w in zip(got, want, strict=True):
            assert g._array.dtype == w._array.dtype
            close(g, w, numpy_dtype(name), sample.ulps)
    assert (compiled.traces, compiled.breaks) == (1, [])


IN_PLACE = [p for p in PURE if p.values[0].into is not None or (p.values[0].promote and p.values[0].vjp is not None)]


@pytest.mark.parametrize(("op", "sample"), [p for p in IN_PLACE if p.values[1].exact])
def test_in_place_gives_the_same(op, sample):
    for name in sample.dtypes:
        xs = tensors(sample.arrays(name))
        (want,) = call(op, xs, sample.attrs)
        x = xs[0]
        if not hasattr(x, "_array") or want._array.shape != x._array.shape or want._array.dtype != x._array.dtype:
            continue
        out = inplace.inplace(op, x, *xs[1:], **sample.attrs)
        assert out is x
        np.testing.assert_array_equal(x._array, want._array, err_msg=name)
        gaps = tensors(sample.arrays(name, "gaps"))
        inplace.inplace(op, gaps[0], *gaps[1:], **sample.attrs)
        close(gaps[0], want, numpy_dtype(name), sample.ulps, f"{name}, with gaps")


@pytest.mark.parametrize(("op", "sample"), [p for p in EVERY_SAMPLE if p.values[1].mutates])
def test_ops_that_write_into_their_inputs_agree_with_float64(op, sample):
    arrays = sample.arrays("float32")
    wide = widened(arrays)
    assert op.infer(*arrays, **sample.attrs) == op.cpu(*arrays, **{**op.defaults, **sample.attrs}) == ()
    op.cpu(*wide, **{**op.defaults, **sample.attrs})
    for i, (got, want) in enumerate(zip(arrays, wide, strict=True)):
        close(got, want, numpy_dtype("float32"), sample.ulps, f"input {i}")
    changed = [not np.array_equal(a, b) for a, b in zip(arrays, sample.arrays("float32"), strict=True)]
    written = op.written(len(arrays), {**op.defaults, **sample.attrs})
    assert any(changed[:written])
    assert not any(changed[written:]), "it wrote into more than its record's `writes` says"
    xs = tensors(sample.arrays("float32"))
    inplace.mutate(op, tuple(xs), sample.attrs)
    assert [x._version for x in xs] == [int(i < written) for i in range(len(xs))]


def test_records_that_write_return_nothing_and_have_no_gradient():
    writing = {name for name, op in REGISTRY.items() if op.writes}
    assert writing == {name for name, samples in SAMPLES.items() if any(s.mutates for s in samples)}
    assert all(REGISTRY[name].vjp is None for name in writing)


def test_saved_value_changed_in_place_is_refused():
    leaf = tensor([0.5], requires_grad=True)
    x = REGISTRY["exp"](leaf)
    x.mul_(2)  # exp saved its result
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        x.sum().backward()
    assert leaf.grad is None
