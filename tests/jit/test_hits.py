"""A call like the last ones is found without a walk, by C and by Python alike; what differs is found by the walk."""

import copy
import gc
import pickle
import subprocess
import sys
import threading
import types
import weakref

import numpy as np
import pytest

import rushlight_autograd  # noqa: F401 - gradients
import rushlight_tensor as T
from rushlight_jit import TraceError, compile
from rushlight_jit.compiled import Compiled
from rushlight_jit.hits import MOST_HITS
from rushlight_tensor.core import dispatch, dtypes
from rushlight_tensor.kernels import accelerator
from rushlight_tensor.kernels.compile import find_compiler

SCALE = 2.0
settings = types.ModuleType("settings_of_hits")


@pytest.fixture(autouse=True, params=[True, False], ids=["C", "Python"])
def _who_compares(request):
    before = accelerator.use(request.param)
    yield
    accelerator.use(before)


class Counted:
    """A compiled function, how it is without, and how many calls were searched for."""

    def __init__(self, function, *args, **how):
        self.eager, self.fast, self.searched = function, compile(function, **how), 0
        self._find = self.fast._find
        self.fast._find = self._count
        for _ in range(3):
            self(*args)
        self.searched = 0

    def _count(self, *args, **kwargs):
        self.searched += 1
        return self._find(*args, **kwargs)

    def __call__(self, *args, **kwargs):
        got, want = self.fast(*args, **kwargs), self.eager(*args, **kwargs)
        np.testing.assert_allclose(got.detach().numpy(), want.detach().numpy(), rtol=1e-5, atol=1e-6)
        assert (got._requires_grad, got.dtype) == (want._requires_grad, want.dtype)
        return got

    def is_searched(self, *args, **kwargs):
        before = self.searched
        self(*args, **kwargs)
        return self.searched > before


def x3(k=1.0):
    return T.tensor([1.0, -2.0, 3.0]) * k


def chain(x, y):
    return (x * y + x) * 2.0


