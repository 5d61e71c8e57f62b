"""`rushlight train`: Hydra composes the job, the launcher runs its ranks, the results are told.

Note [Who is an MPI process]
    This process is none: it composes and checks the config, writes `resolved.yaml` into the job's folder, starts the
    ranks, and looks at their marks and at `summary.json`.  So a sweep is a loop of such jobs, a failed one leaves the
    rest alone, and no two ranks ever compose a config or make a folder.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from rushlight_launch import LaunchError, launch
from rushlight_train import checkpoint, schema


@dataclass
class Outcome:
    """How one job of the command ended."""

    overrides: str
    folder: Path
    exit_code: int
    summary: dict[str, Any]
    error: str = ""


_outcomes: list[Outcome] = []


@hydra.main(version_base="1.3", config_path="configs", config_name="config")
def _job(cfg: DictConfig) -> float:
    """One job; returns its test loss, for sweepers that optimise."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    overrides = " ".join(HydraConfig.get().overrides.task)
    sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    try:
        schema.check(cfg)
        _resolve_resume(cfg, [word.lstrip("+~").partition("=")[0] for word in HydraConfig.get().overrides.task])
        OmegaConf.save(cfg, folder / "resolved.yaml", resolve=True)
        if sweep:
            print(f"job {HydraConfig.get().job.num}: {overrides or 'as configured'}", file=sys.stderr, flush=True)
        result = launch(
            "rushlight_train.worker",
            [str(folder)],
            ranks=cfg.launch.ranks,
            hostfile=cfg.launch.hostfile,
            timeout_s=cfg.launch.timeout_s,
            log_dir=folder / "logs",
            module=True,
            show="rank0",
            env=_terminal(),
        )
    except (schema.ConfigError, checkpoint.CheckpointError, LaunchError) as e:
        _outcomes.append(Outcome(overrides, folder, 2, {}, str(e)))
        return float("nan")
    summary = folder / "summary.json"
    if result.exit_code == 0 and summary.exists():
        _outcomes.append(Outcome(overrides, folder, 0, json.loads(summary.read_text())))
        return float(_outcomes[-1].summary["test_loss"])
    _outcomes.append(Outcome(overrides, folder, result.exit_code or 1, {}, result.report or "no summary was written"))
    return float("nan")


def _resolve_resume(cfg: DictConfig, asked: list[str]) -> None:
    """Make `resume` a folder that is there, and the configuration that of its job where it has to be.

    Model, optimizer, schedule and batch size are parts of a checkpoint: they are the old job's, whatever the defaults.
    Raises CheckpointError where the command asks for another value of one of them, which would be ignored.
    """
    if cfg.resume_from:
        cfg.resume_from = str(checkpoint.inside(Path(cfg.resume_from)).absolute())
    elif cfg.resume:
        cfg.resume_from = str(checkpoint.newest(Path("outputs"), cfg.model.name, cfg.data.name).absolute())
    else:
        return
    written = Path(cfg.resume_from).parent.parent / "resolved.yaml"
    if not written.exists():  # a checkpoint that was moved: there is nothing to compare with
        return
    old = OmegaConf.load(written)
    changed = []
    for key in _held_by_a_checkpoint(cfg, old):
        was, now = OmegaConf.select(old, key), OmegaConf.select(cfg, key)
        if was == now:
            continue
        if key in asked or key.partition(".")[0] in asked:
            changed.append(f"{key} was {was} and is {now}")
        else:
            OmegaConf.update(cfg, key, was, force_add=True)
    if changed:
        raise checkpoint.CheckpointError(
            f"resume: {'; '.join(changed)}. A resumed job goes on with the model, optimizer, schedule and batch size "
            f"of {cfg.resume_from}. Leave these out, or train anew without resume"
        )


def _held_by_a_checkpoint(cfg: Any, old: Any) -> list[str]:
    sections = ("model", "optim", "scheduler")
    return ["data.batch_size", *sorted({f"{s}.{key}" for s in sections for c in (cfg, old) for key in c[s]})]


def _terminal() -> dict[str, str]:
    """How wide the user's terminal is, for the bar of rank 0, which has none of its own."""
    if not sys.stderr.isatty():
        return {}
    return {"RUSHLIGHT_TERMINAL_WIDTH": str(shutil.get_terminal_size().columns)}


def main(argv: list[str] | None = None) -> int:
    """Run `rushlight train OVERRIDES…`; the exit code is 0 only if every job was."""
    words = sys.argv[1:] if argv is None else argv
    schema.register()
    _outcomes.clear()
    sys.argv = ["rushlight train", *words]
    os.environ.setdefault("HYDRA_FULL_ERROR", "0")
    try:
        _job()
    except SystemExit as end:  # Hydra has printed what it could not compose; `+key`, which it may advise, cannot help
        if end.code == 1:
            sys.stderr.write("`rushlight train --help` lists the groups and all keys with their values\n")
        raise
    if not _outcomes:  # --help, --cfg
        return 0
    _tell(_outcomes)
    return max(o.exit_code for o in _outcomes)


def _tell(outcomes: list[Outcome]) -> None:
    table = Table(title="results" if len(outcomes) > 1 else None)
    for name in ("job", "model", "data", "ranks", "steps", "test loss", "test accuracy", "speed", "time"):
        table.add_column(name, justify="left" if name in ("job", "model", "data") else "right", overflow="fold")
    for i, o in enumerate(outcomes):
        s = o.summary
        label = o.overrides or ("as configured" if len(outcomes) > 1 else str(i))
        if o.exit_code:
            table.add_row(label, f"[red]failed (exit code {o.exit_code})[/red]", *[""] * 7)
            continue
        table.add_row(
            label, s["model"], s["data"], str(s["ranks"]), str(s["steps"]), f"{s['test_loss']:.4f}",
            f"{s['test_accuracy']:.2%}", f"{s['per_second']:,.0f} {s['units']}/s", f"{s['seconds']:.1f} s",
        )  # fmt: skip
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    for o in outcomes:
        if not o.exit_code:
            shown = Path(os.path.relpath(o.folder))
            console.print(
                f"{shown}: curves.png, metrics.csv, checkpoints/, tensorboard/, logs/", highlight=False, soft_wrap=True
            )
    sys.stdout.flush()
    for o in outcomes:
        if o.exit_code:
            name = f" ({o.overrides})" if o.overrides else ""
            sys.stderr.write(f"rushlight train{name}: {o.error.rstrip()}\n")


if __name__ == "__main__":
    sys.exit(main())
