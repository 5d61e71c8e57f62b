"""Bucket reducer: when a gradient is final, when it is sent, in which order.

Note [Bucket order]
    Gradients become final roughly from the last layer to the first, so parameters fill buckets in the reverse order of
    their registration.  The first bucket is small: it starts the exchange early.  Buckets are sent strictly in their
    order, however gradients arrive, because all ranks must agree on it and arrival may differ from rank to rank.  A
    bucket is sent by a thread with a communicator of its own, while the backward pass goes on.

Note [Mean on packing]
    The division by the number of ranks is the multiplication that copies a gradient into its bucket: it costs nothing,
    and sums of many ranks stay small.  Half precision is copied into float32 buckets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rushlight_autograd import queue_callback
from rushlight_distributed.arguments import to_host, write
from rushlight_distributed.communicator import Array, ReduceOp
from rushlight_distributed.exchange import Exchange, make_exchange
from rushlight_distributed.group import ProcessGroup
from rushlight_distributed.worker import Work
from rushlight_tensor import Tensor
from rushlight_tensor.core import cuda
from rushlight_tensor.core.inplace import touch
from rushlight_tensor.core.tensor import wrap

FIRST_BUCKET_BYTES = 1 << 18


class Bucket:
    """Gradients that travel together.

    Attributes:
        indices: The parameters.
        views: The part of the buffer that each parameter has.
        sums: The part that each has of what comes back; may be the views themselves.
        missing: How many gradients are not there yet.
    """

    __slots__ = ("call", "indices", "missing", "number", "sums", "views", "work")

    def __init__(
        self, number: int, indices: list[int], names: Sequence[str], params: Sequence[Tensor], exchange: Exchange
    ) -> None:
        self.number, self.indices = number, indices
        buffer = exchange.buffers[number]
        arrays = [params[i]._array for i in indices]
        self.views = _parts(buffer, arrays)
        self.sums = self.views if exchange.sums is exchange.buffers else _parts(exchange.sums[number], arrays)
        self.missing = len(indices)
        self.work: Work | None = None
        self.call = (f"gradients of {_listed([names[i] for i in indices])}", buffer.dtype, buffer.shape)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} … {names[-1]} ({len(names)} parameters)"


def _parts(flat: Array, arrays: Sequence[Any]) -> list[Array]:
    """`flat` cut into views of the arrays' shapes."""
    ends = np.cumsum([a.size for a in arrays])
    return [flat[end - a.size : end].reshape(a.shape) for a, end in zip(arrays, ends, strict=True)]


