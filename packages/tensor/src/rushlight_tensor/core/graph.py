"""The graph that is recorded: nodes, what they save, and how a gradient goes through one of them.

Note [What a node holds]
    A node points to its parents (nodes, or leaf tensors) and owns what its op's `save` names: inputs as tensors with
    the version they had, results as bare arrays.  Nothing points back down, so a graph is freed by reference count.
    An in-place operation on a result marks the node that saved it as `stale`; on an input it moves the version on.
    That takes a way from the memory to the node.  A result that owns its memory has one; for what was computed in place
    into a view, saved by a user's function, or detached in place, the memory's version is told whom to `watch` for.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rushlight_tensor.core.dtypes import dtype_title
from rushlight_tensor.core.promote import category
from rushlight_tensor.core.tensor import Tensor, wrap

INPUT, SHAPE, DTYPE, OUT, OUT_OF_MANY = range(5)  # what an item of `save` refers to
RETAIN = -1  # among the hooks of a node: the tensor (a weak reference) that keeps its gradient; always the last to run


class Node:
    """One recorded operation: `edges` lead to what made its inputs, `saved` is what its gradient needs.

    `shape` is that of the result; of an op with several results, a tuple of their shapes.
    """

    __slots__ = ("__weakref__", "attrs", "edges", "hooks", "op", "saved", "shape", "stale", "versions")

    op: Any
    edges: tuple[Any, ...]
    saved: tuple[Any, ...] | None
    versions: tuple[int | None, ...]
    attrs: dict[str, Any]
    shape: tuple[int, ...]
    hooks: dict[int, Any] | None
    stale: bool

    def name(self) -> str:
        """PyTorch's name of the node, such as `MulBackward0`."""
        given = self.op.node_name
        if given is None:
            return "".join(w.capitalize() for w in self.op.name.split("_")) + "Backward0"
        return given if isinstance(given, str) else given(self)

    def __repr__(self) -> str:
        return f"<{self.name()}>"

    @property
    def next_functions(self) -> tuple[tuple[Any, int], ...]:
        """The parents, as PyTorch lists them."""
        return tuple((e, e.index if type(e) is Slot else 0) for e in self.edges)


class Slot(Node):
    """One of several results of a node: gradients that arrive here are the node's gradient number `index`."""

    __slots__ = ("index", "parent")

    def __init__(self, parent: Node, index: int, shape: tuple[int, ...]) -> None:
        self.parent, self.index, self.shape = parent, index, shape
        self.op, self.hooks, self.stale, self.saved, self.edges = parent.op, None, False, (), (parent,)

    def name(self) -> str:
        return self.parent.name()


class CustomNode(Node):
    """A node with a rule of its own, `apply(g, needs)`: user functions, and writes into a part of a tensor."""

    __slots__ = ()

    def __init__(self, edges: tuple[Any, ...], shape: tuple[Any, ...]) -> None:
        self.op, self.hooks, self.stale, self.saved, self.attrs, self.versions = None, None, False, (), {}, ()
        self.edges, self.shape = edges, shape

    def apply(self, g: Any, needs: tuple[bool, ...]) -> tuple[Any, ...]:
        """One gradient, or None, per edge."""
        raise NotImplementedError(type(self).__name__)


class Stale:
    """Stands in for a saved tensor that was changed since; touching it explains."""

    __slots__ = ("_why",)

    def __init__(self, why: str) -> None:
        self._why = why

    def complain(self) -> None:
        """Raise RuntimeError: whoever took this tensor as it was would compute a wrong gradient."""
        raise RuntimeError(self._why)

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(self._why)

    def __mul__(self, other: Any = None) -> Any:  # arithmetic and comparisons do not ask __getattr__
        raise RuntimeError(self._why)

    __add__ = __radd__ = __sub__ = __rsub__ = __rmul__ = __truediv__ = __rtruediv__ = __pow__ = __rpow__ = __mul__
    __neg__ = __abs__ = __invert__ = __matmul__ = __rmatmul__ = __and__ = __or__ = __xor__ = __mul__
    __gt__ = __ge__ = __lt__ = __le__ = __eq__ = __ne__ = __mul__
    __getitem__ = __bool__ = __float__ = __len__ = __iter__ = __mul__
    __hash__ = None  # type: ignore[assignment]
    __array_ufunc__ = None


