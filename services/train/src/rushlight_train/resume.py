"""What a resumed job is told: what the command asks for, and for the rest what the interrupted job was told.

Note [What a resumed job keeps]
    Every key is the old job's unless the command names it, or chooses a group anew; a group or an experiment that was
    chosen before, too, asks for nothing (`model=mlp` must be said again for `resume=true` to find the job).  Two kinds
    are different: where and how ranks are started is the command's, since the machine may be another; and what a
    checkpoint is made of, or what its steps count, cannot change: asking for that is refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from omegaconf import DictConfig, OmegaConf

from rushlight_train import checkpoint, checks, schema

_THE_COMMANDS = ("launch", "resume", "resume_from")
_HELD = ("model", "optim", "scheduler", "data.name", "data.batch_size", "data.block_size", "data.stride")
_EXPERIMENT = "experiment"


def resolve(cfg: DictConfig, hydra: HydraConf) -> list[str]:
    """Make `resume_from` a checkpoint that is there, and the rest of `cfg` that of its job; returns lines to tell.

    Raises CheckpointError where there is none, or the command asks for another value of what cannot change.
    """
    if cfg.resume_from:
        cfg.resume_from = str(checkpoint.inside(Path(cfg.resume_from)).absolute())
    elif cfg.resume:
        cfg.resume_from = str(checkpoint.newest(Path("outputs"), cfg.model.name, cfg.data.name).absolute())
    else:
        return []
    folder = Path(cfg.resume_from).parent.parent
    if not (folder / "resolved.yaml").exists():  # a checkpoint that was moved: there is nothing to compare with
        return [f"resume: {cfg.resume_from} stands without its job's resolved.yaml; what is not in it is as configured"]
    old = OmegaConf.load(folder / "resolved.yaml")
    was, now = dict(_values(old)), dict(_values(cfg))
    asked = _asked(hydra, folder, list(was | now))
    changed = [key for key in asked if was.get(key) != now.get(key)]
    refused = [key for key in changed if _is_part(key, _HELD)]
    if refused:
        raise checkpoint.CheckpointError(
            f"resume: {'; '.join(f'{key} was {was.get(key)} and is {now.get(key)}' for key in refused)}. A resumed job "
            f"goes on with the data, model, optimizer, schedule and batch size of {cfg.resume_from}. "
            "Leave these out, or train anew without resume"
        )
    kept = [key for key in was if was[key] != now.get(key) and key not in asked]
    _take(cfg, old)
    for key in changed:
        OmegaConf.update(cfg, key, now.get(key))
    as_before = f"resume: as in {os.path.relpath(folder)}: {', '.join(f'{key}={was[key]}' for key in kept)}"
    return [as_before][: len(kept)] + [f"resume: {key} is {now.get(key)}; it was {was.get(key)}" for key in changed]


def _take(cfg: DictConfig, old: Any) -> None:
    """Everything that is not the command's; sections of several kinds whole, since another kind has other keys."""
    for key, value in old.items():
        if key in cfg and key not in _THE_COMMANDS:
            plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
            if key in ("model", "optim", "data"):
                cfg[key] = plain
            else:
                OmegaConf.update(cfg, str(key), plain)


def _values(cfg: Any) -> Iterator[tuple[str, Any]]:
    """Every key that a resumed job may keep, with its plain value."""
    plain = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))
    assert isinstance(plain, DictConfig)
    for key, value in checks.leaves(plain):
        if not _is_part(key, _THE_COMMANDS):
            yield key, OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _asked(hydra: HydraConf, folder: Path, keys: list[str]) -> list[str]:
    """Those of `keys` that the command asks for.  See Note [What a resumed job keeps]."""
    before = _choices(folder)
    new = {group for group, choice in hydra.runtime.choices.items() if before.get(group) != choice}
    words = {override.lstrip("+~").partition("=")[0].partition("@")[0] for override in hydra.overrides.task}
    if _EXPERIMENT in words & new:
        words |= set(_set_by(hydra))
    words -= {*schema.GROUPS, _EXPERIMENT} - new
    return [key for key in keys if _is_part(key, tuple(words))]


def _choices(folder: Path) -> dict[str, Any]:
    """The groups that a job was composed of; none where Hydra's own notes are gone."""
    notes = folder / ".hydra" / "hydra.yaml"
    found = OmegaConf.select(OmegaConf.load(notes), "hydra.runtime.choices") if notes.exists() else None
    return dict(found or {})


def _set_by(hydra: HydraConf) -> Iterator[str]:
    """The keys and groups that the chosen experiment sets."""
    name = f"{hydra.runtime.choices[_EXPERIMENT]}.yaml"
    for source in hydra.runtime.config_sources:
        if source.schema not in ("file", "pkg"):
            continue
        root = Path(source.path) if source.schema == "file" else files(source.path)
        if not (place := root / _EXPERIMENT / name).is_file():
            continue
        text = OmegaConf.create(place.read_text())
        assert isinstance(text, DictConfig)
        for default in text.pop("defaults", []):
            if isinstance(default, DictConfig):
                yield from (str(group).removeprefix("override ").lstrip("/") for group in default)
        yield from (key for key, _ in checks.leaves(text))
        return


def _is_part(key: str, places: tuple[str, ...]) -> bool:
    return any(key == place or key.startswith(f"{place}.") for place in places)
