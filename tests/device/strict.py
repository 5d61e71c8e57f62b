"""A strict stand-in for CuPy's array: host memory that knows what CuPy 14 knows, and nothing else.

Note [What the stand-in refuses]
    `cupy.json` (made by tools/cupy_table.py from CuPy itself) says which functions, methods, arguments, ufunc loops
    and ufunc methods there are; whatever is not in it fails here as it fails there.  So do host arrays among operands,
    as indices, as values written or as `out`, and every implicit way to NumPy.  Reductions give 0-d device arrays.
    `int`, `float`, `bool`, `item` and `get` are allowed, as CuPy allows them, but each makes the host wait for the
    device: they are counted in `SYNCS`.  Where CuPy converts silently what came from the host (an index array, an
    argument of `take`), the stand-in refuses: it costs a copy on every call.  Where CuPy wraps an index that is out of
    bounds, NumPy's error stays: nobody should rely on either.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np

TABLE = json.loads((Path(__file__).parent / "cupy.json").read_text())
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
SYNCS: Counter[str] = Counter()
"""How often the host waited for the device, by what asked for it."""

_DTYPES = {np.dtype(c) for c in "?bhilqBHILQefdFD"} | {BFLOAT16}
# Functions whose kernels know bfloat16: they move elements, or are made of ufuncs and reductions that do.
_BFLOAT16 = """
    allclose append argmax argmin array array_split asarray ascontiguousarray atleast_1d atleast_2d
    broadcast_arrays broadcast_to column_stack concatenate concat copy copyto count_nonzero diag diagflat diagonal
    dstack empty empty_like expand_dims flip fliplr flipud full full_like hstack matmul max amax min amin mean
    moveaxis nanmax nanmin nonzero flatnonzero ones_like ones permute_dims pad prod put_along_axis putmask ravel
    repeat reshape resize roll rollaxis rot90 round around split squeeze stack sum swapaxes take take_along_axis
    tile transpose tri tril triu vstack where zeros zeros_like isclose ndim shape size result_type can_cast all
    any lib.stride_tricks.as_strided lib.stride_tricks.sliding_window_view
"""
_BFLOAT16_FUNCTIONS = set(_BFLOAT16.split())
_MAKES = {"array", "asarray", "ascontiguousarray", "asnumpy"}


def _refuse(value: Any, what: str) -> None:
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}: a host array of shape {value.shape} as {what}")
    if isinstance(value, (tuple, list)):
        for v in value:
            _refuse(v, what)


def unwrap(value: Any, what: str = "an operand") -> Any:
    """The host memory behind device arrays, in tuples, lists and dicts, too; host arrays are refused."""
    if isinstance(value, ndarray):
        return value._a
    if type(value) in (tuple, list):
        return type(value)(unwrap(v, what) for v in value)
    if type(value) is dict:
        return {k: unwrap(v, what) for k, v in value.items()}
    _refuse(value, what)
    return value


def wrap(value: Any, base: ndarray | None = None) -> Any:
    """What NumPy returned as CuPy would: arrays and array scalars are device arrays."""
    if isinstance(value, (np.ndarray, np.generic)):
        return ndarray(np.asarray(value), base)
    if isinstance(value, (tuple, list)):
        made = [wrap(v, base) for v in value]
        return made if type(value) is list else tuple(made)
    return value


def _dtypes_of(value: Any) -> set[np.dtype]:
    if isinstance(value, ndarray):
        return {value.dtype}
    if isinstance(value, (tuple, list)):
        return set().union(*map(_dtypes_of, value)) if value else set()
    if isinstance(value, (np.dtype, type)) and value is not type and not isinstance(value, ndarray):
        try:
            return {np.dtype(value)}
        except TypeError:
            return set()
    return set()


@functools.cache
def _signature(text: str) -> inspect.Signature | None:
    """The signature that a line of the table describes; None where CuPy does not say."""
    if text == "*, **":
        return None
    parameters, kind = [], inspect.Parameter.POSITIONAL_OR_KEYWORD
    for part in filter(None, (p.strip() for p in text.split(","))):
        name = part.rstrip("=").lstrip("*")
        if part == "/":
            parameters = [p.replace(kind=p.POSITIONAL_ONLY) for p in parameters]
        elif part.startswith("**"):
            parameters.append(inspect.Parameter(name, inspect.Parameter.VAR_KEYWORD))
        elif part.startswith("*"):
            kind = inspect.Parameter.KEYWORD_ONLY
            if name:
                parameters.append(inspect.Parameter(name, inspect.Parameter.VAR_POSITIONAL))
        else:
            default = None if part.endswith("=") else inspect.Parameter.empty
            parameters.append(inspect.Parameter(name, kind, default=default))
    return inspect.Signature(parameters)


def _check_arguments(name: str, text: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    signature = _signature(text)
    try:
        if signature is not None:
            signature.bind(*args, **kwargs)
    except TypeError as e:
        raise TypeError(f"cupy.{name}({text}): {e}") from None


def function(name: str) -> Callable[..., Any]:
    """CuPy's function of this name.  Raises AttributeError where it has none."""
    if name in TABLE["ufuncs"]:
        return Ufunc(name)
    if name not in TABLE["functions"]:
        raise AttributeError(f"module 'cupy' has no attribute {name!r}")
    text = TABLE["functions"][name]
    in_numpy = np
    for part in name.split("."):
        in_numpy = getattr(in_numpy, part)

    def run(*args: Any, **kwargs: Any) -> Any:
        _check_arguments(name, text, args, kwargs)
        if name == "isin" and not all(isinstance(a, ndarray) for a in args[:2]):
            raise AttributeError("'float' object has no attribute 'ravel'")
        short = name.rpartition(".")[2]
        first = args[0] if args else None
        if BFLOAT16 in _dtypes_of(args) | _dtypes_of(list(kwargs.values())) and name not in _BFLOAT16_FUNCTIONS:
            raise TypeError(f"cupy.{name}: bfloat16 is not supported")
        if short in _MAKES:
            return _made(args, kwargs, short)
        if short in TABLE["reductions"] and isinstance(first, ndarray):
            return _reduction(short, in_numpy, args, kwargs)
        out = kwargs.get("out")
        result = in_numpy(*unwrap(args), **unwrap(kwargs))
        if isinstance(out, ndarray):
            return out
        return _checked(_shared(wrap(result), first), name)

    run.__name__ = name
    return run


