"""Averaged weights: a copy of a model whose parameters are a mean over training, equal (SWA) or exponential (EMA).

Sources: Izmailov et al. 2018; Polyak and Juditsky 1992.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any

from rushlight_autograd import no_grad
from rushlight_nn.modules.module import Module
from rushlight_nn.modules.norm import _BatchNorm
from rushlight_tensor import Tensor
from rushlight_tensor.core import dtypes
from rushlight_tensor.ops.create import tensor

AverageFn = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From the average, the new value and the number of values so far to the new average."""
MultiAverageFn = Callable[[list[Tensor], list[Tensor], Tensor], None]
"""The same for all parameters at once, in place."""


def get_ema_avg_fn(decay: float = 0.999) -> AverageFn:
    """The exponential mean: decay × average + (1 - decay) × value."""
    _check_decay(decay)
    return lambda average, value, count: decay * average + (1 - decay) * value


def get_swa_avg_fn() -> AverageFn:
    """The equal mean of all values."""
    return lambda average, value, count: average + (value - average) / (count + 1)


def get_ema_multi_avg_fn(decay: float = 0.999) -> MultiAverageFn:
    """The exponential mean for all parameters at once."""
    _check_decay(decay)

    def update(averages: list[Tensor], values: list[Tensor], count: Tensor) -> None:
        for average, value in zip(averages, values, strict=True):
            average.copy_(average.lerp(value, 1 - decay))

    return update


def get_swa_multi_avg_fn() -> MultiAverageFn:
    """The equal mean for all parameters at once."""

    def update(averages: list[Tensor], values: list[Tensor], count: Tensor) -> None:
        share = 1.0 / (float(count) + 1)
        for average, value in zip(averages, values, strict=True):
            average.copy_(average.lerp(value, share))

    return update


def _check_decay(decay: float) -> None:
    if not 0.0 <= decay <= 1.0:
        raise ValueError(f"Invalid decay value {decay} provided. Please provide a value in [0,1] range.")


class AveragedModel(Module):
    """A model with the mean of the weights that another one has at each `update_parameters`.

    Args:
        model: It is copied.
        device: Where the copy lies.
        avg_fn: How one parameter is averaged; equally if omitted.
        multi_avg_fn: How all are averaged at once, instead.
        use_buffers: Average floating point buffers too, instead of taking the newest.
    """

    n_averaged: Tensor

    def __init__(
        self, model: Module, device: Any = None, avg_fn: AverageFn | None = None,
        multi_avg_fn: MultiAverageFn | None = None, use_buffers: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise AssertionError("Only one of avg_fn and multi_avg_fn should be provided")
        self.module = deepcopy(model)
        if device is not None:
            self.module = self.module.to(device)
        self.register_buffer("n_averaged", tensor(0, dtype=dtypes.int64, device=device))
        self.avg_fn = avg_fn
        self.multi_avg_fn = multi_avg_fn
        self.use_buffers = use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def _values(self, model: Module) -> list[Tensor]:
        buffers = model.buffers() if self.use_buffers else ()
        return [t.detach() for t in itertools.chain(model.parameters(), buffers)]

    @no_grad()
    def update_parameters(self, model: Module) -> None:
        """Take the present weights of `model` into the mean."""
        averages = self._values(self.module)
        values = [v.to(a.device) for a, v in zip(averages, self._values(model), strict=True)]
        floating = [(a, v) for a, v in zip(averages, values, strict=True) if a.is_floating_point()]
        if int(self.n_averaged) == 0:
            for average, value in zip(averages, values, strict=True):
                average.copy_(value)
        elif self.avg_fn is not None:
            for average, value in floating:
                average.copy_(self.avg_fn(average, value, self.n_averaged))
        else:
            update = self.multi_avg_fn or get_swa_multi_avg_fn()
            update([a for a, _ in floating], [v for _, v in floating], self.n_averaged)
        if not self.use_buffers:
            for mine, given in zip(self.module.buffers(), model.buffers(), strict=True):
                mine.detach().copy_(given.detach().to(mine.device))
        self.n_averaged.add_(1)


@no_grad()
def update_bn(loader: Iterable[Any], model: Module, device: Any = None) -> None:
    """Set the running statistics of all batch norms in `model` to the means over `loader`."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    if not norms:
        return
    momenta = [m.momentum for m in norms]
    was_training = model.training
    model.train()
    for m in norms:
        m.reset_running_stats()
        m.momentum = None
    for batch in loader:
        x = batch[0] if isinstance(batch, (list, tuple)) else batch
        model(x if device is None else x.to(device))
    for m, momentum in zip(norms, momenta, strict=True):
        m.momentum = momentum
    model.train(was_training)
