"""Every op, forward and gradient, gives the same bits on any number of threads (Note [Same bits] in `rushlight.h`)."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import numpy as np
import pytest

import rushlight_tensor as rl
from rushlight_autograd import grad
from rushlight_tensor import REGISTRY, tensor
from rushlight_tensor.core.tensor import Tensor
from rushlight_tensor.kernels.threads import get_num_threads, set_num_threads
from tests.ops.harness import R, Sample, call, sample, tensors
from tests.ops.samples import SAMPLES

for package in ("rushlight_nn", "rushlight_optim"):  # they declare ops, too
    if importlib.util.find_spec(package):
        importlib.import_module(package)

COUNTS = (1, 2, 3, 5)
rng = np.random.default_rng(0)
CLASS_WEIGHTS = rng.uniform(0.1, 1, 97).astype("f")


def steps(name: str, *states: R) -> Sample:
    """An optimizer's step over two parameters that are large enough to be shared."""
    first = SAMPLES[name][0]
    wide = {(3, 4): (170, 301), (5,): (20_011,)}
    return Sample(tuple(R(*wide[x.shape], low=x.low, high=x.high) if isinstance(x, R) else x for x in first.inputs),
                  first.attrs, mutates=True)  # fmt: skip


# Sizes beyond the thresholds under which a kernel stays on one thread, and no multiples of anything.
LARGE: list[tuple[str, Sample]] = [
    ("matmul", sample(R(330, 190), R(190, 150))),
    ("matmul", sample(R(3, 4, 65, 33), R(3, 4, 33, 70))),
    ("matmul", sample(R(2, 300, 70), R(70, 90))),
    ("matmul", sample(R(50_001), R(50_001))),
    ("matmul", sample(R(1501, 700), R(700))),
    ("linear", sample(R(7, 90, 150), R(210, 150), R(210))),
    ("linear", sample(R(1, 900), R(1300, 900), None)),
    ("conv2d", sample(R(5, 6, 23, 21), R(10, 6, 3, 3), R(10), padding=(1, 1))),
    ("conv2d", sample(R(4, 8, 30, 31), R(12, 4, 3, 2), R(12), stride=(2, 1), dilation=(1, 2), groups=2)),
    ("conv2d", sample(R(3, 24, 20, 20), R(24, 1, 3, 3), None, groups=24)),
    ("conv2d_input_gradient", sample(R(3, 16, 14, 14), R(16, 8, 3, 3), input_shape=(3, 8, 29, 29), stride=(2, 2))),
    ("scaled_dot_product_attention", sample(R(2, 3, 75, 33), R(2, 3, 81, 33), R(2, 3, 81, 17), None, scale=0.2)),
    ("scaled_dot_product_attention", sample(*[R(2, 3, 70, 16)] * 3, None, scale=0.2, is_causal=True)),
    ("layer_norm", sample(R(301, 97), R(97), R(97))),
    ("rms_norm", sample(R(301, 97), R(97))),
    ("batch_norm", sample(R(11, 17, 20, 9), R(17), R(17), rng.uniform(0.5, 1, 17).astype("f"),
                          rng.uniform(0.5, 1, 17).astype("f"))),
    ("batch_norm_moments", sample(R(11, 17, 20, 9))),
    ("softmax", sample(R(301, 97), dim=-1)),
    ("log_softmax", sample(R(301, 97), dim=-1)),
    ("cross_entropy", sample(R(301, 97), rng.integers(0, 97, 301), CLASS_WEIGHTS, label_smoothing=0.1)),
    ("max_pool2d", sample(R(5, 7, 31, 30), kernel=(3, 2), stride=(2, 2), padding=(1, 0))),
    ("avg_pool2d", sample(R(5, 7, 31, 30), kernel=(3, 2), stride=(2, 1))),
    ("embedding", sample(R(50, 130), rng.integers(0, 50, (20, 30)))),
    ("lstm_sequence", sample(R(5, 33, 4 * 70), R(33, 70), R(33, 70), R(4 * 70, 70))),
    ("gru_sequence", sample(R(5, 33, 3 * 70), R(33, 70), R(3 * 70, 70), R(3 * 70), reverse=True)),
    *[(name, sample(R(301, 203), dim=dim)) for name in ("sum", "mean", "norm2", "amax", "prod", "logsumexp")
      for dim in ((0,), (1,), (0, 1)) if name in REGISTRY],
    ("cumsum", sample(R(301, 203), dim=1)),
    ("total_norm", sample(R(170, 301), R(20_011))),
    ("mse_loss", sample(R(301, 203), R(301, 203))),
    ("random_draw", sample(shape=(170, 301), dtype=np.dtype("f"))),
    ("dropout", sample(R(170, 301), p=0.3)),
    *[(name, steps(name)) for name in SAMPLES if name.endswith("_step")],
]  # fmt: skip


