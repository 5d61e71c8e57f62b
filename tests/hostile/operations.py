"""Hostile calls of the ops that reach C: the samples of the registry with sizes, layouts, options and classes changed.

Which ops these are is found by running every sample and watching the EXPORT functions, so a new op is tried by itself.
"""

from __future__ import annotations

import contextlib
import importlib
import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from rushlight_autograd import backward
from rushlight_tensor import REGISTRY, manual_seed
from rushlight_tensor.core.tensor import Tensor, wrap
from rushlight_tensor.kernels import compile as kernels
from rushlight_tensor.kernels.plan import PLANNED
from tests.hostile.prototypes import SANITIZED
from tests.ops.harness import R, Sample, tensors
from tests.ops.samples import SAMPLES

for package in ("rushlight_nn", "rushlight_optim"):  # they declare ops, too
    importlib.import_module(package)

SIZES = st.sampled_from([0, 0, 1, 1, 2, 3, 4, 5, 6, 8, 17, 33])
NUMBERS = st.sampled_from([-7, -1, 0, 0, 1, 1, 2, 2, 3, 4, 5, 9, 2**31, 2**62])
REALS = st.sampled_from([0.0, 1.0, 0.5, 0.1, -1.0, 2.5])
LAYOUTS = ["C", "C", "C", "F", "gaps", "reversed", "repeated", "misaligned", "readonly", "transposed"]
CLASSES = [-(2**63), -(2**31), -100, -2, -1, 0, 1, 2, 5, 99, 2**31, 2**62]
ROOM = 2**30  # bytes that one case may take, where the sanitizer does not limit each allocation
ERRORS = (RuntimeError, ValueError, IndexError, TypeError)


@cache
def reaching() -> dict[str, list[Sample]]:
    """The float32 samples of every op of which one, or its gradient, calls an EXPORT function."""
    texts = [path for path in kernels.SOURCES.glob("*.c") if "EXPORT" in path.read_text()]
    libraries = [kernels.c_library(path.stem) for path in texts]
    called: set[str] = set()
    before = [dict(library.__dict__) for library in libraries if library is not None]

    def watch(name: str, function: Any) -> Any:
        def watched(*arguments: Any) -> Any:
            called.add(name)
            return function(*arguments)

        return watched

    found: dict[str, list[Sample]] = {}
    for planned in PLANNED:
        planned.forget()  # and take the watched functions
    try:
        for library in filter(None, libraries):
            for name, function in list(library.__dict__.items()):
                if callable(function) and name not in ("float32", "rl_address"):
                    setattr(library, name, watch(name, function))
        for op, samples in SAMPLES.items():
            usable = [s for s in samples if "float32" in s.dtypes and op in REGISTRY]
            called.clear()
            for sample in usable:
                with contextlib.suppress(*ERRORS):
                    Case(op, sample.arrays("float32"), sample.attrs, sample.varied(), [], 0).run()
            if called:
                found[op] = usable
    finally:
        for library, functions in zip(filter(None, libraries), before, strict=True):
            library.__dict__.clear()
            library.__dict__.update(functions)
        for planned in PLANNED:
            planned.forget()
    return found


@contextlib.contextmanager
def numpy_only() -> Iterator[None]:
    """As with `RUSHLIGHT_CC=none`, within this process."""
    changed = []
    for name, module in list(sys.modules.items()):
        if name.startswith("rushlight_tensor.kernels.") and hasattr(module, "c_library"):
            changed.append((module, "c_library", module.c_library))
            module.c_library = lambda name: None
    for planned in PLANNED:
        planned.forget()
    try:
        yield
    finally:
        for module, function, before in changed:
            setattr(module, function, before)
        for planned in PLANNED:
            planned.forget()


@contextlib.contextmanager
def little_memory() -> Iterator[None]:
    """A size of 2**31 is a MemoryError, not the end of the machine."""
    if SANITIZED:  # its own limit is on each allocation; its address space is huge
        yield
        return
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + ROOM, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@dataclass
class Case:
    """One call, and what is done to it between the passes."""

    op: str
    arrays: list[Any]
    attrs: dict[str, Any]
    varied: list[bool]
    layouts: list[str]
    seed: int
    spoiled: tuple[int, int] | None = (
        None  # an input of integers, and the class that stands in it for the backward pass
    )

    def __str__(self) -> str:
        inputs = [f"{x.dtype}{list(x.shape)}" if isinstance(x, np.ndarray) else repr(x) for x in self.arrays]
        return f"{self.op}({', '.join(inputs)}; {self.attrs}; {self.layouts}; spoiled {self.spoiled})"

    def run(self) -> list[np.ndarray]:
        """The results and gradients, from fresh copies of the inputs."""
        layouts = self.layouts or ["C"] * len(self.arrays)
        arrays = [laid_out(x, how) for x, how in zip(self.arrays, layouts, strict=True)]
        wanted = [
            v and isinstance(x, np.ndarray) and x.dtype.kind == "f" for v, x in zip(self.varied, arrays, strict=True)
        ]
        op = REGISTRY[self.op]
        mutates = op.vjp is None
        xs = tensors(arrays, [False] * len(arrays) if mutates else wanted)
        manual_seed(self.seed)
        out = op(*xs, **self.attrs)
        ys = [y for y in (out if isinstance(out, tuple) else (out,)) if isinstance(y, Tensor)]
        found = [np.array(y.detach()._array) for y in ys]
        if mutates and not ys:
            found += [np.array(x) for x in arrays if isinstance(x, np.ndarray)]
        if self.spoiled is not None:
            array = arrays[self.spoiled[0]]
            if array.size and array.flags.writeable:
                array.reshape(-1)[-1:] = self.spoiled[1] if array.flags.c_contiguous else array.reshape(-1)[-1:]
        roots = [y for y in ys if y.requires_grad]
        if roots:
            rng = np.random.default_rng(self.seed)
            how = (self.layouts or ["C"])[0]
            grads = [wrap(laid_out(rng.standard_normal(y.shape).astype(y._array.dtype), how)) for y in roots]
            backward(roots, grads)
            found += [np.array(x.grad._array) for x in xs if isinstance(x, Tensor) and x.grad is not None]
        return found


