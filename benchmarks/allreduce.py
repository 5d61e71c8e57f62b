"""Allreduce of float32, two ranks: ours over MPI against PyTorch's gloo, taking turns in the same processes."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time

import torch

import rushlight
import rushlight.distributed as dist
from benchmarks.harness import write
from rushlight_launch import launch

SIZES = {"1 KB": 256, "64 KB": 16_384, "1 MB": 262_144, "16 MB": 4_194_304, "64 MB": 16_777_216}


def on_ranks(store: str, rounds: int) -> None:
    """What each rank does; rank 0 prints and writes."""
    dist.init_process_group("mpi")
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", rank=rank, world_size=world, store=torch.distributed.FileStore(store, world)
    )
    records = []
    for name, count in SIZES.items():
        ours, theirs = rushlight.ones(count), torch.ones(count)
        programs = {
            "gloo": lambda x=theirs: torch.distributed.all_reduce(x, torch.distributed.ReduceOp.MAX),
            "rushlight": lambda x=ours: dist.all_reduce(x, dist.ReduceOp.MAX),
        }
        calls = max(1, min(200, 2_000_000 // count))
        times: dict[str, list[float]] = {n: [] for n in programs}
        for r in range(rounds + 1):
            for n in (list(programs), list(programs)[::-1])[r % 2]:
                dist.barrier()
                start = time.perf_counter()
                for _ in range(calls):
                    programs[n]()
                times[n].append((time.perf_counter() - start) / calls)
        medians = {n: statistics.median(t[1:]) for n, t in times.items()}
        ratio = medians["gloo"] / medians["rushlight"]
        records.append({"name": f"allreduce {name}", "seconds": medians, "ratio": ratio, "ranks": world})
        if rank == 0:
            told = "  ".join(f"{n} {t * 1e6:.1f} us" for n, t in medians.items())
            print(f"  allreduce {name:<8} {told}  gloo/rushlight {ratio:.2f}x", flush=True)
    if rank == 0:
        write("allreduce", rounds, records)
    torch.distributed.destroy_process_group()
    dist.destroy_process_group()


def main() -> int:
    """Start two ranks of this file."""
    with tempfile.TemporaryDirectory() as folder:
        result = launch(
            "benchmarks.allreduce",
            ["--rank", os.path.join(folder, "store"), "11"],
            ranks=2,
            module=True,
            show="rank0",
            log_dir=os.path.join(folder, "logs"),
            timeout_s=300,
        )
    sys.stderr.write(result.report)
    return result.exit_code


if __name__ == "__main__":
    if sys.argv[1:2] == ["--rank"]:
        on_ranks(sys.argv[2], int(sys.argv[3]))
    else:
        sys.exit(main())