def elementwise(name: str) -> Sample | None:
    """The first sample of a map with all its inputs made long."""
    first = SAMPLES.get(name, [None])[0]
    if first is None or REGISTRY[name].expr is None or not all(isinstance(x, R) for x in first.inputs):
        return None
    longer = tuple(R(40_003, low=x.low, high=x.high) for x in first.inputs)
    return Sample(longer, first.attrs, first.dtypes, grad=first.grad)


CASES = [
    *[pytest.param(name, s, id=f"{name}-{i}") for name, ss in SAMPLES.items() for i, s in enumerate(ss)],
    *[pytest.param(name, s, id=f"{name}-large{i}") for i, (name, s) in enumerate(LARGE)],
    *[pytest.param(name, s, id=f"{name}-long") for name in REGISTRY if (s := elementwise(name)) is not None],
]


def outcome(name: str, sample: Sample, dtype: str) -> list[bytes]:
    """The bits of what an op returns or writes, and of its gradients."""
    op = REGISTRY[name]
    rl.manual_seed(0)
    if sample.mutates:
        arrays = sample.arrays(dtype)
        op.cpu(*arrays, **{**op.defaults, **sample.attrs})
        return [np.asarray(x).tobytes() for x in arrays]
    differentiable = sample.grad and op.vjp is not None
    xs = tensors(sample.arrays(dtype), sample.varied() if differentiable else None)
    results = call(op, xs, sample.attrs)
    leaves = [x for x in xs if isinstance(x, Tensor) and x.requires_grad]
    outs = [y for y in results if y.requires_grad]
    weights = [tensor(np.cos(np.arange(y.numel())).reshape(y.shape), dtype=y.dtype) for y in outs]
    grads = grad(outs, leaves, weights, allow_unused=True) if outs else ()
    return [b"" if x is None else np.ascontiguousarray(x.detach()._array).tobytes() for x in (*results, *grads)]


@pytest.mark.parametrize(("name", "sample"), CASES)
def test_bits_do_not_depend_on_the_number_of_threads(name, sample):
    before = get_num_threads()
    try:
        for dtype in {"float32", "float64"}.intersection(sample.dtypes):
            seen = []
            for threads in COUNTS:
                set_num_threads(threads)
                seen.append(outcome(name, sample, dtype))
            for threads, bits in zip(COUNTS[1:], seen[1:], strict=True):
                assert bits == seen[0], f"{dtype}: other bits on {threads} threads than on one"
    finally:
        set_num_threads(before)


RACE = """
import threading, time
import rushlight_tensor as rl
x = rl.zeros(1 << 18)
def write(k=0):
    while True:
        k += 1
        x.fill_(float(k))
threading.Thread(target=write, daemon=True).start()
end = time.monotonic() + 3
while time.monotonic() < end:
    for at, n in ((x.argmax(0), 1 << 18), (x.max(0)[1], 1 << 18), (x.view(512, 512).min(1)[1], 512)):
        assert 0 <= int(at.min()) <= int(at.max()) < n
"""


def test_extremes_of_what_another_thread_writes_are_inside():
    """The place of an extreme is looked for in a second pass, in which it may be gone."""
    done = subprocess.run([sys.executable, "-c", RACE], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


MEANWHILE = """
import threading, time
import rushlight as rl
n = 100_000
x, index, mask, source = rl.randn(n), rl.zeros(n, dtype=rl.int64), rl.zeros(400, 250, dtype=rl.bool), rl.randn(n)
def write(a=x.numpy(), i=index.numpy(), b=mask.numpy()):
    while True:
        i[:], b[:], a[:] = 10**12, True, float("nan")
        i[:], b[:], a[:] = 0, False, 1.0
threading.Thread(target=write, daemon=True).start()
end, calls = time.monotonic() + 1.0, 0
while time.monotonic() < end:
    try:
        CALL
    except (IndexError, RuntimeError):
        pass
    calls += 1
assert calls > 10
"""


@pytest.mark.parametrize(
    "call",
    [
        "rl.zeros(1000).scatter_(0, index, source)",
        "rl.zeros(1000).scatter_reduce(0, index, source, 'amax')",
        "rl.zeros(1000).index_copy_(0, index, source)",
        "rl.zeros(1000).index_fill_(0, index, 1.0)",
        "rl.zeros(1000).index_put_((index,), source)",
        "rl.zeros(1000).put_(index, source)",
        "rl.zeros(1000).__setitem__(index, 1.0)",
        "x.topk(5)",
        "mask.nonzero()",
        "source.view(400, 250)[mask]",
        "source.view(400, 250).masked_select(mask)",
        "rl.zeros(400, 250).__setitem__(mask, 1.0)",
        "rl.where(mask)",
    ],
)
def test_what_another_thread_writes_meanwhile_crashes_nothing(call):
    """NumPy looks twice: at positions before it writes, at masks before it allocates, at values for its pivots."""
    program = MEANWHILE.replace("CALL", call)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