def laid_out(x: Any, how: str) -> Any:
    """A copy of an array with other strides, another address, or nothing to write to."""
    if not isinstance(x, np.ndarray):
        return x
    if how == "repeated" and x.ndim:
        return np.broadcast_to(x[:1], x.shape) if x.shape[0] else x.copy()
    if how == "F":
        return np.array(x, order="F")
    if how == "gaps" and x.ndim:
        wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
        wide[..., ::2] = x
        return wide[..., ::2]
    if how == "reversed" and x.ndim:
        return x[::-1].copy()[::-1]
    if how == "transposed" and x.ndim > 1:
        return x.swapaxes(0, -1).copy().swapaxes(0, -1)
    if how == "misaligned" and x.size:
        buffer = np.zeros(x.nbytes + 1, np.uint8)[1:]
        moved = buffer.view(x.dtype).reshape(x.shape)
        moved[...] = x
        return moved
    fresh = np.array(x)
    fresh.flags.writeable = how != "readonly"
    return fresh


def draw_case(data: Any) -> Case:
    """A sample with about two things changed."""
    samples = reaching()
    op = data.draw(st.sampled_from(sorted(samples)), "op")
    sample = data.draw(st.sampled_from(samples[op]), "sample")
    shapes = [list(x.shape) if isinstance(x, (R, np.ndarray)) else None for x in sample.inputs]
    sizes = sorted({n for shape in shapes if shape for n in shape})
    kinds = data.draw(
        st.sets(st.sampled_from(["rename", "edit", "rank", "attrs", "layout", "classes", "spoil"]), max_size=3)
    )
    if "rename" in kinds and sizes:  # everywhere alike, so that the shapes go on to fit
        old, new = data.draw(st.sampled_from(sizes)), data.draw(SIZES)
        shapes = [s if s is None else [new if n == old else n for n in s] for s in shapes]
    with_dims = [i for i, s in enumerate(shapes) if s]
    if "edit" in kinds and with_dims:
        i = data.draw(st.sampled_from(with_dims))
        shapes[i][data.draw(st.integers(0, len(shapes[i]) - 1))] = data.draw(SIZES)
    if "rank" in kinds and with_dims:
        i = data.draw(st.sampled_from(with_dims))
        shapes[i] = shapes[i][1:] if data.draw(st.booleans()) else [data.draw(SIZES), *shapes[i]]
    seed = data.draw(st.integers(0, 2**32 - 1), "seed")
    rng = np.random.default_rng(seed)
    arrays = [_filled(x, s, rng) for x, s in zip(sample.inputs, shapes, strict=True)]
    integers = [i for i, x in enumerate(arrays) if isinstance(x, np.ndarray) and x.dtype.kind in "iu" and x.size]
    if "classes" in kinds and integers:
        i = data.draw(st.sampled_from(integers))
        arrays[i].reshape(-1)[data.draw(st.integers(0, arrays[i].size - 1))] = _as(
            arrays[i], data.draw(st.sampled_from(CLASSES))
        )
    attrs = dict(sample.attrs)
    changeable = [name for name, v in attrs.items() if isinstance(v, (int, float, tuple)) and name != "needs"]
    if "attrs" in kinds and changeable:
        name = data.draw(st.sampled_from(changeable))
        attrs[name] = _changed(data, attrs[name])
    layouts = [data.draw(st.sampled_from(LAYOUTS)) if "layout" in kinds else "C" for _ in arrays]
    if not REGISTRY[op].vjp and sample.mutates:  # written to: overlapping memory is refused before
        layouts = ["C" if how in ("repeated", "readonly") else how for how in layouts]
    spoiled = None
    if "spoil" in kinds and integers:
        i = data.draw(st.sampled_from(integers))
        spoiled = i, _as(arrays[i], data.draw(st.sampled_from(CLASSES)))
    return Case(op, arrays, attrs, sample.varied(), layouts, seed, spoiled)


def _as(array: np.ndarray, number: int) -> int:
    info = np.iinfo(array.dtype)
    return min(max(number, int(info.min)), int(info.max))


def _filled(x: Any, shape: list[int] | None, rng: np.random.Generator) -> Any:
    if isinstance(x, R):
        return rng.uniform(x.low, x.high, shape).astype(np.float32)
    if not isinstance(x, np.ndarray) or shape is None:
        return x
    return (
        x.copy() if list(x.shape) == shape else np.resize(x if x.size else np.zeros(1, x.dtype), shape).astype(x.dtype)
    )


def _changed(data: Any, value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return data.draw(NUMBERS)
    if isinstance(value, float):
        return data.draw(REALS)
    changed = list(value)
    if changed:
        i = data.draw(st.integers(0, len(changed) - 1))
        changed[i] = _changed(data, changed[i]) if isinstance(changed[i], (int, float, tuple)) else changed[i]
    return tuple(changed)
