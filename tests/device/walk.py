"""One sample of an op on device arrays and on the host's: results, gradients, dtypes, where they are."""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterable
from contextlib import nullcontext, suppress
from typing import Any
from unittest import mock

import numpy as np

import rushlight_nn  # noqa: F401 - these declare ops, too
import rushlight_optim  # noqa: F401
from rushlight_autograd import grad
from rushlight_tensor import REGISTRY, tensor
from rushlight_tensor.core import cuda
from rushlight_tensor.core.op import Op
from rushlight_tensor.core.tensor import Tensor
from rushlight_tensor.kernels import elementwise_cuda
from tests.cuda_on_cpu.runner import build_together
from tests.device.standin import standing_in
from tests.ops.harness import Sample, call, tensors
from tests.ops.samples import SAMPLES

CLAIMING = [op for op in REGISTRY.values() if op.expr is not None or op.cuda is not None]
"""The records that say they run on a GPU."""

_STEP = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
_ULPS_OF_HALF = 4  # in one order of summation or another, with or without rounding between two kernels


def samples_of(op: Op) -> list[Sample]:
    """The samples of a record; of one that is the gradient of another, none: those of the other call it."""
    return SAMPLES.get(op.name, [])


def check(op: Op, sample: Sample, dtype: str, gaps: bool = False) -> None:
    """Run a sample on the host and on the device and compare.  Raises AssertionError, or what the op raises.

    With `gaps`, the inputs on the device are every other element of larger ones.
    """
    varied = sample.varied() if sample.grad and op.vjp is not None and not sample.mutates else None
    here = tensors(sample.arrays(dtype), varied)
    there = [_on_device(x, gaps) for x in tensors(sample.arrays(dtype), varied)]
    if sample.mutates:
        op.cpu(*_arrays(here), **{**op.defaults, **sample.attrs})
        cuda.run(op, _arrays(there), {**op.defaults, **sample.attrs})
        for got, wanted in zip(there, here, strict=True):
            if isinstance(got, Tensor):
                _agree(got, wanted, sample, f"{op.name} in {dtype}: what it wrote")
        return
    wanted, got = call(op, here, sample.attrs), call(op, there, sample.attrs)
    assert len(got) == len(wanted)
    asked = {**op.defaults, **sample.attrs}  # only an op that moves has these attributes
    for g, w in zip(got, wanted, strict=True):
        _agree(g, w, sample, f"{op.name} in {dtype}: result", on=asked.get("to", "cuda"))
    if varied is None:
        return
    for g, w in zip(_gradients(there, got), _gradients(here, wanted), strict=True):
        assert (g is None) == (w is None), f"{op.name}: a gradient on one side alone"
        if g is not None:
            _agree(g, w, sample, f"{op.name} in {dtype}: gradient", 4, asked.get("back", "cuda"))


def compile_kernels(of: Iterable[tuple[Op, Sample, str]]) -> None:
    """Compile the generated kernels of many checks together: a rehearsal on the stand-in tells which they are."""
    texts: list[str] = []

    def note(text: str, name: str) -> Any:
        texts.append(text)
        return lambda *_: None

    with mock.patch.object(elementwise_cuda, "kernel_from_text", note), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the numbers are not there yet
        for op, sample, dtype in of:
            with suppress(Exception):  # which the check itself will report
                check(op, sample, dtype)
    build_together(texts)


def _on_device(x: Any, gaps: bool) -> Any:
    if not isinstance(x, Tensor):
        return x
    if not gaps or not x.ndim:
        return x.detach().to("cuda").requires_grad_(x.requires_grad)
    wide = tensor(np.repeat(x._array, 2, -1)).to("cuda")
    return wide[..., ::2].detach().requires_grad_(x.requires_grad)


def _arrays(xs: list[Any]) -> list[Any]:
    return [x._array if isinstance(x, Tensor) else x for x in xs]


def _gradients(xs: list[Any], outs: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
    leaves = [x for x in xs if getattr(x, "requires_grad", False)]
    rooted = [o for o in outs if o.requires_grad]
    if not rooted:
        return ()
    weights = [tensor(np.cos(np.arange(o.numel())).reshape(o.shape), dtype=o.dtype).to(o.device) for o in rooted]
    return tuple(grad(rooted, leaves, weights, allow_unused=True))


def _agree(got: Tensor, wanted: Tensor, sample: Sample, what: str, times: float = 1, on: str = "cuda") -> None:
    assert isinstance(got, Tensor), what
    assert got.device.type == on, f"{what} is on {got.device}"
    assert (got.dtype, tuple(got.shape)) == (wanted.dtype, tuple(wanted.shape)), f"{what}: {got.dtype} {got.shape}"
    if not sample.exact:
        return
    kind = np.complex128 if wanted._array.dtype.kind == "c" else np.float64
    g, w = (np.asarray(cuda.to_host(t.detach()._array)).astype(kind) for t in (got, wanted))
    finite = np.abs(w[np.isfinite(w)])
    step = _STEP.get(wanted._array.dtype.name, 2.0**-23 if kind is np.complex128 else 0.0)
    ulps = times * max(sample.ulps, _ULPS_OF_HALF)
    size = max(1.0, finite.max()) if finite.size else 1.0
    np.testing.assert_allclose(g, w, rtol=ulps * step, atol=ulps * step * size, equal_nan=True, err_msg=what)


def dtypes_of(sample: Sample) -> list[str]:
    """The dtypes a sample asks for, the most used first."""
    first = [d for d in ("float32", "int64", "bfloat16") if d in sample.dtypes]
    return [*first, *[d for d in sample.dtypes if d not in first]]


def main() -> int:
    """The walk, the most used samples first, until a limit; prints every failure and returns 1 if there are any."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--limit", type=float, default=120, help="seconds")
    parser.add_argument("--stand-in", action="store_true", help="on the strict stand-in for CuPy, not on a GPU")
    options = parser.parse_args()
    every = [
        (number, i, op, s, d)
        for op in CLAIMING
        for i, s in enumerate(samples_of(op))
        for number, d in enumerate(dtypes_of(s))
    ]
    every.sort(key=lambda c: (c[0] > 1, c[1], c[0]))
    failures, done, failing, reached = Counter[str](), 0, set(), set()
    with standing_in() if options.stand_in else nullcontext():
        if options.stand_in:
            compile_kernels((op, s, d) for _, _, op, s, d in every)
        started = time.monotonic()
        for _, i, op, s, d in every:
            if time.monotonic() - started > options.limit:
                break
            done += 1
            reached.add(op.name)
            try:
                check(op, s, d)
            except Exception as e:
                failures[f"{op.name} in {d}, sample {i}: {type(e).__name__}: {' '.join(str(e).split())[:200]}"] += 1
                failing.add(op.name)
    for text in failures:
        print(text)
    print(
        f"{len(reached - failing)} of {len(CLAIMING)} records passed; {done - len(failures)} of {done} checks, "
        f"{len(every) - done} not reached in {options.limit:.0f} s"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
