"""LRScheduler: when a learning rate is computed, where it is written, what is saved."""

from __future__ import annotations

import warnings
from typing import Any

from rushlight_optim.optimizer import Optimizer

_ORDER = (
    "Detected call of `lr_scheduler.step()` before `optimizer.step()`. In PyTorch 1.1.0 and later, you should call "
    "them in the opposite order: `optimizer.step()` before `lr_scheduler.step()`.  Failure to do this will result in "
    "PyTorch skipping the first value of the learning rate schedule."
)


class LRScheduler:
    """Base class: a subclass gives `get_lr`, the rates of all groups for `self.last_epoch`.

    Rates are computed from the previous ones where that is possible, so that schedulers can be combined and a user's
    change of `group["lr"]` persists; `_get_closed_form_lr` serves `step(epoch)`.

    Args:
        optimizer: Its groups' "lr" are set; "initial_lr" keeps where they started.
        last_epoch: The epoch to resume after; -1 starts anew.
    Raises:
        TypeError: `optimizer` is none.
        KeyError: Resuming with groups that have no "initial_lr".
    """

    optimizer: Optimizer

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
        self.optimizer = optimizer
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise KeyError(
                    f"param 'initial_lr' is not specified in param_groups[{i}] when resuming scheduler with "
                    "last_epoch >= 0; load the optimizer's state first, or start with last_epoch=-1"
                )
        self.base_lrs: list[float] = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._step_count = 0
        self._is_initial = True
        self._get_lr_called_within_step = False
        self._last_lr: list[float] = []
        self.step()
        self._is_initial = False

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer."""
        return {k: v for k, v in self.__dict__.items() if k != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` returned; load the optimizer's own state as well."""
        self.__dict__.update(state_dict)

    def get_last_lr(self) -> list[float]:
        """The rates of the groups, as last set."""
        return self._last_lr

    def get_lr(self) -> list[float]:
        """The rates of the groups for `self.last_epoch`."""
        raise NotImplementedError(f"{type(self).__name__} defines no get_lr")

    def step(self, epoch: int | None = None) -> None:
        """Go to the next epoch, or to `epoch`, and set the rates."""
        if self._step_count == 1 and not self.optimizer._opt_called:
            warnings.warn(_ORDER, UserWarning, stacklevel=2)
        self._step_count += 1
        if epoch is not None:
            warnings.warn("The epoch parameter in `scheduler.step()` was not necessary and is being deprecated where "
                          "possible. Please use `scheduler.step()` to step the scheduler.", UserWarning,
                          stacklevel=2)  # fmt: skip
        self._advance(epoch)

    def _advance(self, epoch: int | None = None) -> None:
        """Set `last_epoch` and the rates that belong to it."""
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        closed = getattr(self, "_get_closed_form_lr", None)
        self._get_lr_called_within_step = True
        rates = closed() if epoch is not None and closed is not None else self.get_lr()
        self._get_lr_called_within_step = False
        self._set_lr(rates)

    def _set_lr(self, rates: list[float]) -> None:
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def _rates(self) -> list[float]:
        """The rates as the groups have them now."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def _scaled(self, factor: float) -> list[float]:
        return [rate * factor for rate in self._rates()]
