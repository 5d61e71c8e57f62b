"""`compile(fn)`: the same results and gradients as the function, never silently wrong, and readable."""

import collections
import copy
import functools
import gc

import numpy as np
import pytest

import rushlight_models
import rushlight_optim
import rushlight_tensor as T
from rushlight_autograd import grad, no_grad
from rushlight_jit import TraceError, compile
from rushlight_tensor.kernels.compile import find_compiler

WITH_COMPILER = pytest.mark.skipif(
    find_compiler() is None, reason="needs a C compiler, RUSHLIGHT_CC=none or none found"
)


def chain(x, y):
    h = T.exp(x * y + 1) / (1 + x * x)
    return T.tanh(h) - 0.5 * y


def tensors(*shapes, requires_grad=False, seed=0):
    rng = np.random.default_rng(seed)
    out = [T.tensor(rng.standard_normal(s).astype(np.float32)) for s in shapes]
    for t in out:
        t.requires_grad = requires_grad
    return out


@pytest.mark.parametrize(
    "shapes",
    [
        ((3, 5), (3, 5)),
        ((3, 5), (5,)),
        ((3, 5), ()),
        ((3, 5), (3, 1)),
        ((4, 3, 5), (1, 1, 5)),
        ((2, 3), (4, 2, 3)),
        ((0, 5), (0, 5)),
        ((), ()),
    ],
)
def test_chain_agrees_with_eager_for_every_kind_of_broadcast(shapes):
    fast = compile(chain, fullgraph=True)
    fast(*tensors(*shapes, seed=1))
    x, y = tensors(*shapes)
    np.testing.assert_allclose(fast(x, y).numpy(), chain(x, y).numpy(), rtol=2e-6, atol=1e-6)
    assert fast.traces == 1


@WITH_COMPILER
def test_chain_becomes_one_kernel_without_intermediate_arrays():
    x, y = tensors((64, 32), (64, 32))
    fast = compile(chain)
    fast(x, y)
    fast(x, y)
    assert fast.source().count("EXPORT") == 1
    assert "q1" not in fast.source()