def selector(op: Any, item: str) -> tuple[int, int]:
    """Where a name of `save` is found: (kind, index).  Index -1 of SHAPE: those of all inputs."""
    name, _, of = item.partition(".")
    if name.startswith("out") and name not in op.input_names:
        return (OUT, 0) if name == "out" else (OUT_OF_MANY, int(name[3:]))
    assert of in (("shape",) if op.variadic else ("", "shape", "dtype")), f"op {op.name!r}: cannot save {item!r}"
    kind = {"": INPUT, "shape": SHAPE, "dtype": DTYPE}[of]
    return kind, -1 if op.variadic else op.input_names.index(name)


def version(x: Tensor) -> int:
    """How often the memory of `x` was changed in place."""
    return x._version if x._view is None else x._view.base._version


class Watched(int):
    """A version that marks nodes as stale when it moves on: `+= 1` leaves a plain number behind, and nobody to tell."""

    nodes: tuple[weakref.ref[Node], ...]

    def __iadd__(self, n: int) -> int:
        for ref in self.nodes:
            node = ref()
            if node is not None:
                node.stale = True
        return int(self) + n


def watch(x: Tensor, n: Node) -> None:
    """Mark `n`, which saved `x` as its result, as stale with the next write to the memory of `x`, by whatever name.

    See Note [What a node holds].
    """
    owner = x if x._view is None else x._view.base
    now = owner._version
    moved = Watched(now)
    moved.nodes = (*getattr(now, "nodes", ()), weakref.ref(n))
    owner._version = moved


def save(n: Node, xs: tuple[Any, ...], arrays: tuple[Any, ...]) -> None:
    """Fill `saved` and `versions` with what the op's `save` names."""
    saved: list[Any] = []
    versions: list[int | None] = []
    for kind, i in n.op.saves:
        v = None
        if kind >= OUT:
            item = arrays[i]
        elif i < 0:
            item = tuple([x._array.shape for x in xs])
        else:
            item = xs[i]
            if isinstance(item, Tensor):
                if kind == INPUT:
                    v = version(item)
                else:
                    item = item._array.shape if kind == SHAPE else item._array.dtype
            elif kind == SHAPE:
                item = ()
        saved.append(item)
        versions.append(v)
    n.saved, n.versions = tuple(saved), tuple(versions)


CONJUGATE: Any = None
"""The op; set by `ops.complex`."""


def pull(n: Node, g: Any, edges: Sequence[Any], create_graph: bool) -> Sequence[Any]:
    """The gradients of a node's inputs, as tensors, from that of its result; `None` in `edges` marks an unwanted one,
    True one that is wanted although it goes nowhere.

    Raises RuntimeError where the graph was freed or saved data changed.

    Note [Complex gradients]
        The gradient of a complex tensor is PyTorch's: that of its real part plus i times that of its imaginary part
        (the conjugate Wirtinger derivative).  For `y = f(x)` with a complex derivative this is `g * conj(f'(x))`,
        where rules say `g * f'(x)`, for numbers of every kind.  So rules stay as they are and the engine conjugates
        around them, `conj(rule(conj(g)))`, once and for second derivatives too.  Ops without a complex derivative
        (`abs`, `real`, a norm), or between real and complex tensors, set `wirtinger` and give the gradient themselves.
    """
    op = n.op
    if op is None:
        return n.apply(g, tuple([e is not None for e in edges]))  # type: ignore[attr-defined]
    if _is_complex(g) and not op.wirtinger:
        return _conjugated(rules(n, _conjugated(g), edges, create_graph))
    found = rules(n, g, edges, create_graph)
    if op.flat and create_graph and found[0] is not None and edges[0] is not True:
        return (_anchored(found[0], edges[0]), *found[1:])
    return found


class _Anchor(CustomNode):
    """A gradient that does not change with the input it is for.

    Note [Flat derivatives]
        The derivative of `relu` is 0 or 1, that of a mean over windows a constant: what the rule returns depends on
        `g` alone.  In PyTorch it depends on the input as well, with derivative zero, so that a gradient penalty on a
        network of such functions gives zeros and not an error.  Ops marked `flat` get the same: their gradient, when
        it is itself recorded, has an edge back to the input, along which zeros go.
    """

    __slots__ = ("zeros",)

    def __init__(self, g: Tensor, to: Any) -> None:
        super().__init__((g._node or (g if g._requires_grad else None), to), g._array.shape)
        x = to.shape if isinstance(to, Node) else to._array.shape
        self.zeros = (g._array, x)

    def name(self) -> str:
        return "ZerosLikeBackward0"

    def apply(self, g: Any, needs: tuple[bool, ...]) -> tuple[Any, ...]:
        return g, wrap(np.zeros_like(self.zeros[0], shape=self.zeros[1])) if needs[1] else None


