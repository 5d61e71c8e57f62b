"""A catalogue of functions for which a trace could lie.

Each is a scenario: a generator that is given `wrap` (which compiles a function, or leaves it as it is), changes what
the function depends on between the calls, and yields what every call gives.  The same scenario under both must yield
the same.  The docstring names the danger.
"""

# ruff: noqa: B007, RUF012 - loop variables that only the function reads are the point

from __future__ import annotations

import collections
import copy
import dataclasses
import enum
import functools
import itertools
import math
import os
import pickle
import random
import sys
import time
import types

import numpy as np

import rushlight as torch
from rushlight import nn
from rushlight.nn import functional as F
from rushlight_nn.modules.hooks import register_module_forward_hook

CATALOGUE = {}


def footgun(scenario):
    """Put a scenario into the catalogue."""
    assert scenario.__doc__, scenario.__name__
    CATALOGUE[scenario.__name__] = scenario
    return scenario


def x3(k=1.0):
    return torch.tensor([1.0, -2.0, 3.0]) * k


class Config:
    scale = 2.0

    def __init__(self, **values):
        self.__dict__.update(values)

    def scaled(self, x):
        return x * self.scale

    @property
    def double(self):
        return 2 * self.scale


SCALE = 2.0
TABLE = {"a": [1.0, 2.0]}
settings = types.ModuleType("footgun_settings")
settings.scale = 2.0
settings.inner = types.ModuleType("footgun_settings.inner")
settings.inner.bias = 1.0


# ------------------------------------------------------------------------------------------------ where numbers live


@footgun
def plain_object(wrap):
    """An attribute of an object that the function holds."""
    cfg = Config(scale=2.0)
    f = wrap(lambda x: x * cfg.scale)
    for cfg.scale in (2.0, 5.0, 2.0, 7.0):
        yield f(x3())


@footgun
def nested_objects(wrap):
    """Objects within objects within containers."""
    cfg = Config(parts=[Config(scale=1.0), {"k": Config(scale=2.0)}])
    f = wrap(lambda x: x * cfg.parts[0].scale + cfg.parts[1]["k"].scale)
    for value in (1.0, 3.0, 4.0):
        cfg.parts[0].scale = value
        yield f(x3())
        cfg.parts[1]["k"].scale = value * 10
        yield f(x3())


@footgun
def class_attribute(wrap):
    """An attribute of a class, behind that of its objects."""

    class Local(Config):
        scale = 2.0

    cfg = Local()
    f, g = wrap(lambda x: x * cfg.scale), wrap(lambda x: x + Local.scale)
    for Local.scale in (2.0, 3.0, 4.0):
        yield f(x3()), g(x3())
    cfg.scale = 9.0
    yield f(x3()), g(x3())


@footgun
def attribute_by_computed_name(wrap):
    """getattr with a name that no code contains."""
    cfg, name = Config(scale_a=1.0, scale_b=2.0), "a"
    f = wrap(lambda x: x * getattr(cfg, f"scale_{name}"))
    for cfg.scale_a in (1.0, 4.0):
        for name in ("a", "b"):
            yield f(x3())
    cfg.scale_b = 8.0
    yield f(x3())


@footgun
def attributes_by_vars(wrap):
    """All attributes of an object, none by name."""
    cfg = Config(one=1.0, two=2.0)
    f = wrap(lambda x: x * sum(vars(cfg).values()))
    for cfg.one in (1.0, 5.0, 6.0):
        yield f(x3())
    cfg.three = 3.0
    yield f(x3())


@footgun
def property_and_method(wrap):
    """Numbers behind a property, a bound method and a method of the class."""
    cfg = Config(scale=2.0)
    f, g, h = wrap(lambda x: x * cfg.double), wrap(cfg.scaled), wrap(lambda x: Config.scaled(cfg, x))
    for cfg.scale in (2.0, 3.0, 4.0):
        yield f(x3()), g(x3()), h(x3())


@footgun
def slots(wrap):
    """An object without __dict__."""

    class Slotted:
        __slots__ = ("scale",)

    s = Slotted()
    s.scale = 1.0
    f = wrap(lambda x: x * s.scale)
    for s.scale in (1.0, 2.0, 3.0):
        yield f(x3())


@footgun
def descriptor(wrap):
    """A descriptor of the user's own that keeps the number elsewhere."""

    class Anywhere:
        store = {}

        def __get__(self, instance, owner=None):
            return self.store["value"]

    class Holder:
        value = Anywhere()

    holder = Holder()
    f = wrap(lambda x: x * holder.value)
    for Anywhere.store["value"] in (1.0, 2.0, 3.0):
        yield f(x3())


