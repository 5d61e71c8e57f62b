"""What a job may be told, looked at before any rank starts: each mistake is one line that says what, got, do.

Note [Keys that Hydra lets in]
    Hydra refuses a key that no dataclass names, but `+key=value`, which its message advises, lets anything in, and a
    configuration file without a schema does, too.  So what was composed is looked at again: a key that nobody would
    read is refused, with the nearest that there is.  The arguments of a model or an optimizer are all read, also those
    that no dataclass names: for these `+` is the way.

Note [Made once before]
    Whether a model or an optimizer takes its values, its constructor knows best.  So one of each is made here, and
    dropped, before n ranks tell n tracebacks.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from difflib import get_close_matches
from types import UnionType
from typing import Any, get_args

from hydra.errors import ConfigCompositionException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from rushlight_train import build, schema

HELP = "`rushlight train --help` lists the groups and all keys with their values"
PLUS = ("model", "optim")
"""Sections whose keys are arguments, so that one may be added which the schema does not have."""


class ConfigError(ValueError):
    """What a job cannot be told; the message says what, got, do."""


def keys(cfg: DictConfig) -> None:
    """Raise ConfigError for keys that nobody reads, and for what is not there."""
    _look(cfg, _names, _keys)


def values(cfg: DictConfig) -> None:
    """Raise ConfigError for values that no rank should start with; the keys must be right."""
    _look(cfg, _values, _made)


def _look(cfg: DictConfig, *looks: Callable[[DictConfig], Iterator[str]]) -> None:
    try:
        for look in looks:
            mistakes = list(look(cfg))
            if mistakes:
                raise ConfigError("; ".join(mistakes))
    except OmegaConfBaseException as error:  # `${…}` that leads nowhere
        raise ConfigError(f"{error.full_key}: {_first_line(error)}") from None


def explained(error: Exception, words: Iterable[str]) -> str:
    """Hydra's reason for refusing the words of a command, as one line; where it is a key, with the nearest one."""
    cause = error.__cause__
    if (
        isinstance(cause, (ConfigKeyError, ConfigAttributeError))
        and isinstance(cause.parent_node, DictConfig)
        and cause.full_key
    ):
        return _unknown(cause.full_key, cause.parent_node)
    if isinstance(error, MissingConfigException) and error.options is not None:
        there = ", ".join(name for name in error.options if not name.endswith("_schema"))
        return f"Could not find '{error.missing_cfg_file}'; there are: {there}"
    if isinstance(error, OverrideParseException) and _KEY.fullmatch(error.override):
        return f"{error.override} has no value; say {error.override}=VALUE"
    if isinstance(error, OverrideParseException):
        return f"cannot read {error.override!r}: {_first_line(error)}"
    if isinstance(error, ConfigCompositionException) and isinstance(cause, OmegaConfBaseException):
        return f"{_first_line(error).removeprefix('Error merging override ')}: {_first_line(cause)}"
    if "Config group override must be" in str(error):  # Hydra does not say which
        for group, _, value in (word.partition("=") for word in words):
            if group in schema.GROUPS and (value == "null" or not _KEY.fullmatch(value)):
                return f"{group} is {value}; choose one, such as {group}={next(iter(schema.GROUPS[group]))}"
    return " ".join(str(error).split())


_KEY = re.compile(r"[A-Za-z_]\w*([./][A-Za-z_]\w*)*")


# -- the four looks ---------------------------------------------------------------------------------------------------


def _names(cfg: DictConfig) -> Iterator[str]:
    """Sections that are none, and classes that are not there."""
    for section, choices in schema.GROUPS.items():
        if not isinstance(cfg.get(section), DictConfig):
            yield f"{section} is {cfg.get(section)}; choose one, such as {section}={next(iter(choices))}"
    if not isinstance(cfg.get("checkpoint"), DictConfig):
        yield f"checkpoint is {cfg.get('checkpoint')}; leave it out, or set checkpoint.every and checkpoint.keep"
        return
    for section, there in (
        ("model", schema.IMAGE_MODELS + schema.TEXT_MODELS),
        ("optim", build.optimizers()),
        ("data", tuple(one().name for one in schema.GROUPS["data"].values())),
    ):
        name = cfg[section].get("name") if isinstance(cfg.get(section), DictConfig) else there[0]
        if name not in there:
            yield f"{section}.name must be one of {', '.join(there)}, got {name}"


def _keys(cfg: DictConfig) -> Iterator[str]:
    """Keys that nobody reads, and keys that somebody reads and that are not there."""
    for place, known in _known(cfg).items():
        node = OmegaConf.select(cfg, place) if place else cfg
        for key in map(str, node):
            if key not in known:
                yield _unknown(f"{place}.{key}".lstrip("."), node, known)
        for key in map(str, node) if place in PLUS else sorted(known):
            if key not in node or OmegaConf.is_missing(node, key):
                yield f"{place}.{key} has no value; give it one".lstrip(".")


def _values(cfg: DictConfig) -> Iterator[str]:
    """Values of the right type that make no sense alone or together."""
    for key, value in leaves(cfg):
        wrong = [
            (one, want) for one in (value if isinstance(value, ListConfig) else [value]) if (want := _want(key, one))
        ]
        holds, want = _RULES.get(key, _ANY)
        if not wrong and value is not None and not holds(value):
            wrong = [(value, want)]
        if wrong:
            yield f"{key} must be {wrong[0][1]}, got {wrong[0][0]}"
    yield from _untyped(cfg)
    if 1 <= cfg.data.batch_size < cfg.launch.ranks:
        yield (
            f"data.batch_size is {cfg.data.batch_size} samples for launch.ranks={cfg.launch.ranks}; "
            "give each rank at least one"
        )
    wanted = schema.IMAGE_MODELS if cfg.data.name == "digits" else schema.TEXT_MODELS
    if cfg.model.name not in wanted:
        choice = "data=stdlib_text" if cfg.data.name == "digits" else "data=digits"
        yield f"model {cfg.model.name} cannot learn data {cfg.data.name}; try {choice}"