def _anchored(g: Tensor, to: Any) -> Tensor:
    out = wrap(g._array)
    out._node, out._requires_grad = _Anchor(g, to), True
    return out


def _is_complex(g: Any) -> bool:
    if type(g) is tuple:  # an op with several results
        return any(part is not None and part._array.dtype.kind == "c" for part in g)
    return bool(g._array.dtype.kind == "c")


def _conjugated(gs: Any) -> Any:
    """A gradient, or each of several, conjugated where it is complex."""
    if isinstance(gs, (tuple, list)):
        return tuple([_conjugated(g) for g in gs])
    return CONJUGATE(gs) if gs is not None and gs._array.dtype.kind == "c" else gs


def rules(n: Node, g: Any, edges: Sequence[Any], create_graph: bool) -> Sequence[Any]:
    """What the rules of an op make of a gradient, or forward mode of a tangent: nothing is conjugated."""
    op = n.op
    saved = unpack(n, create_graph)
    if type(op.vjp) is not tuple:
        return op.vjp.pull(g, tuple([e is not None for e in edges]), *saved, **n.attrs)
    return [
        None if rule is None or e is None else rule(g, *saved, **n.attrs) for rule, e in zip(op.vjp, edges, strict=True)
    ]


def pull_bare(op: Any) -> Callable[[Node, Any, Sequence[Any]], Sequence[Any]] | None:
    """The rules of an op on bare arrays, if they are arithmetic.

    Note [Arithmetic rules]
        A rule that names nothing but its arguments (`lambda g, x, y: g * y`) means the same on arrays as on tensors.
        When no graph of the backward pass is wanted, the engine runs such rules on the arrays: half the cost per node.
    """
    rules = op.vjp
    if hasattr(rules, "pull_bare"):  # a `Gradient`
        return rules.pull_bare
    if type(rules) is not tuple or op.variadic:
        return None
    if any(r is None or r.__code__.co_names or r.__code__.co_freevars for r in rules):
        return None
    if op.saves == ((INPUT, 0), (INPUT, 1)) and not op.defaults:
        return _pull_two(op, *rules)

    def some(n: Node, g: Any, edges: Sequence[Any]) -> Sequence[Any]:
        if g.dtype.kind in "Vc":  # bfloat16 times a Python number would leave NumPy as float32; complex: see `pull`
            return [t if t is None else t._array for t in pull(n, wrap(g), edges, False)]
        saved = [s._array if isinstance(s, Tensor) else s for s in unpack(n, False)]
        return [None if e is None else r(g, *saved, **n.attrs) for r, e in zip(rules, edges, strict=True)]

    return some


def _pull_two(op: Any, rule_x: Callable[..., Any], rule_y: Callable[..., Any]) -> Callable[..., Sequence[Any]]:
    def two(n: Node, g: Any, edges: Sequence[Any]) -> Sequence[Any]:  # `some`, unrolled for `mul` and its like
        if n.saved is None:
            refill(n)
        if g.dtype.kind in "Vc":
            return [t if t is None else t._array for t in pull(n, wrap(g), edges, False)]
        a, b = n.saved  # type: ignore[misc]  # refill has seen to it
        va, vb = n.versions
        if va is None:
            x = a
        elif (a._version if a._view is None else a._view.base._version) == va:
            x = a._array
        else:
            x = Stale(stale_text(a, op.name))
        if vb is None:
            y = b
        elif (b._version if b._view is None else b._view.base._version) == vb:
            y = b._array
        else:
            y = Stale(stale_text(b, op.name))
        to_x, to_y = edges
        return (
            None if to_x is None else rule_x(g, x, y),
            None if to_y is None else rule_y(g, x, y),
        )

    return two


_FREED = (
    "Trying to backward through the graph a second time (or directly access saved tensors after they have already been "
    "freed). Saved intermediate values of the graph are freed when you call .backward() or autograd.grad(). Specify "
    "retain_graph=True if you need to backward through the graph a second time or if you need to access saved tensors "
    "after calling backward."
)


