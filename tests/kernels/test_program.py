"""Programs: recorded kernel calls, run again from C, give eager work's bits in the same memory."""

import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest

import rushlight as rl
import rushlight.nn.functional as F
from rushlight_tensor.core import dispatch
from rushlight_tensor.core.op import REGISTRY
from rushlight_tensor.kernels import accelerator, plan
from rushlight_tensor.kernels.compile import find_compiler
from rushlight_tensor.kernels.program import recording

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="no C compiler, or RUSHLIGHT_CC=none")


def norms(x, w, b):
    return F.log_softmax(F.softmax(F.layer_norm(x, (16,), w, b), -1), 0)


STEPS = {
    "layer_norm": lambda x, w, b: F.layer_norm(x, (16,), w, b),
    "layer_norm of two dimensions": lambda x, w, b: F.layer_norm(x, (8, 16)),
    "rms_norm": lambda x, w, b: F.rms_norm(x, (16,), w),
    "normalize": lambda x, w, b: F.normalize(x, dim=-1),
    "softmax": lambda x, w, b: F.softmax(x, -1),
    "softmax along the first": lambda x, w, b: F.softmax(x, 0),
    "log_softmax": lambda x, w, b: F.log_softmax(x, 1),
    "a chain": norms,
    "relu": lambda x, w, b: F.relu(x),
    "silu": lambda x, w, b: F.silu(x),
    "gelu": lambda x, w, b: F.gelu(x),
    "gelu by tanh": lambda x, w, b: F.gelu(x, approximate="tanh"),
    "activations in a chain": lambda x, w, b: F.gelu(F.layer_norm(F.relu(F.silu(x)), (16,), w, b)),
    "a transposed activation": lambda x, w, b: F.relu(F.layer_norm(x, (16,), w, b).t()).t(),
    "cross_entropy": lambda x, w, b: F.cross_entropy(x, CLASSES, ignore_index=2),
    "cross_entropy of rows": lambda x, w, b: F.cross_entropy(
        x, CLASSES, b.detach(), reduction="none", label_smoothing=0.1
    ),
    "nll_loss": lambda x, w, b: F.nll_loss(F.log_softmax(x, 1), CLASSES),
    "linear": lambda x, w, b: F.linear(F.linear(F.relu(x), MATRIX, b), MATRIX),
    "matmul": lambda x, w, b: F.relu(x) @ MATRIX,
    "matmul of a batch": lambda x, w, b: rl.matmul(F.softmax(x.view(2, 4, 16), -1), BATCH).view(8, 16),
    "matmul, transposed": lambda x, w, b: rl.matmul(F.softmax(SQUARE, 0).t(), F.relu(x)),
    "lstm": lambda x, w, b: REGISTRY["lstm_sequence"](x.view(4, 2, 16), *STATES, F.relu(GATES), reverse=True),
    "gru": lambda x, w, b: REGISTRY["gru_sequence"](
        F.linear(x, MATRIX[:12]).view(4, 2, 12), STATES[0], GATES[:12], BIAS
    ),
    "attention": lambda x, w, b: F.scaled_dot_product_attention(x.view(2, 4, 2, 8).transpose(1, 2), KEYS, KEYS),
    "causal attention of a chain": lambda x, w, b: F.scaled_dot_product_attention(
        KEYS[:, :, :4], F.linear(x, MATRIX).view(2, 4, 2, 8).transpose(1, 2), KEYS[:, :, :4], is_causal=True
    ),
    "embedding": lambda x, w, b: F.embedding(INDICES, x, padding_idx=1),
    "sum": lambda x, w, b: F.softmax(x, 0).sum(),
    "sums down the columns": lambda x, w, b: F.relu(x).sum(0, keepdim=True),
    "mean": lambda x, w, b: F.softmax(x, 0).mean(),
    "max of rows": lambda x, w, b: F.softmax(x, 0).max(1)[0],
    "min of columns": lambda x, w, b: F.softmax(x, 1).min(0, keepdim=True)[0],
    "means of rows": lambda x, w, b: F.relu(x).mean(-1),
    "cat": lambda x, w, b: rl.cat([MATRIX, F.relu(x)], 0),
    "stack": lambda x, w, b: rl.stack([MATRIX[:8], F.relu(x)], 0),
    "gather": lambda x, w, b: F.relu(x).gather(0, PLACES),
    "index_select": lambda x, w, b: F.relu(x).index_select(0, INDICES),
    "where": lambda x, w, b: rl.where(CHOSEN, F.relu(x), MATRIX[8:]),
    "where with a number": lambda x, w, b: rl.where(CHOSEN, 0.5, F.relu(x)),
}
FORWARD_STEPS = {
    "max": lambda x: F.softmax(x, 0).max(),
    "amin": lambda x: F.softmax(x, 0).amin(0),
    "argmin": lambda x: F.softmax(x, 0).argmin(1),
}
IMAGE_STEPS = {
    "batch_norm": lambda x, w, b: F.batch_norm(x, *RUNNING, w, b, training=True),
    "batch_norm with running statistics": lambda x, w, b: F.batch_norm(x, *RUNNING, w, b),
    "cross_entropy of images": lambda x, w, b: F.cross_entropy(x, PIXELS, w.detach(), reduction="sum"),
    "max_pool2d": lambda x, w, b: F.max_pool2d(x, 3, 2, 1),
    "max_pool2d with indices": lambda x, w, b: F.max_pool2d(x, 3, 2, 1, return_indices=True)[0],
    "avg_pool2d": lambda x, w, b: F.avg_pool2d(x, 2, ceil_mode=True),
    "conv2d": lambda x, w, b: F.conv2d(x, KERNELS, b, padding=1),
    "conv2d, strided": lambda x, w, b: F.conv2d(x, KERNELS, b, stride=2, dilation=(1, 2), padding=2),
    "conv2d in groups": lambda x, w, b: F.conv2d(x, GROUPED, w, groups=5),
    "conv2d of a weight": lambda x, w, b: F.conv2d(PHOTOS, x, None, padding=1),
    "a chain of images": lambda x, w, b: F.max_pool2d(F.relu(F.conv2d(F.conv2d(x, KERNELS, b), KERNELS, w)), 2),
    "conv_transpose2d": lambda x, w, b: F.conv_transpose2d(x, KERNELS, None, stride=2),
    "conv1d": lambda x, w, b: F.conv1d(x.view(10, 6, 6), LINES),
    "norm and pool": lambda x, w, b: F.max_pool2d(F.batch_norm(x, *RUNNING, w, b, training=True), 2),
    "means of channels": lambda x, w, b: F.relu(x).mean((0, 2, 3)),
    "nll_loss of images": lambda x, w, b: F.nll_loss(x, PIXELS, reduction="none"),
}
DRAWS = {
    "dropout": lambda x: F.dropout(x, 0.3),
    "dropout of doubles": lambda x: F.dropout(DOUBLES, 0.3),
    "dropout, backward": lambda x: rl.autograd.grad(F.dropout(x, 0.3), x, rl.ones_like(x))[0],
    "a chain": lambda x: F.softmax(F.dropout(F.relu(x)), -1),
    "rand": lambda x: rl.rand(700),
    "rand in double": lambda x: rl.rand(3, 3, dtype=rl.float64),
    "randn": lambda x: rl.randn(37),
    "a few normals": lambda x: rl.randn(5),
    "randn_like": lambda x: rl.randn_like(x),
    "randint": lambda x: rl.randint(-3, 90, (50,)),
    "randperm": lambda x: rl.randperm(50),
    "bernoulli": lambda x: rl.bernoulli(CHANCES),
    "bernoulli of one number": lambda x: rl.bernoulli(DOUBLES, 0.3),
    "uniform_": lambda x: x.detach().uniform_(-2, 3),
    "normal_": lambda x: x.detach().normal_(1, 3),
    "exponential_": lambda x: x.detach().exponential_(2.0),
    "geometric_": lambda x: x.detach().geometric_(0.3),
    "cauchy_": lambda x: x.detach().cauchy_(),
    "log_normal_": lambda x: DOUBLES.log_normal_(),
    "bernoulli_": lambda x: x.detach().bernoulli_(CHANCES),
}
RUNNING = (rl.zeros(5), rl.ones(5))
MATRIX, BATCH, SQUARE = rl.randn(16, 16), rl.randn(2, 16, 16), rl.randn(8, 8)
STATES, GATES, BIAS = (rl.randn(2, 4), rl.randn(2, 4)), rl.randn(16, 4), rl.randn(12)
KERNELS, GROUPED, LINES, PHOTOS = rl.randn(5, 5, 3, 3), rl.randn(5, 1, 3, 3), rl.randn(4, 6, 3), rl.randn(3, 5, 9, 9)
DOUBLES, CHANCES = rl.ones(5, 3, dtype=rl.float64), rl.rand(8, 16)
CLASSES = rl.tensor([3, 0, 15, 3, 7, 3, 2, 0])
KEYS = rl.randn(2, 2, 6, 8)
PLACES, CHOSEN = rl.arange(4 * 16).reshape(4, 16) % 8, rl.arange(8 * 16).reshape(8, 16) % 3 == 0
INDICES = rl.tensor([3, 0, 1, 3, 7, 3, 2, 0])
PIXELS = rl.arange(2 * 6 * 6).reshape(2, 6, 6) % 5


