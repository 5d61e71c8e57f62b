"""Metrics: a CSV file, TensorBoard event files, a progress bar, a plot.  Rank 0 only."""

from __future__ import annotations

import csv
import os
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

POINTS = 200
PAUSE_S = 10.0
"""How long a job without a terminal may be silent."""
COLUMNS = ("step", "epoch", "lr", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "per_second", "seconds")


class Recorder:
    """Writes a row per epoch, and keeps up to `POINTS` points of the training curve in between.

    A resumed job begins with the rows and points that were there at its checkpoint.
    """

    def __init__(
        self, folder: Path, steps: int, earlier: list[dict[str, Any]], points: list[tuple[int, float, float]]
    ) -> None:
        from tensorboardX import SummaryWriter  # half a second to import; only rank 0 writes

        self.rows = list(earlier)
        self.points = [(int(step), loss, accuracy) for step, loss, accuracy in points]
        self._stride = -(-steps // POINTS)
        self._sums = [0.0, 0.0, 0.0]
        self._path = folder / "metrics.csv"
        self._events = SummaryWriter(str(folder / "tensorboard"))
        with self._path.open("w", newline="") as f:
            writer = csv.DictWriter(f, COLUMNS)
            writer.writeheader()
            writer.writerows(self.rows)
        for row in self.rows:
            self._tell_tensorboard(row)

    def step(self, step: int, loss: float, hits: float, count: float) -> None:
        """Take in a training step; every few steps their mean becomes a point of the curve."""
        self._sums = [a + b for a, b in zip(self._sums, (loss, hits, count), strict=True)]
        if step % self._stride == 0 and self._sums[2]:
            loss, hits, count = self._sums
            self._sums = [0.0, 0.0, 0.0]
            self.points.append((step, loss / count, hits / count))

    def add(self, row: dict[str, Any]) -> None:
        """Append a row to all of them."""
        self.rows.append(row)
        with self._path.open("a", newline="") as f:
            csv.DictWriter(f, COLUMNS).writerow(row)
        self._tell_tensorboard(row)

    def close(self) -> None:
        """Flush the event files."""
        self._events.close()

    def _tell_tensorboard(self, row: dict[str, Any]) -> None:
        for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "lr", "per_second"):
            self._events.add_scalar(
                name.replace("_", "/", 1) if name[:2] in ("tr", "te") else name, row[name], row["step"]
            )


class Bar:
    """The job's one progress bar; where there is no terminal, a line per epoch and one every `PAUSE_S` within it."""

    def __init__(self, steps: int, done: int, units: str, visible: bool) -> None:
        self.units, self.visible = units, visible
        self._steps, self._done = steps, done
        terminal = os.environ.get("RUSHLIGHT_TERMINAL_WIDTH")
        self._lines = not terminal
        console = Console(
            file=sys.stderr, force_terminal=bool(terminal), width=int(terminal) if terminal else None, quiet=not visible
        )
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[told]}"),
        )
        self._progress = Progress(
            *columns, TimeRemainingColumn(), console=console, disable=self._lines or not visible, refresh_per_second=5
        )
        self._task = self._progress.add_task("training", total=steps, completed=done, told="")
        self._last = self._spoke = time.perf_counter()
        self._rate = 0.0

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def step(self, loss: float, accuracy: float, count: int) -> None:
        """Move on by one step that saw `count` units."""
        now = time.perf_counter()
        rate = count / max(now - self._last, 1e-9)
        self._rate = rate if self._rate == 0 else 0.95 * self._rate + 0.05 * rate
        self._last = now
        told = f"loss {loss:.3f}  accuracy {accuracy:6.2%}  {self._rate:,.0f} {self.units}/s"
        self._progress.update(self._task, advance=1, told=told)
        self._done += 1
        if self._lines and now - self._spoke >= PAUSE_S:
            self.say(f"step {self._done}/{self._steps}  {told}")

    def epoch(self, row: dict[str, Any], epochs: int) -> None:
        """Tell of an epoch where the bar cannot."""
        if self._lines:
            self.say(
                f"epoch {row['epoch']}/{epochs}  loss {row['train_loss']:.3f}  test loss {row['test_loss']:.3f}  "
                f"test accuracy {row['test_accuracy']:.2%}  {row['per_second']:,.0f} {self.units}/s"
            )

    def nothing_to_do(self, source: str, epochs: int) -> None:
        """Tell why a resumed job does not train."""
        self.say(f"nothing to train: {source} is at the end of epoch {epochs}; data.epochs={epochs + 1} goes on")

    def say(self, line: str) -> None:
        """Print a line, where this rank prints."""
        self._spoke = time.perf_counter()
        if self.visible:
            print(line, file=sys.stderr, flush=True)


def plot(rows: list[dict[str, Any]], points: list[tuple[int, float, float]], path: Path, title: str) -> None:
    """Loss and accuracy over the steps, as a PNG: training as a line, the test part at the end of each epoch."""
    import matplotlib as mpl  # slow to import, and needed once

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for column, (axis, quantity) in enumerate(zip(axes, ("loss", "accuracy"), strict=True), 1):
        axis.plot([p[0] for p in points], [p[column] for p in points], linewidth=1, label="train")
        axis.plot([r["step"] for r in rows], [r[f"test_{quantity}"] for r in rows], "o-", markersize=4, label="test")
        axis.set(xlabel="step", ylabel=quantity)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
    plt.close(figure)