PACKED: weakref.WeakKeyDictionary[Node, Any] = weakref.WeakKeyDictionary()
"""Nodes whose saved tensors were taken away, and what brings them back: `refill()` of a checkpointed segment."""


def refill(n: Node) -> None:
    """Bring back what the node saved.  Raises RuntimeError where it was freed."""
    segment = PACKED.get(n)
    if segment is None:
        raise RuntimeError(_FREED)
    segment.refill()


def unpack(n: Node, create_graph: bool) -> tuple[Any, ...]:
    """What a node saved, as tensors; results get their place in the graph back, changed data becomes `Stale`."""
    out: list[Any] = []
    if n.saved is None:
        refill(n)
    assert n.saved is not None
    for (kind, i), item, v in zip(n.op.saves, n.saved, n.versions, strict=True):
        if kind >= OUT and v is None:
            t = wrap(item)
            if n.stale:
                out.append(Stale(stale_text(t, n.op.name)))
                continue
            if create_graph and category(item.dtype) >= 2 and (i == 0 or not n.op.side_results):
                t._node, t._requires_grad = (n if kind == OUT else Slot(n, i, item.shape)), True
            out.append(t)
        elif v is not None and version(item) != v:
            out.append(Stale(stale_text(item, n.op.name)))
        else:
            out.append(item)
    return tuple(out)


def unpack_arrays(n: Node) -> list[Any]:
    """What a node saved, as arrays.  Raises RuntimeError where it was freed or has changed."""
    if n.saved is None:
        refill(n)
    assert n.saved is not None
    out = []
    for item, v in zip(n.saved, n.versions, strict=True):
        if v is not None:
            if (item._version if item._view is None else item._view.base._version) != v:
                raise RuntimeError(stale_text(item, n.op.name))
            out.append(item._array)
        elif type(item) is Stale:
            item.complain()
        else:
            out.append(item)
    if n.stale and n.op.saves_out:
        made = next(item for item, (kind, _) in zip(n.saved, n.op.saves, strict=True) if kind >= OUT)
        raise RuntimeError(stale_text(wrap(made), n.op.name))
    return out


def stale_text(x: Any, op: str) -> str:
    """PyTorch's words for a saved tensor that has changed."""
    shape = list(x._array.shape)
    return (
        "one of the variables needed for gradient computation has been modified by an inplace operation: "
        f"[{dtype_title(x._array.dtype)}Tensor {shape}], saved by or written to by {op!r}. "
        "Hint: use the out-of-place form of the operation, or clone() the tensor before changing it."
    )


_WHY_CLOSED = {
    "many": " This view is the output of a function that returns multiple views. Such functions do not allow the "
    "output views to be modified inplace. You should replace the inplace operation by an out-of-place one.",
    "function": " This view was created inside a custom Function (or because an input was returned as-is) and the "
    "autograd logic to handle view+inplace would override the custom backward associated with the custom Function, "
    "leading to incorrect gradients. This behavior is forbidden. You can fix this by cloning the output of the custom "
    "Function.",
    **{
        why: " Given that this use case is ambiguous and error-prone, it is forbidden. You can clarify your code by "
        f"moving both the view and the inplace either both inside the {block} block (if you don't want the inplace to "
        "be tracked) or both outside (if you want the inplace to be tracked)."
        for why, block in (("no_grad", "no_grad"), ("inference", "inference_mode"))
    },
}


def closed_text(v: Tensor, changed: str) -> str:
    """PyTorch's words for a closed view that is to be written to, or whose base was (`changed` says which)."""
    assert v._view is not None
    why, n = v._view.closed, v._node
    mode = "inference" if why == "inference" else "no_grad"
    end = "in normal mode" if why == "inference" else "with grad mode enabled"
    if n is None:
        what = f"A view was created in {mode} mode and {changed} modified inplace {end}."
    else:
        what = (
            f"Output {n.index if type(n) is Slot else 0} of {n.name().rstrip('0').removesuffix('Backward')} is a view"
        )
        if why in ("no_grad", "inference"):
            what += f" of a view which was created in {mode} mode and {changed} modified inplace {end}."
        else:
            what += f" and {changed} modified inplace."
    assert why is not None
    return what + _WHY_CLOSED[why]
