"""How a record calls its C kernel: what depends only on the kinds of its inputs is worked out once and kept.

Note [Plans]
    A record names its kernel, `C("norm", "layer_norm", rows)`, and nothing else about it: the prototype beside the C
    text says which arrays are read, made and worked in, and what every number is called.  Inputs and results are those
    of the record, in order; whole numbers come from `sizes`, a rule of the record's kind such as `rows`, or from
    attributes of the same name; the others are attributes.

    A plan is that, worked out for shapes and attributes: the descriptions of the results (from `infer`) and the sizes.
    The dispatcher calls `cpu` of the record; here a call finds its plan, allocates the results, and runs.  Numbers
    (eps, a learning rate) are no part of a plan and are passed at the call.  Inputs that the kernel cannot take as they
    lie are copied into the order that it reads; half types are widened to float32 and results narrowed as `infer` says;
    small integers are widened to those that the kernel reads; any other dtype is work for the record's NumPy text, as
    is all that does not fit a kernel that writes into its inputs, and what `sizes` has no answer for: None.  An input
    with an EXTENT is taken as it lies, if `sizes` answers its strides; these are then part of the plan's key.  The same
    calls stand in the tables of `program`.

    A record of any number of inputs (`cat`) has a kernel that takes them as one list, and beside it an array of their
    lengths, which the plan makes.  Kernels of `uint32_t` and `uint64_t` move what they are given, of any dtype of that
    size: there the dtypes are part of the key.

    A kernel that meets something wrong in its arrays, an index that names nothing, returns 1 + its place; `wrong` of
    the record words that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from rushlight_tensor.core.abstract import in_elements
from rushlight_tensor.core.infer import Aval
from rushlight_tensor.core.kinds import Elementwise
from rushlight_tensor.core.layout import plain
from rushlight_tensor.core.order import fastest_first
from rushlight_tensor.core.promote import BFLOAT16, FLOAT16, FLOAT32
from rushlight_tensor.kernels.arrays import contiguous, in_order
from rushlight_tensor.kernels.blas import load_private_blas
from rushlight_tensor.kernels.channels_last import as_image
from rushlight_tensor.kernels.compile import c_library
from rushlight_tensor.kernels.prototype import ARRAY_CODES, DTYPES, WORDS, Argument, Prototype

_empty = np.empty
_HALF = (FLOAT16, BFLOAT16)
_MOST_PLANS = 512  # of one record; then all are worked out anew

PLANNED: list[Planned] = []
"""Every record that has a C kernel."""

RECORDER: Any = None
"""What wants to know of every kernel that runs: `program.Program`, while it records.