def arguments(name, seed):
    rl.manual_seed(seed)
    shape = (2, 5, 6, 6) if name in IMAGE_STEPS else (8, 16)
    return [rl.randn(n).requires_grad_() for n in (shape, shape[1], shape[1])]


def results(program):
    """Every array that a call of a program makes; gradients of leaves are copies of such."""
    for kernel, given in program.calls:
        passed = [a for a in kernel.prototype.arguments if a.is_given]
        yield from [x for a, x in zip(passed, given, strict=True) if a.is_result and x is not None]


@needs_compiler
@pytest.mark.parametrize("name", [*STEPS, *IMAGE_STEPS])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_program_repeats_forward_and_backward(name, threads):
    step, xs = (STEPS | IMAGE_STEPS)[name], arguments(name, 0)
    g = rl.randn(step(*xs).shape)
    before = rl.get_num_threads()
    rl.set_num_threads(threads)
    try:
        with recording() as program:
            rl.autograd.grad(step(*xs), xs, g, allow_unused=True)
        assert len(program) >= 2
        for x, new in zip(xs, arguments(name, 1), strict=True):
            x.detach().copy_(new.detach())
        program.run()
        program.run()
        with recording() as again:
            rl.autograd.grad(step(*xs), xs, g, allow_unused=True)
    finally:
        rl.set_num_threads(before)
    for got, want in zip(results(program), results(again), strict=True):
        assert np.array_equal(got, want)