def test_gradients_agree_with_eager():
    x, y = tensors((6, 5), (5,), requires_grad=True)
    chain(x, y).sum().backward()
    want = x.grad.numpy().copy(), y.grad.numpy().copy()
    x.grad = y.grad = None
    fast = compile(chain, fullgraph=True)
    fast(*tensors((6, 5), (5,), requires_grad=True, seed=1)).sum().backward()
    fast(x, y).sum().backward()
    assert fast.traces == 1
    np.testing.assert_allclose(x.grad.numpy(), want[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(y.grad.numpy(), want[1], rtol=1e-5, atol=1e-6)


def test_gradient_reaches_tensors_that_the_function_holds():
    (w,) = tensors((4,), requires_grad=True)
    (x,) = tensors((3, 4), seed=1)
    fast = compile(lambda x: T.exp(x * w).sum())
    for factor in (1, 2):
        w.grad = None
        with no_grad():
            w.mul_(factor)  # the kernel reads the memory, not a copy
        fast(x).backward()
        np.testing.assert_allclose(w.grad.numpy(), (x * T.exp(x * w)).sum(0).detach().numpy(), rtol=1e-5)
    assert fast.traces == 1


def test_backward_can_run_inside():
    def step(x, w):
        (g,) = grad((x * w * w).sum(), w)
        return w - 0.1 * g

    (w,) = tensors((3,), requires_grad=True)
    (x,) = tensors((2, 3), seed=1)
    with no_grad():
        want = w - 0.1 * (2 * w * x.sum(0))

    fast = compile(step, fullgraph=True)
    for _ in range(3):
        np.testing.assert_allclose(fast(x, w).detach().numpy(), want.numpy(), rtol=1e-5)
    assert fast.traces == 1


def test_new_shapes_dtypes_numbers_and_modes_are_traced_anew():
    fast = compile(lambda x, k: x * k)
    (x,) = tensors((3,))
    assert fast(x, 2.0)[0].item() == pytest.approx(x[0].item() * 2)
    assert fast(x, 3.0)[0].item() == pytest.approx(x[0].item() * 3)
    assert fast(x.double(), 2.0).dtype is T.float64
    assert fast(T.ones(2, 2), 2.0).shape == (2, 2)
    with no_grad():
        assert fast(x, 2.0).shape == (3,)
    assert fast.traces == 5


SCALE = 2.0


def test_a_number_that_the_function_refers_to_is_guarded():
    global SCALE
    offset = 1.0
    fast = compile(lambda x: x * SCALE + offset)
    x = T.ones(2)
    assert fast(x)[0].item() == 3.0
    SCALE = 5.0
    try:
        assert fast(x)[0].item() == 6.0
        offset = 0.0
        assert fast(x)[0].item() == 5.0
    finally:
        SCALE = 2.0


def test_a_tensor_that_comes_to_require_grad_is_seen():
    w, x = T.ones(3), T.ones(3)
    function = compile(lambda x: x * w * 2)
    assert not function(x).requires_grad
    assert not function(x).requires_grad
    w.requires_grad_()
    for _ in range(2):
        function(x).sum().backward()
    np.testing.assert_array_equal(w.grad.numpy(), [4.0] * 3)


def _setter():
    class Scaler:
        def get(self):
            return self.stored

        def twice(self, x):
            self.stored = x * 2.0

        def five_times(self, x):
            self.stored = x * 5.0

        value = property(get, twice)

    def function(x):
        made = Scaler()
        made.value = x
        return made.stored

    return function, lambda: setattr(Scaler, "value", property(Scaler.get, Scaler.five_times))


def _cached_property():
    class Scaler:
        value = functools.cached_property(lambda self: self.x * 2.0)

    def change():
        Scaler.value = functools.cached_property(lambda self: self.x * 5.0)
        Scaler.value.__set_name__(Scaler, "value")

    def function(x):
        made = Scaler()
        made.x = x
        return made.value

    return function, change


def _partialmethod():
    class Scaler:
        def scaled(self, x, factor=1.0):
            return x * factor

        value = functools.partialmethod(scaled, factor=2.0)

    def change():
        Scaler.value = functools.partialmethod(Scaler.scaled, factor=5.0)

    return lambda x: Scaler().value(x), change


def _default_factory():
    table = collections.defaultdict(lambda: 2.0)
    return lambda x: x * table.copy()["nothing"], lambda: setattr(table, "default_factory", lambda: 5.0)


@pytest.mark.parametrize("kind", [_setter, _cached_property, _partialmethod, _default_factory])
def test_what_python_calls_without_naming_it_is_guarded(kind):
    function, change = kind()
    compiled, x = compile(function, fullgraph=True), T.ones(3)
    for expected in (2.0, 5.0):
        for _ in range(2):
            np.testing.assert_array_equal(compiled(x).numpy(), [expected] * 3)
        change()


def test_a_tensor_that_was_replaced_is_seen():
    w = T.ones(2)
    fast = compile(lambda x: x * w)
    assert fast(T.ones(2))[0].item() == 1.0
    w.data = T.full((2,), 7.0)
    assert fast(T.ones(2))[0].item() == 7.0


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x * 2 if x.sum() > 0 else x,
        lambda x: x * x.sum().item(),
        lambda x: T.tensor(x.numpy() * 2),
        lambda x: x * float(x[0]),
        lambda x: list(x.tolist()) and x,
    ],
    ids=["if", "item", "numpy", "float", "tolist"],
)
def test_reading_a_value_is_an_error_with_the_users_line(read):
    with pytest.raises(TraceError, match=r"test_compile\.py:\d+: the value of a tensor is read"):
        compile(read, fullgraph=True)(T.ones(3))
    assert (T.ones(2) + 1)[0].item() == 2.0, "the tracer must be gone after the error"


