"""How a record that draws random numbers calls its kernel: as `plan` says, with the state of a generator in front.

The state is no input of the record: nobody differentiates, batches or moves it, and what it is differs from call to
call.  So it is no part of a plan; the kernel reads and writes it where it is, under the generator's lock (Note
[Sources] in `kernels/random.py`), in eager work as in the tables of `program` and in the accelerator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rushlight_tensor.kernels.plan import C, Plan, Planned, _never


class Drawing(C):
    """The C kernel of a record that draws: its prototype begins with the state of `source`, a generator."""

    __slots__ = ("source",)

    def __init__(
        self,
        file: str,
        name: str,
        sizes: Callable[..., dict[str, int] | None],
        source: Any,
        wrong: Callable[..., Exception] | None = None,
        other: C | None = None,
    ) -> None:
        super().__init__(file, name, sizes, wrong, halves=False, other=other)
        self.source = source

    def bind(self, op: Any) -> Callable[..., Any]:
        """The `cpu` of a record, and its `numpy`."""
        planned = PlannedDraw(op, self)
        op.numpy = planned.text
        return planned.run


class PlannedDraw(Planned):
    """A record with such a kernel."""

    __slots__ = ()

    @property
    def source(self) -> Any:
        """The generator."""
        return self.kernel.source  # type: ignore[attr-defined]

    def run(self, *arrays: Any, **attrs: Any) -> Any:
        """The results, by the kernel where it can be had and takes such arrays, else by the NumPy text."""
        with self.source.lock:
            return super().run(*self.operands(arrays), **attrs)

    def operands(self, arrays: tuple[Any, ...]) -> tuple[Any, ...]:
        """What the kernel reads: the state, and the inputs."""
        return (self.source.words, *arrays)

    def plan_of(self, arrays: tuple[Any, ...], attrs: dict[str, Any]) -> Plan | None:
        """The plan of a call that has just gone well; None where it had none."""
        return super().plan_of(self.operands(arrays), attrs)

    def _otherwise(self, operands: tuple[Any, ...], attrs: dict[str, Any]) -> Any:
        _, *arrays = operands
        if self._fits is not _never and self.other is not None and not self._reads_dtypes(operands):
            return self.other.run(*arrays, **attrs)
        return self._by_text(tuple(arrays), attrs)

    def _descriptions(self, operands: tuple[Any, ...]) -> list[Any]:
        return super()._descriptions(operands[1:])

    def _expected(self) -> int:
        return self.op.arity + 1


class Sampled:
    """The kernels of a record whose text is a generator's sampler: they are called, and recorded, by that."""

    __slots__ = ("_text",)

    _text: Callable[..., Any]

    def bind(self, op: Any) -> Callable[..., Any]:
        """The `cpu` of a record: its `numpy`."""
        self._text = op.numpy
        return self.run

    def run(self, *arrays: Any, **attrs: Any) -> Any:
        """What the sampler makes."""
        return self._text(*arrays, **attrs)