@needs_compiler
@pytest.mark.parametrize("name", FORWARD_STEPS)
def test_a_program_repeats_forward(name):
    x, new = (arguments(name, seed)[0].detach() for seed in (0, 1))
    with recording() as program:
        got = FORWARD_STEPS[name](x)
    x.copy_(new)
    program.run()
    assert np.array_equal(got.numpy(), FORWARD_STEPS[name](new).numpy())


@needs_compiler
@pytest.mark.parametrize("name", DRAWS)
def test_a_program_draws_the_next_numbers(name):
    x = arguments("x", 0)[0]
    with recording() as program:
        got = DRAWS[name](x)
    rl.manual_seed(7)
    program.run()
    program.run()
    first, after = got.tolist(), rl.rand(20).tolist()
    rl.manual_seed(7)
    DRAWS[name](x)
    assert DRAWS[name](x).tolist() == first
    assert rl.rand(20).tolist() == after


@needs_compiler
@pytest.mark.parametrize("name", ["dropout", "rand"])
def test_a_program_that_draws_waits_for_who_has_the_generator(name):
    x, done = arguments("x", 0)[0], threading.Event()
    with recording() as program:
        DRAWS[name](x)
    thread = threading.Thread(target=lambda: (program.run(), done.set()))
    with rl.default_generator.lock:
        thread.start()
        assert not done.wait(0.1)
    thread.join()
    assert done.is_set()


@needs_compiler
def test_a_probability_that_is_none_stops_a_program_before_it_draws():
    p = rl.rand(30)
    with recording() as program:
        rl.bernoulli(p)
    p[17] = 1.5
    rl.manual_seed(0)
    with pytest.raises(RuntimeError, match=r"call 0 \(bernoulli_each\) of 1 reported 18"):
        program.run()
    after = rl.rand(5).tolist()
    rl.manual_seed(0)
    assert rl.rand(5).tolist() == after


