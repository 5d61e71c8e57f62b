"""Comparison in one run: programs take turns, medians are compared, and the result is a table and a JSON file.

Two measurements on a shared machine differ by more than the effect that they are to show unless they alternate.  So
every round runs each program once, in an order that turns, and a ratio is that of the medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Row:
    """One line of a table: the same work under several names, and the ratio to show.

    Args:
        name: What is done.
        programs: Name to function (a call is one unit of work) or to a `player.Remote`.
        calls: How often a function is called in one round.
        bar: (slower, faster, ratio that the second has to reach over the first), or None.
    """

    name: str
    programs: Mapping[str, Callable[[], Any] | Any]
    calls: int = 1
    bar: tuple[str, str, float] | None = None


def measure(row: Row, rounds: int) -> dict[str, float]:
    """Median seconds per call of each program of a row, taking turns."""
    names = list(row.programs)
    times: dict[str, list[float]] = {n: [] for n in names}
    for n in names:
        _seconds(row.programs[n], 1)  # compile, allocate, fill caches
    for r in range(rounds):
        for n in names[r % len(names) :] + names[: r % len(names)]:
            times[n].append(_seconds(row.programs[n], row.calls) / row.calls)
    return {n: statistics.median(t) for n, t in times.items()}


def _seconds(program: Any, calls: int) -> float:
    if hasattr(program, "timed"):  # it runs elsewhere and has its own clock
        return float(program.timed(calls))
    start = time.perf_counter()
    for _ in range(calls):
        program()
    return time.perf_counter() - start


def run(title: str, rows: list[Row], rounds: int = 15) -> list[dict[str, Any]]:
    """Measure all rows, print them as they come, write `results/<title>.json`; returns the records."""
    arguments = argparse.ArgumentParser(description=title)
    arguments.add_argument("--rounds", type=int, default=rounds, help="rounds in which the programs take turns")
    arguments.add_argument("--only", default="", help="measure only rows whose name contains this")
    given = arguments.parse_args()
    records = []
    print(f"{title} ({platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores)")
    for row in rows:
        if given.only not in row.name:
            continue
        medians = measure(row, given.rounds)
        record: dict[str, Any] = {"name": row.name, "seconds": medians}
        text = "  ".join(f"{n} {_unit(t)}" for n, t in medians.items())
        if row.bar is not None:
            slow, fast, wanted = row.bar
            record["ratio"], record["bar"] = medians[slow] / medians[fast], wanted
            verdict = "" if record["ratio"] >= wanted else "  below the bar"
            text += f"  {slow}/{fast} {record['ratio']:.2f}x (bar {wanted:g}x){verdict}"
        print(f"  {row.name:<34} {text}", flush=True)
        records.append(record)
    write(title, given.rounds, records)
    return records


def write(title: str, rounds: int, records: list[dict[str, Any]]) -> None:
    """Write `results/<title>.json`."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{title}.json"
    document = {"title": title, "rounds": rounds, "machine": machine(), "rows": records}
    path.write_text(json.dumps(document, indent=1) + "\n")
    print(f"  written to {os.path.relpath(path)}")


def machine() -> dict[str, Any]:
    """What a reader has to know of the machine to compare."""
    info = {"python": platform.python_version(), "cores": len(os.sched_getaffinity(0)), "processor": platform.machine()}
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        info["processor"] = next(
            (s.split(":")[1].strip() for s in cpuinfo.read_text().splitlines() if "model name" in s), ""
        )
    return info


def _unit(seconds: float) -> str:
    for limit, factor, unit in ((1e-5, 1e6, "us"), (1e-2, 1e6, "us"), (10, 1e3, "ms")):
        if seconds < limit:
            return f"{seconds * factor:.{2 if limit == 1e-5 else 1}f} {unit}"
    return f"{seconds:.1f} s"