def test_written_memory_keeps_its_order():
    def accumulate(x, total):
        before = total * 1
        total.add_(x)
        return before + total * 1

    total = T.zeros(2)
    fast = compile(accumulate)
    for want in (1.0, 3.0, 5.0):
        assert fast(T.ones(2), total)[0].item() == want
    assert total[0].item() == 3.0
    assert total._version == 3


def test_tensors_made_inside_are_fresh_in_every_call():
    def count(x):
        z = T.zeros(2)
        z.add_(x)
        return z * 1

    fast = compile(count)
    assert [fast(T.ones(2))[0].item() for _ in range(3)] == [1.0, 1.0, 1.0]


def test_random_numbers_are_drawn_anew_and_follow_the_seed():
    fast = compile(lambda x: x + T.rand(3))
    T.manual_seed(0)
    first, second = fast(T.zeros(3)).numpy(), fast(T.zeros(3)).numpy()
    T.manual_seed(0)
    np.testing.assert_array_equal(first, T.rand(3).numpy())
    np.testing.assert_array_equal(second, T.rand(3).numpy())


def test_results_are_not_overwritten_by_the_next_call():
    fast = compile(chain)
    x, y = tensors((4, 4), (4, 4))
    first = fast(x, y)
    kept = first.numpy().copy()
    fast(y, x)
    np.testing.assert_array_equal(first.numpy(), kept)


def test_structure_of_arguments_and_results_is_kept():
    fast = compile(lambda pair, *, more: {"sum": pair[0] + pair[1], "all": [more["z"] * 2, 5, None]})
    out = fast((T.ones(1), T.ones(1)), more={"z": T.ones(1)})
    assert out["sum"].item() == 2.0
    assert out["all"][0].item() == 2.0
    assert out["all"][1:] == [5, None]


def test_common_subexpressions_and_dead_code_are_gone():
    def wasteful(x):
        T.exp(x)
        return T.matmul(x, x) + T.matmul(x, x)

    fast = compile(wasteful)
    fast(T.ones(2, 2))
    assert [i.op.name for i in fast.graph.instrs] == ["matmul", "add"]
    assert "graph(%x0: float32[2, 2])" in str(fast.graph)
    assert "test_compile.py:" in str(fast.graph)


def test_what_only_looks_the_same_is_computed_twice():
    def close(x):
        draws = T.rand_like(x) - T.rand_like(x)
        return 1 / (x * 0.0) - 1 / (x * -0.0), x.sum(0, True) - x.sum(0, False), draws

    fast = compile(close)
    x = T.full((3,), 2.0)
    for _ in range(2):
        quotients, sums, draws = fast(x)
        np.testing.assert_array_equal(quotients.numpy(), np.full(3, np.inf))
        assert sums.shape == (1,)
        assert draws.abs().min() > 0


def test_second_derivative_through_a_compiled_function_is_refused():
    (x,) = tensors((3,), requires_grad=True)
    with pytest.raises(RuntimeError, match="second derivative"):
        grad(compile(lambda x: (x * x * x).sum())(x), x, create_graph=True)


def test_backward_and_optimizer_steps_inside_are_refused():
    (w,) = tensors((3,), requires_grad=True)
    with pytest.raises(TraceError, match=r"test_compile\.py:\d+: backward\(\) stores into \.grad"):
        compile(lambda x: (x * w).sum().backward(), fullgraph=True)(T.ones(3))
    optimizer = rushlight_optim.SGD([w], lr=0.1)

    def step(x):
        w.grad = grad((x * w).sum(), w)[0]
        optimizer.step()

    with pytest.raises(TraceError, match="call the optimizer outside"):
        compile(step, fullgraph=True)(T.ones(3))


