"""Anomaly mode: every node remembers the line that made it; a backward pass that fails or makes a NaN names it."""

from __future__ import annotations

import traceback
import weakref
from typing import Any

from rushlight_tensor.core import cuda, dispatch, inplace
from rushlight_tensor.core.graph import Node, Slot
from rushlight_tensor.core.lifted import bottom

_HERE = ("rushlight_tensor", "rushlight_autograd", "rushlight_nn")


class _Recorder:
    """The interceptor of anomaly mode: executes as usual, and keeps the stack of each recorded node."""

    outer: Any = None

    def __init__(self, check_nan: bool) -> None:
        self.check_nan = check_nan
        self.stacks: weakref.WeakKeyDictionary[Node, traceback.StackSummary] = weakref.WeakKeyDictionary()

    def execute(self, op: Any, arrays: list[Any], attrs: dict[str, Any]) -> Any:
        return dispatch.run(op, arrays, attrs) if self.outer is None else self.outer.execute(op, arrays, attrs)

    def write(self, op: Any, array: Any, others: list[Any], attrs: dict[str, Any]) -> None:
        (inplace.write if self.outer is None else self.outer.write)(op, array, others, attrs)

    def mutate(self, op: Any, arrays: list[Any], attrs: dict[str, Any]) -> None:
        (dispatch.run if self.outer is None else self.outer.mutate)(op, arrays, attrs)

    def read(self, x: Any) -> None:
        """Reading values is allowed."""

    def stored(self, leaf: Any) -> None:
        """Gradients may be stored."""

    def communicates(self, what: str) -> None:
        """Ranks may exchange data."""

    def recorded(self, node: Node) -> None:
        self.stacks[node] = traceback.StackSummary.from_list(traceback.extract_stack()[:-2])

    def pulled(self, node: Node, gradients: Any) -> None:
        """Check what a node made.  Raises RuntimeError naming the forward line of the first NaN."""
        if not self.check_nan:
            return
        for i, g in enumerate(gradients):
            array = None if g is None else cuda.to_host(bottom(g._array))
            if array is not None and (array != array).any():
                raise RuntimeError(
                    f"Function '{node.name()}' returned nan values in its {i}th output. {self.origin(node)}"
                )

    def origin(self, node: Node) -> str:
        """Where the forward operation of a node was called, for a message."""
        stack = self.stacks.get(node.parent if isinstance(node, Slot) else node)
        if stack is None:
            return "The forward operation was not recorded in anomaly mode."
        users = [f for f in stack if not any(f"{name}/" in f.filename.replace("\\", "/") for name in _HERE)]
        at = (users or list(stack))[-1]
        return (
            f"The forward operation was called at {at.filename}:{at.lineno}: {at.line}\n"
            f"Traceback of forward call that caused the error:\n{''.join(stack.format())}"
        )


def current() -> _Recorder | None:
    """The recorder, while anomaly mode is on."""
    at = dispatch.INTERCEPT
    while at is not None and not isinstance(at, _Recorder):
        at = getattr(at, "outer", None)  # one that another thread has put in front
    return at


class detect_anomaly:
    """Inside, an error or NaN in a backward pass names the forward line it came from.  Slow: for debugging.

    Args:
        check_nan: Look for NaN in every gradient.
    """

    def __init__(self, check_nan: bool = True) -> None:
        self.check_nan = check_nan

    def __enter__(self) -> None:
        self._recorder = _Recorder(self.check_nan)
        dispatch.enter_intercept(self._recorder)

    def __exit__(self, *exc: object) -> None:
        dispatch.leave_intercept(self._recorder)


class set_detect_anomaly:
    """Turn anomaly mode on or off, until the end of the block when used with `with`."""

    def __init__(self, mode: bool, check_nan: bool = True) -> None:
        self._before = dispatch.set_intercept(_Recorder(check_nan) if mode else None)

    def __enter__(self) -> None:
        """The mode is on since the call."""

    def __exit__(self, *exc: object) -> None:
        dispatch.set_intercept(self._before)


def is_anomaly_enabled() -> bool:
    """Whether anomaly mode is on."""
    return current() is not None
