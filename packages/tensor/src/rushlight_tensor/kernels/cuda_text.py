"""CUDA text of elementwise kernels, from the one C expression that an op's record holds.

Note [Types in generated kernels]
    The expression is C, written once for all dtypes.  float16 and bfloat16 are loaded as float and rounded when stored;
    integers are computed in 64 bits, as bool is.  Functions need no `f` suffix: CUDA overloads `exp` for float and
    double, and `cuda/elementwise.cuh` adds integers to the roundings, `pow` and `fmod`.  A literal such as `0.5`
    becomes a literal of the computing type: as a double it would draw the whole expression into double precision, 64
    times slower on most GPUs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SOURCES = Path(__file__).parent / "cuda"
MAX_DIMS = 8

# dtype name: how an element is stored, and what it is computed in
_TYPES = {
    "float64": ("double", "double"),
    "float32": ("float", "float"),
    "float16": ("__half", "float"),
    "bfloat16": ("__nv_bfloat16", "float"),
    "int64": ("long long", "long long"),
    "int32": ("int", "long long"),
    "int16": ("short", "long long"),
    "int8": ("signed char", "long long"),
    "uint8": ("unsigned char", "long long"),
    "bool": ("bool", "long long"),
}
_RANK = ("long long", "float", "double")

_NAME = re.compile(r"\{(\w+)\}")
_LITERAL = re.compile(r"(?<![\w.])(\d+\.\d*(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+)(?![\w.])")
_INCLUDE = re.compile(r'^#include "(\w+\.cuh)"$', re.MULTILINE)


@dataclass(frozen=True)
class Elementwise:
    """One kernel to generate.

    Args:
        name: Its name; the text holds `<name>_flat` and `<name>_strided`.
        expr: C expression over `{input}` and `{attribute}`.
        inputs: Name and dtype of each input; a dtype of None means a number, passed by value.
        attrs: Name of each attribute that the expression uses, and whether it is a float.
        out: Dtype of the result.
    """

    name: str
    expr: str
    inputs: tuple[tuple[str, str | None], ...]
    attrs: tuple[tuple[str, bool], ...]
    out: str

    @property
    def computing(self) -> str:
        """The C type of the arithmetic: the widest that the inputs need."""
        kinds = [_types(dtype)[1] for _, dtype in self.inputs if dtype is not None]
        return max(kinds, key=_RANK.index)


def attributes_of(expr: str, inputs: tuple[str, ...]) -> tuple[str, ...]:
    """Names in an expression that are not inputs, in order of appearance."""
    return tuple(dict.fromkeys(name for name in _NAME.findall(expr) if name not in inputs))


def source(file: str) -> str:
    """The text of `cuda/<file>` with its own headers put in: one text is what NVRTC compiles."""
    return _INCLUDE.sub(lambda match: source(match.group(1)), (SOURCES / file).read_text())


def elementwise_text(kernels: list[Elementwise]) -> str:
    """CUDA text of one or more kernels.  See Note [Types in generated kernels].

    Raises:
        TypeError: A dtype has no CUDA kernels.
    """
    return source("elementwise.cuh") + "".join(_kernel(kernel) for kernel in kernels)


def number_dtype(kernel: Elementwise, is_float: bool = False) -> np.dtype:
    """The NumPy dtype in which a number is handed to the kernel."""
    if is_float and kernel.computing == "long long":
        return np.dtype(np.float64)
    return np.dtype({"double": np.float64, "float": np.float32, "long long": np.int64}[kernel.computing])


def _types(dtype: str) -> tuple[str, str]:
    if dtype not in _TYPES:
        raise TypeError(f"no CUDA kernels for {dtype}: supported are {', '.join(_TYPES)}")
    return _TYPES[dtype]


def _kernel(kernel: Elementwise) -> str:
    arrays = [(name, *_types(dtype)) for name, dtype in kernel.inputs if dtype is not None]
    numbers = [(name, kernel.computing) for name, dtype in kernel.inputs if dtype is None]
    numbers += [
        (name, "double" if f and kernel.computing == "long long" else kernel.computing) for name, f in kernel.attrs
    ]
    stored = _types(kernel.out)[0]
    pointers = "".join(f"const {storage} *__restrict__ {name}_at, " for name, storage, _ in arrays)
    values = "".join(f"{kind} {name}, " for name, kind in numbers)
    flat = "".join(f"        const {kind} {name} = load({name}_at[i]);\n" for name, _, kind in arrays)
    strided = "".join(
        f"        const {kind} {name} = load({name}_at[where.offset({n}, i)]);\n"
        for n, (name, _, kind) in enumerate(arrays)
    )
    store = f"        store(out[i], {_expression(kernel)});\n    }}\n}}\n"
    head = f'\nextern "C" __global__ void {kernel.name}'
    return (
        f"{head}_flat({pointers}{values}{stored} *__restrict__ out, long long size) {{\n"
        f"    EACH(i, size) {{\n{flat}{store}"
        f"{head}_strided({pointers}{values}{stored} *__restrict__ out, Layout<{len(arrays)}> where) {{\n"
        f"    EACH(i, where.size) {{\n{strided}{store}"
    )


def _expression(kernel: Elementwise) -> str:
    literal = kernel.computing if kernel.computing in ("float", "double") else "double"
    text = _LITERAL.sub(lambda match: f"{literal}({match.group(1)})", kernel.expr)
    return _NAME.sub(r"\1", text)
