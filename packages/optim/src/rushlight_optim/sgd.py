"""SGD, with momentum and Nesterov's variant."""

from __future__ import annotations

from typing import Any

from rushlight_optim.optimizer import Optimizer, check_modes, check_rates, with_gradient, zeros_of
from rushlight_optim.steps import run, sgd_step
from rushlight_tensor import Tensor


class SGD(Optimizer):
    """p = p - lr buf, buf = momentum buf + (1 - dampening) g.  Source: Sutskever et al. 2013.

    Args:
        params: Parameters or groups.
        lr: Learning rate.
        momentum: Share of the last update that is kept.
        dampening: Takes from the gradient's share.
        weight_decay: Factor of an L2 penalty.
        nesterov: Look ahead: use g + momentum buf.
        maximize: Go up instead of down.
        foreach, differentiable, fused: See Note [foreach, fused, capturable, differentiable] in `optimizer.py`.
    """

    def __init__(
        self, params: Any, lr: float = 1e-3, momentum: float = 0, dampening: float = 0, weight_decay: float = 0,
        nesterov: bool = False, *, maximize: bool = False, foreach: bool | None = None, differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:  # fmt: skip
        check_rates(lr, weight_decay=weight_decay)
        if momentum < 0.0:
            raise ValueError(f"Invalid momentum value: {momentum}")
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        check_modes(foreach, fused, differentiable)
        super().__init__(params, {
            "lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay, "nesterov": nesterov,
            "maximize": maximize, "foreach": foreach, "differentiable": differentiable, "fused": fused,
        })  # fmt: skip

    def _step_group(self, group: dict[str, Any]) -> None:
        momentum = group["momentum"]
        options: dict[str, Any] = {
            "lr": float(group["lr"]), "momentum": momentum, "dampening": group["dampening"],
            "weight_decay": group["weight_decay"], "nesterov": group["nesterov"], "maximize": group["maximize"],
        }  # fmt: skip
        if not momentum:
            params, grads = with_gradient(group["params"])
            run(sgd_step, (params,), grads, **options)
            return
        old: tuple[list[Tensor], ...] = ([], [], [])
        new: tuple[list[Tensor], ...] = ([], [], [])
        for p in group["params"]:
            if p.grad is None:
                continue
            state = self.state[p]
            buffer = state.get("momentum_buffer")
            columns = old
            if buffer is None:
                buffer = state["momentum_buffer"] = zeros_of(p)
                columns = new
            for column, value in zip(columns, (p, buffer, p.grad), strict=True):
                column.append(value)
        run(sgd_step, old[:2], old[2], **options)
        run(sgd_step, new[:2], new[2], first=True, **options)  # a buffer starts as the gradient itself