@footgun
def dynamic_getattr(wrap):
    """An object that answers for any name."""

    class Any:
        def __init__(self):
            self.table = {"scale": 1.0}

        def __getattr__(self, name):
            return self.table[name]

    a = Any()
    f = wrap(lambda x: x * a.scale)
    for a.table["scale"] in (1.0, 2.0, 3.0):
        yield f(x3())


@footgun
def dataclass_argument(wrap):
    """A mutable dataclass as an argument: the same object with another value."""

    @dataclasses.dataclass
    class Options:
        scale: float = 1.0
        names: list = dataclasses.field(default_factory=lambda: ["a"])

    o = Options()
    f = wrap(lambda x, o: x * o.scale * len(o.names))
    for o.scale in (1.0, 2.0, 3.0):
        yield f(x3(), o)
    o.names.append("b")
    yield f(x3(), o)


@footgun
def namedtuple_and_enum(wrap):
    """Values in named tuples and members of enums."""
    Pair = collections.namedtuple("Pair", "a b")

    class Mode(enum.Enum):
        ADD = 1
        MUL = 2

    pair, mode = Pair(1.0, 2.0), Mode.ADD
    f = wrap(lambda x: x + pair.a if mode is Mode.ADD else x * pair.b * mode.value)
    yield f(x3())
    pair = Pair(5.0, 3.0)
    yield f(x3())
    mode = Mode.MUL
    yield f(x3())


@footgun
def simple_namespace(wrap):
    """Namespaces of the standard library."""
    ns = types.SimpleNamespace(scale=1.0, more=types.SimpleNamespace(bias=0.0))
    f = wrap(lambda x: x * ns.scale + ns.more.bias)
    for ns.scale in (1.0, 2.0):
        for ns.more.bias in (0.0, 1.0):
            yield f(x3())


# -------------------------------------------------------------------------------------------- globals, closures, code


@footgun
def global_number(wrap):
    """A global that is read."""
    global SCALE
    f = wrap(lambda x: x * SCALE)
    for SCALE in (2.0, 3.0, 4.0):
        yield f(x3())


def _reads_global_deep(x):
    def inner(y):
        return [v * SCALE for v in (y, y)]

    class Part:
        factor = SCALE

        def run(self, y):
            return sum(inner(y)) * self.factor + (lambda z: z * SCALE)(y)

    return Part().run(x)


@footgun
def global_in_inner_code(wrap):
    """A global read in a comprehension, a lambda, a nested function, a class made inside."""
    global SCALE
    f = wrap(_reads_global_deep)
    for SCALE in (2.0, 3.0, 4.0):
        yield f(x3())


@footgun
def global_table(wrap):
    """A list within a dict among the globals."""
    f = wrap(lambda x: x * TABLE["a"][1])
    for TABLE["a"][1] in (2.0, 3.0, 4.0):
        yield f(x3())


@footgun
def module_attribute(wrap):
    """Attributes of an imported module, and of a module within it."""
    f = wrap(lambda x: x * settings.scale + settings.inner.bias)
    for settings.scale in (2.0, 3.0):
        for settings.inner.bias in (0.0, 1.0):
            yield f(x3())


@footgun
def import_inside(wrap):
    """A module that is imported within the function."""
    sys.modules["footgun_settings"] = settings

    def f(x):
        import footgun_settings
        from footgun_settings import scale

        return x * footgun_settings.scale + scale

    f = wrap(f)
    for settings.scale in (2.0, 3.0, 4.0):
        yield f(x3())
    del sys.modules["footgun_settings"]


@footgun
def missing_global(wrap):
    """A name that does not exist yet, asked for by a string."""
    globals().pop("LATER", None)
    f = wrap(lambda x: x * globals().get("LATER", 1.0))
    yield f(x3())
    globals()["LATER"] = 5.0
    yield f(x3())
    globals()["LATER"] = 6.0
    yield f(x3())
    del globals()["LATER"]


@footgun
def closure_cell(wrap):
    """A variable of the enclosing function, also after it has changed its type."""
    k = 1
    f = wrap(lambda x: x * k)
    for k in (1, 1.0, True, 2, 2.5):
        out = f(x3().long())
        yield out, out.dtype


@footgun
def mutable_default(wrap):
    """Default values: a list, a number, a keyword's."""

    def g(x, scales=[1.0], *, bias=0.0):  # noqa: B006 - the danger
        return x * scales[0] + bias

    f = wrap(g)
    for g.__defaults__[0][0] in (1.0, 2.0):
        for g.__kwdefaults__["bias"] in (0.0, 3.0):
            yield f(x3())
    g.__defaults__ = ([7.0],)
    yield f(x3())


