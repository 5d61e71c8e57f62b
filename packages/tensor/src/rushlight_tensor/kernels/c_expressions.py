"""C text of the one expression that an elementwise record holds, for a dtype: literals, and the names of functions.

Note [Vector forms]
    `exp`, `tanh` and `erf` of float32 are those of `c/vmath.h`, at every size, in eager code and in fused kernels:
    there is one arithmetic.  Other functions are the C library's.
"""

from __future__ import annotations

import re

VECTOR_FORMS = {"exp": "vexp", "tanh": "vtanh", "erf": "verf"}

_FUNCTION = re.compile(r"\b([a-z]\w*)(?=\s*\()")
_LITERAL = re.compile(r"(?<![\w.])(\d+\.\d*(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+)(?![\w.])")


def functions_of(text: str) -> frozenset[str]:
    """The functions that an expression calls."""
    return frozenset(_FUNCTION.findall(text))


def in_float(text: str) -> str:
    """An expression, its operands filled in, in C's float arithmetic."""
    text = _LITERAL.sub(lambda m: m.group(1) + "f", text)
    return _FUNCTION.sub(lambda m: VECTOR_FORMS.get(m.group(1), m.group(1) + "f"), text)
