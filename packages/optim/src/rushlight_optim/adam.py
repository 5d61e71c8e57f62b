"""Adam, AdamW and their relatives: step sizes from running means of the gradient and of its square."""

from __future__ import annotations

from typing import Any

from rushlight_optim.optimizer import Optimizer, check_modes, check_rates, zeros_of
from rushlight_optim.steps import adam_step, adamax_step, nadam_step, radam_step, run
from rushlight_tensor import Tensor
from rushlight_tensor.ops.create import ones, zeros

Betas = tuple[float, float]


class Adam(Optimizer):
    """p = p - lr m̂ / (√v̂ + eps), m and v the running means of g and g².  Source: Kingma and Ba 2014.

    Args:
        params: Parameters or groups.
        lr: Learning rate.
        betas: Decay of m and of v.
        eps: Added to the denominator.
        weight_decay: Factor of an L2 penalty, or of decoupled decay.
        amsgrad: Use the largest v so far.  Source: Reddi et al. 2018.
        maximize: Go up instead of down.
        decoupled_weight_decay: Decay the parameter, not the gradient, as `AdamW`.
        foreach, capturable, differentiable, fused: See Note [foreach, fused, capturable, differentiable] in
            `optimizer.py`.
    """

    def __init__(
        self, params: Any, lr: float = 1e-3, betas: Betas = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0,
        amsgrad: bool = False, *, foreach: bool | None = None, maximize: bool = False, capturable: bool = False,
        differentiable: bool = False, fused: bool | None = None, decoupled_weight_decay: bool = False,
    ) -> None:  # fmt: skip
        check_rates(lr, eps, weight_decay, betas)
        check_modes(foreach, fused, differentiable)
        super().__init__(params, {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad,
            "maximize": maximize, "foreach": foreach, "capturable": capturable, "differentiable": differentiable,
            "fused": fused, "decoupled_weight_decay": decoupled_weight_decay,
        })  # fmt: skip

    def _init_state(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> None:
        state["step"] = zeros((), device=p.device)
        state["exp_avg"] = zeros_of(p)
        state["exp_avg_sq"] = zeros_of(p)
        if group["amsgrad"]:
            state["max_exp_avg_sq"] = zeros_of(p)

    def _step_group(self, group: dict[str, Any]) -> None:
        names = ("step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq") if group["amsgrad"] else (
            "step", "exp_avg", "exp_avg_sq"
        )  # fmt: skip
        params, grads, *state = self._with_grad(group, names)
        beta1, beta2 = group["betas"]
        run(
            adam_step, (params, *state), grads, lr=float(group["lr"]), beta1=float(beta1), beta2=float(beta2),
            eps=group["eps"], weight_decay=group["weight_decay"], decoupled=group["decoupled_weight_decay"],
            amsgrad=group["amsgrad"], maximize=group["maximize"],
        )  # fmt: skip


class AdamW(Adam):
    """Adam with decoupled weight decay, p = p - lr weight_decay p; see `Adam`.  Source: Loshchilov and Hutter 2017."""

    def __init__(
        self, params: Any, lr: float = 1e-3, betas: Betas = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 1e-2, amsgrad: bool = False, *, maximize: bool = False, foreach: bool | None = None,
        capturable: bool = False, differentiable: bool = False, fused: bool | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad, foreach=foreach, maximize=maximize, capturable=capturable,
            differentiable=differentiable, fused=fused, decoupled_weight_decay=True,
        )  # fmt: skip


class Adamax(Optimizer):
    """Adam with the infinity norm: v is the largest decayed |g|.  Source: Kingma and Ba 2014.

    Args: see `Adam`.
    """

    def __init__(
        self, params: Any, lr: float = 2e-3, betas: Betas = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0,
        foreach: bool | None = None, *, maximize: bool = False, differentiable: bool = False, capturable: bool = False,
    ) -> None:  # fmt: skip
        check_rates(lr, eps, weight_decay, betas)
        check_modes(foreach, None, differentiable)
        super().__init__(params, {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "foreach": foreach,
            "maximize": maximize, "differentiable": differentiable, "capturable": capturable,
        })  # fmt: skip

    def _init_state(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> None:
        state["step"] = zeros((), device=p.device)
        state["exp_avg"] = zeros_of(p)
        state["exp_inf"] = zeros_of(p)

    def _step_group(self, group: dict[str, Any]) -> None:
        params, grads, *state = self._with_grad(group, ("step", "exp_avg", "exp_inf"))
        beta1, beta2 = group["betas"]
        run(
            adamax_step, (params, *state), grads, lr=float(group["lr"]), beta1=beta1, beta2=beta2, eps=group["eps"],
            weight_decay=group["weight_decay"], maximize=group["maximize"],
        )  # fmt: skip


class NAdam(Optimizer):
    """Adam with Nesterov momentum, whose weight grows by `momentum_decay`; see `Adam`.  Source: Dozat 2016."""

    def __init__(
        self, params: Any, lr: float = 2e-3, betas: Betas = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0,
        momentum_decay: float = 4e-3, decoupled_weight_decay: bool = False, *, foreach: bool | None = None,
        maximize: bool = False, capturable: bool = False, differentiable: bool = False,
    ) -> None:  # fmt: skip
        check_rates(lr, eps, weight_decay, betas)
        if momentum_decay < 0.0:
            raise ValueError(f"Invalid momentum_decay value: {momentum_decay}")
        check_modes(foreach, None, differentiable)
        super().__init__(params, {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay, "maximize": maximize, "foreach": foreach,
            "capturable": capturable, "differentiable": differentiable,
        })  # fmt: skip

    def _init_state(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> None:
        state["step"] = zeros((), device=p.device)
        state["mu_product"] = ones((), device=p.device)
        state["exp_avg"] = zeros_of(p)
        state["exp_avg_sq"] = zeros_of(p)

    def _step_group(self, group: dict[str, Any]) -> None:
        params, grads, *state = self._with_grad(group, ("step", "mu_product", "exp_avg", "exp_avg_sq"))
        beta1, beta2 = group["betas"]
        run(
            nadam_step, (params, *state), grads, lr=float(group["lr"]), beta1=beta1, beta2=beta2, eps=group["eps"],
            weight_decay=group["weight_decay"], momentum_decay=group["momentum_decay"],
            decoupled=group["decoupled_weight_decay"], maximize=group["maximize"],
        )  # fmt: skip


class RAdam(Optimizer):
    """Adam that waits until the variance of its step size is known; see `Adam`.  Source: Liu et al. 2019."""

    def __init__(
        self, params: Any, lr: float = 1e-3, betas: Betas = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0,
        decoupled_weight_decay: bool = False, *, foreach: bool | None = None, maximize: bool = False,
        capturable: bool = False, differentiable: bool = False,
    ) -> None:  # fmt: skip
        check_rates(lr, eps, weight_decay, betas)
        check_modes(foreach, None, differentiable)
        super().__init__(params, {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize,
            "foreach": foreach, "capturable": capturable, "decoupled_weight_decay": decoupled_weight_decay,
            "differentiable": differentiable,
        })  # fmt: skip

    def _init_state(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> None:
        state["step"] = zeros((), device=p.device)
        state["exp_avg"] = zeros_of(p)
        state["exp_avg_sq"] = zeros_of(p)

    def _step_group(self, group: dict[str, Any]) -> None:
        params, grads, *state = self._with_grad(group, ("step", "exp_avg", "exp_avg_sq"))
        beta1, beta2 = group["betas"]
        run(
            radam_step, (params, *state), grads, lr=float(group["lr"]), beta1=beta1, beta2=beta2, eps=group["eps"],
            weight_decay=group["weight_decay"], decoupled=group["decoupled_weight_decay"], maximize=group["maximize"],
        )  # fmt: skip
