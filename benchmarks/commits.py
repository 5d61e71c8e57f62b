"""This source tree against another commit of it: what a change costs, per call and per training step.

    python -m benchmarks.commits COMMIT

The other commit plays twice: what it differs from itself is the noise that a difference has to exceed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path

import rushlight
from benchmarks.harness import Row, run
from benchmarks.player import Player, Remote
from benchmarks.programs import small_ops

SAME = 0.95  # of the other commit's speed


def main() -> None:
    """Measure, print, and list what is slower than the other commit by more than it differs from itself."""
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        raise SystemExit("usage: python -m benchmarks.commits COMMIT [--rounds N] [--only TEXT]")
    commit = sys.argv.pop(1)
    with tempfile.TemporaryDirectory(prefix="rushlight-commit-") as folder:
        archive = subprocess.run(["git", "archive", commit, "packages"], capture_output=True, check=True).stdout
        with tarfile.open(fileobj=BytesIO(archive)) as tree:
            tree.extractall(folder, filter="data")
        names = {"before": Path(folder), "before again": Path(folder), "now": None}
        one = {name: Player("rushlight", 1, checkout) for name, checkout in names.items()}
        many = {name: Player("rushlight", len(os.sched_getaffinity(0)), checkout) for name, checkout in names.items()}
        programs = [(name, one, 50 if "100" in name else 3000) for name in small_ops(rushlight)]
        programs += [("tiny_mlp", many, 300), ("digits_cnn", many, 40), ("nano_gpt", many, 5)]
        rows = [
            Row(name, {who: Remote(player, name) for who, player in players.items()}, calls, ("before", "now", SAME))
            for name, players, calls in programs
        ]
        for record in run("commits", rows):
            seconds = record["seconds"]
            noise = abs(seconds["before again"] / seconds["before"] - 1)
            slower = seconds["now"] / min(seconds["before"], seconds["before again"]) - 1
            if slower > max(1 / SAME - 1, noise):
                print(f"  {record['name']:<34} slower by {slower:.1%}, where the same commit differs by {noise:.1%}")
        for player in (*one.values(), *many.values()):
            player.close()


if __name__ == "__main__":
    main()
