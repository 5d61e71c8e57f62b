"""What CuPy has, as a table for its stand-in in the tests: functions, methods and arguments, ufuncs and their dtypes.

Needs CuPy (`pip install cupy-cuda12x`), but no GPU: it imports and says what it has without one.  Writes
tests/device/cupy.json, which the tests read; they need no CuPy.  A signature is text: `name` is required, `name=`
may be left out, `*` begins what is passed by keyword alone, `/` ends what is passed by position alone.
"""

from __future__ import annotations

import inspect
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parents[1] / "tests" / "device" / "cupy.json"
ROOMS = ("", "linalg", "fft", "lib.stride_tricks", "random")
REDUCTIONS = {  # what CuPy's function is made of, for the dtypes
    "sum": ("_routines_math", "sum_auto_dtype"),
    "prod": ("_routines_math", "prod_auto_dtype"),
    "max": ("_routines_statistics", "amax"),
    "min": ("_routines_statistics", "amin"),
    "nanmax": ("_routines_statistics", "nanmax"),
    "nanmin": ("_routines_statistics", "nanmin"),
    "all": ("_routines_logic", "all"),
    "any": ("_routines_logic", "any"),
}
_DOCUMENTED = re.compile(r"^[\w.]+\((.*)\)")


def main() -> None:
    """Write the table."""
    import cupy

    table = {
        "version": cupy.__version__,
        "functions": dict(functions(cupy)),
        "at": dict(scatters(cupy._core._routines_indexing.__file__)),
        "ufuncs": {n: ufunc(f) for n in dir(cupy) if type(f := getattr(cupy, n)).__name__ == "ufunc"},
        "reductions": {n: loops(getattr(getattr(cupy._core, m), f)) for n, (m, f) in REDUCTIONS.items()},
        "methods": {n: method(getattr(cupy.ndarray, n)) for n in dir(cupy.ndarray) if not n.startswith("_")},
        "special": [n for n in dir(cupy.ndarray) if re.fullmatch("__[a-z]+__", n)],
    }
    lines = []
    for room, content in table.items():
        if isinstance(content, dict):
            entries = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(content.items()))
            lines.append(f' "{room}": {{\n{entries}\n }}')
        else:
            lines.append(f' "{room}": {json.dumps(content)}')
    TABLE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{TABLE}: {', '.join(f'{len(v)} {k}' for k, v in table.items() if isinstance(v, dict))}")


def functions(cupy: Any) -> Iterator[tuple[str, str]]:
    """Every function of the public modules that is no ufunc: its name under `cupy`, and its signature."""
    for room in ROOMS:
        module = cupy
        for part in filter(None, room.split(".")):
            module = getattr(module, part)
        for name in dir(module):
            f = getattr(module, name)
            # NumPy's own, which CuPy passes on, know nothing of its arrays
            of_numpy = (getattr(f, "__module__", None) or "").startswith("numpy")
            if name.startswith("_") or not callable(f) or isinstance(f, type) or of_numpy:
                continue
            if type(f).__name__ != "ufunc":
                yield f"{room}.{name}".lstrip("."), signature(f)


def signature(f: Any) -> str:
    """The parameters of a function as text; `*, **` where CuPy does not say."""
    try:
        parameters = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):
        said = _DOCUMENTED.match((getattr(f, "__doc__", None) or "").split("\n")[0])
        return said.group(1) if said else "*, **"
    out: list[str] = []
    starred = False
    for p in parameters:
        if p.kind is p.KEYWORD_ONLY and not starred:
            out.append("*")
            starred = True
        if p.kind is p.VAR_POSITIONAL:
            out.append(f"*{p.name}")
            starred = True
        elif p.kind is p.VAR_KEYWORD:
            out.append(f"**{p.name}")
        else:
            out.append(p.name if p.default is p.empty else f"{p.name}=")
    if any(p.kind is p.POSITIONAL_ONLY for p in parameters):
        out.insert(sum(p.kind is p.POSITIONAL_ONLY for p in parameters), "/")
    return ", ".join(out)


def method(f: Any) -> str | None:
    """The parameters of a method, from the first line of its documentation; None for a property."""
    if not callable(f):
        return None
    said = _DOCUMENTED.match((f.__doc__ or "").split("\n")[0])
    if said is None:
        return signature(f).removeprefix("self, ").removeprefix("self")
    names = []
    for part in said.group(1).split(","):
        name, _, default = part.strip().partition("=")
        if name != "self":
            names.append(name.split()[-1] + "=" * bool(default))
    return ", ".join(names)


def ufunc(f: Any) -> dict[str, Any]:
    """CuPy's own name of a ufunc, and its loops."""
    return {"name": f.name, "loops": loops(f)}


def scatters(library: str) -> Iterator[tuple[str, list[str]]]:
    """The dtypes in which a ufunc has `.at`: CuPy names them in an error alone, which its library holds zipped."""
    content = Path(library).read_bytes()
    for start in re.finditer(rb"\x78[\x01\x5e\x9c\xda]", content):
        try:
            text = zlib.decompressobj().decompress(content[start.start() :]).decode(errors="replace")
        except zlib.error:
            continue
        for name, dtypes in re.findall(r"cupy\.(\w+)\.at only supports ([\w, ]+?) as data type", text):
            yield name, re.findall(r"\w+", dtypes)


def loops(f: Any) -> list[str]:
    """`in in -> out` in CuPy's order: the first that the operands can be cast to counts; `refused`: by TypeError."""
    out = []
    for op in f._ops.ops:
        refused = getattr(op, "error_func", None) is not None
        line = f"{' '.join(map(str, op.in_types))} -> {'refused' if refused else ' '.join(map(str, op.out_types))}"
        if line not in out:  # long and long long are one
            out.append(line)
    return out


if __name__ == "__main__":
    main()