@footgun
def function_attribute(wrap):
    """A number kept on a function."""

    def g(x):
        return x * g.scale

    g.scale = 1.0
    f = wrap(g)
    for g.scale in (1.0, 2.0, 3.0):
        yield f(x3())


@footgun
def function_replaced(wrap):
    """A helper that is replaced, through a variable, a dict, a module and a class."""
    helper, table, holder = (lambda y: y + 1), {"op": torch.relu}, Config(op=torch.tanh)
    f = wrap(lambda x: holder.op(table["op"](helper(x))))
    yield f(x3())
    helper = lambda y: y - 1  # noqa: E731
    yield f(x3())
    table["op"] = torch.abs
    yield f(x3())
    holder.op = torch.exp
    yield f(x3())


@footgun
def partials(wrap):
    """functools.partial, of a function and of a method, with values that change."""
    cfg = Config(scale=2.0)
    p = functools.partial(lambda x, k, m=1.0: x * k * m, k=2.0)
    f, g = wrap(p), wrap(lambda x: functools.partial(cfg.scaled)(x))
    yield f(x3()), g(x3())
    p.keywords["k"] = 4.0
    cfg.scale = 5.0
    yield f(x3()), g(x3())
    yield f(x3(), m=3.0), g(x3())


@footgun
def recursion_and_mutual_calls(wrap):
    """Functions that call each other, with a depth that changes."""
    depth = 2

    def even(x, n):
        return x if n == 0 else odd(x * 2, n - 1)

    def odd(x, n):
        return x + 1 if n == 0 else even(x + 3, n - 1)

    f = wrap(lambda x: even(x, depth))
    for depth in (2, 3, 4):
        yield f(x3())


@footgun
def code_from_text(wrap):
    """eval of text: no code to look into."""
    global SCALE
    text = "x * SCALE"
    f = wrap(lambda x: eval(text, globals(), {"x": x}))
    for SCALE in (2.0, 3.0, 4.0):
        yield f(x3())


@footgun
def lru_cached_helper(wrap):
    """A cached helper that keeps a tensor from one call for the next."""

    @functools.lru_cache
    def mask(n):
        return torch.arange(n) > 0

    f = wrap(lambda x: x * mask(x.shape[0]))
    for k in (1.0, 2.0, 3.0):
        yield f(x3(k))
    yield f(torch.ones(5))


# ---------------------------------------------------------------------------------------------------- modules


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.config, self.mult, self.numbers = Config(scale=1.0), {"a": 2.0}, [1.0]
        self.steps = 0

    def forward(self, x):
        return self.linear(x) * self.config.scale * self.mult["a"] * self.numbers[0]


def net():
    torch.manual_seed(0)
    return Net()


@footgun
def module_numbers(wrap):
    """Numbers in a module's lists, dicts and objects."""
    m = net()
    f = wrap(m)
    yield f(x3())
    m.config.scale = 3.0
    yield f(x3())
    m.mult["a"] = 5.0
    yield f(x3())
    m.numbers[0] = 7.0
    yield f(x3())


@footgun
def module_modes(wrap):
    """The training flag of one submodule, and the p of a dropout."""
    torch.manual_seed(0)
    m = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 2))
    f = wrap(m)
    for mode in (True, False, True):
        m[1].train(mode)
        torch.manual_seed(1)
        yield f(x3())
    for m[1].p in (0.9, 0.0):
        torch.manual_seed(1)
        yield f(x3())


@footgun
def module_hooks(wrap):
    """Hooks that come and go, and what they close over."""
    m, k = nn.Linear(3, 3), 2.0
    m.load_state_dict(net().linear.state_dict())
    f = wrap(m)
    yield f(x3())
    handle = m.register_forward_hook(lambda module, args, out: out * k)
    yield f(x3())
    k = 3.0
    yield f(x3())
    handle.remove()
    yield f(x3())


@footgun
def global_module_hooks(wrap):
    """Hooks of all modules, registered after the first call."""
    m = net().linear
    f = wrap(lambda x: m(x))
    yield f(x3())
    for k in (2.0, 3.0):
        handle = register_module_forward_hook(lambda module, args, out, k=k: out * k)
        try:
            y = f(x3())
        finally:
            handle.remove()
        yield y
    yield f(x3())