MODELS = {
    "mlp": (lambda: rushlight_models.MLP(dropout=0.2), lambda: T.randn(5, 64)),
    "cnn": (rushlight_models.CNN, lambda: T.randn(4, 1, 8, 8)),
    "gpt": (lambda: rushlight_models.GPT(n_layer=2, n_embd=32, dropout=0.1), lambda: T.randint(0, 65, (2, 16))),
    "lstm": (lambda: rushlight_models.LSTMLanguageModel(hidden_size=32), lambda: T.randint(0, 65, (2, 9))),
    "resnet": (lambda: rushlight_models.ResNet18(width=4), lambda: T.randn(2, 3, 16, 16)),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_models_compile_with_their_gradients_statistics_and_dropout(name, training):
    make, example = MODELS[name]
    T.manual_seed(0)
    model, x = make().train(training), example()
    twin = copy.deepcopy(model)
    fast = compile(twin)
    for seed in (1, 2):
        losses = []
        for call, owner in ((model, model), (fast, twin)):
            T.manual_seed(seed)
            out = call(x)
            loss = ((out[0] if isinstance(out, tuple) else out) ** 2).mean()
            owner.zero_grad()
            loss.backward()
            losses.append(loss.item())
        assert losses[1] == pytest.approx(losses[0], rel=1e-5)
        for p, q in zip(model.parameters(), twin.parameters(), strict=True):
            np.testing.assert_allclose(q.grad.numpy(), p.grad.numpy(), rtol=1e-3, atol=1e-5)
        for p, q in zip(model.buffers(), twin.buffers(), strict=True):
            np.testing.assert_allclose(q.numpy(), p.numpy(), rtol=1e-5, atol=1e-6)
    assert fast.traces == 1


def test_what_the_garbage_collector_calls_is_no_part_of_the_function():
    seen = []

    def told(phase, info):
        seen.append(phase)

    before = gc.get_threshold()
    gc.callbacks.append(told)
    gc.set_threshold(1)  # else it comes now and then
    try:
        fast = compile(lambda x: sum((x * i for i in range(50)), x))
        for _ in range(2):
            assert fast(T.ones(2)).tolist() == [1226.0, 1226.0]
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(told)
    assert seen
    assert (fast.traces, fast.breaks) == (1, [])


def test_numpy_dtypes_are_values():
    wanted = np.dtype("int64")
    fast = compile(lambda x, d: x * (3 if d == wanted else 2), fullgraph=True)
    for d, factor in ((np.dtype("int64"), 3.0), (np.dtype("float32"), 2.0), (np.dtype("int64"), 3.0)):
        assert fast(T.ones(2), d).tolist() == [factor, factor]
    assert fast.traces == 2


def test_an_operand_that_is_not_aligned_is_copied():
    bytes_of = np.arange(6, dtype=np.float32).tobytes()
    askew = T.from_numpy(np.frombuffer(bytearray(b"\0" + bytes_of), np.float32, 6, 1))
    fast = compile(lambda x: x * 2.0 + 1.0, fullgraph=True)
    for x in (T.ones(6), T.ones(6), askew, askew, T.ones(6)):
        assert fast(x).tolist() == (x * 2.0 + 1.0).tolist()


def test_giving_up_is_told_once(caplog):
    few = compile(lambda x, k: x * k)
    for k in range(70):
        assert few(T.ones(1), k).item() == k
    assert few.traces == 64
    broken = compile(lambda x: x * x.sum().item())
    for n in range(1, 20):
        assert broken(T.ones(n))[0].item() == n
    assert [r.levelname for r in caplog.records] == ["WARNING", "WARNING"]
    assert "<lambda> is not traced any more, new kinds of call run as they are: more than 64" in caplog.messages[0]
    assert "test_compile.py:" in caplog.messages[1]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"mode": "fastest"}, "Unrecognized mode=fastest, should be one of: default, "),
        ({"backend": "inductr"}, "Invalid backend: 'inductr'; there is one"),
        ({"backend": lambda graph, inputs: graph}, "Invalid backend: <function"),
    ],
)
def test_unknown_modes_and_backends_are_refused(options, text):
    for model in (lambda x: x, None):  # None: as a decorator
        with pytest.raises(RuntimeError, match=text):
            compile(model, **options)
    assert compile(T.exp, mode="reduce-overhead", backend="eager")(T.zeros(2)).tolist() == [1, 1]
    with pytest.raises(AssertionError, match="A callable function is expected, but <class 'int'> is provided"):
        compile(3)
