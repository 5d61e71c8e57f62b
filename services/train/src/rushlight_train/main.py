"""`rushlight train`: Hydra composes the job, the launcher runs its ranks, the results are told.

Note [Who is an MPI process]
    This process is none: it composes and checks the config, writes `resolved.yaml` into the job's folder, starts the
    ranks, and looks at their marks and at `summary.json`.  So a sweep is a loop of such jobs, a failed one leaves the
    rest alone, and no two ranks ever compose a config or make a folder.  A signal is for the whole command: it ends the
    job that runs, and the loop (Note [One signal ends all of it] in `rushlight_launch`).
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.table import Table

from rushlight_launch import LaunchError, launch
from rushlight_launch.signals import Stop, caught
from rushlight_train import checkpoint, checks, resume, schema
from rushlight_train.folder import FolderTaken, held


@dataclass
class Outcome:
    """How one job of the command ended; `stopped`: by a signal, `ran`: its ranks were started."""

    overrides: str
    folder: Path
    exit_code: int
    summary: dict[str, Any]
    error: str = ""
    stopped: bool = False
    ran: bool = True


@dataclass
class _Command:
    """What one call of `main` did so far."""

    stop: Stop = field(default_factory=Stop)
    outcomes: list[Outcome] = field(default_factory=list)
    composed: bool = False  # a job was begun, so Hydra has understood the command
    sweep: bool = False


class _Stopped(BaseException):
    """Leaves the loop over the jobs; no Exception, which Hydra would take for the job's own."""


_command = _Command()


@hydra.main(version_base="1.3", config_path="configs", config_name="config")
def _job(cfg: DictConfig) -> float:
    """One job; returns its test loss, for sweepers that optimise."""
    _command.composed = True
    _command.sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    if not _command.stop.by:
        _command.outcomes.append(_outcome(cfg, _command.sweep))
    if _command.stop.by:
        raise _Stopped
    return float(_command.outcomes[-1].summary.get("test_loss", "nan"))


def _outcome(cfg: DictConfig, sweep: bool) -> Outcome:
    """Check the job, run it, and say how it ended."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    overrides = " ".join(HydraConfig.get().overrides.task)
    try:
        checks.keys(cfg)
        told = resume.resolve(cfg, HydraConfig.get())
        checks.values(cfg)
        with held(folder, cfg.resume_from):
            OmegaConf.save(cfg, folder / "resolved.yaml", resolve=True)
            if sweep:
                print(f"job {HydraConfig.get().job.num}: {overrides or 'as configured'}", file=sys.stderr, flush=True)
            for line in told:
                print(line, file=sys.stderr, flush=True)
            return _launched(cfg, folder, overrides)
    except (checks.ConfigError, checkpoint.CheckpointError, FolderTaken, LaunchError) as e:
        return Outcome(overrides, folder, 2, {}, str(e), ran=False)
    except OSError as e:
        if not checkpoint.is_full(e):
            raise
        return Outcome(overrides, folder, 1, {}, checkpoint.no_room(e, folder), ran=False)


def _launched(cfg: DictConfig, folder: Path, overrides: str) -> Outcome:
    """Start the ranks of a job, wait for their end, and look at what they left."""
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
    advice = f"resume_from={os.path.relpath(folder)} goes on" if any(checkpoint.every(folder / "checkpoints")) else ""
    if result.stopped_by:
        advice = advice or "it has no checkpoint yet"
        return Outcome(
            overrides, folder, result.exit_code, {}, f"stopped by you ({result.stopped_by}) after "
            f"{result.wall_s:.1f} s; {advice}", stopped=True,
        )  # fmt: skip
    summary = folder / "summary.json"
    if result.exit_code == 0 and summary.exists():
        return Outcome(overrides, folder, 0, json.loads(summary.read_text()))
    report = f"{(result.report or 'no summary was written').rstrip()}\n{advice}"
    return Outcome(overrides, folder, result.exit_code or 1, {}, report)


def _terminal() -> dict[str, str]:
    """How wide the user's terminal is, for the bar of rank 0, which has none of its own."""
    if not sys.stderr.isatty():
        return {}
    return {"RUSHLIGHT_TERMINAL_WIDTH": str(shutil.get_terminal_size().columns)}


def main(argv: list[str] | None = None) -> int:
    """Run `rushlight train OVERRIDES…`; the exit code is 0 only if every job was."""
    global _command
    words = sys.argv[1:] if argv is None else argv
    schema.register()
    sys.argv = ["rushlight train", *words]
    with caught() as stop:
        _command = _Command(stop)
        refusal = _run()
        if refusal:
            sys.stderr.write(f"rushlight train: {refusal}\n")
            return 1
        if _command.outcomes:
            _tell(_command.outcomes, _command.sweep)
        if stop.by:
            what = "no further job was started" if _command.outcomes else "no job was started"
            if _command.sweep:
                what += "; --multirun with the values that are left goes on with the sweep"
            sys.stderr.write(f"rushlight train: stopped by you ({stop.by}): {what}\n")
        return stop.exit_code or max((o.exit_code for o in _command.outcomes), default=0)  # none: --help, --cfg


def _run() -> str:
    """Let Hydra run the jobs; returns why it did not understand the command."""
    wanted = os.environ.get("HYDRA_FULL_ERROR", "0")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that errors come here; Hydra's own words advise `+key`
    try:
        _job()
    except _Stopped:
        pass
    except (HydraException, OmegaConfBaseException, ValueError, OSError) as error:
        if wanted == "1" or _command.composed:
            raise
        return checks.explained(error, sys.argv[1:])
    finally:
        os.environ["HYDRA_FULL_ERROR"] = wanted
    return ""


def _tell(outcomes: list[Outcome], sweep: bool) -> None:
    done = [o for o in outcomes if not o.exit_code]
    if done or (sweep and any(o.ran for o in outcomes)):
        console = Console(width=None if sys.stdout.isatty() else 120)
        console.print(_table(outcomes, sweep, all_columns=bool(done)))
        for o in done:
            shown = Path(os.path.relpath(o.folder))
            console.print(
                f"{shown}: curves.png, metrics.csv, checkpoints/, tensorboard/, logs/", highlight=False, soft_wrap=True
            )
        sys.stdout.flush()
    for o in outcomes:
        if o.exit_code:
            name = f" ({o.overrides})" if o.overrides else ""
            sys.stderr.write(f"rushlight train{name}: {o.error.rstrip()}\n")


def _table(outcomes: list[Outcome], sweep: bool, all_columns: bool) -> Table:
    """A row per job that was begun; where none has results, only what became of it."""
    table = Table(title="results" if sweep else None)
    names = ["job", "model", "data", "ranks", "steps", "test loss", "test accuracy", "speed", "time"]
    for name in names if all_columns else ["job", "end"]:
        table.add_column(name, justify="left" if name in ("job", "end", "model", "data") else "right", overflow="fold")
    for i, o in enumerate(outcomes):
        s = o.summary
        label = o.overrides or ("as configured" if sweep else str(i))
        if o.exit_code:
            end = "[yellow]stopped by you" if o.stopped else f"[red]failed (exit code {o.exit_code})"
            table.add_row(label, end, *[""] * (7 if all_columns else 0))
            continue
        table.add_row(
            label, s["model"], s["data"], str(s["ranks"]), str(s["steps"]), f"{s['test_loss']:.4f}",
            f"{s['test_accuracy']:.2%}", f"{s['per_second']:,.0f} {s['units']}/s", f"{s['seconds']:.1f} s",
        )  # fmt: skip
    return table


if __name__ == "__main__":
    sys.exit(main())