Who tells it reads it once: the thread that records may be done at any moment.
"""


def rows(x: Any, *others: Any, dims: int = 1, **attrs: Any) -> dict[str, int]:
    """Sizes of kernels over rows: the last `dims` dimensions of the first input are one row of `n` elements."""
    at = len(x.shape) - dims
    return {"rows": math.prod(x.shape[:at]), "n": math.prod(x.shape[at:])}


def along(x: Any, *others: Any, dim: int, **attrs: Any) -> dict[str, int]:
    """Sizes of kernels along one dimension: `n` elements of the first input that lie `inner` apart, `outer` times."""
    shape = x.shape or (1,)
    at = dim % len(shape)
    return {"outer": math.prod(shape[:at]), "n": shape[at], "inner": math.prod(shape[at + 1 :])}


def elements(x: Any, *others: Any, **attrs: Any) -> dict[str, int]:
    """Sizes of kernels over all elements of inputs of one shape: `n`.  See `PlannedElements`."""
    return {"n": math.prod(x.shape)}


def as_they_lie(*arrays: Any) -> tuple[Any, ...]:
    """`pack` of kernels whose NumPy text goes along arrays in the order in which they lie, which copies would not."""
    return arrays


class C:
    """The C kernel of a record.  See Note [Plans].

    Args:
        file: The C text, under `c/`.
        name: Its `EXPORT` function.
        sizes: `(*descriptions, **attrs) -> sizes by name`, or None; what it does not give are attributes.
        wrong: `(place, *arrays, **attrs) -> error`, for a kernel that returns a place; see Note [Plans].
        halves: Half types are widened; else they are the NumPy text's, which only moves them.
        blas: It needs the private BLAS.
        other: The kernel for other dtypes.
        pack: `(*arrays) -> arrays`, how inputs that `sizes` has no answer for are copied, where that is not C order.
    """

    __slots__ = ("blas", "file", "halves", "name", "other", "pack", "sizes", "wrong")

    def __init__(
        self,
        file: str,
        name: str,
        sizes: Callable[..., dict[str, int] | None],
        wrong: Callable[..., Exception] | None = None,
        halves: bool = True,
        blas: bool = False,
        other: C | None = None,
        pack: Callable[..., Any] | None = None,
    ) -> None:
        self.file, self.name, self.sizes, self.wrong, self.halves = file, name, sizes, wrong, halves
        self.blas, self.other, self.pack = blas, other, pack

    def beside(self, name: str) -> C:
        """Another kernel of the same text, called alike."""
        return C(self.file, name, self.sizes, self.wrong, self.halves, self.blas, self.other, self.pack)

    def bind(self, op: Any) -> Callable[..., Any]:
        """The `cpu` of a record: `(*arrays, **attrs) -> array`, or a tuple of them; and its `numpy`, likewise."""
        planned = (PlannedElements if self.sizes is elements else Planned)(op, self)
        op.numpy = planned.text
        return planned.run


class Plan:
    """One kind of call: where the results will lie, and every whole number of the prototype.

    A result is made as (shape in memory, dtype, axes of the view of it that is the result; None: as it is);
    `places[i]` is the result that the kernel's i-th buffer for results holds, -1 where it is not wanted; `lengths` are
    those of the arrays of a list.
    """

    __slots__ = ("lengths", "made", "places", "single", "sizes")

    def __init__(self, made: list[_Made], places: list[int], sizes: tuple[int, ...], single: bool) -> None:
        self.made, self.places, self.sizes, self.single = made, places, sizes, single
        self.lengths: Any = None


_Made = tuple[tuple[int, ...], np.dtype[Any], tuple[int, ...] | None]


class Planned:
    """A record with its C kernel."""

    __slots__ = (
        "_call", "_fits", "_in_list", "_may_skip", "_moves", "_numbers", "_order", "_reads", "_strided", "_text",
        "deciding", "entry", "kernel", "op", "other", "plans", "prototype",
    )  # fmt: skip

    _call: Callable[..., Any]
    _fits: Any
    _in_list: bool
    _may_skip: bool
    _moves: bool
    _numbers: tuple[str, ...]
    _order: tuple[int, ...] | None
    _reads: tuple[Argument, ...]
    _strided: bool
    deciding: tuple[str, ...]
    prototype: Prototype
    source: Any = None
    """The generator whose state the kernel reads and writes; see `draw.py`."""

    def __init__(self, op: Any, kernel: C, first: bool = True) -> None:
        self.op, self.kernel, self._text = op, kernel, op.numpy
        self.plans: dict[tuple[Any, ...], Any] = {}  # in `PlannedElements` axes
        self._fits = None  # not looked for yet
        self._strided = False
        self.entry = 0
        self.other = None if kernel.other is None else type(self)(op, kernel.other, False)
        if first:
            PLANNED.append(self)

    def forget(self) -> None:
        """Look for the kernel anew at the next call: whether there is a compiler has changed."""
        self._fits = None
        self.plans.clear()
        if self.other is not None:
            self.other.forget()

    def run(self, *arrays: Any, **attrs: Any) -> Any:
        """The results, by the kernel where it can be had and takes such arrays, else by the NumPy text."""
        fits = self._fits or self._load()
        if not fits(*arrays):
            return self._otherwise(arrays, attrs)
        key = self._key(arrays, attrs)
        plan = self.plans.get(key, _UNKNOWN)
        if plan is _UNKNOWN:
            plan = self._plan(key, arrays, attrs)
        if plan is None:
            return self._otherwise(arrays, attrs)
        made = [_empty(s, d) if axes is None else _empty(s, d).transpose(axes) for s, d, axes in plan.made]
        outs = [made[at] if at >= 0 else None for at in plan.places] if self._may_skip else made
        inputs = arrays if plan.lengths is None else (list(arrays), plan.lengths)
        given = [*inputs, *outs, *plan.sizes, *[attrs[name] for name in self._numbers]]
        if self._order is not None:
            given = [given[i] for i in self._order]
        said = self._call(*given)
        if said:
            assert self.kernel.wrong is not None
            raise self.kernel.wrong(said - 1, *arrays, **attrs)
        if (recorder := RECORDER) is not None:
            recorder.add(self, given)
        return made[0] if plan.single else tuple(made)

    def _key(self, arrays: tuple[Any, ...], attrs: dict[str, Any]) -> tuple[Any, ...]:
        shapes = [a if a is None else a.shape for a in arrays]
        if self._strided:
            shapes += [a if a is None else a.strides for a in arrays]
        if self._moves:  # what is moved may be of several dtypes
            shapes += [a if a is None else a.dtype for a in arrays]
        decided = [attrs[name] for name in self.deciding]
        return (*shapes, *decided, *map(_types, decided))

    def operands(self, arrays: tuple[Any, ...]) -> tuple[Any, ...]:
        """What the kernel reads: the inputs."""
        return arrays

    def plan_of(self, arrays: tuple[Any, ...], attrs: dict[str, Any]) -> Plan | None:
        """The plan of a call that has just gone well; None where it had none."""
        return self.plans.get(self._key(arrays, attrs))

    def _load(self) -> Callable[..., bool]:
        """Compile the kernel, or have the NumPy text do the work for good."""
        library = c_library(self.kernel.file) if not self.kernel.blas or load_private_blas() else None
        name = self.kernel.name
        if library is None:
            self._fits = _never
            return _never
        self.prototype = library.prototypes[name]
        self.entry = library.entries[name]
        self._call = getattr(library, name)
        taken = {*self.prototype.numbers}
        self.deciding = tuple(n for n in self.op.attr_names if n not in taken)
        self._may_skip = "needs" in self.deciding
        self._numbers = self.prototype.numbers
        each = self.prototype.one_list
        self._reads = self.prototype.inputs if each is None else (each,)
        self._in_list, self._moves = each is not None, any(a.base in WORDS for a in self._reads)
        self._strided = any(a.kind == "EXTENT" for a in self._reads)
        self._order = self._ordered()
        self._check()
        fits: Callable[..., bool] = getattr(library, f"{name}.fits")
        self._fits = fits  # last: another thread that sees it goes on with all the others
        return fits

    def _check(self) -> None:
        """Raise TypeError where record and prototype do not belong together.  The last thing before others see it."""
        p, op = self.prototype, self.op
        if len(self._reads) != self._expected() or not all(n in op.attr_names for n in p.numbers):
            raise TypeError(
                f"op {op.name!r}: EXPORT {p.name} reads {[a.name for a in self._reads]} and {list(p.numbers)}, the "
                f"record has {list(op.input_names)} and {list(op.attr_names)}"
            )

    def _expected(self) -> int:
        """How many inputs the kernel has to have."""
        return int(self.op.arity)

    def _plan(self, key: tuple[Any, ...], arrays: tuple[Any, ...], attrs: dict[str, Any]) -> Plan | None:
        described = self._descriptions(arrays)
        found = self.op.infer(*described, **attrs)
        sizes = self.kernel.sizes(*described, **attrs)
        if len(self.plans) >= _MOST_PLANS:
            self.plans.clear()
        plan = None if sizes is None else self._of(found, {**attrs, **sizes}, attrs)
        if plan is not None and self._in_list:
            plan.lengths = np.array([a.size for a in arrays], np.int64)
        self.plans[key] = plan
        return plan

    def _of(self, found: Any, given: dict[str, Any], attrs: dict[str, Any]) -> Plan:
        single = type(found) is Aval
        results = [found] if single else list(found)
        buffers = [a for a in self.prototype.arguments if a.is_result and not a.is_read]
        wanted = attrs["needs"][: len(buffers)] if "needs" in attrs else (True,) * len(buffers)
        places: list[int] = []
        made: list[_Made] = []
        for need, buffer in zip(wanted, buffers, strict=True):
            places.append(len(made) if need else -1)
            if need:
                made.append(_made(results[len(made)], buffer))
        sizes = tuple([int(given[n]) for n in self.prototype.sizes])
        return Plan(made, places, sizes, single)

    def _ordered(self) -> tuple[int, ...] | None:
        """Where each argument of the prototype stands among inputs, results, sizes and numbers; None: in this order."""
        arguments = [a for a in self.prototype.arguments if a.is_given]
        kinds = [0 if a.is_read else 1 if a.stars else 2 if a.is_integer else 3 for a in arguments]
        sorted_kinds = sorted(range(len(kinds)), key=lambda i: kinds[i])
        if sorted_kinds == list(range(len(kinds))):
            return None
        return tuple(sorted_kinds.index(i) for i in range(len(kinds)))

    def _otherwise(self, arrays: tuple[Any, ...], attrs: dict[str, Any]) -> Any:
        """Inputs that the kernel cannot be given as they are."""
        if self._fits is _never:
            return self._by_text(arrays, attrs)
        if self._widens(arrays):
            return self._by_widening(arrays, attrs)
        if self.other is not None and not self._reads_dtypes(arrays):
            return self.other.run(*arrays, **attrs)
        packed: Any = self._repacked(arrays)
        if packed is None or not self._fits(*packed):
            return self._by_text(arrays, attrs)
        if any(a is not b and a.dtype != b.dtype for a, b in zip(arrays, packed, strict=True)):
            self._described(arrays, attrs)  # which may refuse what has become of the right kind
        if (recorder := RECORDER) is not None:
            for before, after in zip(arrays, packed, strict=True):
                if after is not before:
                    recorder.moved(self.op.name, before, after)
        return self.run(*packed, **attrs)

    def _reads_dtypes(self, arrays: tuple[Any, ...]) -> bool:
        """Whether the kernel reads these dtypes."""
        reads = self._reads * len(arrays) if self._in_list else self._reads
        return all(a is None or a.dtype.char in ARRAY_CODES[to.base] for a, to in zip(arrays, reads, strict=True))

    def _repacked(self, arrays: tuple[Any, ...]) -> Any:
        """The inputs in the order that the kernel reads; None where nothing can be done about them."""
        if self.op.writes:
            return None
        if self.kernel.pack is not None:
            packed = self.kernel.pack(*arrays)
        else:
            packed = [_packed(a, to) for a, to in zip(arrays, self._reads, strict=True)]
        same = all(after is before for after, before in zip(packed, arrays, strict=True))
        return None if same else packed

    def _by_widening(self, arrays: tuple[Any, ...], attrs: dict[str, Any]) -> Any:
        """The results, of half types, in float32."""
        if (recorder := RECORDER) is not None:
            recorder.refuse(f"{self.op.name} of {arrays[0].dtype} is widened")
        return self._finished(self.run(*_widened(arrays), **attrs), arrays, attrs)

    def _by_text(self, arrays: tuple[Any, ...], attrs: dict[str, Any]) -> Any:
        if (recorder := RECORDER) is not None:
            recorder.refuse(f"{self.op.name} of {arrays[0].dtype} runs as NumPy's text")
        return self.text(*arrays, **attrs)

    def text(self, *arrays: Any, **attrs: Any) -> Any:
        """What the NumPy text makes, which leaves it to `infer` to look at shapes; half types in float32."""
        self._described(arrays, attrs)
        made = self._text(*(_widened(arrays) if self._widens(arrays) else arrays), **attrs)
        return self._finished(made, arrays, attrs)

    def _descriptions(self, arrays: tuple[Any, ...]) -> list[Any]:
        if not self._strided:
            return [a if a is None else Aval(a.shape, a.dtype) for a in arrays]
        return [a if a is None else Aval(a.shape, a.dtype, in_elements(a)) for a in arrays]

    def _described(self, arrays: tuple[Any, ...], attrs: dict[str, Any]) -> Any:
        """What `infer` says of the results.  Raises the user's error."""
        given = [a if a is None else Aval(a.shape, a.dtype, in_elements(a)) for a in arrays]
        return self.op.infer(*given, **attrs)

    def _widens(self, arrays: tuple[Any, ...]) -> bool:
        return arrays[0].dtype in _HALF and self.kernel.halves and not self.op.writes

    def _finished(self, made: Any, arrays: tuple[Any, ...], attrs: dict[str, Any]) -> Any:
        """The results in the dtypes and the order in memory that `infer` says."""
        found = self._described(arrays, attrs)
        placed = _narrowed if isinstance(self.op.kind, Elementwise) else _laid_out  # the order: `lay` decides it
        if type(found) is Aval:
            return placed(made, found)
        return tuple([placed(z, a) for z, a in zip(made, found, strict=True)])


