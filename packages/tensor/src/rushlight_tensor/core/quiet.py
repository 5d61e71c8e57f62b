"""NumPy without floating point warnings: what the user set as error state or warning filters changes no op of ours.

Note [Quiet numerics]
    NumPy keeps its error state in a context variable.  Where it says "ignore", ufuncs neither warn nor raise nor call
    back; and a value set for the time of a call is seen by nobody outside, unlike a warning filter.

        quiet(fn, *args)    a call in a context of our own: 17 ns.  A context can be entered only once at a time, so
                            inside another `quiet`, or beside another thread, it raises RuntimeError before `fn` is
                            called (`is_busy` tells); the caller then takes
        quietly(fn, *args)  which sets the variable and always works: 130 ns, `np.errstate` 300
        hush(fn, *args)     the first where it can be, else the second
        hushed(fn)          the second as a decorator
        silence()           from here to `restore`: a backward pass, whose rules are hundreds of calls
        loud(token, fn)     in the midst of that, a user's function in the user's own state
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context, Token
from functools import wraps
from typing import Any, TypeVar

import numpy as np

F = TypeVar("F", bound=Callable[..., Any])

QUIET = Context()
"""The context that `quiet` enters."""

QUIET.run(np.seterr, all="ignore")
((_STATE, _IGNORE),) = QUIET.items()  # NumPy's variable, by what `seterr` has set in an empty context
_USUAL = Context().run(_STATE.get)

quiet = QUIET.run


def is_busy(e: BaseException) -> bool:
    """Whether `quiet` raised `e`, and its function was not called."""
    return type(e) is RuntimeError and str(e).startswith("cannot enter context")


def quietly(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """`fn(*args, **kwargs)` without floating point warnings and errors of NumPy."""
    token = _STATE.set(_IGNORE)
    try:
        return fn(*args, **kwargs)
    finally:
        _STATE.reset(token)


def hush(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """`quiet` where that can be, else `quietly`."""
    try:
        return quiet(fn, *args, **kwargs)
    except RuntimeError as e:
        if not is_busy(e):
            raise
    return quietly(fn, *args, **kwargs)


def hushed(fn: F) -> F:
    """A function that always runs as `quietly` runs it."""

    @wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        return quietly(fn, *args, **kwargs)

    return call  # type: ignore[return-value]


def silence() -> Token[Any]:
    """Ignore floating point errors in this thread until `restore(token)`."""
    return _STATE.set(_IGNORE)


def restore(token: Token[Any]) -> None:
    """The end of what `silence` began."""
    _STATE.reset(token)


def loud(token: Token[Any], fn: Callable[..., Any], /, *args: Any) -> Any:
    """`fn(*args)` in the error state that was there before `token = silence()`."""
    before = token.old_value
    inner = _STATE.set(_USUAL if before is Token.MISSING else before)
    try:
        return fn(*args)
    finally:
        _STATE.reset(inner)