@pytest.mark.parametrize("shape", [(), (3,), (5, 7), (300, 40)])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_a_call_like_the_last_is_not_searched_for(shape, requires_grad):
    def arrays():
        return (T.tensor(np.random.default_rng(n).standard_normal(shape).astype(np.float32)) for n in (1, 2))

    x, y = arrays()
    x.requires_grad_(requires_grad)
    f = Counted(chain, x, y)
    for _ in range(3):
        x, y = arrays()
        x.requires_grad_(requires_grad)
        assert not f.is_searched(x, y)
        if requires_grad:
            g = T.ones(shape)
            f(x, y).backward(g)
            got = x.grad
            x.grad = None
            f.eager(x, y).backward(g)
            np.testing.assert_allclose(got.numpy(), x.grad.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("function", [
    lambda x, y: (x * y + y, x * 2.0),
    lambda x, y: {"a": x + y * y},
    lambda x, y: [x.exp() @ y, None, 3],
    lambda x, y: (x * y).sum(),
    lambda x, y: ((x < y) * 1.0, x < y),
])  # fmt: skip
def test_results_of_every_structure(function):
    fast = compile(function)
    x, y = x3(), x3(0.5)
    for _ in range(4):
        got, want = fast(x, y), function(x, y)
        assert repr(got) == repr(want)
    assert len(fast._hits) == 1


def other_memory():
    base = T.tensor(np.arange(8, dtype=np.float32))
    return base[1:4], base[2:5]


ARGUMENTS = {
    "shape": lambda: (x3().reshape(3, 1), x3()),
    "dtype": lambda: (x3(), x3().double()),
    "dtype of the same size": lambda: (x3(), T.tensor([1, 2, 3], dtype=T.int32)),
    "strides": lambda: (T.ones(6)[::2], x3()),
    "overlap": other_memory,
    "twice the same": lambda: (x3(),) * 2,
    "requires_grad": lambda: (x3(), x3().requires_grad_()),
    "not a leaf": lambda: (x3(), x3().requires_grad_() * 1.0),
    "a number": lambda: (x3(), 2.0),
    "an array": lambda: (x3(), np.ones(3, np.float32)),
    "one element": lambda: (x3(), T.ones(1)),
}


@pytest.mark.parametrize("what", ARGUMENTS)
def test_arguments_of_another_kind_are_searched_for(what):
    f = Counted(chain, x3(), x3(0.5))
    args = ARGUMENTS[what]()
    assert f.is_searched(*args)
    assert not f.is_searched(x3(), x3(0.5))


def test_a_result_of_an_op_is_another_kind_than_a_leaf():
    f = Counted(chain, x3().requires_grad_(), x3(0.5))
    assert f.is_searched(x3().requires_grad_() * 1.0, x3(0.5))
    assert not f.is_searched(x3().requires_grad_(), x3(0.5))


def test_one_kernel_may_have_a_gradient():
    x = x3().requires_grad_()
    f = Counted(lambda x: (x + 1.0) * 2.0, x)
    f(x).sum().backward()
    assert not f.is_searched(x)
    assert x.grad.tolist() == [2.0] * 3
    assert f.fast._hits[0].kernel is None  # which would leave no node behind


W = T.tensor([0.5, 5.0, 50.0])


@pytest.mark.parametrize("function", [chain, lambda x, y: (x * y + W, x - W)])
def test_an_argument_may_be_given_twice(function):
    fast, x, z = compile(function), x3(), x3(3.0)
    for args in [(x, x)] * 4 + [(z, x)] * 4 + [(x, x), (z, z)]:
        assert repr(fast(*args)) == repr(function(*args))


@pytest.mark.parametrize("lies", [
    lambda a: a.t(), lambda a: a[:, ::2], lambda a: a[:1].expand(4, 6),
])  # fmt: skip
def test_arguments_that_do_not_lie_in_order(lies):
    rng = np.random.default_rng(0)
    x, other = (lies(T.tensor(rng.standard_normal((4, 6)).astype(np.float32))) for _ in range(2))
    y = T.ones(x.shape)
    f = Counted(chain, x, y)
    for _ in range(3):
        assert not f.is_searched(other, y)
        assert f.fast(other, y).stride() == chain(other, y).stride()
    assert f.fast._hits[0].kernel is None  # which reads what lies in order


def test_arguments_by_name_with_attributes_and_of_other_classes_are_searched_for():
    f = Counted(lambda x: x * 2.0 + 1.0, x3())
    x = x3()
    x.scale = 2.0
    assert f.is_searched(x)
    assert f.is_searched(x=x3())

    class Own(T.Tensor):
        pass

    assert f.is_searched(Own([1.0, 2.0, 3.0]))
    misaligned = np.frombuffer(bytearray(b"\0" + np.ones(3, np.float32).tobytes()), np.float32, 3, 1)
    assert f.is_searched(T.from_numpy(misaligned))
    assert not f.is_searched(x3())


def test_views_that_lie_apart_are_arguments_like_others():
    base = x3(4.0)
    f = Counted(lambda x, y: x * y + x, base[:1], base[1:2])
    assert not f.is_searched(base[1:2], base[2:])
    assert f.is_searched(base[1:2], base[1:2])


@pytest.mark.parametrize("mode", ["grad", "inference", "default dtype"])
def test_modes_count(mode):
    f = Counted(lambda x: x * 2.0 + 1.0, x3())
    if mode == "default dtype":
        before = dtypes.get_default_dtype()
        x = x3()
        dtypes.set_default_dtype(dtypes.float64)
        try:
            assert f.is_searched(x)
        finally:
            dtypes.set_default_dtype(before)
    else:
        value = getattr(dispatch.MODE, mode)
        setattr(dispatch.MODE, mode, not value)
        try:
            assert f.is_searched(x3())
        finally:
            setattr(dispatch.MODE, mode, value)
    assert not f.is_searched(x3())


def test_another_thread_has_its_own_modes():
    f = Counted(lambda x: x * 2.0 + 1.0, x3().requires_grad_())
    found = []

    def without():
        dispatch.MODE.grad = False
        found.append(f.fast(x3().requires_grad_())._requires_grad)

    thread = threading.Thread(target=without)
    thread.start()
    thread.join()
    assert found == [False]
    assert f.fast(x3().requires_grad_())._requires_grad


def test_what_a_tracer_must_see_is_no_hit():
    inner = compile(lambda x: x * 2.0 + 1.0)
    for _ in range(3):
        inner(x3())
    outer = compile(lambda x: inner(x) * 3.0)
    for _ in range(3):
        assert outer(x3()).tolist() == ((x3() * 2.0 + 1.0) * 3.0).tolist()
    assert [i.op.name for i in outer.graph.instrs] == ["mul", "add", "mul"]


# ------------------------------------------------------------------------------------- what the function refers to


def cell():
    k = 2.0

    def change():
        nonlocal k
        k = 5.0

    return lambda x: x * k + 1.0, change


def emptied_cell():
    k = 2.0

    def f(x):
        try:
            return x * k + 1.0
        except NameError:
            return x * 7.0 + 1.0

    def change():
        nonlocal k
        del k

    return f, change


def global_():
    return (lambda x: x * SCALE + 1.0), lambda: globals().update(SCALE=5.0)


def global_in_place_of_a_builtin():
    return (lambda x: x * max(2.0, 3.0) + 1.0), lambda: globals().update(max=min)


def default():
    def f(x, k=2.0):
        return x * k + 1.0

    return f, lambda: setattr(f, "__defaults__", (5.0,))


def keyword_default():
    def f(x, *, k=2.0):
        return x * k + 1.0

    return f, lambda: f.__kwdefaults__.update(k=5.0)


def keyword_defaults():
    def f(x, *, k=2.0):
        return x * k + 1.0

    return f, lambda: setattr(f, "__kwdefaults__", {"k": 5.0})


def code():
    def f(x):
        return x * 2.0 + 1.0

    return f, lambda: setattr(f, "__code__", (lambda x: x * 5.0 + 1.0).__code__)


def code_of_another():
    def g(x):
        return x * 2.0

    return (lambda x: g(x) + 1.0), lambda: setattr(g, "__code__", (lambda x: x * 5.0).__code__)


def attribute_of_a_function():
    def f(x):
        return x * getattr_free.k + 1.0

    def getattr_free():
        pass

    getattr_free.k = 2.0
    return f, lambda: setattr(getattr_free, "k", 5.0)


def attributes_of_a_function():
    def f(x):
        return x * holder.k + 1.0

    def holder():
        pass

    holder.k = 2.0
    return f, lambda: setattr(holder, "__dict__", {"k": 5.0})


def list_element():
    ks = [1.0, 2.0]
    return (lambda x: x * ks[1] + 1.0), lambda: ks.__setitem__(1, 5.0)


def list_length():
    ks = [1.0, 2.0]
    return (lambda x: x * sum(ks) + 1.0), lambda: ks.append(5.0)


def list_in_a_tuple():
    ks = ([2.0],)
    return (lambda x: x * ks[0][0] + 1.0), lambda: ks[0].__setitem__(0, 5.0)


def dict_entry():
    ks = {"a": {"b": 2.0}}
    return (lambda x: x * ks["a"]["b"] + 1.0), lambda: ks["a"].update(b=5.0)


def dict_key():
    ks = {"a": 2.0}
    return (lambda x: x * len(ks) + 1.0), lambda: ks.update(b=5.0)


def dict_order():
    ks = {"a": 2.0, "b": 5.0}

    def change():
        ks["a"] = ks.pop("a")

    return (lambda x: x * next(iter(ks.values())) + 1.0), change


def dict_key_of_the_same_value():
    ks = {"a": 2.0}

    def change():
        ks["b"] = ks.pop("a")

    return (lambda x: x * ("a" in ks) + 1.0), change


def module_attribute():
    settings.scale = 2.0
    return (lambda x: x * settings.scale + 1.0), lambda: setattr(settings, "scale", 5.0)


def new_module_attribute():
    vars(settings).pop("offset", None)

    def f(x):
        try:
            return x * 2.0 + settings.offset
        except AttributeError:
            return x * 2.0 + 1.0

    return f, lambda: setattr(settings, "offset", 5.0)


def op():
    settings.op = T.exp
    return (lambda x: settings.op(x) + 1.0), lambda: setattr(settings, "op", T.sin)


def method():
    class Holder(types.ModuleType):
        pass

    k = Holder("holder_of_hits")
    k.scale = 2.0
    return (lambda x: x * k.scale + 1.0), lambda: setattr(k, "scale", 5.0)


def tensor():
    w = x3(0.5)

    def change():
        nonlocal w
        w = x3(4.0)

    return lambda x: x * w + 1.0, change


def array_of_a_tensor():
    w = x3(0.5)
    return (lambda x: x * w + 1.0), lambda: setattr(w, "data", x3(4.0))


def requires_grad_of_a_tensor():
    w = x3(0.5)
    return (lambda x: x * w + 1.0), lambda: w.requires_grad_()


def shape_of_a_tensor():
    w = T.ones(3, 1)
    return (lambda x: x * w + 1.0), lambda: setattr(w._array, "shape", (1, 3))


def tensor_that_becomes_a_result():
    w = x3(0.5).requires_grad_()

    def change():
        w._array, w._node = w._array, (w * 1.0)._node

    return (lambda x: x * w + 1.0), change


CHANGES = [
    tensor, array_of_a_tensor, requires_grad_of_a_tensor, shape_of_a_tensor,
    tensor_that_becomes_a_result,
    cell, emptied_cell, global_, global_in_place_of_a_builtin, default, keyword_default, keyword_defaults, code,
    code_of_another, attribute_of_a_function, attributes_of_a_function, list_element, list_length, list_in_a_tuple,
    dict_entry, dict_key, dict_order, dict_key_of_the_same_value, module_attribute, new_module_attribute, op, method,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_a_function_reads_is_compared(change, monkeypatch):
    monkeypatch.setitem(globals(), "SCALE", 2.0)
    function, alter = change()
    f = Counted(function, x3())
    assert not f.is_searched(x3())
    try:
        alter()
        assert f.is_searched(x3())  # and is right: `Counted` compares
        f(x3())
        assert not f.is_searched(x3())
    finally:
        globals().pop("max", None)


def test_tensors_that_a_function_refers_to_are_read_anew():
    w, b = x3(0.5), [x3(3.0)]
    f = Counted(lambda x: x * w + b[0], x3())
    for k in (2.0, 3.0):
        w.mul_(k)
        b[0].add_(1.0)
        assert not f.is_searched(x3())
    b[0] = x3(7.0)
    assert f.is_searched(x3())
    assert f.is_searched(w)
    base = T.ones(6)
    g = Counted(lambda x: x * base + 1.0, T.ones(6))
    assert not g.is_searched(T.ones(6))
    assert g.is_searched(base.view(6))
    empty = T.ones(0)
    h = Counted(lambda x: x * (2.0 if x is empty else 3.0) + empty.sum(), T.ones(0))
    assert h.is_searched(empty)


def test_attributes_of_tensors_that_a_function_refers_to_count():
    w = x3(0.5)
    f = Counted(lambda x: x * w + (w.scale if hasattr(w, "scale") else 1.0), x3())
    assert not f.is_searched(x3())
    for w.scale in (2.0, 5.0, 2.0, 5.0):
        assert f.is_searched(x3())
    del w.scale
    f(x3())
    assert not f.is_searched(x3())


def test_gradients_reach_tensors_that_a_function_refers_to():
    w = x3(0.5).requires_grad_()
    f = Counted(lambda x: x * w + 1.0, x3())
    assert not f.is_searched(x3(2.0))
    f(x3(2.0)).sum().backward()
    assert w.grad.tolist() == x3(2.0).tolist()


class Holder:
    scale = 2.0


def test_what_no_read_shows_is_walked_on_each_call():
    holder, numbers = Holder(), np.ones(3, np.float32)
    for function in (lambda x: x * holder.scale + 1.0, lambda x: x * float(numbers[0]) + 1.0):
        f = Counted(function, x3())
        assert not f.fast._hits
        assert f.is_searched(x3())


def test_the_last_few_kinds_are_known():
    f = Counted(lambda x: x * 2.0 + 1.0, x3())
    shapes = [(n,) for n in range(1, MOST_HITS + 3)]
    for shape in shapes * 3:
        f(T.ones(shape))
    assert len(f.fast._hits) == MOST_HITS
    assert not f.is_searched(T.ones(shapes[-1]))


def test_what_changes_on_each_call_is_not_kept_for_ever():
    k = 0.0
    fast = compile(lambda x: (x * 2.0 + 1.0) * (k >= 0))
    made = set()
    for n in range(30):
        k = float(n)
        fast(x3())
        made.update(map(id, fast._hits))
    assert len(fast._hits) <= MOST_HITS
    assert fast.traces == 30


def test_a_function_that_is_never_traced_is_called_at_once():
    def function(x):
        return x * float(x.sum().item())

    f = Counted(function, x3())
    assert f.fast.traces == 0
    assert not f.is_searched(x3(2.0))
    one = compile(function, fullgraph=True)
    for _ in range(3):
        with pytest.raises(TraceError, match="value"):
            one(x3())


def test_writes_and_draws_happen_as_often_as_they_are_called():
    def function(x):
        x.add_(1.0)
        return x * 2.0

    f, x = compile(function), T.zeros(3)
    for n in range(1, 6):
        version = x._version
        assert f(x).tolist() == [2.0 * n] * 3
        assert x._version > version
    draw = compile(lambda x: x * T.rand(3) + 1.0)
    assert len({tuple(draw(T.ones(3)).tolist()) for _ in range(5)}) == 5


def test_the_graph_is_that_of_the_last_call():
    fast = compile(lambda x: x * 2.0 + 1.0)
    for shape in ((2,), (3,), (2,), (3,), (2,)):
        fast(T.ones(shape))
        assert fast.graph.inputs[0].shape == shape


# ------------------------------------------------------------------------------------------------ objects and threads


def test_references_are_given_back():
    fast = compile(chain)
    x, y = x3(), x3(0.5)
    for _ in range(4):
        fast(x, y)
    (hit,) = fast._hits
    watched = [x, y, x._array, y._array, hit, hit.joint, hit.run, x._array.dtype, fast._fn]
    before = [sys.getrefcount(o) for o in watched]
    for _ in range(1000):
        fast(x, y)
    assert all(abs(sys.getrefcount(o) - b) <= 3 for o, b in zip(watched, before, strict=True))


def test_a_function_that_refers_to_itself_is_collected():
    def make():
        def function(x):
            return x * 2.0 + 1.0 if fast is None else x * 3.0 + 1.0

        fast = None
        fast = compile(function)
        kept = [fast]
        other = compile(lambda x: x * len(kept) + 1.0)
        kept.append(other)
        for f in kept:
            for _ in range(3):
                f(x3())
        return [weakref.ref(f) for f in kept]

    refs = make()
    gc.collect()
    assert [r() for r in refs] == [None, None]


def test_a_compiled_function_is_an_object_like_others():
    fast = compile(chain)
    assert isinstance(fast, Compiled)
    assert (fast.__name__, fast.__wrapped__, callable(fast)) == ("chain", chain, True)
    fast.mine = 3
    assert fast.__dict__["mine"] == 3
    for again in (copy.copy(fast), copy.deepcopy(fast), pickle.loads(pickle.dumps(fast)), type(fast)(chain)):
        assert type(again) is type(fast)
        assert again(x3(), x3()).tolist() == chain(x3(), x3()).tolist()

    class Own(Compiled):
        pass

    class Model:
        run = compile(lambda self, x: x * 2.0 + 1.0)

    assert type(Own(chain)) is Own
    assert Own(chain)(x3(), x3()).tolist() == chain(x3(), x3()).tolist()
    assert Model().run(x3()).tolist() == (x3() * 2.0 + 1.0).tolist()
    with pytest.raises(TypeError):
        fast(x3(), x3(), x3())
    with pytest.raises(AttributeError):
        Compiled.__new__(Compiled)(x3())
    assert compile(lambda self: self * 2.0)(self=x3()).tolist() == (x3() * 2.0).tolist()


def test_errors_are_those_of_the_function():
    def function(x, y):
        return x @ y * 2.0

    fast = compile(function)
    fast(T.ones(2, 3), T.ones(3, 2))
    for _ in range(3):
        with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
            fast(T.ones(2, 3), T.ones(2, 3))


def test_many_threads_call_while_one_changes_what_they_read(monkeypatch):
    monkeypatch.setitem(globals(), "SCALE", 2.0)
    fast = compile(lambda x: x * SCALE + 1.0)
    large = T.ones(9000)
    for factor in (2.0, 3.0, 2.0, 3.0):
        globals()["SCALE"] = factor
        fast(large)
    stop, wrong = threading.Event(), []

    def call():
        while not stop.is_set():
            got = set(fast(T.ones(9000)).tolist())
            if not (got <= {3.0} or got <= {4.0}):
                wrong.append(got)

    threads = [threading.Thread(target=call) for _ in range(3)]
    for t in threads:
        t.start()
    for n in range(300):
        globals()["SCALE"] = 2.0 + n % 2
        fast(large)
    stop.set()
    for t in threads:
        t.join()
    assert not wrong


@pytest.mark.skipif(find_compiler() is None, reason="needs a C compiler, RUSHLIGHT_CC=none or none found")
def test_one_kernel_runs_without_python(request):
    if "Python" in request.node.name or accelerator.LOADED is None:
        pytest.skip("Python runs what C would")
    fast = compile(chain)
    x, y = x3(), x3(0.5)
    for _ in range(3):
        want = fast(x, y)
    (hit,) = fast._hits
    seen = []
    sys.setprofile(lambda frame, event, arg: seen.append(frame.f_code.co_name) if event == "call" else None)
    try:
        got = fast(x, y)
    finally:
        sys.setprofile(None)
    assert hit.kernel is not None
    assert seen == []
    assert got.tolist() == want.tolist()


FINALISED = """
import gc
import sys
import numpy as np
import rushlight_tensor as rl
from rushlight_jit import compile

gc.disable()
factor = 3.0

def inner(a, b):
    for _ in range(12):
        a = (a * b * factor * 0.1 + a).sin()
    return a

f = compile(inner)
made = {n: rl.tensor(np.linspace(0, 1, n, dtype="f")) for n in range(30000, 70000, 5000)}

def use(*sizes):
    for n in sizes * 6:
        f(made[n] * 1, made[n] * 1)

class Finalised:
    def __del__(self):
        global factor, keep
        where = sys._getframe(1).f_code.co_name
        seen.append((where, sys.getrefcount(f._hits)))
        factor = 5.0  # the hit that is compared is none any more
        use(45000, 55000, 65000, 35000)  # and these take the place of all
        keep = [(i, i + 1, i + 2, i + 3) for i in range(1000, 5000)]

seen = []
for _ in range(4):
    factor = 3.0
    use(40000, 50000, 60000, 30000)
    unheld = sys.getrefcount(f._hits)
    ring = Finalised()
    ring.me = ring
    del ring
    x, y = made[30000] * 1, made[30000] * 1
    hold = [{} for _ in range(300)]
    gc.set_threshold(1, 100000, 10000)
    gc.enable()
    got = f(x, y)
    gc.disable()
    assert factor == 5.0
    wanted = [inner(x, y).numpy()]
    factor = 3.0  # it may have been read before
    wanted.append(inner(x, y).numpy())
    assert any(np.allclose(got.numpy(), want, atol=1e-4) for want in wanted)
assert [count for where, count in seen if where == "<module>"] in ([unheld + 1] * n for n in (2, 3, 4)), (seen, unheld)
"""


@pytest.mark.parametrize("_who_compares", [True], indirect=True, ids=["C"])
@pytest.mark.skipif(find_compiler() is None, reason="needs a C compiler")
def test_hits_that_a_finaliser_replaces_are_held_while_they_are_compared():
    """The tuple of hits was freed under the comparison: a crash."""
    done = subprocess.run([sys.executable, "-c", FINALISED], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