@needs_compiler
def test_what_is_no_kernel_call_is_refused():
    double, turned = rl.ones(3, dtype=rl.float64), rl.randn(3, 4).t()
    with recording(), pytest.raises(RuntimeError, match=r"softmax of float64 runs as NumPy's text"):
        F.softmax(double, 0)
    with recording(), pytest.raises(RuntimeError, match="copied into another order"):
        F.softmax(turned, 0)
    with recording(), pytest.raises(RuntimeError, match="one at a time"), recording():
        pass


@needs_compiler
def test_every_planned_record_agrees_with_its_prototype():
    """Inputs, results and numbers of record and C text belong together; half the plan of a wrong one would be luck."""
    assert {p.op.name for p in plan.PLANNED} <= set(REGISTRY)
    for planned in plan.PLANNED:
        planned._load()
        assert len(planned._reads) == len(planned.operands((None,) * planned.op.arity))


@needs_compiler
def test_a_new_shape_is_a_new_plan_and_old_ones_are_let_go():
    planned = next(p for p in plan.PLANNED if p.op.name == "softmax")
    planned.forget()
    for n in range(1, plan._MOST_PLANS + 10):
        x = np.ones((n, 2), np.float32)
        assert planned.run(x, dim=1)[-1, 0] == 0.5
    assert len(planned.plans) <= plan._MOST_PLANS
    assert planned.run(np.ones((2, 4), np.float32), dim=1)[0, 0] == 0.25
    assert planned.run(np.ones((2, 4), np.float32), dim=0)[0, 0] == 0.5


def trained(optimizer, **options):
    """A step of an optimizer after clipping, on gradients that lie ready."""
    rl.manual_seed(3)
    params = [rl.randn(5, 4).requires_grad_(), rl.randn(7).requires_grad_(), rl.randn(0, 2).requires_grad_()]
    for p in params:
        p.grad = rl.randn(p.shape)
    steps = getattr(rl.optim, optimizer)(params, **options)

    def step():
        rl.nn.utils.get_total_norm([p.grad for p in params])
        steps.step()

    return params, step


@needs_compiler
@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        ("SGD", {"lr": 0.1}),
        ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
        ("Adam", {"lr": 0.1}),
        ("AdamW", {"lr": 0.1, "maximize": True}),
    ],
)
def test_a_program_repeats_optimizer_steps(optimizer, options):
    (ours, once), (wanted, again) = trained(optimizer, **options), trained(optimizer, **options)
    once()  # the state is made
    with recording() as program:
        once()
    program.run()
    program.run()
    for _ in range(4):
        again()
    assert len(program) == 2
    for got, want in zip(ours, wanted, strict=True):
        assert np.array_equal(got.detach().numpy(), want.detach().numpy())


@needs_compiler
@pytest.mark.parametrize(
    ("work", "why"),
    [
        (lambda x: F.softmax(x * 2, -1), "mul has no kernel with a plan"),
        (lambda x: F.softmax(x, -1).prod(), "prod has no kernel with a plan"),
        (lambda x: x.add_(1), "add writes into a tensor"),
        (lambda x: x.zero_(), "writes into a tensor"),
        (lambda x: x.max().item(), "a value is looked at"),
        (lambda x: F.softmax(x, -1)[0, 0].item(), "a value is looked at"),
        (lambda x: x.double(), "cast has no kernel"),
        (lambda x: rl.randn(3, dtype=rl.bfloat16), "random numbers are put into bfloat16"),
        (lambda x: rl.empty(3, 3).t().normal_(), "or into another order"),
        (lambda x: rl.bernoulli(F.softmax(x, -1).t()), "probabilities of another order"),
        (lambda x: rl.multinomial(F.softmax(x, -1), 2), "multinomial has no kernel"),
        (lambda x: F.dropout(x.t()), "dropout of float32 runs as NumPy's text"),
        (lambda x: x.t().clone(memory_format=rl.contiguous_format), "in another order"),
    ],
)
def test_what_a_program_would_leave_out_is_refused(work, why):
    x = rl.randn(3, 4)
    with recording(), pytest.raises(RuntimeError, match=why):
        work(x)
    work(rl.randn(3, 4))  # and afterwards all is as before


@needs_compiler
def test_views_and_other_threads_are_no_part_of_a_program():
    x, others = rl.randn(4, 6), []
    with recording() as program:
        y = F.softmax(x.view(2, 12), -1)
        other = threading.Thread(target=lambda: others.append((F.softmax(rl.ones(3).clone() * 2, 0) + 1).tolist()))
        other.start()
        other.join()
    assert len(program) == 1
    assert others
    x.mul_(3)
    program.run()
    assert np.array_equal(y.numpy(), F.softmax(x.view(2, 12), -1).numpy())


