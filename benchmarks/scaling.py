"""How speed grows with the ranks: digits CNN on 1, 2 and 4 ranks, weak (a batch each) and strong (one for all).

Writes `results/scaling.json` and `results/scaling.png`.  With more ranks than cores the curve has to bend: it is
shown, not hidden.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import rushlight
import rushlight.distributed as dist
from benchmarks.harness import RESULTS, write
from rushlight_launch import launch
from rushlight_models import CNN

RANKS = (1, 2, 4)
BATCH = 256
STEPS = 40


def on_ranks(kind: str, result: str) -> None:
    """Train some steps; rank 0 writes the median images per second over all ranks."""
    dist.init_process_group("mpi")
    rushlight.set_num_threads(1)  # or one rank would already use every core
    world = dist.get_world_size()
    batch = BATCH if kind == "weak" else BATCH // world
    rushlight.manual_seed(0)
    model = dist.DistributedDataParallel(CNN())
    optimizer = rushlight.optim.SGD(model.parameters(), lr=0.01)
    rng = np.random.default_rng(dist.get_rank())
    x = rushlight.from_numpy(rng.random((batch, 1, 8, 8), np.float32))
    y = rushlight.from_numpy(rng.integers(0, 10, batch))
    loss_fn = rushlight.nn.CrossEntropyLoss()
    times = []
    for _ in range(STEPS):
        dist.barrier()
        start = time.perf_counter()
        optimizer.zero_grad()
        loss_fn(model(x), y).backward()
        optimizer.step()
        dist.barrier()
        times.append(time.perf_counter() - start)
    if dist.get_rank() == 0:
        Path(result).write_text(json.dumps(batch * world / statistics.median(times[2:])))
    dist.destroy_process_group()


def plot(speeds: dict[str, dict[int, float]], path: Path) -> None:
    """Speed over ranks, with the line of perfect scaling."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
    for kind, by_ranks in speeds.items():
        axis.plot(list(by_ranks), list(by_ranks.values()), marker="o", label=kind)
    one = speeds["strong"][1]
    axis.plot(RANKS, [one * r for r in RANKS], linestyle=":", color="gray", label="perfect")
    axis.set(xlabel="ranks", ylabel="images/s", xticks=RANKS, title=f"digits CNN, {len(os.sched_getaffinity(0))} cores")
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(path, dpi=120)


def main() -> int:
    """Launch every combination, print the table, draw the plot."""
    speeds: dict[str, dict[int, float]] = {"weak": {}, "strong": {}}
    records = []
    print(f"scaling (digits CNN, {len(os.sched_getaffinity(0))} cores)")
    with tempfile.TemporaryDirectory() as folder:
        for kind, by_ranks in speeds.items():
            for ranks in RANKS:
                result = os.path.join(folder, f"{kind}{ranks}.json")
                done = launch(
                    "benchmarks.scaling",
                    ["--rank", kind, result],
                    ranks=ranks,
                    module=True,
                    show="none",
                    log_dir=os.path.join(folder, f"{kind}{ranks}"),
                    timeout_s=300,
                )
                if done.exit_code:
                    sys.stderr.write(done.report)
                    return done.exit_code
                by_ranks[ranks] = json.loads(Path(result).read_text())
                efficiency = by_ranks[ranks] / by_ranks[1] / ranks
                records.append({"name": kind, "ranks": ranks, "per_second": by_ranks[ranks], "efficiency": efficiency})
                print(
                    f"  {kind:<7} {ranks} ranks  {by_ranks[ranks]:>9,.0f} images/s  efficiency {efficiency:.0%}",
                    flush=True,
                )
    write("scaling", 1, records)
    plot(speeds, RESULTS / "scaling.png")
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--rank"]:
        on_ranks(*sys.argv[2:4])
    else:
        sys.exit(main())