def _types(value: Any) -> Any:
    """The type of an attribute, of a tuple those in it: 1.0 equals 1, and what refuses it must not meet a plan of 1."""
    return tuple(map(_types, value)) if type(value) is tuple else type(value)


def _made(a: Aval, buffer: Argument) -> _Made:
    """How a result is made that a kernel writes as its prototype says."""
    if buffer.is_image and a.ndim > 2 and a.shape[1] != 1 and math.prod(a.shape[2:]) != 1:
        order = [0, *range(2, a.ndim), 1]
    elif buffer.kind == "EXTENT" and a.strides is not None:
        order = _slowest_first(a.strides)
    else:
        return a.shape, a.dtype, None
    return tuple([a.shape[d] for d in order]), a.dtype, tuple([order.index(d) for d in range(a.ndim)])


def _slowest_first(strides: tuple[int, ...]) -> list[int]:
    return sorted(range(len(strides)), key=lambda d: -strides[d])


def _narrowed(z: Any, a: Aval) -> Any:
    return z.astype(a.dtype, copy=False)


def _laid_out(z: Any, a: Aval) -> Any:
    z = (np.asarray(z) if isinstance(z, np.generic) else z).astype(a.dtype, copy=False)
    if a.strides is None or not isinstance(z, np.ndarray):
        return in_order(z)
    if a.private:
        return as_image(plain(z))
    order = _slowest_first(a.strides)
    return in_order(plain(z).transpose(order)).transpose([order.index(d) for d in range(a.ndim)])


