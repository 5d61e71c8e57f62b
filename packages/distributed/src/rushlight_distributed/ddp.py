"""DistributedDataParallel: the same module on every rank, each with its share of the batch, gradients averaged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rushlight_distributed.group import ProcessGroup, default_group
from rushlight_distributed.reducer import Reducer, broadcast_together
from rushlight_nn import Module
from rushlight_tensor import Tensor

BUCKET_MB = 4.0


class DistributedDataParallel(Module):
    """Wraps a module so that `backward()` leaves the mean of all ranks' gradients in `.grad`; PyTorch's class.

    Parameters and buffers start as rank 0's; buffers are rank 0's again before every forward in training. In a world of
    one it adds nothing.

    Args:
        module: The same on every rank, with at least one parameter that requires a gradient.
        device_ids, output_device, dim, static_graph: PyTorch's, taken and not needed: a module is on one device.
        broadcast_buffers: Send rank 0's buffers before each forward in training.
        init_sync: Send rank 0's parameters and buffers now.
        process_group: The ranks that take part; the world by default.
        bucket_cap_mb: Size of a gradient bucket in MiB, 4 by default: large enough for the wire, small enough to
            overlap with the rest of the backward pass.
        find_unused_parameters: Allow parameters that a backward pass does not reach; without it they are an error that
            names them.
        gradient_as_bucket_view: Make `.grad` a view of the bucket, which saves a copy; do not `detach_()` it.

    Raises:
        RuntimeError: No parameter requires a gradient, or the ranks' modules differ.
        ValueError: There is no process group yet.
    """

    def __init__(
        self,
        module: Module,
        device_ids: Any = None,
        output_device: Any = None,
        dim: int = 0,
        broadcast_buffers: bool = True,
        init_sync: bool = True,
        process_group: ProcessGroup | None = None,
        bucket_cap_mb: float | None = None,
        find_unused_parameters: bool = False,
        gradient_as_bucket_view: bool = False,
        static_graph: bool = False,
    ) -> None:
        super().__init__()
        group = process_group or default_group()
        named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        if not named:
            raise RuntimeError(
                "DistributedDataParallel is not needed when a module doesn't have any parameters that require a "
                "gradient."
            )
        if bucket_cap_mb is not None and bucket_cap_mb <= 0:
            raise ValueError(f"bucket_cap_mb must be positive, got {bucket_cap_mb}")
        self.module = module
        self.process_group = group
        self.broadcast_buffers = broadcast_buffers
        self.find_unused_parameters = find_unused_parameters
        self.gradient_as_bucket_view = gradient_as_bucket_view
        self.require_backward_grad_sync = True
        self.reducer: Reducer | None = None
        if group.size() == 1:
            return
        names = [name for name, _ in named]
        own_name = f"DistributedDataParallel({type(module).__name__})"
        made: list[ProcessGroup] = []
        group.run(("DistributedDataParallel",), lambda: made.append(group.duplicate(own_name)))
        self._own_group = made[0]
        options = {
            "broadcast_buffers": broadcast_buffers,
            "init_sync": init_sync,
            "bucket_cap_mb": bucket_cap_mb,
            "find_unused_parameters": find_unused_parameters,
            "gradient_as_bucket_view": gradient_as_bucket_view,
        }
        _check_same(self._own_group, module, options)
        if init_sync:
            everything = [*module.parameters(), *self._buffers_of_module()]
            broadcast_together(self._own_group, "broadcast of parameters and buffers", everything)
        self.reducer = Reducer(
            self._own_group,
            names,
            [p for _, p in named],
            cap_bytes=int((bucket_cap_mb or BUCKET_MB) * 2**20),
            find_unused=find_unused_parameters,
            as_views=gradient_as_bucket_view,
        )

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """The module's own forward, on this rank's inputs."""
        reducer = self.reducer
        if reducer is not None:
            reducer.enabled = self.require_backward_grad_sync
            reducer.reset()
            if self.broadcast_buffers and self.training and self.require_backward_grad_sync:
                buffers = self._buffers_of_module()
                if buffers:
                    broadcast_together(self._own_group, "broadcast of buffers", buffers)
        return self.module(*inputs, **kwargs)

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Gradients of forwards inside only accumulate on this rank; the first backward after it sends the sum."""
        before, self.require_backward_grad_sync = self.require_backward_grad_sync, False
        try:
            yield
        finally:
            self.require_backward_grad_sync = before

    def _buffers_of_module(self) -> list[Tensor]:
        return [b for b in self.module.buffers() if b is not None]


def _check_same(group: ProcessGroup, module: Module, options: dict[str, Any]) -> None:
    """Raise RuntimeError, naming the first difference, unless all ranks have the same parameters, buffers, options."""

    def one(name: str, kind: str, tensor: Tensor) -> tuple[str, str]:
        return name, f"{kind} of {tensor.dtype}{list(tensor.shape)}"

    params = [
        one(name, "a parameter" if p.requires_grad else "a frozen parameter", p)
        for name, p in module.named_parameters()
    ]
    buffers = [one(name, "a buffer", b) for name, b in module.named_buffers() if b is not None]
    mine = {"parameters": params, "buffers": buffers, "options": list(options.items())}
    found: list[Any] = []
    group.run(("check of parameters",), lambda: found.extend(group.comm.all_gather_object(mine)))
    for rank, theirs in enumerate(found):
        for what, first in found[0].items():
            if theirs[what] != first:
                said = _difference(what, group.ranks[rank], theirs[what], group.ranks[0], first)
                raise RuntimeError(
                    f"DistributedDataParallel: the ranks' modules differ: {said}; build the same on every rank"
                )


def _difference(what: str, rank: int, theirs: list[tuple[str, Any]], rank0: int, first: list[tuple[str, Any]]) -> str:
    if len(theirs) != len(first):
        extra = [name for name, _ in theirs if name not in dict(first)] or [
            n for n, _ in first if n not in dict(theirs)
        ]
        only = f", such as {extra[0]}" if extra else ""
        return f"rank {rank} has {len(theirs)} {what}, rank {rank0} has {len(first)}{only}"
    (a, x), (b, y) = next((p, q) for p, q in zip(theirs, first, strict=True) if p != q)
    if what == "options":
        return f"rank {rank} was given {a}={x}, rank {rank0} {b}={y}"
    return f"rank {rank} has {a}, {x}; rank {rank0} has {b}, {y}"
