"""A compiled module: a Module around the original, whose parameters, buffers, modes and hooks are the original's."""

from __future__ import annotations

from typing import Any

from rushlight_nn.modules.module import Module

_OWN = frozenset({"_orig_mod", "_run"})


class OptimizedModule(Module):
    """What `compile(module)` returns: runs the graph, is otherwise the original.

    Names of parameters begin with `_orig_mod.`, as in PyTorch; attributes are read from and set on the original.

    Args:
        original: The module.
        run: Calls it, compiled.
    """

    def __init__(self, original: Module, run: Any) -> None:
        super().__init__()
        self.__dict__.pop("training")
        self._modules["_orig_mod"] = original
        self.__dict__["_run"] = run

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the original gives."""
        return self._run(*args, **kwargs)

    @property
    def training(self) -> bool:
        """The mode of the original."""
        mode: bool = self._modules["_orig_mod"].training  # type: ignore[union-attr]
        return mode

    @training.setter
    def training(self, mode: bool) -> None:
        self._modules["_orig_mod"].training = mode  # type: ignore[union-attr]

    def __getattr__(self, name: str) -> Any:
        own = self.__dict__
        original = own["_modules"].get("_orig_mod") if "_modules" in own else None  # None while being unpickled
        if original is None:
            raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")
        if name == "_orig_mod":
            return original
        try:
            return getattr(original, name)
        except AttributeError:
            if name.startswith("_") or not hasattr(self._run, name):
                raise
            return getattr(self._run, name)  # `breaks`, `graph`, `source()` of the compiled call

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__ or name in _OWN or hasattr(type(self), name):
            object.__setattr__(self, name, value)
        else:
            setattr(self._modules["_orig_mod"], name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._modules["_orig_mod"], name)


Module._compiled_as = OptimizedModule
