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
        self._own_group = group.duplicate(f"DistributedDataParallel({type(module).__name__})")
        _check_same(self._own_group, named)
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


def _check_same(group: ProcessGroup, named: list[tuple[str, Any]]) -> None:
    """Raise RuntimeError, naming the first difference, unless all ranks hold the same parameters."""
    mine = [(name, tuple(p.shape), str(p.dtype)) for name, p in named]
    found: list[Any] = []
    group.run(("check of parameters",), lambda: found.extend(group.comm.all_gather_object(mine)))
    for rank, theirs in enumerate(found):
        if theirs == found[0]:
            continue
        if len(theirs) != len(found[0]):
            what = f"rank {rank} has {len(theirs)} parameters, rank 0 has {len(found[0])}"
        else:
            a, b = next((a, b) for a, b in zip(theirs, found[0], strict=True) if a != b)
            what = f"rank {rank} has {a[0]} of {a[2]}{list(a[1])}, rank 0 has {b[0]} of {b[2]}{list(b[1])}"
        raise RuntimeError(f"DistributedDataParallel: the ranks' modules differ: {what}; build the same on every rank")