def _want(key: str, value: Any) -> str:
    """What a number must be wherever it stands; empty where it is."""
    section, _, name = key.rpartition(".")
    if section in ("model", "optim", "scheduler") and isinstance(value, float) and not math.isfinite(value):
        return "a finite number"
    if section == "model" and type(value) is int and value < 1:
        return "at least 1"
    if section == "model" and name == "dropout" and isinstance(value, float) and not 0 <= value <= 1:
        return "in [0, 1]"
    return ""


def _untyped(cfg: DictConfig) -> Iterator[str]:
    """Arguments that the schema does not have, and whose type the constructor would not look at."""
    for section in PLUS:
        hints = build.arguments(section, cfg[section].name)
        for key, value in cfg[section].items():
            hint = hints.get(key)
            wanted: set[Any] = set(get_args(hint)) if isinstance(hint, UnionType) else {hint}
            wanted |= {int} if float in wanted else set()
            if wanted <= {bool, int, float, str, type(None)} and type(value) not in wanted:
                names = sorted(one.__name__.replace("NoneType", "null") for one in wanted)
                yield f"{section}.{key} must be {' or '.join(names)}, got {value}"


_Rule = tuple[Callable[[Any], bool], str]
_ANY: _Rule = (lambda v: True, "")
_ONE: _Rule = (lambda v: v >= 1, "at least 1")
_ZERO: _Rule = (lambda v: v >= 0, "zero or more")
_RULES: dict[str, _Rule] = {
    "seed": (lambda v: -(2**63) <= v < 2**64, "a number of 64 bits"),
    "clip_norm": (lambda v: v > 0, "positive, or null"),
    "optim.lr": (lambda v: v > 0, "positive"),
    "optim.weight_decay": _ZERO,
    "optim.betas": (lambda v: len(v) == 2 and all(0 <= beta < 1 for beta in v), "two numbers in [0, 1)"),
    "data.batch_size": _ONE,
    "data.epochs": _ONE,
    "data.workers": _ZERO,
    "data.block_size": _ONE,
    "data.stride": _ONE,
    "launch.ranks": _ONE,
    "launch.timeout_s": (lambda v: v > 0, "positive, or null"),
    "checkpoint.every": _ONE,
    "checkpoint.keep": _ONE,
    "scheduler.warmup": (lambda v: 0 <= v < 1, "in [0, 1)"),
    "scheduler.final": _ZERO,
    "scheduler.name": (lambda v: v in ("constant", "cosine"), "constant or cosine"),
}


def _made(cfg: DictConfig) -> Iterator[str]:
    """What the constructors refuse.  See Note [Made once before]."""
    section = "data"
    try:
        task = build.task(cfg.data)
        section = "model"
        network = build.model(cfg.model, task.sizes)
        section = "optim"
        build.optimizer(cfg.optim, network)
    except Exception as error:  # whatever a constructor makes of a value that it did not expect
        kind = "" if isinstance(error, (ValueError, TypeError, RuntimeError)) else f"{type(error).__name__}: "
        yield f"{section} {cfg[section].name} cannot be made with these values: {kind}{_first_line(error)}"


# -- keys -------------------------------------------------------------------------------------------------------------


def _known(cfg: DictConfig) -> dict[str, set[str]]:
    """The keys that are read, by section; "" is the top."""
    data = next(c for c in schema.GROUPS["data"].values() if c().name == cfg.data.name)
    classes = {
        "": schema.JobConfig, "data": data, "scheduler": schema.SchedulerConfig, "launch": schema.LaunchConfig,
        "checkpoint": schema.CheckpointConfig,
    }  # fmt: skip
    known = {place: {f.name for f in fields(one)} for place, one in classes.items()}
    return known | {section: {"name", *build.arguments(section, cfg[section].name)} for section in PLUS}


def _unknown(key: str, node: DictConfig, known: Iterable[str] = ()) -> str:
    """That there is no such key, and what to do."""
    place, _, name = key.rpartition(".")
    argued = place in PLUS and "name" in node
    takes = build.arguments(place, node.name) if argued else {}
    if name in takes:
        return f"{key} is an argument of {node.name} that the configuration does not hold yet; add it: +{key}=VALUE"
    there = sorted({*(known or map(str, node)), *takes} - {name})
    near = [f"{place}.{one}" if place else one for one in get_close_matches(name, there, n=1)]
    if not place and not near:  # the section was left out
        ends = {one.rpartition(".")[2]: one for one in _everywhere()}
        near = [ends[one] for one in get_close_matches(name, ends, n=1)]
    known_here = f"{place} has {', '.join(there)}" if place else HELP
    return f"there is no key {key}{f' of {node.name}' if argued else ''}; " + (
        f"did you mean {near[0]}?" if near else known_here
    )


def _everywhere() -> list[str]:
    """Every key of every schema."""
    top = [f.name for f in fields(schema.JobConfig)]
    sections = [(section, one) for section, choices in schema.GROUPS.items() for one in choices.values()]
    sections.append(("checkpoint", schema.CheckpointConfig))
    return sorted({*top, *(f"{section}.{f.name}" for section, one in sections for f in fields(one))})


def leaves(node: DictConfig, place: str = "") -> Iterator[tuple[str, Any]]:
    """All values with their keys."""
    for key, value in node.items():
        at = f"{place}.{key!s}".lstrip(".")
        if isinstance(value, DictConfig):
            yield from leaves(value, at)
        else:
            yield at, value


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
