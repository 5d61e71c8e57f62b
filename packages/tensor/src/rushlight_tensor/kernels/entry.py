"""Objects of the jit that are called through C (`c/accelerator_compiled.h`), where there is an accelerator.

Note [Entries]
    A call of an object whose class has a `__call__` in Python takes CPython 0.1 µs before the first line of it runs,
    as long as a small op.  So the objects are made of a class of C's that differs from its Python twin in one thing:
    it is called through a pointer in the object.  The twin says all that C does, and is what runs without a compiler.
"""

from __future__ import annotations

import ctypes
from typing import Any

from rushlight_tensor.kernels import accelerator

_made: dict[Any, tuple[Any, Any]] = {}  # library to its class, and to what makes an object of it


def new(cls: Any, twin: Any, hit: type) -> Any:
    """An object of `cls`, not yet initialised, called through C if `cls` is `twin`; `hit` is what `twin` keeps."""
    if accelerator.WAKE is not None:
        accelerator.WAKE()
    library = accelerator.LOADED
    if library is not None and library not in _made:
        _made[library] = _taken(library.shared, twin, hit)
    fast, make = _made.get(library, (None, None))
    return make(twin.__basicsize__) if make is not None and cls in (twin, fast) else object.__new__(cls)


def _taken(shared: Any, twin: Any, hit: type) -> tuple[Any, Any]:
    """The class of C's, and what makes an object of it."""
    at = accelerator.offsets(twin, ("_fn", "_hits", "_last", "_small"))
    at += accelerator.offsets(hit, ("joint", "run", "words"))
    of, integer = ctypes.py_object, ctypes.c_int64
    named = ctypes.PYFUNCTYPE(of, of, of, integer, ctypes.c_void_p)(("rl_compiled_type", shared))
    fast = named(twin, twin.__call__, twin.__basicsize__, (integer * len(at))(*at))
    return fast, ctypes.PYFUNCTYPE(of, integer)(("rl_compiled_new", shared))
