"""One op, one record: what an operation is, for every part of the system that has to know.

An `Op` is also the function people call: `exp(x)` runs it.  Consumers read the record and nothing else; none of them
keeps a list of op names of its own:

    eager CPU      c        its C kernel, or `numpy`, which is also the reference
    eager CUDA     expr     as an elementwise kernel, or `cuda`, for the others
    autograd       vjp      in public ops, so that it can be differentiated and traced again; `save` says what it needs
    jit, export    infer    shapes and dtypes without data; `expr` again, fused
    tests          samples  in tests/ops/samples.py; an op without samples fails the suite
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from rushlight_tensor.core import dispatch, graph, kinds, placement, straight
from rushlight_tensor.core.cuda import NUMPY_TEXT
from rushlight_tensor.core.infer import Aval
from rushlight_tensor.core.keywords import NUMPY
from rushlight_tensor.core.tensor import Tensor, wrap

REGISTRY: dict[str, Op] = {}


class Gradient:
    """A vjp that makes several gradients in one pass, or that has a kernel of its own.

    Args:
        rule: `(g, needs, *saved, **attrs) -> one gradient per input`, in public ops; None: what `record` computes can
            itself be differentiated, by the `vjp` given there.
        results: Of a kernel, `(known) -> description per input`, from all that it is given, by name: `known.g`, what
            is saved, the attributes.  Left out, for an op of one input: as that, or what is saved of it.
        kernels: The name of its kernels, in C and CUDA, beside those of the op; results lie as the op's.
        record: The kernel: fields of an `Op`, `numpy` (left out: `rule`, on arrays) and what else there is.  Its inputs
            are `g` and what is saved (`out` is called `y`), its attributes those of the forward op, what `save` names
            as `x.shape` (`x_shape`), and `needs`: it makes the wanted gradients only, a tuple in order, or one array
            for an op with one.  Its kind is that of the forward op.  A pass that is itself recorded, for higher
            derivatives, goes through `rule`.
    """

    __slots__ = ("as_attrs", "by", "has_attrs", "kernels", "pull_bare", "record", "results", "rule")

    def __init__(
        self,
        rule: Callable[..., tuple[Any, ...]] | None = None,
        *,
        results: Callable[[Any], Any] | None = None,
        kernels: str | None = None,
        **record: Any,
    ) -> None:
        assert rule is not None or "vjp" in record
        self.rule, self.results, self.kernels = rule, results, kernels
        self.record: dict[str, Any] = record
        self.by: Op | None = None  # until `bind`
        self.as_attrs: tuple[str | None, ...] = ()
        self.has_attrs = False
        self.pull_bare = self._pull_bare if record or kernels else None

    def bind(self, op: Op, c: Any, cuda: Any) -> None:
        """Make the record of the kernel, the gradient of `op`, which has these kernels itself."""
        self.as_attrs = tuple(item.replace(".", "_") if "." in item else None for item in op.save)
        self.has_attrs = any(self.as_attrs)
        if self.record or self.kernels:
            beside = {}
            if (name := self.kernels) is not None:
                beside = {"c": c.beside(name), "cuda": cuda.beside(name), "order": op.order}
            self.by = Op(
                **{
                    "name": f"{op.name}_backward",
                    "numpy": self._by_rule,
                    **beside,
                    "infer": self._infer(op),
                    "vjp": None,
                    **self._kind(op),
                    **self.record,
                }
            )
            self.by.forward = op
            op.backward = self.by

    def _kind(self, op: Op) -> dict[str, Any]:
        """The kind of the kernel, where its record does not say another: that of `op`, told of saved shapes."""
        shapes = tuple([item.replace(".", "_") for item in op.save if item.endswith(".shape")])
        return {"kind": replace(op.kind, shapes=shapes) if shapes else op.kind}

    def _infer(self, op: Op) -> Callable[..., Any]:
        """`infer` of the kernel: its signature from what is saved, the descriptions from `results`."""
        inputs = ["g", *["y" if item == "out" else item for item in op.save if "." not in item]]
        attrs: dict[str, Any] = {name: () for name in self.as_attrs if name is not None}
        attrs |= {**op.defaults, "needs": (True,) * op.arity}
        results = self.results or _as_input(op)

        def infer(*xs: Any, **given: Any) -> Any:
            known = SimpleNamespace(**dict(zip(inputs, xs, strict=True)), **{**attrs, **given})
            made = results(known)
            if type(made) is Aval:
                return made
            return tuple([a for a, need in zip(made, known.needs, strict=False) if need])

        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        infer.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                *[inspect.Parameter(name, kind) for name in inputs],
                *[inspect.Parameter(name, kind, default=value) for name, value in attrs.items()],
            ]
        )
        return infer

    def pull(self, g: Any, needs: tuple[bool, ...], *saved: Any, **attrs: Any) -> Any:
        """One gradient per input, as tensors; None where it is not needed."""
        if self.rule is not None and (self.by is None or dispatch.MODE.grad):
            return self.rule(g, needs, *saved, **attrs)
        assert self.by is not None
        xs, attrs = self._sort(saved, attrs)
        return _by_need(dispatch.call(self.by, (g, *xs), {**attrs, "needs": needs}), needs)

    def _pull_bare(self, n: graph.Node, g: Any, edges: Any) -> Any:
        """The gradients as arrays, with no tensor in between."""
        if g.dtype.kind == "c":  # Note [Complex gradients] in `graph.py`
            return [t if t is None else t._array for t in graph.pull(n, wrap(np.asarray(g)), edges, False)]
        xs: Any = graph.unpack_arrays(n)
        needs = tuple([e is not None for e in edges])
        attrs = n.attrs
        if self.has_attrs:
            xs, attrs = self._sort(xs, attrs)
        g = np.asarray(g) if isinstance(g, np.generic) else g
        assert self.by is not None
        return _by_need(dispatch.run(self.by, [g, *xs], {**attrs, "needs": needs}), needs)

    def _by_rule(self, g: Any, *arrays: Any, needs: tuple[bool, ...], **attrs: Any) -> Any:
        """The NumPy text of the kernel, where it has none of its own: the rule."""
        assert self.rule is not None
        xs = iter([x if x is None else wrap(x) for x in arrays])
        saved = [next(xs) if name is None else attrs.pop(name) for name in self.as_attrs]
        made = [t._array for t, need in zip(self.rule(wrap(g), needs, *saved, **attrs), needs, strict=True) if need]
        return made[0] if len(needs) == 1 else tuple(made)

    def _sort(self, saved: tuple[Any, ...], attrs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        for item in saved:
            if type(item) is graph.Stale:
                item.complain()
        if not self.has_attrs:
            return saved, attrs
        named = list(zip(self.as_attrs, saved, strict=True))
        extra = {name: x for name, x in named if name is not None}
        return tuple([x for name, x in named if name is None]), {**attrs, **extra}


def _as_input(op: Op) -> Callable[[Any], Aval]:
    """The description of the gradient of an op with one input: as that, or what is saved of it."""
    assert op.arity == 1, f"op {op.name!r}: its gradient has to say what `results` it makes"
    (first, *_), (name,) = op.save, op.input_names
    if first == f"{name}.shape":
        return lambda known: Aval(getattr(known, f"{name}_shape"), known.g.dtype)

    def like_saved(known: Any) -> Aval:
        x = known.y if first == "out" else getattr(known, first)
        return Aval(x.shape, x.dtype)

    return like_saved


def _by_need(gradients: Any, needs: tuple[bool, ...]) -> Any:
    if type(gradients) is not tuple:
        return (gradients,)
    if len(gradients) == len(needs):
        return gradients
    given = iter(gradients)
    return tuple([next(given) if need else None for need in needs])


class Op:
    """A differentiable or declared non-differentiable operation on tensors.

    Args:
        name: The PyTorch name; also the key in `REGISTRY`.
        kind: What it does with dimensions, see `kinds.py`; left out, it is elementwise, because it has an `expr`.
        batch: How it runs on many samples at once, where its kind does not say it: `(size, batched, xs, attrs) ->
            results`, in public ops on tensors.  Those of `xs` that are `batched` have the samples as first dimension,
            and so have all results.
        jvp: How tangents go through it, where a better way is known than what follows from its kind and its gradient:
            `(op, xs, tangents, outs, attrs) -> one tangent per result`, in public ops; a tangent that is None is zero.
        infer: `(*avals, **attrs) -> Aval`, shape and dtype of the result (a tuple of them for several results); raises
            the user's shape errors.  Its signature names the inputs (no default) and the attributes (default).
        numpy: `(*arrays, **attrs) -> array` on NumPy arrays, the reference for every other backend.
        c: Its C kernel (`kernels.plan.C`), which runs on CPU arrays where there is a compiler.
        vjp: A tuple with one rule per input, `(g, *saved, **attrs) -> gradient`, each called only when that gradient is
            wanted and `None` where there is none; or a `Gradient`; or `None` for an op without gradient, as `argmax`.
            Rules ignore broadcasting: the engine sums a gradient to the shape of the input it belongs to.
        save: What `vjp` reads, in order: inputs by the names in `infer`, `name.shape`, `name.dtype` for these alone,
            `out` for the result (`out0`, `out1`, … for several).
        expr: One C expression over `{x}`, `{y}`, … and attribute names, for ops that act element by element.
        cuda: `(*arrays, **attrs) -> array` on CuPy arrays for ops without `expr`, where `numpy` will not do as it is;
            or a kernel that needs none (`cuda_kernels.Rows`); or an expression as `expr` is one, of functions that CUDA
            has and C has not; None: it cannot be had there.
        promote: A rule of `promote.py`, such as `same` or `to_float`: the dtype in which `cpu` computes.  `None`: the
            inputs as they come.
        view: The result shares memory with the first input.
        order: How results lie in memory: a rule of `placement.py`.  Left out: elementwise ops combine the order of
            their inputs, views are as they are made, all others are contiguous.
        into: `(array, *others, **attrs)`, writes the result into the memory of the first input; for ops with a faster
            way than computing it and copying (ufuncs have one of their own).
        node_name: PyTorch's name of its nodes, where it is not `name` in another spelling; or `(node) -> name`.
        wirtinger: `vjp` gives the gradient of complex inputs as PyTorch defines it, conjugates and all; without it the
            engine does: Note [Complex gradients] in `graph.py`.
        flat: Its derivative does not change with the input, save in jumps: see Note [Flat derivatives] in `graph.py`.
        keywords: PyTorch's names of the first inputs, where these are called `x` and `y` here.
        numeric: It takes no bools: PyTorch's name of the kernel that they are missing from, or the error itself.
        real: It takes no complex numbers: PyTorch's name of the kernel that they are missing from, or the error itself.
        onnx: The operator of ONNX that is the same, where there is one; its attributes are spelt otherwise.
        random: It draws from a generator: it has to run exactly as often as in the user's program.
        writes: It returns nothing and writes into so many of its first inputs; or `(count, **attrs) -> number` from the
            count of its inputs.
        scheduled: Its attributes are what Python keeps between calls, such as a learning rate and its schedule: those
            of one call say nothing about the next.
        communicates: It exchanges data with other processes, who expect it exactly as often as in the user's program.
        side_results: `numpy` returns a tuple of which callers get the first; the others are for the gradient: `out1`, …
            in `save`.
    """

    __slots__ = (
        "__weakref__", "aliases", "arity", "attr_names", "backward", "batch", "communicates", "cpu", "cuda", "defaults",
        "expr", "fast", "flat", "forward", "hot", "infer", "input_names", "into", "jvp", "keywords", "kind",
        "name", "node_name", "numeric", "numpy", "onnx", "order", "promote", "pull_bare", "random", "real",
        "refuses", "save", "saves", "saves_out", "scheduled", "side_results", "variadic", "view", "view_of", "vjp",
        "wirtinger", "writes",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        *,
        kind: kinds.Kind | None = None,
        batch: Callable[..., Any] | None = None,
        jvp: Callable[..., Any] | None = None,
        infer: Callable[..., Any],
        numpy: Callable[..., Any],
        c: Any = None,
        vjp: tuple[Callable[..., Any] | None, ...] | Gradient | None,
        save: tuple[str, ...] = (),
        expr: str | None = None,
        cuda: Any = NUMPY_TEXT,
        promote: Callable[..., Any] | None = None,
        view: bool = False,
        order: placement.Order | None = None,
        into: Callable[..., None] | None = None,
        wirtinger: bool = False,
        flat: bool = False,
        real: str | Exception | None = None,
        numeric: str | Exception | None = None,
        random: bool = False,
        writes: int | Callable[..., int] = 0,
        scheduled: bool = False,
        onnx: str | None = None,
        communicates: bool = False,
        keywords: tuple[str, ...] = ("input", "other"),
        side_results: bool = False,
        node_name: str | Callable[[graph.Node], str] | None = None,
    ) -> None:
        assert name not in REGISTRY, f"op {name!r} is declared twice"
        assert expr is None or cuda is NUMPY_TEXT, f"op {name!r}: `expr` already says what CUDA does"
        assert kind is not None or expr is not None, f"op {name!r}: which kind is it? See `kinds.py`"
        self.batch, self.jvp, self.onnx = batch, jvp, onnx
        self.forward: Op | None = None  # of the kernel of a gradient: the op that it is the gradient of
        self.backward: Any = None  # and that kernel's record, of this op
        self.kind = kinds.ELEMENTWISE if kind is None else kind
        if order is None and not view:
            order = placement.COMBINED if isinstance(self.kind, kinds.Elementwise) else placement.CONTIGUOUS
        self.order = None if order is placement.AS_MADE else order
        self.name, self.infer, self.numpy, self.vjp, self.save = name, infer, numpy, vjp, save
        self.cpu: Callable[..., Any] = numpy if c is None else c.bind(self)
        self.cuda = cuda.bind(self) if hasattr(cuda, "bind") else cuda
        self.expr, self.promote, self.view, self.into = expr, promote, view, into
        self.side_results, self.node_name, self.wirtinger, self.flat, self.real = (
            side_results,
            node_name,
            wirtinger,
            flat,
            real,
        )
        self.numeric, self.keywords = numeric, keywords
        self.refuses = ("" if real is None else "c") + ("" if numeric is None else "b")
        self.random, self.writes, self.scheduled, self.communicates = random, writes, scheduled, communicates
        parameters = inspect.signature(infer).parameters.values()
        inputs = [p for p in parameters if p.default is p.empty]
        self.variadic = any(p.kind is p.VAR_POSITIONAL for p in inputs)
        self.input_names = tuple(p.name for p in inputs)
        self.arity = len(inputs)
        self.defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
        self.attr_names = tuple(self.defaults)
        known = {*self.attr_names, *self.input_names}
        assert known.issuperset((*self.kind.dims, *self.kind.shapes, *self.kind.shared)), f"op {name!r}: {self.kind}"
        taken = {*self.defaults, *self.input_names}
        self.aliases = {theirs: ours for theirs, ours in NUMPY.items() if theirs not in taken}
        self.saves = tuple(graph.selector(self, item) for item in save)
        self.saves_out = any(kind >= graph.OUT and not (side_results and i) for kind, i in self.saves)
        if isinstance(vjp, Gradient):
            vjp.bind(self, c, cuda)
        assert not isinstance(vjp, tuple) or len(vjp) == self.arity, f"op {name!r}: one vjp rule per input"
        self.fast = straight.fast_path(self)
        self.view_of: Any = None  # the straight line of a view op that is called often: `views.view_path`
        self.hot: Any = None  # what `dispatch.call` hands to the accelerator
        self.pull_bare = graph.pull_bare(self)
        REGISTRY[name] = self

    def __call__(self, *args: Any, **attrs: Any) -> Any:
        if self.fast is not None and not attrs and len(args) == self.arity and isinstance(args[0], Tensor):
            return self.fast(*args)
        xs, attrs = self.bind(args, attrs)
        return dispatch.call(self, xs, attrs)

    def bind(self, args: tuple[Any, ...], attrs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Sort the arguments of a call into inputs and a complete set of attributes.  Raises TypeError like a call."""
        if self.variadic:
            return args, {**self.defaults, **attrs}
        xs, rest = args[: self.arity], args[self.arity :]
        if len(xs) < self.arity:  # given by keyword, under our names or PyTorch's
            attrs = {self.aliases.get(name, name): value for name, value in attrs.items()}
            for i, name in enumerate(self.input_names[len(xs) :], len(xs)):
                key = name if name in attrs or i >= len(self.keywords) else self.keywords[i]
                if key not in attrs:
                    raise TypeError(f"{self.name}() missing 1 required positional argument: {key!r}")
                xs = (*xs, attrs.pop(key))
        if len(rest) > len(self.attr_names):
            most = self.arity + len(self.attr_names)
            raise TypeError(f"{self.name}() takes {most} positional arguments but {len(args)} were given")
        given = dict(zip(self.attr_names, rest, strict=False))
        for name, value in attrs.items():
            if name not in self.defaults:
                name, unknown = self.aliases.get(name, name), name
                if name not in self.defaults or name in attrs:
                    raise TypeError(f"{self.name}() got an unexpected keyword argument {unknown!r}")
            given[name] = value
        return xs, {**self.defaults, **given}

    def written(self, count: int, attrs: dict[str, Any]) -> int:
        """How many of the first of `count` inputs a call with a complete set of attributes writes into."""
        return self.writes if isinstance(self.writes, int) else self.writes(count, **attrs)

    def __repr__(self) -> str:
        return f"<op {self.name}>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        return _lookup, (self.name,)


def _lookup(name: str) -> Op:
    return REGISTRY[name]
