"""RMSprop, Adagrad and Adadelta: step sizes from the squares of past gradients."""

from __future__ import annotations

from typing import Any

from rushlight_optim.optimizer import Optimizer, check_modes, check_rates, zeros_of
from rushlight_optim.steps import adadelta_step, adagrad_step, rmsprop_step, run
from rushlight_tensor import Tensor
from rushlight_tensor.ops.create import full, zeros


class RMSprop(Optimizer):
    """p = p - lr g / (√v + eps), v the running mean of g².  Source: Tieleman and Hinton 2012.

    Args:
        params: Parameters or groups.
        lr: Learning rate.
        alpha: Decay of v.
        eps: Added to the denominator.
        weight_decay: Factor of an L2 penalty.
        momentum: Share of the last update that is kept.
        centered: Subtract the square of the running mean of g from v.  Source: Graves 2013.
        maximize: Go up instead of down.
        capturable, foreach, differentiable: See Note [foreach, fused, capturable, differentiable] in `optimizer.py`.
    """

    def __init__(
        self, params: Any, lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8, weight_decay: float = 0,
        momentum: float = 0, centered: bool = False, capturable: bool = False, foreach: bool | None = None,
        maximize: bool = False, differentiable: bool = False,
    ) -> None:  # fmt: skip
        check_rates(lr, eps, weight_decay)
        if not momentum >= 0.0:
            raise ValueError(f"Invalid momentum value: {momentum}")
        if not alpha >= 0.0:
            raise ValueError(f"Invalid alpha value: {alpha}")
        check_modes(foreach, None, differentiable)
        super().__init__(params, {
            "lr": lr, "momentum": momentum, "alpha": alpha, "eps": eps, "centered": centered,
            "weight_decay": weight_decay, "capturable": capturable, "foreach": foreach, "maximize": maximize,
            "differentiable": differentiable,
        })  # fmt: skip

    def _names(self, group: dict[str, Any]) -> tuple[str, ...]:
        names: tuple[str, ...] = ("step", "square_avg")
        if group["momentum"] > 0:
            names += ("momentum_buffer",)
        return (*names, "grad_avg") if group["centered"] else names

    def _init_state(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> None:
        state["step"] = zeros((), device=p.device)
        for name in self._names(group)[1:]:
            state[name] = zeros_of(p)

    def _step_group(self, group: dict[str, Any]) -> None:
        params, grads, *state = self._with_grad(group, self._names(group))
        run(
            rmsprop_step, (params, *state), grads, lr=float(group["lr"]), alpha=group["alpha"], eps=group["eps"],
            weight_decay=group["weight_decay"], momentum=group["momentum"], centered=group["centered"],
            maximize=group["maximize"],
        )  # fmt: skip


class Adagrad(Optimizer):
    """p = p - lr g / (√Σg² + eps), lr falling with `lr_decay`.  Source: Duchi et al. 2011.

    Args:
        params: Parameters or groups.
        lr: Learning rate.
        lr_decay: The rate is lr / (1 + steps × lr_decay).
        weight_decay: Factor of an L2 penalty.
        initial_accumulator_value: Where Σg² starts.
        eps: Added to the denominator.
        maximize: Go up instead of down.
        foreach, differentiable, fused: See Note [foreach, fused, capturable, differentiable] in `optimizer.py`.
    """

    def __init__(
        self, params: Any, lr: float = 1e-2, lr_decay: float = 0, weight_decay: float = 0,
        initial_accumulator_value: float = 0, eps: float = 1e-10, foreach: bool | None = None, *,
        maximize: bool = False, differentiable: bool = False, fused: bool | None = None,
    ) -> None:  # fmt: skip
        check_rates(lr, eps, weight_decay)
        if not lr_decay >= 0.0:
            raise ValueError(f"Invalid lr_decay value: {lr_decay}")
        if not initial_accumulator_value >= 0.0:
            raise ValueError(f"Invalid initial_accumulator_value value: {initial_accumulator_value}")
        check_modes(foreach, fused, differentiable)
        super().__init__(params, {
            "lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value, "foreach": foreach, "maximize": maximize,
            "differentiable": differentiable, "fused": fused,
        })  # fmt: skip
        for group in self.param_groups:
            for p in group["params"]:
                self._init_state(group, p, self.state[p])

    def _init_state(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> None:
        state["step"] = zeros((), device=p.device)
        start = float(group["initial_accumulator_value"])
        both = complex(start, start) if p.is_complex() else start  # see Note [Complex parameters] in `steps.py`
        state["sum"] = full(p.shape, both, dtype=p.dtype, device=p.device)

    def _step_group(self, group: dict[str, Any]) -> None:
        params, grads, *state = self._with_grad(group, ("step", "sum"))
        run(
            adagrad_step, (params, *state), grads, lr=float(group["lr"]), lr_decay=group["lr_decay"],
            weight_decay=group["weight_decay"], eps=group["eps"], maximize=group["maximize"],
        )  # fmt: skip


class Adadelta(Optimizer):
    """p = p - lr g √(d + eps) / √(v + eps), v and d running means of g² and of squared updates.  Source: Zeiler 2012.

    Args:
        params: Parameters or groups.
        lr: Factor of the update.
        rho: Decay of v and d.
        eps: Added under the roots.
        weight_decay: Factor of an L2 penalty.
        maximize: Go up instead of down.
        foreach, capturable, differentiable: See Note [foreach, fused, capturable, differentiable] in `optimizer.py`.
    """

    def __init__(
        self, params: Any, lr: float = 1.0, rho: float = 0.9, eps: float = 1e-6, weight_decay: float = 0,
        foreach: bool | None = None, *, capturable: bool = False, maximize: bool = False, differentiable: bool = False,
    ) -> None:  # fmt: skip
        check_rates(lr, eps, weight_decay)
        if not 0.0 <= rho <= 1.0:
            raise ValueError(f"Invalid rho value: {rho}")
        check_modes(foreach, None, differentiable)
        super().__init__(params, {
            "lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize,
            "capturable": capturable, "foreach": foreach, "differentiable": differentiable,
        })  # fmt: skip

    def _init_state(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> None:
        state["step"] = zeros((), device=p.device)
        state["square_avg"] = zeros_of(p)
        state["acc_delta"] = zeros_of(p)

    def _step_group(self, group: dict[str, Any]) -> None:
        params, grads, *state = self._with_grad(group, ("step", "square_avg", "acc_delta"))
        run(
            adadelta_step, (params, *state), grads, lr=float(group["lr"]), rho=group["rho"], eps=group["eps"],
            weight_decay=group["weight_decay"], maximize=group["maximize"],
        )  # fmt: skip
