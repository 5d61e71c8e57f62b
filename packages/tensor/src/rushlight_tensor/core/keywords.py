"""Arguments as PyTorch takes them where a signature cannot say it: `f(x, 2, 3)` is also `f(x, size=(2, 3))`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from rushlight_tensor.core.labels import strided

F = TypeVar("F", bound=Callable[..., Any])


def also_as(*names: str) -> Callable[[F], F]:
    """The positional arguments of a function that takes any number of them may be given under these names, in order."""

    def decorate(fn: F) -> F:
        @wraps(fn)
        def call(*args: Any, **kwargs: Any) -> Any:
            if not kwargs.keys().isdisjoint(names):
                args = (*args, *[kwargs.pop(name) for name in names if name in kwargs])
            return fn(*args, **kwargs)

        call.keywords = names  # type: ignore[attr-defined]  # read by the tests that compare signatures
        return cast(F, call)

    return decorate


def factory(*names: str) -> Callable[[F], F]:
    """`also_as` for functions that make tensors: they take PyTorch's words about memory where these change nothing."""

    def decorate(fn: F) -> F:
        @wraps(fn)
        def make(*args: Any, **kwargs: Any) -> Any:
            if kwargs:
                if kwargs.pop("layout", None) not in (None, strided):
                    raise RuntimeError(f"{fn.__name__}(): only layout=torch.strided is supported")
                kwargs.pop("pin_memory", None)  # host memory is pageable here
                if not kwargs.keys().isdisjoint(names):
                    args = (*args, *[kwargs.pop(name) for name in names if name in kwargs])
            return fn(*args, **kwargs)

        make.keywords = (*names, "layout", "pin_memory")  # type: ignore[attr-defined]
        return cast(F, make)

    return decorate


def named(function: str, given: dict[str, Any], *names: str) -> tuple[Any, ...]:
    """The same for a function that is called too often to be wrapped: what its `**given` holds under `names`."""
    odd = given.keys() - set(names)
    if odd:
        raise TypeError(f"{function}() got an unexpected keyword argument {min(odd)!r}")
    return tuple([given[name] for name in names if name in given])


NUMPY = {"axis": "dim", "keepdims": "keepdim", "x": "input", "a": "input", "x1": "input", "x2": "other"}
"""NumPy's names of arguments, which PyTorch takes as well."""


def from_numpy(given: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments of a call under PyTorch's names."""
    return {NUMPY.get(name, name): value for name, value in given.items()}


def legacy_reduction(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    """The reduction that the arguments mean together.

    PyTorch's two old arguments of losses come before `reduction`, and win over it, with a warning: `reduce=False` is
    "none", `size_average=False` is "sum".
    """
    if size_average is None and reduce is None:
        return reduction
    chosen = "none" if reduce is False else "sum" if size_average is False else "mean"
    warnings.warn(
        f"size_average and reduce args will be deprecated, please use reduction='{chosen}' instead.", stacklevel=4
    )
    return chosen
