"""One rank of the training job: `python -m rushlight_train.worker JOB_FOLDER`, started by `main`."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

import rushlight_distributed as dist
from rushlight_autograd import no_grad
from rushlight_data import DataLoader
from rushlight_nn import Module
from rushlight_nn.utils import clip_grad_norm_
from rushlight_tensor import from_numpy, get_rng_state, manual_seed, set_rng_state, tensor
from rushlight_train import build, checkpoint
from rushlight_train.batches import Batches
from rushlight_train.metrics import Bar, Recorder, plot


@dataclass
class Totals:
    """Sums over what was seen: of losses, of right predictions, and how many."""

    loss: float = 0.0
    hits: float = 0.0
    count: float = 0.0

    def add(self, loss: float, hits: float, count: float) -> None:
        """Add a batch."""
        self.loss, self.hits, self.count = self.loss + loss, self.hits + hits, self.count + count

    def over_ranks(self) -> Totals:
        """The sums over all ranks."""
        sums = tensor([self.loss, self.hits, self.count], dtype=float)
        dist.all_reduce(sums)
        return Totals(*sums.tolist())

    @property
    def mean_loss(self) -> float:
        """Loss per prediction."""
        return self.loss / max(self.count, 1)

    @property
    def accuracy(self) -> float:
        """Share of right predictions."""
        return self.hits / max(self.count, 1)


class Job:
    """Everything one rank holds while it trains."""

    def __init__(self, folder: Path, cfg: DictConfig) -> None:
        self.folder, self.cfg = folder, cfg
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.task = build.task(cfg.data)
        manual_seed(cfg.seed)
        self.model = build.model(cfg.model, self.task.sizes)
        self.parallel: Module = dist.DistributedDataParallel(self.model)
        self.optimizer = build.optimizer(cfg.optim, self.model)
        self.batches = self._batches(self.task.train, cfg.seed)
        self.steps_per_epoch = len(self.batches)
        self.steps = self.steps_per_epoch * cfg.data.epochs
        self.schedule = build.schedule(cfg.scheduler, self.optimizer, self.steps)
        self.step = 0
        self.trained_s = 0.0
        manual_seed((cfg.seed + 1_000_003 * (self.rank + 1)) % 2**64)  # dropout differs between ranks
        self.went_on = ""
        rows, points = self._resume() if cfg.resume_from else ([], [])
        self.began = self.step
        self.recorder = Recorder(folder, self.steps, rows, points) if self.rank == 0 else None

    def _batches(self, data: Any, seed: int | None) -> Batches:
        return Batches(len(data), self.cfg.data.batch_size, self.rank, self.world, seed)

    def _resume(self) -> tuple[list[dict[str, Any]], list[Any]]:
        model, optimizer, job = checkpoint.read(Path(self.cfg.resume_from))
        self.model.load_state_dict(model)
        self.optimizer.load_state_dict(optimizer)
        self.schedule.load_state_dict(job["schedule"])
        self.went_on = build.redraw(self.schedule, self.optimizer, self.cfg)
        self.step, self.trained_s = job["step"], job["trained_s"]
        if self.rank < len(job["rng"]):
            set_rng_state(from_numpy(np.frombuffer(bytes.fromhex(job["rng"][self.rank]), np.uint8).copy()))
        return job["rows"], job["points"]

    def run(self) -> dict[str, Any]:
        """Train to the end; returns the summary."""
        epochs = self.cfg.data.epochs
        bar = Bar(self.steps, self.step, self.task.units, self.rank == 0)
        if self.step >= self.steps:
            bar.nothing_to_do(self.cfg.resume_from, self.step // self.steps_per_epoch)
        elif self.went_on:
            bar.say(self.went_on)
        with bar:
            while self.step < self.steps:
                epoch = self.step // self.steps_per_epoch
                row = self._epoch(epoch, bar)
                if self.recorder is not None:
                    self.recorder.add(row)
                    bar.epoch(row, epochs)
                if (epoch + 1) % self.cfg.checkpoint.every == 0 or self.step == self.steps:
                    self._checkpoint()
        return self._summary()

    def _epoch(self, epoch: int, bar: Bar) -> dict[str, Any]:
        first = self.step % self.steps_per_epoch
        self.batches.start(epoch, skip=first)
        loader = DataLoader(self.task.train, batch_sampler=self.batches, num_workers=self.cfg.data.workers)
        totals, start = Totals(), time.perf_counter()
        self.parallel.train()
        for i, (x, y) in enumerate(loader, first):
            self._train_step(i, x, y, totals, bar)
        seconds = time.perf_counter() - start
        self.trained_s += seconds
        train, test = totals.over_ranks(), self._test()
        return {
            "step": self.step, "epoch": epoch + 1, "lr": self.optimizer.param_groups[0]["lr"],
            "train_loss": train.mean_loss, "train_accuracy": train.accuracy,
            "test_loss": test.mean_loss, "test_accuracy": test.accuracy,
            "per_second": train.count / seconds, "seconds": self.trained_s,
        }  # fmt: skip

    def _train_step(self, i: int, x: Any, y: Any, totals: Totals, bar: Bar) -> None:
        share, whole = self.batches.share(i), self.batches.size(i) * self.task.units_per_sample
        self.optimizer.zero_grad()
        loss, hits, count = build.loss_and_hits(self.parallel, x, y)
        # See Note [Global batches]: the average over ranks is then the mean over the whole batch.
        (loss * (self.world / whole if share else 0.0)).backward()
        if self.cfg.clip_norm is not None:
            clip_grad_norm_(self.model.parameters(), self.cfg.clip_norm)
        self.optimizer.step()
        self.schedule.step()
        self.step += 1
        if share:
            value = loss.item()
            if not math.isfinite(value):
                raise RuntimeError(
                    f"the loss is {value} in step {self.step}; a smaller optim.lr, or clip_norm=1, may help"
                )
            right = hits.item()
            totals.add(value, right, count)
            if self.recorder is not None:
                self.recorder.step(self.step, value, right, count)
        bar.step(totals.mean_loss, totals.accuracy, whole)

    def _test(self) -> Totals:
        """Loss and hits over the test part, every sample once."""
        batches = self._batches(self.task.test, None)
        totals = Totals()
        self.model.eval()
        with no_grad():
            for i, (x, y) in enumerate(DataLoader(self.task.test, batch_sampler=batches)):
                if batches.share(i):
                    loss, hits, count = build.loss_and_hits(self.model, x, y)
                    totals.add(loss.item(), hits.item(), count)
        return totals.over_ranks()

    def _checkpoint(self) -> None:
        states: list[Any] = [None] * self.world
        dist.all_gather_object(states, bytes(get_rng_state().numpy()).hex())
        if self.recorder is None:
            return
        job = {
            "model": self.cfg.model.name, "data": self.cfg.data.name, "world": self.world, "rng": states,
            "schedule": self.schedule.state_dict(), "trained_s": self.trained_s, "rows": self.recorder.rows,
            "points": self.recorder.points,
        }  # fmt: skip
        checkpoint.write(
            self.folder / "checkpoints", self.step, self.model.state_dict(), self.optimizer.state_dict(), job,
            self.cfg.checkpoint.keep,
        )  # fmt: skip

    def _summary(self) -> dict[str, Any]:
        if self.recorder is None:
            return {}
        self.recorder.close()
        rows = self.recorder.rows
        plot(rows, self.recorder.points, self.folder / "curves.png", f"{self.cfg.model.name} on {self.task.name}")
        last = rows[-1]
        return {
            "model": self.cfg.model.name, "data": self.task.name, "ranks": self.world, "steps": self.step,
            "parameters": sum(p.numel() for p in self.model.parameters()), "units": self.task.units,
            "test_loss": last["test_loss"], "test_accuracy": last["test_accuracy"],
            "per_second": _speed(rows, self.began), "seconds": self.trained_s,
        }  # fmt: skip


def _speed(rows: list[dict[str, Any]], began: int) -> float:
    """Units per second over the epochs that were trained after step `began`; over all, where none was."""
    before = [0.0, *(row["seconds"] for row in rows[:-1])]
    spans = [
        (row["per_second"], row["seconds"] - t) for row, t in zip(rows, before, strict=True) if row["step"] > began
    ]
    if not spans:
        return _speed(rows, 0)
    return sum(rate * s for rate, s in spans) / sum(s for _, s in spans)


def main() -> None:
    """Read the job's folder (rank 0 reads, all agree), train, leave `summary.json`."""
    folder = Path(sys.argv[1])
    dist.init_process_group("mpi")
    text: list[Any] = [(folder / "resolved.yaml").read_text() if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(text)
    cfg = OmegaConf.create(text[0])
    assert isinstance(cfg, DictConfig)
    try:
        summary = Job(folder, cfg).run()
        if dist.get_rank() == 0:
            (folder / "summary.json").write_text(json.dumps(summary, indent=1))
    except OSError as error:
        if not checkpoint.is_full(error):
            raise
        _leave(DiskFull(checkpoint.no_room(error, folder)))
    dist.destroy_process_group()


class DiskFull(RuntimeError):
    """There is no room for what a job writes; the message says where, and what to do."""


def _leave(error: Exception) -> None:
    """End the job with a message and no traceback, which would tell of the program and not of the machine."""
    sys.excepthook(type(error), error, None)  # of several ranks it ends all
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


if __name__ == "__main__":
    main()