def _made(args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> Any:
    """array, asarray, ascontiguousarray: the one way from the host to the device."""
    x, *rest = args
    if isinstance(x, ndarray):
        kwargs.pop("blocking", None)
        made = getattr(np, name)(x._a, *rest, **kwargs)
        return x if made is x._a else ndarray(np.asarray(made))
    kwargs.pop("blocking", None)
    host = getattr(np, name)(_host(x), *rest, **kwargs)
    return _checked(ndarray(np.array(host, order="K")), name)


def _host(values: Any) -> Any:
    """Lists of device arrays are stacked by CuPy."""
    if isinstance(values, (list, tuple)):
        return [_host(v) for v in values]
    return values._a if isinstance(values, ndarray) else values


def _reduction(name: str, in_numpy: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x = args[0]
    loops = TABLE["reductions"][name]
    names = ["axis", "dtype", "out", "keepdims"] if name in ("sum", "prod") else ["axis", "out", "keepdims"]
    given = {**dict(zip(names, args[1:], strict=False)), **kwargs}
    out, dtype = given.get("out"), given.get("dtype")
    _refuse(out, "out")
    loop = _first_loop(loops, [x.dtype]) if dtype is None else f"-> {np.dtype(dtype)}"
    if loop is None or loop.endswith("refused"):
        raise TypeError(f"Wrong type ({x.dtype}) of arguments for cupy_{name}")
    result = np.dtype(loop.split()[-1])
    wide = np.float32 if x.dtype in (BFLOAT16, np.float16) and name in ("sum", "prod") else None
    options = {k: v for k, v in given.items() if k in ("axis", "keepdims") and v is not None}
    if name in ("sum", "prod") and wide is None:
        options["dtype"] = result
    values = np.asarray(in_numpy(x._a if wide is None else x._a.astype(wide), **options)).astype(result)
    if out is None:
        return ndarray(values)
    out._a[...] = values
    return out


def _shared(made: Any, of: Any) -> Any:
    """Note which results are views of the first argument; CuPy's can all be written to."""
    for view in made if isinstance(made, (tuple, list)) else [made]:
        if not isinstance(view, ndarray):
            continue
        if isinstance(of, ndarray) and np.may_share_memory(view._a, of._a):
            view.base = of if of.base is None else of.base
        with suppress(ValueError):  # NumPy is careful with views that overlap themselves
            view._a.flags.writeable = True
    return made


def _checked(result: Any, name: str) -> Any:
    for r in result if isinstance(result, (tuple, list)) else [result]:
        if isinstance(r, ndarray) and r.dtype not in _DTYPES:
            raise TypeError(f"cupy.{name}: Unsupported dtype {r.dtype}")
    return result


def _first_loop(loops: list[str], kinds: list[Any]) -> str | None:
    """The first loop that the operands can be cast to; Python numbers are given as their types and are weak."""
    arrays = [k for k in kinds if isinstance(k, np.dtype)]
    weak = bool(arrays) and max(map(_score, arrays)) >= max(
        (_score(k) for k in kinds if isinstance(k, type)), default=-1
    )
    for loop in loops:
        for kind, name in zip(kinds, loop.split(" -> ")[0].split(), strict=True):
            wanted = np.dtype(name)
            if isinstance(kind, np.dtype):
                if not np.can_cast(kind, wanted):
                    break
            elif weak:
                try:
                    if np.result_type(kind(0), wanted) != wanted:
                        break
                except TypeError:
                    break
            elif not np.can_cast(np.dtype({bool: "?", int: "l", float: "d", complex: "D"}[kind]), wanted):
                break
        else:
            return loop
    return None


def _score(kind: Any) -> int:
    if isinstance(kind, np.dtype):
        return {"b": 0, "i": 1, "u": 1, "f": 2, "c": 2}.get(kind.kind, 3)
    return {bool: 0, int: 1, float: 2, complex: 2}[kind]


class Ufunc:
    """A ufunc of CuPy's, with its loops, its few methods, and arguments `out`, `dtype`, `casting` alone."""

    def __init__(self, name: str) -> None:
        self.__name__ = name
        self.table = TABLE["ufuncs"][name]
        self.name = self.table["name"]
        self.numpy = getattr(np, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        out, dtype = kwargs.pop("out", None), kwargs.pop("dtype", None)
        casting, where = kwargs.pop("casting", "same_kind"), kwargs.pop("where", True)
        if where is not True:
            raise TypeError(f"Wrong arguments {{'where': …}} for {self.name}")
        if kwargs:
            raise TypeError(f"Wrong arguments {kwargs}")
        if len(args) > self.numpy.nin:
            args, out = args[: self.numpy.nin], args[self.numpy.nin]
        out = out[0] if type(out) is tuple and len(out) == 1 else out
        for a in args:
            _refuse(a, f"an operand of {self.name}")
            if not isinstance(a, (ndarray, bool, int, float, complex, np.generic)):
                raise TypeError(f"Unsupported type {type(a)}")
        _refuse(out, "out")
        kinds = [a.dtype if hasattr(a, "dtype") else type(a) for a in args]
        if dtype is None:
            loop = _first_loop(self.table["loops"], kinds)
        else:
            loop = next((lo for lo in self.table["loops"] if lo.endswith(f"-> {np.dtype(dtype)}")), None)
        if loop is None or loop.endswith("refused"):
            raise TypeError(f"Wrong type ({kinds}) of arguments for {self.name}")
        computed, made = (tuple(map(np.dtype, side.split())) for side in loop.split(" -> "))
        return self._run(args, computed, made, out, casting)

    def _run(self, args: Any, computed: Any, made: Any, out: Any, casting: str) -> Any:
        """In the dtypes of the loop; 16-bit floats in float32, rounded once, as CuPy's kernels do."""
        wide = [np.dtype(np.float32) if d in (BFLOAT16, np.float16) else d for d in computed]
        operands = [
            a._a.astype(w, copy=False) if isinstance(a, ndarray) else w.type(a) for a, w in zip(args, wide, strict=True)
        ]
        with np.errstate(all="ignore"):
            results = self.numpy(*operands)
        results = results if type(results) is tuple else (results,)
        finals = [ndarray(np.asarray(r).astype(d, copy=False)) for r, d in zip(results, made, strict=True)]
        if out is None:
            return finals[0] if len(finals) == 1 else tuple(finals)
        outs = out if type(out) is tuple else (out,)
        for o, f in zip(outs, finals, strict=True):
            if not np.can_cast(f.dtype, o.dtype, casting):
                raise TypeError(f"output (typecode {f.dtype}) could not be coerced to {o.dtype} ({casting})")
            if np.broadcast_shapes(o.shape, f.shape) != o.shape:
                raise ValueError("Out shape is mismatched")
            o._a[...] = f._a
        return out

    def at(self, a: ndarray, indices: Any, b: Any = None) -> None:
        """`a[indices] op= b`, where CuPy has it."""
        dtypes = TABLE["at"].get(self.__name__)
        if dtypes is None:
            raise NotImplementedError(f"`{self.name}.at` is not supported yet")
        if str(a.dtype) not in dtypes:
            raise TypeError(f"cupy.{self.__name__}.at only supports {', '.join(dtypes)} as data type, got {a.dtype}")
        self.numpy.at(a._a, unwrap(indices, "an index"), unwrap(b))

    def reduce(self, array: Any, axis: Any = 0, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        """Sums and products alone."""
        if self.name not in ("cupy_add", "cupy_multiply"):
            raise NotImplementedError(f"`{self.name}.reduce` is not supported yet")
        return function("sum" if self.name == "cupy_add" else "prod")(array, axis, dtype, out, keepdims)

    def accumulate(self, array: Any, axis: Any = 0, dtype: Any = None, out: Any = None) -> Any:
        """Sums and products alone."""
        if self.name not in ("cupy_add", "cupy_multiply"):
            raise NotImplementedError(f"`{self.name}.accumulate` is not supported yet")
        return function("cumsum" if self.name == "cupy_add" else "cumprod")(array, axis, dtype, out)

    def outer(self, a: Any, b: Any, **kwargs: Any) -> Any:
        """All pairs."""
        return self(a.reshape(a.shape + (1,) * b.ndim), b, **kwargs)

    def reduceat(self, *_: Any, **__: Any) -> Any:
        """Not by the stand-in."""
        raise NotImplementedError(f"`{self.name}.reduceat` is not supported yet")


class Flags(SimpleNamespace):
    """CuPy's flags: three of them, and no `writeable`."""

    def __getitem__(self, name: str) -> bool:
        return bool(getattr(self, name.lower()))


class ndarray:
    """Device memory.  See Note [What the stand-in refuses]."""

    __slots__ = ("__weakref__", "_a", "base")
    __array_priority__ = 100

    def __init__(self, array: np.ndarray, base: ndarray | None = None) -> None:
        self._a = array
        self.base = None if base is None else base if base.base is None else base.base

    # what it is

    shape = property(lambda self: self._a.shape)
    dtype = property(lambda self: self._a.dtype)
    ndim = property(lambda self: self._a.ndim)
    size = property(lambda self: self._a.size)
    itemsize = property(lambda self: self._a.itemsize)
    nbytes = property(lambda self: self._a.nbytes)
    strides = property(lambda self: self._a.strides)
    device = property(lambda self: SimpleNamespace(id=0))
    data = property(lambda self: SimpleNamespace(ptr=self._a.ctypes.data, device_id=0))
    T = property(lambda self: wrap(self._a.T, self))
    mT = property(lambda self: wrap(self._a.mT, self))
    real = property(lambda self: wrap(self._a.real, self), lambda self, x: self._set_part("real", x))
    imag = property(lambda self: wrap(self._a.imag, self), lambda self, x: self._set_part("imag", x))

    def _set_part(self, part: str, value: Any) -> None:
        setattr(self._a, part, unwrap(value))

    @property
    def flags(self) -> Flags:
        """Contiguity."""
        f = self._a.flags
        return Flags(c_contiguous=f.c_contiguous, f_contiguous=f.f_contiguous, owndata=self.base is None)

    # to the host

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> np.ndarray:
        """A copy on the host."""
        SYNCS["get"] += 1
        return np.array(self._a, order=order)

    def item(self) -> Any:
        """The only element as a Python number."""
        SYNCS["item"] += 1
        return self._a.item()

    def tolist(self) -> Any:
        """As Python's lists."""
        SYNCS["tolist"] += 1
        return self._a.tolist()

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array "
            "explicitly."
        )

    def __len__(self) -> int:
        return len(self._a)

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self._a)))

    def __getitem__(self, key: Any) -> Any:
        at = _index(key)
        found = self._a[at]
        view = isinstance(found, np.ndarray) and np.may_share_memory(found, self._a)
        if isinstance(found, np.ndarray):
            return ndarray(found, self if view else None)
        return ndarray(self._a[(*at, ...)] if type(at) is tuple else self._a[at, ...], self)

    def __setitem__(self, key: Any, value: Any) -> None:
        _refuse(value, "the value written")
        if isinstance(value, (list, tuple)):
            raise TypeError("lists are no device arrays")
        self._a[_index(key)] = unwrap(value)

    # the protocols

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if ufunc.signature is not None and ufunc.__name__ != "matmul":
            return NotImplemented
        if ufunc.__name__ == "matmul":
            return function("matmul")(*inputs, **{k: v[0] if k == "out" else v for k, v in kwargs.items()})
        try:
            there = function(ufunc.__name__)
        except AttributeError:
            return NotImplemented
        if ufunc.__name__ in ("greater", "greater_equal", "less", "less_equal", "equal", "not_equal"):
            inputs = tuple(x.item() if isinstance(x, np.ndarray) and not x.ndim else x for x in inputs)
        return there(*inputs, **kwargs) if method == "__call__" else getattr(there, method)(*inputs, **kwargs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        name = ".".join([*func.__module__.split(".")[1:], func.__name__])
        try:
            there = function(name)
        except AttributeError:
            return NotImplemented
        return there(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        text = TABLE["methods"].get(name)
        if text is None or name.startswith("_"):
            raise AttributeError(f"'ndarray' object has no attribute {name!r}")
        return functools.partial(_method, self, name, text)

    def __reduce__(self) -> Any:
        return _from_host, (self.get(),)

    def __copy__(self) -> ndarray:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> ndarray:
        return self.copy()

    def __repr__(self) -> str:
        return repr(self._a)

    def __format__(self, spec: str) -> str:
        return format(self.get(), spec)


def _from_host(array: np.ndarray) -> ndarray:
    return ndarray(array)


def _index(key: Any) -> Any:
    _refuse(key, "an index")
    return unwrap(key, "an index")


_ALSO_FUNCTIONS = "argmax argmin mean var std cumsum cumprod take argsort nonzero repeat clip round searchsorted dot"
_AS_FUNCTIONS = set(_ALSO_FUNCTIONS.split())
_RETURNS_ITSELF = {"fill", "sort", "partition", "put"}


def _method(self: ndarray, name: str, text: str, *args: Any, **kwargs: Any) -> Any:
    """A method of the array: CuPy's arguments, NumPy's work."""
    _check_arguments(f"ndarray.{name}", text, args, kwargs)
    if name in TABLE["reductions"] or name in _AS_FUNCTIONS:
        if name == "clip":
            args = (*args, *[None] * (2 - len(args))) if len(args) < 2 and not kwargs else args
        return function(name)(self, *args, **kwargs)
    if self.dtype == BFLOAT16 and name in ("sort", "argsort", "partition", "argpartition"):
        raise TypeError(f"{name}: bfloat16 is not supported")
    if name == "astype":
        kwargs.pop("casting", None), kwargs.pop("subok", None)
    if name in ("scatter_add", "scatter_max", "scatter_min"):
        return Ufunc({"add": "add", "max": "maximum", "min": "minimum"}[name[8:]]).at(self, *args)
    _refuse(list(kwargs.values()), "an argument")
    result = getattr(self._a, name)(*unwrap(args, "an argument"), **unwrap(kwargs, "an argument"))
    if result is None or name in _RETURNS_ITSELF:
        return None
    if isinstance(result, np.ndarray) and np.may_share_memory(result, self._a):
        return self if result is self._a else ndarray(result, self)
    return _checked(wrap(result), name)


def _synchronising(name: str) -> Callable[..., Any]:
    def convert(self: ndarray) -> Any:
        SYNCS[name] += 1
        return getattr(self._a, name)()

    return convert


for _name in ("bool", "int", "float", "complex"):
    setattr(ndarray, f"__{_name}__", _synchronising(f"__{_name}__"))

_UFUNCS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide", "floordiv": "floor_divide",
    "mod": "remainder", "pow": "power", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor",
    "lshift": "left_shift", "rshift": "right_shift", "lt": "less", "le": "less_equal", "gt": "greater",
    "ge": "greater_equal", "eq": "equal", "ne": "not_equal",
}  # fmt: skip


def _operator(name: str, swapped: bool, in_place: bool) -> Callable[..., Any]:
    def operate(self: ndarray, other: Any) -> Any:
        if not isinstance(other, (ndarray, bool, int, float, complex, np.generic, np.ndarray)):
            return NotImplemented
        f = function("matmul") if name == "matmul" else Ufunc(name)
        result = f(other, self) if swapped else f(self, other, **({"out": self} if in_place else {}))
        return self if in_place else result

    return operate


for _dunder, _name in {**_UFUNCS, "matmul": "matmul"}.items():
    setattr(ndarray, f"__{_dunder}__", _operator(_name, False, False))
    if _name not in ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal"):
        setattr(ndarray, f"__r{_dunder}__", _operator(_name, True, False))
        if _name != "matmul":
            setattr(ndarray, f"__i{_dunder}__", _operator(_name, False, True))
for _dunder, _name in {"neg": "negative", "pos": "positive", "invert": "invert", "abs": "absolute"}.items():
    setattr(ndarray, f"__{_dunder}__", functools.partialmethod(lambda self, f: Ufunc(f)(self), _name))
ndarray.__hash__ = None  # type: ignore[assignment]