def _widened(arrays: tuple[Any, ...]) -> list[Any]:
    """Half types, as the first is one, in float32."""
    half = arrays[0].dtype
    return [a.astype(FLOAT32) if a is not None and a.dtype == half else a for a in arrays]


class PlannedElements(Planned):
    """A record that acts element by element: its kernel is told one length, whatever the shape: no plan is looked up.

    Inputs of one shape may lie in any order as long as it is the same for all, and the result lies in that one, too.
    Inputs that disagree are copied into the order of the result, see Note [Order of a result] in `order.py`; those that
    are broadcast are work for the NumPy text.
    """

    __slots__ = ("_dtype",)

    _dtype: np.dtype[Any]

    def run(self, *arrays: Any, **attrs: Any) -> Any:
        """The result, by the kernel where it can be had and takes such arrays, else by the NumPy text."""
        fits = self._fits or self._load()
        x = arrays[0]
        if not fits(*arrays) or (len(arrays) > 1 and not _are_alike(arrays)):
            return self._otherwise(arrays, attrs)
        made = _empty(x.shape, self._dtype)
        given = (*arrays, made, made.size, *[attrs[name] for name in self._numbers])
        self._call(*given)
        if (recorder := RECORDER) is not None:
            recorder.add(self, given)
        return made

    def plan_of(self, arrays: tuple[Any, ...], attrs: dict[str, Any]) -> Plan | None:
        """The plan of such a call, which is made for those who repeat it."""
        if not _are_alike(arrays):
            return None
        shape = arrays[0].shape
        return Plan([(shape, self._dtype, None)], [0], (math.prod(shape),), True)

    def _check(self) -> None:
        super()._check()
        self._dtype = next(DTYPES[a.base] for a in self.prototype.arguments if a.is_result)

    def _otherwise(self, arrays: tuple[Any, ...], attrs: dict[str, Any]) -> Any:
        if self._fits is _never or (arrays[0].dtype != self._dtype and not self._widens(arrays)):
            return self._by_text(arrays, attrs)
        if self._widens(arrays):
            return self._by_widening(arrays, attrs)
        if not _are_alike(arrays):
            return self._by_text(arrays, attrs)
        axes, back = self._axes(arrays)
        packed = []
        for x in arrays:
            turned = x.transpose(axes)
            packed.append(contiguous(turned))
            if packed[-1] is not turned and (recorder := RECORDER) is not None:
                recorder.moved(self.op.name, turned, packed[-1])
        if not self._fits(*packed):
            return self._by_text(arrays, attrs)
        return self.run(*packed, **attrs).transpose(back)

    def _axes(self, arrays: tuple[Any, ...]) -> tuple[Any, Any]:
        """The dimensions of the result from the slowest to the fastest, and the way back."""
        key = (arrays[0].shape, *[a.strides for a in arrays])
        axes = self.plans.get(key)
        if axes is None:
            if len(self.plans) >= _MOST_PLANS:
                self.plans.clear()
            order = fastest_first(arrays[0].shape, *arrays)[::-1]
            axes = self.plans[key] = order, [order.index(i) for i in range(len(order))]
        return axes

    def _finished(self, made: Any, arrays: tuple[Any, ...], attrs: dict[str, Any]) -> Any:
        """The result, narrowed where inputs were widened; ufuncs put it where this class does."""
        return made.astype(self._described(arrays, attrs).dtype) if self._widens(arrays) else made


def _are_alike(arrays: tuple[Any, ...]) -> bool:
    shape = arrays[0].shape
    return all(x.shape == shape for x in arrays)


def _packed(x: Any, to: Argument) -> Any:
    """An input in the order that a kernel reads, small integers as large ones; itself where it lies so."""
    if x is None:
        return None
    dtype = DTYPES[to.base]
    if x.dtype != dtype and x.dtype.kind in "iu" and dtype.kind in "iu" and np.can_cast(x.dtype, dtype):
        x = x.astype(dtype)
    return as_image(x) if to.is_image and x.ndim > 2 else contiguous(x)


def _never(*arrays: Any) -> bool:
    return False


_UNKNOWN: Any = object()