@needs_compiler
def test_a_second_recording_is_refused_while_the_first_is_about_to_begin(monkeypatch):
    """The look and the step stood apart: both went in, one lost its calls, and the accelerator stayed off."""
    held_off, inside, go_on = accelerator.held_off, threading.Event(), threading.Event()
    programs, x = [], rl.arange(3.0)

    @contextmanager
    def slow():
        inside.set()
        assert go_on.wait(60)
        with held_off():
            yield

    def first():
        with recording() as program:
            F.softmax(x, 0)
        programs.append(program)

    monkeypatch.setattr(accelerator, "held_off", slow)
    other = threading.Thread(target=first)
    other.start()
    assert inside.wait(60)
    with pytest.raises(RuntimeError, match="one at a time"), recording():
        pass
    go_on.set()
    other.join()
    assert [len(p) for p in programs] == [1]
    assert_nobody_records()


@needs_compiler
def test_a_refused_recording_changes_nothing_for_the_one_that_goes_on():
    refused, x = [], rl.arange(3.0)

    def second():
        try:
            with recording():
                pass
        except RuntimeError as e:
            refused.append(str(e))

    with recording() as program:
        other = threading.Thread(target=second)
        other.start()
        other.join()
        assert plan.RECORDER is program
        assert dispatch.INTERCEPT is not None
        F.softmax(x, 0)
    assert len(refused) == 1
    assert "one at a time" in refused[0]
    assert len(program) == 1
    assert_nobody_records()


def assert_nobody_records():
    assert plan.RECORDER is None
    assert dispatch.INTERCEPT is None
    assert accelerator.use(True) == accelerator.is_loaded()  # what is to run, and does:
    assert not accelerator.is_loaded() or all(
        owner.__dict__.get(name, fast) is fast if isinstance(owner, type) else getattr(owner, name) is fast
        for owner, name, _, fast in accelerator._places
    )


@needs_compiler
def test_recordings_of_two_threads_hold_their_own_calls_and_nobody_elses():
    """Two that record as often as they are let, and one that only computes, which must not notice."""
    go, until, failed, made = threading.Barrier(4), time.monotonic() + 1.5, [], []

    def record():
        x = rl.randn(4, 6)
        go.wait()
        while time.monotonic() < until:
            try:
                with recording() as program:
                    y = F.gelu(F.softmax(x, -1).clone())
            except RuntimeError as e:
                if "one at a time" not in str(e):
                    failed.append(e)
                continue
            made.append([kernel.name for kernel, _ in program.calls])
            y.sum()

    def compute():
        x, half = rl.randn(4, 6), rl.randn(4, 6).half()
        go.wait()
        while time.monotonic() < until:
            F.softmax(x, -1).clone().add_(1).sum().item()
            F.softmax(half.t(), -1)

    def kept(work):
        try:
            work()
        except Exception as e:
            failed.append(e)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=kept, args=(work,)) for work in (record, record, compute, compute)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    finally:
        sys.setswitchinterval(before)
    assert failed == []
    assert made
    assert all(names == ["softmax", "copy", "gelu"] for names in made)
    assert_nobody_records()


@needs_compiler
def test_a_child_process_does_not_go_on_with_a_recording_of_a_thread_that_it_lacks():
    made = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, timeout=120)
    assert (made.stderr, made.returncode) == ("", 0)


FORK = """
import os, threading, warnings
import rushlight as rl
from rushlight_tensor.core import dispatch
from rushlight_tensor.kernels import accelerator, plan
from rushlight_tensor.kernels.program import recording
warnings.simplefilter("ignore")  # that there are threads
inside, end = threading.Event(), threading.Event()
x = rl.ones(3) * 2
def record():
    with recording():
        inside.set()
        end.wait()
thread = threading.Thread(target=record)
thread.start()
inside.wait()
child = os.fork()
if not child:
    fine = plan.RECORDER is None and dispatch.INTERCEPT is None and not accelerator._holders
    with recording() as program:
        rl.nn.functional.softmax(x, 0)
    os._exit(0 if fine and len(program) == 1 else 1)
end.set()
thread.join()
with recording():
    child_of_the_recorder = os.fork()
    if not child_of_the_recorder:
        os._exit(0 if plan.RECORDER is not None else 1)
for pid in child, child_of_the_recorder:
    assert os.waitpid(pid, 0)[1] == 0
"""


