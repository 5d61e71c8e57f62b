"""From a config to objects: model, data, optimizer, schedule."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass, is_dataclass
from typing import Any, get_args, get_type_hints

from omegaconf import DictConfig, OmegaConf

import rushlight_models
import rushlight_optim
from rushlight_data import Dataset, Digits, StdlibText
from rushlight_nn import Module
from rushlight_nn import functional as F
from rushlight_optim.lr_scheduler import LambdaLR
from rushlight_tensor import Tensor


@dataclass(frozen=True)
class Task:
    """Data, and what it means to be right about them.

    Args:
        train, test: The two parts.
        units: What a sample holds of the thing that speed is told in ("images", "characters").
        units_per_sample: How many of them.
    """

    name: str
    train: Dataset[Any]
    test: Dataset[Any]
    units: str
    units_per_sample: int
    sizes: dict[str, Any]


def task(data: DictConfig) -> Task:
    """The data set of a config, and the model sizes that it decides."""
    if data.name == "digits":
        sizes = {"MLP": {"in_features": 64, "out_features": 10}, "CNN": {"image_size": 8, "classes": 10}}
        sizes["ResNet18"] = {"in_channels": 1, "classes": 10}
        return Task("digits", Digits(train=True), Digits(train=False), "images", 1, sizes)
    train, test = (StdlibText(part, data.block_size, data.stride) for part in (True, False))
    vocabulary = {"vocab_size": train.vocab_size}
    sizes = {"GPT": {**vocabulary, "block_size": data.block_size}, "LSTMLanguageModel": vocabulary}
    return Task("stdlib_text", train, test, "characters", data.block_size, sizes)


def optimizers() -> tuple[str, ...]:
    """The names that `optim.name` may have."""
    base = rushlight_optim.Optimizer
    found = [
        n for n, v in vars(rushlight_optim).items() if isinstance(v, type) and issubclass(v, base) and v is not base
    ]
    return tuple(sorted(found))


def arguments(section: str, name: str) -> dict[str, Any]:
    """Names and types of what a constructor takes beside what the job gives; `section`: "model" or "optim"."""
    made = getattr(rushlight_models if section == "model" else rushlight_optim, name)
    named, types = inspect.signature(made).parameters, get_type_hints(made.__init__)
    found = {n: types[n] for n, p in named.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    if any(p.kind is p.VAR_KEYWORD for p in named.values()):  # options: the fields of the dataclass that holds them
        holders = {n: c for n, hint in found.items() for c in get_args(hint) if is_dataclass(c)}
        found = {n: t for n, t in found.items() if n not in holders}
        for holder in holders.values():
            found |= get_type_hints(holder)
    given = ("params",) if section == "optim" else _DECIDED
    return {n: t for n, t in found.items() if n not in given}


_DECIDED = ("in_features", "out_features", "image_size", "classes", "in_channels", "vocab_size", "block_size")
"""Sizes of models that the data decide."""


def _arguments(cfg: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    return {str(k): v for k, v in plain.items() if k != "name"}


def model(cfg: DictConfig, sizes: dict[str, Any]) -> Module:
    """The network of a config, with the sizes that the data decide."""
    made: Module = getattr(rushlight_models, cfg.name)(**_arguments(cfg), **sizes[cfg.name])
    return made


def optimizer(cfg: DictConfig, network: Module) -> rushlight_optim.Optimizer:
    """The optimizer of a config."""
    made: rushlight_optim.Optimizer = getattr(rushlight_optim, cfg.name)(network.parameters(), **_arguments(cfg))
    return made


def schedule(cfg: DictConfig, opt: rushlight_optim.Optimizer, steps: int) -> LambdaLR:
    """The learning rate over `steps` steps, as a factor: linear warm-up, then constant or a half cosine."""
    warmup = round(cfg.warmup * steps)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if cfg.name == "constant":
            return 1.0
        done = min((step - warmup) / max(steps - warmup, 1), 1.0)
        return float(cfg.final + (1 - cfg.final) * 0.5 * (1 + math.cos(math.pi * done)))

    return LambdaLR(opt, factor)


def redraw(schedule: LambdaLR, opt: rushlight_optim.Optimizer, cfg: DictConfig) -> str:
    """Set the rate that a loaded schedule has at its step, and say what changed; nothing, in a job of the same length.

    Warm-up and cosine are drawn over all epochs of the job, so with another `data.epochs` the rate jumps.
    """
    before, now = schedule.get_last_lr(), schedule.get_lr()
    if before == now:
        return ""
    for group, rate in zip(opt.param_groups, now, strict=True):
        group["lr"] = rate
    return (
        f"resume: the {cfg.scheduler.name} schedule is drawn over {cfg.data.epochs} epochs now, so the learning rate "
        f"goes on at {now[0]:.3g}; it stood at {before[0]:.3g}"
    )


def loss_and_hits(network: Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, int]:
    """Sum of the cross-entropies of a batch, the number of right predictions (a tensor), and how many there were."""
    out = network(x)
    logits = out[0] if isinstance(out, tuple) else out
    logits, targets = logits.reshape(-1, logits.shape[-1]), y.reshape(-1)
    loss = F.cross_entropy(logits, targets, reduction="sum")
    return loss, (logits.detach().argmax(dim=1) == targets).sum(), targets.shape[0]
