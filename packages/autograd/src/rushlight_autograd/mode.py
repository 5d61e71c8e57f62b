"""Grad modes: whether operations are recorded, in this thread, from here to the end of a block."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Self, TypeVar, overload

from rushlight_tensor.core.dispatch import MODE

F = TypeVar("F", bound=Callable[..., Any])


class _Mode:
    """A context manager and decorator that sets the mode and puts the old one back; also per step of a generator."""

    grad: bool
    inference: bool | None = None

    def __enter__(self) -> None:
        self._before = (MODE.grad, MODE.inference)
        MODE.grad = self.grad
        if self.inference is not None:
            MODE.inference = self.inference

    def __exit__(self, *exc: object) -> None:
        MODE.grad, MODE.inference = self._before

    def _again(self) -> Any:
        return type(self)()

    def __call__(self, fn: F) -> F:
        if inspect.isgeneratorfunction(fn):

            @functools.wraps(fn)
            def generator(*args: Any, **kwargs: Any) -> Any:
                steps = fn(*args, **kwargs)
                try:
                    while True:
                        with self._again():
                            value = next(steps)
                        yield value
                except StopIteration as end:
                    return end.value

            return generator  # type: ignore[return-value]

        @functools.wraps(fn)
        def call(*args: Any, **kwargs: Any) -> Any:
            with self._again():
                return fn(*args, **kwargs)

        return call  # type: ignore[return-value]


class _Bare(_Mode):
    """A mode without arguments, which may decorate a function with or without parentheses."""

    @overload
    def __new__(cls, fn: None = None) -> Self: ...
    @overload
    def __new__(cls, fn: F) -> F: ...  # type: ignore[misc]
    def __new__(cls, fn: Any = None) -> Any:
        self = super().__new__(cls)
        return self if fn is None else self(fn)


class no_grad(_Bare):
    """Record nothing inside.  `with no_grad():`, `@no_grad()` or `@no_grad`."""

    grad = False


class enable_grad(_Bare):
    """Record inside, also within `no_grad`."""

    grad = True


class set_grad_enabled(_Mode):
    """Turn recording on or off: at once when called, and until the end of the block when used with `with`."""

    def __init__(self, mode: bool) -> None:
        self.grad = bool(mode)
        self._before = (MODE.grad, MODE.inference)
        MODE.grad = self.grad

    def __enter__(self) -> None:
        MODE.grad = self.grad

    def _again(self) -> Any:
        return type(self)(self.grad)

    def __call__(self, fn: F) -> F:
        MODE.grad = self._before[0]
        return super().__call__(fn)


class inference_mode(_Mode):
    """`no_grad`, and `is_inference_mode_enabled()` says so."""

    @overload
    def __new__(cls, mode: bool = True) -> Self: ...
    @overload
    def __new__(cls, mode: F) -> F: ...  # type: ignore[misc]
    def __new__(cls, mode: Any = True) -> Any:
        self = super().__new__(cls)
        if callable(mode):
            self.__init__(True)  # type: ignore[misc]
            return self(mode)
        return self

    def __init__(self, mode: bool = True) -> None:
        self.inference = bool(mode)

    def __enter__(self) -> None:
        self.grad = False if self.inference else MODE.grad
        super().__enter__()

    def _again(self) -> Any:
        return type(self)(bool(self.inference))


def is_grad_enabled() -> bool:
    """Whether operations are recorded in this thread."""
    return MODE.grad


def is_inference_mode_enabled() -> bool:
    """Whether this thread is inside `inference_mode`."""
    return MODE.inference