@needs_compiler
def test_the_accelerator_is_held_off_until_the_last_has_left():
    first, second = accelerator.held_off(), accelerator.held_off()
    before = accelerator.use(True)
    off = [twin for owner, name, twin, _ in accelerator._places if name == "fast"]

    def is_off():
        return [getattr(o, n) for o, n, *_ in accelerator._places if n == "fast"] == off

    first.__enter__()
    second.__enter__()
    accelerator.use(False)
    first.__exit__(None, None, None)
    accelerator.use(True)
    assert is_off()
    second.__exit__(None, None, None)
    assert not accelerator.is_loaded() or not is_off()
    accelerator.use(before)


@needs_compiler
def test_a_program_that_is_made_takes_no_more_calls():
    x = rl.ones(3)
    with recording() as program:
        F.gelu(x)
        program.run()
        with pytest.raises(RuntimeError, match="nothing can be recorded any more"):
            F.gelu(x)
    program.run()
    assert len(program) == 1


@needs_compiler
def test_a_kernel_is_ready_when_another_thread_sees_it():
    """Its check was there before what a call needs besides: first calls of several threads raised AttributeError."""
    made = subprocess.run([sys.executable, "-c", FIRST_CALLS], capture_output=True, text=True, timeout=120)
    assert (made.stderr, made.returncode) == ("", 0)


FIRST_CALLS = """
import sys, threading
import rushlight as rl
F = rl.nn.functional
sys.setswitchinterval(1e-6)
x, go, failed = rl.ones(4, 8), threading.Barrier(8), []
calls = [F.softmax, F.log_softmax]
def work():
    go.wait()
    try:
        for f in calls:
            f(x, -1)
        F.gelu(x), F.silu(x), F.relu(x), F.layer_norm(x, (8,)), F.rms_norm(x, (8,)), rl.exp(x), rl.tanh(x)
    except Exception as e:
        failed.append(e)
threads = [threading.Thread(target=work) for _ in range(8)]
[t.start() for t in threads]
[t.join() for t in threads]
assert not failed, failed
"""


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW"])
def test_an_infinite_parameter_stays_where_no_decay_is_asked_for(optimizer):
    q = rl.nn.Parameter(rl.tensor([-np.inf, 1.0]))
    steps = getattr(rl.optim, optimizer)([q], lr=0.1, weight_decay=0.0)
    for _ in range(2):
        q.grad = rl.tensor([0.0, 1.0])
        steps.step()
    assert q[0].item() == -np.inf
    assert np.isfinite(q[1].item())


@needs_compiler
def test_the_order_of_a_result_is_that_of_all_its_inputs():
    """What is known of one order of the second input is not taken for another."""
    planned = next(p for p in plan.PLANNED if p.op.name == "gelu_backward")
    x = np.ones((3, 4, 5), np.float32)
    turned, swapped = np.asfortranarray(x), x.transpose(1, 0, 2).copy().transpose(1, 0, 2)
    planned.plans.clear()
    both = [planned.run(turned, y, **planned.op.defaults).strides for y in (turned, swapped, turned)]
    assert both == [(4, 12, 48), (20, 60, 4), (4, 12, 48)]


@needs_compiler
def test_a_program_has_room_for_the_threads_that_run_it():
    """Tables check nothing when they run: scratch is as large as the prototype says for the threads of the table."""
    x, w = rl.randn(2, 64, 28, 28), rl.randn(64, 64, 3, 3)
    before, rooms = rl.get_num_threads(), {}
    try:
        rl.set_num_threads(1)
        with recording() as program:
            y = rl.conv2d(x, w, padding=1)
        for threads in (1, 2, 1):
            rl.set_num_threads(threads)
            program.run()
            assert program._table.threads == threads
            assert rooms.setdefault(threads, program._table.work_bytes) == program._table.work_bytes
    finally:
        rl.set_num_threads(before)
    assert rooms[2] > rooms[1]
    assert np.array_equal(y.numpy(), rl.conv2d(x, w, padding=1).numpy())
