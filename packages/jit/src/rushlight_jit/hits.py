"""The last calls that were replayed, in a form that the next one is compared with in a fraction of a microsecond.

Note [Hits]
    Most calls are like the one before.  So what such a call runs is kept with all that it depended on: the arguments'
    shapes, strides, dtypes and flags, the modes, and what the walk has read (Note [Reads]).  A call that is another
    in any of these, has leaves that are no tensors, arguments that share memory with each other or with a tensor that
    the function refers to, or attributes on them, is searched for as ever (`Compiled._find`): a hit never decides that
    a trace does *not* apply.
    `c/accelerator_compiled.h` does the same from `words`, without the interpreter, and runs a plan that is one fused
    kernel by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rushlight_jit.fuse import Kernel
from rushlight_jit.joint import Joint
from rushlight_jit.memory import classes, extent, touches
from rushlight_jit.reads import CONTENTS, ELEMENTS, ITEM, TENSOR, Absent, Read, is_unchanged
from rushlight_tensor.core import dispatch, dtypes
from rushlight_tensor.core.tensor import Tensor

MOST_HITS, MOST_READS = 4, 1000
_MOST_ARGUMENTS = 16  # room in the C text
FUNCTION, JOINT, KERNEL = range(3)  # what runs, likewise

_ndarray = np.ndarray


class Hit:
    """One call, and what it ran.

    Args:
        args: Its arguments, tensors all of them.
        reads: What its walk has read.
        joint: The trace that stands for it; None: the function itself.
        fn: The function.
    """

    __slots__ = ("_arguments", "_mode", "_order", "_reads", "_unique", "joint", "kernel", "run", "words")

    def __init__(self, args: Sequence[Tensor], reads: list[Read], joint: Joint | None, fn: Callable[..., Any]) -> None:
        self._reads = [*reads, Read(ITEM, vars(dtypes), "_default", dtypes.get_default_dtype())]
        self._mode = dispatch.MODE.grad, dispatch.MODE.inference
        self._arguments = [_kind(x) for x in args]
        self._order = _order_of(args)
        self._unique = [i for i, like in enumerate(self._order) if like == i]
        self.joint = joint
        self.kernel = None if joint is None else _only_kernel(joint, [args[i]._array for i in self._unique])
        self.run: Callable[..., Any] = fn if joint is None else joint.__call__
        self.words = self._words()

    @property
    def reads(self) -> int:
        """How many reads are compared."""
        return len(self._reads)

    def meets(self, args: tuple[Any, ...]) -> bool:
        """Whether a call of the function with these positional arguments is the same again."""
        if len(args) != len(self._arguments) or dispatch.INTERCEPT is not None:
            return False
        for x, kind in zip(args, self._arguments, strict=True):
            if type(x) is not Tensor or type(x._array) is not _ndarray or _kind(x) != kind or not is_plain_argument(x):
                return False
        if _order_of(args) != self._order or (dispatch.MODE.grad, dispatch.MODE.inference) != self._mode:
            return False
        return lie_apart([args[i] for i in self._unique], self._reads) and all(map(is_unchanged, self._reads))

    def __call__(self, args: tuple[Any, ...]) -> Any:
        """What the function returns for these arguments."""
        return self.run(*args) if self.joint is None else self.run([args[i] for i in self._unique])

    def _words(self) -> bytes:
        """All of it as C reads it; objects are addresses, and live as long as this does."""
        how = FUNCTION if self.joint is None else JOINT if self.kernel is None else KERNEL
        words = [len(self._arguments), len(self._reads), how, *map(int, self._mode)]
        for like, (shape, strides, dtype, requires_grad, is_leaf) in zip(self._order, self._arguments, strict=True):
            words += [like, requires_grad, is_leaf, id(dtype), len(shape), dtype.itemsize, *shape, *strides]
        for kind, owner, key, value in self._reads:
            words += [kind, id(owner), id(key), 0 if value is Absent else id(value)]
        if self.kernel is not None:
            k, inputs = self.kernel
            out = k.outputs[0]
            words += [k.entry, len(inputs), *k.size, id(out.dtype), len(out.shape)]
            words += [*[self._unique[i] if isinstance(i, int) else id(i) for i in inputs], *out.shape]
        return np.array(words, np.int64).tobytes()


def _kind(x: Tensor) -> tuple[Any, ...]:
    a = x._array
    return a.shape, a.strides, a.dtype, x._requires_grad, x._node is None


def _order_of(args: Sequence[Any]) -> list[int]:
    """For each argument the first one that it is."""
    ids = [id(x) for x in args]
    return [ids.index(i) for i in ids]


def is_plain_argument(x: Tensor) -> bool:
    """Whether nothing hangs on a tensor, and its memory is as NumPy makes it."""
    return not getattr(x, "__dict__", None) and x._array.flags.aligned


def lie_apart(tensors: Sequence[Tensor], reads: Sequence[Read]) -> bool:
    """Whether no two tensors share memory, nor is one of those that are read, or lies in one."""
    known = [r for r in reads if r.kind == TENSOR]
    if any(x is r.owner for x in tensors for r in known):
        return False
    spans = [extent(r.value) for r in known]
    apart = classes([x._array for x in tensors]) == tuple(range(len(tensors)))
    return apart and not any(touches(x._array, spans) for x in tensors)


def _only_kernel(joint: Joint, arrays: list[Any]) -> tuple[Kernel, list[Any]] | None:
    """The one kernel that a trace is, and what it reads: arguments, by their numbers, and arrays; else None."""
    plan = joint.forward
    graph, found = plan.graph, plan.only_kernel()
    if found is None or joint.backward is not None or graph.writes() or not isinstance(joint.structure, str):
        return None
    if found.outputs != graph.outputs or not all(v in graph.inputs or v in graph.captured for v in found.inputs):
        return None
    inputs = [graph.inputs.index(v) if v in graph.inputs else graph.captured[v] for v in found.inputs]
    fits = len(inputs) <= _MOST_ARGUMENTS and found.fits(*[arrays[i] if isinstance(i, int) else i for i in inputs])
    return (found, inputs) if fits else None


def hit_of(args: Sequence[Any], reads: list[Read], joint: Joint | None, fn: Callable[..., Any]) -> Hit | None:
    """A hit for such calls; None where they are not plain, or so much is read that a walk takes no longer."""
    count = sum(len(r.value) if r.kind in (CONTENTS, ELEMENTS) else 1 for r in reads)
    if len(args) > _MOST_ARGUMENTS or count > MOST_READS:
        return None
    if not all(type(x) is Tensor and type(x._array) is _ndarray and is_plain_argument(x) for x in args):
        return None
    unique = [args[i] for i in sorted(set(_order_of(args)))]
    return Hit(args, reads, joint, fn) if lie_apart(unique, reads) else None