@footgun
def parameter_replaced(wrap):
    """A parameter, a submodule and a tied weight that are replaced; a bias that goes."""
    m = net()
    f = wrap(m)
    yield f(x3())
    m.linear.weight = nn.Parameter(torch.eye(3))
    yield f(x3())
    m.linear.weight.data = torch.ones(3, 3)
    yield f(x3())
    m.linear.bias = None
    yield f(x3())
    m.linear = nn.Linear(3, 3, bias=False)
    m.linear.weight.data.fill_(2.0)
    yield f(x3())


@footgun
def parameter_written(wrap):
    """A parameter written in place by an optimizer between the calls."""
    m = net()
    f, optimizer = wrap(m), torch.optim.SGD(m.parameters(), lr=0.1)
    for _ in range(4):
        optimizer.zero_grad()
        loss = (f(x3()) ** 2).sum()
        loss.backward()
        optimizer.step()
        yield loss, m.linear.weight


@footgun
def running_counter(wrap):
    """A module that counts its calls, and uses the count."""

    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.steps = 0

        def forward(self, x):
            self.steps += 1
            return x * self.steps

    m = Counting()
    f = wrap(m)
    for _ in range(4):
        yield f(x3()), m.steps


@footgun
def lazy_attribute(wrap):
    """A table that the first call makes and later calls use."""

    class Lazy(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = None

        def forward(self, x):
            if self.table is None or self.table.shape != x.shape:
                self.table = torch.arange(x.numel()).reshape(x.shape) * 1.0
            return x + self.table

    m = Lazy()
    f = wrap(m)
    for n in (3, 3, 4, 4, 3):
        yield f(torch.ones(n)), m.table


@footgun
def running_statistics(wrap):
    """Batch norm: buffers that each call moves on."""
    m = nn.BatchNorm1d(2)
    f = wrap(m)
    for k in (1.0, 2.0, 3.0):
        yield f(torch.arange(6.0).reshape(3, 2) * k), m.running_mean, m.running_var, m.num_batches_tracked


@footgun
def frozen_parameter(wrap):
    """requires_grad of a parameter that is switched."""
    m = net()
    f = wrap(m)
    for flag in (True, False, True):
        m.linear.weight.requires_grad_(flag)
        m.zero_grad()
        f(x3()).sum().backward()
        yield m.linear.weight.grad, m.linear.bias.grad


@footgun
def method_replaced(wrap):
    """forward replaced on the object, then on the class."""

    class Twice(nn.Module):
        def forward(self, x):
            return x * 2

    m = Twice()
    f = wrap(m)
    yield f(x3())
    Twice.forward = lambda self, x: x * 3
    yield f(x3())
    m.forward = lambda x: x * 4
    yield f(x3())


# ------------------------------------------------------------------------------------------ effects, and the world


@footgun
def appended_list(wrap):
    """Results put into a list outside."""
    seen = []

    def g(x):
        y = x * 2
        seen.append(y.shape)
        return y

    f = wrap(g)
    for n in (3, 3, 3):
        yield f(torch.ones(n)), len(seen)


@footgun
def global_written(wrap):
    """A global that the function writes."""
    global SCALE
    SCALE = 1.0

    def g(x):
        global SCALE
        SCALE += 1
        return x * SCALE

    f = wrap(g)
    for _ in range(3):
        yield f(x3()), SCALE


@footgun
def argument_mutated(wrap):
    """A cache among the arguments that grows."""
    cache, order = {}, []

    def g(x, cache, order):
        cache[len(cache)] = x * 2
        order.append(len(cache))
        return x + len(order)

    f = wrap(g)
    for _ in range(3):
        yield f(x3(), cache, order), len(cache), list(order)


@footgun
def iterator_consumed(wrap):
    """A generator that is used up, a counter, an iterator."""
    numbers, count = (float(n) for n in range(100)), itertools.count(1)
    f, g = wrap(lambda x: x * next(numbers)), wrap(lambda x: x + next(count))
    for _ in range(4):
        yield f(x3()), g(x3())


@footgun
def printing(wrap):
    """print: it has to be seen in every call."""
    lines = []

    class Out:
        def write(self, text):
            lines.append(text)

        def flush(self):
            pass

    def g(x):
        print("called", file=sys.stdout)
        return x * 2

    f, before = wrap(g), sys.stdout
    for _ in range(3):
        sys.stdout = Out()
        try:
            y = f(x3())
        finally:
            sys.stdout = before
        yield y, "".join(lines)


@footgun
def random_numbers(wrap):
    """Python's and NumPy's random numbers, by module and by object."""
    random.seed(0)
    np.random.seed(0)
    own, gen = random.Random(1), np.random.default_rng(2)
    for g in (
        lambda x: x * random.random(),
        lambda x: x * random.uniform(1, 2),
        lambda x: x * own.random(),
        lambda x: x * float(np.random.rand()),
        lambda x: x + torch.from_numpy(gen.standard_normal(3)),
    ):
        f = wrap(g)
        yield [f(x3()) for _ in range(3)]


@footgun
def fresh_generators(wrap):
    """Our own random numbers, default and from a generator; dropout twice in one expression."""
    gen = torch.Generator().manual_seed(3)
    f = wrap(lambda x: x + torch.rand(3) + torch.randn(3, generator=gen) + F.dropout(x, 0.5) - F.dropout(x, 0.5))
    torch.manual_seed(0)
    yield [f(x3()) for _ in range(3)]
    torch.manual_seed(0)
    yield f(x3())


@footgun
def seeding_inside(wrap):
    """A seed set within the function: every call draws the same."""

    def g(x):
        torch.manual_seed(5)
        return x + torch.rand(3)

    f = wrap(g)
    yield [f(x3()) for _ in range(3)]
    yield torch.rand(2)


@footgun
def clock(wrap):
    """The time: later calls see a later one."""
    now = iter(range(100))
    real, time.time = time.time, lambda: float(next(now))
    try:
        f = wrap(lambda x: x * time.time())
        yield [f(x3()) for _ in range(3)]
    finally:
        time.time = real
    g = wrap(lambda x: x * 0 + (time.perf_counter_ns() - start))
    start = time.perf_counter_ns()
    a, b, c = (g(torch.zeros(1, dtype=torch.float64)).item() for _ in range(3))
    yield a < b < c


@footgun
def environment(wrap):
    """An environment variable."""
    f = wrap(lambda x: x * float(os.environ["FOOTGUN"]))
    g = wrap(lambda x: x * float(os.getenv("FOOTGUN", "1")))
    for value in ("1", "2", "3"):
        os.environ["FOOTGUN"] = value
        yield f(x3()), g(x3())
    del os.environ["FOOTGUN"]


# -------------------------------------------------------------------------------------------- values that are read


@footgun
def branch_on_value(wrap):
    """if on a tensor."""
    f = wrap(lambda x: x * 2 if x.sum() > 0 else x - 1)
    for k in (1.0, -1.0, 1.0):
        yield f(x3(k))


@footgun
def loop_on_value(wrap):
    """while on a tensor, range over one, an index by one."""

    def g(x, n):
        while x.max() < 50:
            x = x * 2
        for _ in range(n):
            x = x + 1
        return x[n]

    f = wrap(g)
    for k, n in ((1.0, 1), (3.0, 2), (9.0, 0)):
        yield f(x3(k), torch.tensor(n))


@footgun
def swallowed_refusal(wrap):
    """A read within try: the user's except takes our error."""

    def g(x):
        try:
            return x * x.sum().item()
        except Exception:
            return x

    f = wrap(g)
    for k in (1.0, 2.0, 3.0):
        yield f(x3(k))


@footgun
def copies_of_values(wrap):
    """Ways to take the numbers out: tensor(), deepcopy, pickle, numpy, list, float, format."""
    for take in (
        lambda x: torch.tensor(x) * 2,
        lambda x: torch.as_tensor(x) * 2,
        lambda x: copy.deepcopy(x) * 2,
        lambda x: copy.copy(x) * 2,
        lambda x: pickle.loads(pickle.dumps(x)) * 2,
        lambda x: torch.from_numpy(np.asarray(x) * 2),
        lambda x: torch.tensor([float(v) for v in x]),
        lambda x: torch.tensor(x.tolist()),
        lambda x: torch.tensor([x[0], x[1]]),
        lambda x: x * float(f"{x[0]:.3f}"),
        lambda x: x * len(str(x)),
        lambda x: torch.from_dlpack(x) * 2,
        lambda x: torch.tensor(np.array([x[0].item(), 1.0])),
    ):
        f = wrap(take)
        yield [f(x3(k)) for k in (1.0, 2.0, 30.0)]


@footgun
def sizes_from_values(wrap):
    """Results whose size depends on values."""
    for take in (torch.nonzero, torch.unique, lambda x: x[x > 0], lambda x: torch.masked_select(x, x > 0)):
        f = wrap(take)
        yield [f(x3(k)) for k in (1.0, -1.0, 0.0)]


@footgun
def identity_in_python(wrap):
    """What only Python sees of a tensor: is, id, hash, data_ptr, _version."""
    other = x3()
    f = wrap(lambda x: x * 2 if x is other else x * 3)
    yield f(other), f(x3()), f(other)
    g = wrap(lambda x: x * (2 if id(x) == id(other) else 3))
    yield g(other), g(x3()), g(other)
    h = wrap(lambda x: x * x._version)
    yield h(x3()), h(x3().add_(1)), h(x3().add_(1).add_(1))
    d = wrap(lambda x: x * (x.data_ptr() == other.data_ptr()))
    yield d(other), d(x3()), d(other)


# --------------------------------------------------------------------------------------- kinds of arguments, modes


@footgun
def kinds_of_arguments(wrap):
    """1, 1.0, True; 0.0 and -0.0; nan; shapes, dtypes, strides."""
    f = wrap(lambda x, k: x * k)
    for k in (1, 1.0, True, 0.0, -0.0, math.nan, math.inf, 2**40, 1e300, "not a number"[:0] or 2):
        out = f(x3().double(), k)
        yield out, out.dtype, torch.signbit(out)
        yield f(torch.tensor([1, 2]), k).dtype
    g = wrap(lambda x: x.reshape(-1) * (1 if x.is_contiguous() else 10))
    x = torch.arange(6.0).reshape(2, 3)
    yield g(x), g(x.t()), g(x[:, ::2]), g(x)


@footgun
def layout_of_arguments(wrap):
    """Arguments of one shape that lie otherwise in memory."""
    f = wrap(lambda x: (x * 2 + 1) * (1 if x.is_contiguous() else 10) + x.stride(0))
    x = torch.arange(9.0).reshape(3, 3)
    for view in (x, x.t(), torch.arange(36.0).reshape(6, 6)[::2, ::2], x.clone(), x.flip(0), x.t()):
        yield f(view)


@footgun
def numpy_arguments(wrap):
    """NumPy numbers and arrays, as arguments and outside."""
    table, k = np.array([1.0, 2.0, 3.0], np.float32), np.float32(2.0)
    f = wrap(lambda x, s: x * s * k + torch.from_numpy(table) + torch.tensor(table))
    yield f(x3(), np.float32(1.0))
    table[0] = 10.0
    yield f(x3(), np.float32(1.0))
    k = np.float32(3.0)
    yield f(x3(), np.float32(1.0)), f(x3(), np.float32(4.0)), f(x3(), np.int64(4))


@footgun
def grad_modes(wrap):
    """no_grad, inference, enable_grad around and within."""
    w = torch.ones(3, requires_grad=True)

    def g(x):
        with torch.no_grad():
            k = (x * w).sum()
        return x * w + k

    f = wrap(g)
    for _ in range(2):
        yield f(x3()).requires_grad
        with torch.no_grad():
            yield f(x3()).requires_grad
        with torch.inference_mode():
            yield f(x3()).requires_grad
    w.grad = None
    f(x3()).sum().backward()
    yield w.grad
    h = wrap(lambda x: torch.set_grad_enabled(False) and x * 1)
    try:
        h(x3())
        h(x3())
        yield torch.is_grad_enabled()
    finally:
        torch.set_grad_enabled(True)


@footgun
def default_dtype(wrap):
    """The default dtype of tensors made inside."""
    f = wrap(lambda x: x.to(torch.float64) + torch.tensor(0.1) + torch.zeros(3))
    for d in (torch.float32, torch.float64, torch.float32):
        torch.set_default_dtype(d)
        try:
            yield f(torch.tensor([1, 2, 3]))
        finally:
            torch.set_default_dtype(torch.float32)


# --------------------------------------------------------------------------------------------- memory and gradients


@footgun
def one_tensor_twice(wrap):
    """The same tensor as two arguments, one of which is written to."""

    def g(x, y):
        a = torch.exp(x) * 2
        y.add_(1)
        return a + torch.exp(x) * 2

    f = wrap(g)
    for same in (False, True, False, True):
        x = torch.zeros(3)
        yield f(x, x if same else torch.zeros(3)), x


@footgun
def overlapping_views(wrap):
    """Two views of one memory, one of which is written to."""

    def g(x, y):
        a = x * 2 + 1
        y.mul_(3)
        return a + x * 2

    f = wrap(g)
    for lo in (0, 1, 3, 2, 3):
        base = torch.arange(6.0)
        yield f(base[:3], base[lo : lo + 3]), base


@footgun
def captured_base_and_view(wrap):
    """A tensor outside, and a view of it; one is written to."""
    flat = torch.zeros(6)
    view = flat[:3]

    def g(x):
        a = torch.exp(view) * 2
        flat.add_(1)
        return a + torch.exp(view) * 2 + x

    f = wrap(g)
    for _ in range(3):
        flat.zero_()
        yield f(x3()), flat


@footgun
def argument_is_captured(wrap):
    """An argument that is, in one call, the tensor that the function refers to."""
    state = torch.zeros(3)

    def g(x):
        a = x * 2 + 1
        state.add_(1)
        return a + x * 2

    f = wrap(g)
    for x in (torch.ones(3), state, torch.ones(3), state[:], state):
        yield f(x), state


@footgun
def result_is_argument(wrap):
    """Results that are the argument, a view of it, or of one another; written to afterwards."""
    f, g = wrap(lambda x: x), wrap(lambda x: x.reshape(3, 1))
    h = wrap(lambda x: (lambda y: (y, y[:2]))(x * 2))
    for k in (1.0, 2.0):
        x = x3(k)
        y, z = f(x), g(x)
        z.add_(1)
        yield y is x, x, y
        a, b = h(x)
        a.mul_(5)
        yield a, b
        b.zero_()
        yield a, b


@footgun
def gradient_of_aliased_results(wrap):
    """A result and a view of it, one scaled in place before the backward pass."""

    def g(x):
        y = x * 3
        return y, y[:2]

    f = wrap(g)
    for _ in range(3):
        x = x3().requires_grad_()
        a, b = f(x)
        a.mul_(2)
        b.sum().backward()
        yield x.grad


@footgun
def written_argument_with_gradient(wrap):
    """A buffer from outside into which something is written that requires grad."""
    w = torch.ones(3, requires_grad=True)

    def g(x, buffer):
        buffer.mul_(0.5).add_(x * w)
        return buffer * 2

    f = wrap(g)
    for _ in range(3):
        buffer = torch.ones(3)
        w.grad = None
        (f(x3(), buffer).sum() + buffer.sum()).backward()
        yield buffer, w.grad


@footgun
def nonleaf_and_shared_history(wrap):
    """Arguments and closures that are results themselves and share a leaf."""
    w = x3().requires_grad_()
    h = w * 2
    f = wrap(lambda x, y: (x * y * h).sum())
    for _ in range(3):
        w.grad = None
        h = w * 2
        y = w * h
        f(w, y).backward()
        yield w.grad


@footgun
def changed_before_backward(wrap):
    """What the backward pass needs is changed after the forward pass: an error, not a wrong number."""
    w = x3().requires_grad_()
    f = wrap(lambda x: torch.exp(x * w))
    for what in ("weight", "result", "nothing"):
        x = x3()
        y = f(x)
        if what == "weight":
            x.mul_(2)
        z = y * 1
        if what == "result":
            y.add_(1)
        try:
            w.grad = None
            z.sum().backward()
            yield what, w.grad
        except RuntimeError as e:
            yield what, "modified by an inplace operation" in str(e)


@footgun
def unused_results(wrap):
    """One of two results goes into the loss: the other's weights have no gradient, not zeros."""
    a, b = x3().requires_grad_(), x3().requires_grad_()
    f = wrap(lambda x: (x * a, x * b))
    for which in (0, 1, 0):
        a.grad = b.grad = None
        f(x3())[which].sum().backward()
        yield a.grad, b.grad


@footgun
def hooks_of_tensors(wrap):
    """Hooks on arguments, on leaves and on results inside."""
    calls = []
    w = x3().requires_grad_()
    w.register_hook(lambda g: calls.append("w") or g * 2)

    def g(x):
        y = x * w
        y.register_hook(lambda g: calls.append("y") or g * 3)
        return (y * y).sum()

    f, h = wrap(g), wrap(lambda x: (x * w).sum())
    for _ in range(3):
        x = x3().requires_grad_()
        x.register_hook(lambda g: calls.append("x") or g * 5)
        w.grad = None
        (f(x) + h(x)).backward()
        yield x.grad, w.grad, list(calls)


@footgun
def gradients_inside(wrap):
    """backward() and an optimizer within the function."""
    w = x3().requires_grad_()
    optimizer = torch.optim.SGD([w], lr=0.1, momentum=0.9)

    def g(x):
        optimizer.zero_grad()
        loss = ((x - w) ** 2).sum()
        loss.backward()
        optimizer.step()
        return loss.detach()

    f = wrap(g)
    for optimizer.param_groups[0]["lr"] in (0.1, 0.2, 0.05):
        yield f(x3(2.0)), w


@footgun
def gradient_attribute(wrap):
    """.grad of a tensor that the function refers to."""
    w = x3().requires_grad_()
    f = wrap(lambda x: x * (0 if w.grad is None else w.grad))
    yield f(x3())
    for k in (1.0, 2.0):
        w.grad = None
        (w * k).sum().backward()
        yield f(x3())
    yield f(x3())


@footgun
def data_attribute(wrap):
    """.data: read, written and replaced."""
    w, state = x3(), torch.zeros(3)

    def g(x):
        state.data = x * 2
        return x + state

    f, h = wrap(g), wrap(lambda x: x * w.data)
    for k in (1.0, 2.0, 3.0):
        w.data = x3(k)
        yield f(x3(k)), state, h(x3())


@footgun
def checkpointed_dropout(wrap):
    """A checkpoint draws the same numbers twice."""
    w = torch.ones(50, requires_grad=True)
    f = wrap(lambda x: torch.utils.checkpoint.checkpoint(lambda v: F.dropout(v * w, 0.5) * w, x, use_reentrant=False))
    torch.manual_seed(0)
    for _ in range(3):
        w.grad = None
        y = f(torch.ones(50))
        y.sum().backward()
        yield y, w.grad


@footgun
def results_kept(wrap):
    """A result is not overwritten by the next call."""
    f = wrap(lambda x: (torch.exp(x) + 1, x * 2 + 1))
    kept = [f(x3(k)) for k in (1.0, 2.0, 3.0)]
    yield kept


@footgun
def objects_returned(wrap):
    """A result in an object of the user's."""

    @dataclasses.dataclass
    class Output:
        logits: object
        note: str

    f = wrap(lambda x: Output(x * 2, "n"))
    for k in (1.0, 2.0, 3.0):
        out = f(x3(k))
        yield out.logits, out.note


@footgun
def tensors_in_objects(wrap):
    """Tensors as attributes of an argument that is no container."""
    f = wrap(lambda batch: batch.x * 2 + batch.more["y"])
    for k in (1.0, 2.0, 3.0):
        yield f(Config(x=x3(k), more={"y": x3(-k)}))
    batch = Config(x=x3(), more={"y": x3()})
    for batch.x in (x3(), x3(4.0)):
        yield f(batch)


@footgun
def exceptions(wrap):
    """A function that raises for some of its inputs."""

    def g(x, k):
        if k > 1:
            raise ValueError(k)
        return x * k

    f = wrap(g)
    for k in (1, 2, 0, 3, 1):
        try:
            yield f(x3(), k)
        except ValueError as e:
            yield str(e)


@footgun
def operators_of_classes(wrap):
    """Python's own operators on objects of the user's."""

    class Money:
        rate = 2.0

        def __init__(self, n):
            self.n = n

        def __mul__(self, other):
            return other * self.n * Money.rate

        def __bool__(self):
            return self.n > 1

        def __len__(self):
            return int(self.n)

    m = Money(1.0)
    f = wrap(lambda x: m * x + (1 if m else 0) + len(m))
    for m.n in (1.0, 2.0, 3.0):
        yield f(x3())
    Money.rate = 5.0
    yield f(x3())


@footgun
def subclassed_containers(wrap):
    """Lists, dicts and numbers of the user's own classes."""

    class Numbers(list):
        scale = 1.0

    class Table(dict):
        def __missing__(self, key):
            return self.default

    class Ratio(float):
        pass

    numbers, table, ratio = Numbers([1.0, 2.0]), Table(a=1.0), Ratio(2.0)
    table.default = 3.0
    f = wrap(lambda x: x * numbers[1] * numbers.scale + table["a"] + table["b"] * ratio)
    yield f(x3())
    numbers[1] = 5.0
    yield f(x3())
    numbers.scale = 2.0
    yield f(x3())
    table["a"] = 9.0
    yield f(x3())
    table.default = 4.0
    yield f(x3())
    ratio = Ratio(7.0)
    yield f(x3())


@footgun
def match_statement(wrap):
    """Attributes read by a pattern."""

    class Op:
        __match_args__ = ("kind", "amount")

        def __init__(self, kind, amount):
            self.kind, self.amount = kind, amount

    op = Op("add", 1.0)

    def g(x):
        match op:
            case Op("add", n):
                return x + n
            case Op(kind="mul", amount=n):
                return x * n
        return x / 2

    f = wrap(g)
    for op.kind, op.amount in (("add", 1.0), ("add", 2.0), ("mul", 2.0), ("mul", 3.0), ("none", 0.0)):
        yield f(x3())