def wire_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype in which gradients of `dtype` are summed."""
    return np.dtype(np.float32) if dtype.itemsize == 2 else dtype


def assign_buckets(params: Sequence[Tensor], cap_bytes: int) -> list[list[int]]:
    """Indices of the parameters of each bucket, in the order of sending.  See Note [Bucket order]."""
    buckets: list[list[int]] = []
    room, dtype = 0, None
    for i in reversed(range(len(params))):
        array = params[i]._array
        wire = wire_dtype(array.dtype)
        need = array.size * wire.itemsize
        if not buckets or wire != dtype or need > room:
            room, dtype = (cap_bytes if buckets else min(FIRST_BUCKET_BYTES, cap_bytes)), wire
            buckets.append([])
        buckets[-1].append(i)
        room -= need
    return buckets


class Reducer:
    """Exchanges the gradients of `params` among the ranks of `group`, bucket by bucket, during each backward pass.

    Args:
        group: A process group of its own.
        names, params: The parameters that require a gradient, in the order of their registration on every rank.
        cap_bytes: Size of a bucket.
        find_unused: Parameters that got no gradient take part with what they have, and those that got none on any rank
            keep theirs; otherwise they are an error.
        as_views: After the first pass `.grad` is a view of the bucket and needs no copy back.
    """

    def __init__(
        self,
        group: ProcessGroup,
        names: Sequence[str],
        params: Sequence[Tensor],
        *,
        cap_bytes: int,
        find_unused: bool,
        as_views: bool,
    ) -> None:
        self._group, self._names, self._params = group, names, params
        self._find_unused, self._as_views = find_unused, as_views
        self.enabled, self._running = True, False
        assigned = assign_buckets(params, cap_bytes)
        sizes = [(sum(params[i]._array.size for i in b), wire_dtype(params[b[0]]._array.dtype)) for b in assigned]
        self._exchange = make_exchange(group.comm, sizes)
        self.buckets = [Bucket(k, indices, names, params, self._exchange) for k, indices in enumerate(assigned)]
        self._place = {i: (b, k) for b in self.buckets for k, i in enumerate(b.indices)}
        self._handles = [p.register_post_accumulate_grad_hook(self._hook(i)) for i, p in enumerate(params)]
        self.reset()

    def reset(self) -> None:
        """Forget a backward pass that did not come to its end, when nothing of it can write into gradients any more."""
        if self._running:
            self._group.finish()
        self._seen = [False] * len(self._params)
        self._next, self._running = 0, False
        for bucket in self.buckets:
            bucket.missing, bucket.work = len(bucket.indices), None

    def _hook(self, i: int) -> Any:
        def gradient_is_final(param: Tensor) -> None:
            if not self.enabled:
                return
            if not self._running:
                self._running = True
                queue_callback(self._finish)
            if self._seen[i]:
                self.reset()
                raise RuntimeError(
                    f"DistributedDataParallel: the gradient of {self._names[i]} became final twice before the end of a "
                    "backward pass; do not run backward inside the backward pass of a wrapped module"
                )
            self._seen[i] = True
            assert param.grad is not None
            self._pack(i, param.grad._array)

        return gradient_is_final

    def _pack(self, i: int, gradient: Any) -> None:
        bucket, k = self._place[i]
        view, gradient = bucket.views[k], cuda.to_host(gradient)
        scale = view.dtype.type(1 / self._group.size())
        if gradient.dtype == view.dtype:
            np.multiply(gradient, scale, out=view)
        else:
            view[...] = gradient
            view *= scale
        bucket.missing -= 1
        while self._next < len(self.buckets) and self.buckets[self._next].missing == 0:
            self._send(self.buckets[self._next])
            self._next += 1

    def _send(self, bucket: Bucket) -> None:
        def exchange() -> None:
            self._exchange.total(bucket.number)
            if not self._find_unused:
                self._unpack(bucket)

        bucket.work = self._group.start(bucket.call, exchange)

    def _unpack(self, bucket: Bucket) -> None:
        """Write the means where the gradients are; in the thread, while the backward pass goes on."""
        for i, view, total in zip(bucket.indices, bucket.views, bucket.sums, strict=True):
            param = self._params[i]
            grad = param.grad
            if grad is None or (self._as_views and grad._array is not view):
                may_be_view = isinstance(param._array, np.ndarray) and param._array.dtype == view.dtype
                param.grad = grad = wrap(view if self._as_views and may_be_view else _empty_like(param._array))
            if grad._array is not total:
                write(grad._array, total)
            touch(grad)

    def _finish(self) -> None:
        """The end of the backward pass: every bucket is sent and done, or what is missing is named."""
        unused = [i for i, seen in enumerate(self._seen) if not seen]
        if unused and not self._find_unused:
            names = ", ".join(self._names[i] for i in unused)
            self.reset()
            raise RuntimeError(
                f"DistributedDataParallel: {len(unused)} parameter(s) got no gradient in this backward pass: {names}; "
                "use them in forward, set requires_grad=False, or pass find_unused_parameters=True"
            )
        for i in unused:
            have = self._params[i].grad
            self._pack(
                i, np.zeros(self._params[i].shape, self._params[i]._array.dtype) if have is None else have._array
            )
        for bucket in self.buckets:
            assert bucket.work is not None
            bucket.work.wait()
        if self._find_unused:
            self._unpack_used()
        self.reset()

    def _unpack_used(self) -> None:
        used = np.array(self._seen)
        call = ("parameters used", used.dtype, used.shape)
        self._group.run(call, lambda: self._group.comm.all_reduce(used, ReduceOp.MAX))
        kept = {i: self._params[i].grad for i, anywhere in enumerate(used) if not anywhere}
        for bucket in self.buckets:
            self._unpack(bucket)
        for i, grad in kept.items():
            self._params[i].grad = grad


def _empty_like(array: Any) -> Any:
    """New memory of the shape and dtype, and on the device, of `array`."""
    return np.empty_like(array) if isinstance(array, np.ndarray) else cuda.cupy().empty_like(array)


def broadcast_together(group: ProcessGroup, what: str, tensors: Sequence[Tensor]) -> None:
    """Rank 0's values into all `tensors`, in one message."""
    hosts = [to_host(t._array) for t in tensors]
    flat = np.concatenate([h.reshape(-1).view(np.uint8) for h in hosts]) if hosts else np.empty(0, np.uint8)
    group.run((what, flat.dtype, flat.shape), lambda: group.comm.broadcast(flat, 0))
    if group.rank() == 0:
        return
    end = 0
    for tensor, host in zip(tensors, hosts, strict=True):
        begin, end = end, end + host.nbytes
        write(tensor._array, flat[begin:end].view(host.dtype).reshape(host.shape))
        touch(tensor)
