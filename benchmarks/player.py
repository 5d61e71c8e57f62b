"""A process that runs the programs of one framework on request, so that two frameworks never share a process.

Note [One framework per process]
    PyTorch and our kernels each have an OpenMP pool whose idle threads spin.  In one process on two cores they take the
    cores from each other, and both are slower by several times.  So each framework plays in a process of its own, and
    the parent lets them take turns; the one that waits, waits for a line on its standard input.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import programs


class Player:
    """The parent's end: programs of `benchmarks.programs` under one framework."""

    def __init__(self, framework: str, threads: int, checkout: Path | None = None) -> None:
        """`checkout`: take our packages from the source tree of another commit."""
        command = [sys.executable, "-m", "benchmarks.player", framework, str(threads)]
        env = dict(os.environ)
        if checkout is not None:
            env["PYTHONPATH"] = os.pathsep.join(map(str, sorted(checkout.glob("packages/*/src"))))
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        self.framework = framework

    def ask(self, program: str, calls: int) -> dict[str, Any]:
        """Run a program `calls` times: `{"seconds": in all, "loss": of the last}`; RuntimeError when it dies."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([program, calls]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"the {self.framework} process ended with {self._process.wait()} in {program}; see above"
            )
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()


class Remote:
    """A program that a player runs; what `harness.measure` times."""

    def __init__(self, player: Player, program: str) -> None:
        self.player, self.program = player, program

    def timed(self, calls: int) -> float:
        """Seconds for `calls` calls, measured where they run."""
        return float(self.player.ask(self.program, calls)["seconds"])


def both(players: list[Player], program: str) -> dict[str, Remote]:
    """The program under each framework.  Raises AssertionError when their losses differ in the first steps."""
    for step in range(3):
        losses = {p.framework: p.ask(program, 1)["loss"] for p in players}
        assert max(losses.values()) - min(losses.values()) < 1e-4, f"{program}, step {step}: {losses}"
    return {p.framework: Remote(p, program) for p in players}


def main() -> None:
    """The child's end."""
    framework: Any = importlib.import_module(sys.argv[1])
    framework.set_num_threads(int(sys.argv[2]))
    steps: dict[str, programs.Step] = {}
    for line in sys.stdin:
        name, calls = json.loads(line)
        if name not in steps:
            steps[name] = programs.find(framework, name)
        loss: Any = None
        start = time.perf_counter()
        for _ in range(calls):
            loss = steps[name]()
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "loss": loss if loss is None else loss.item()}), flush=True)


if __name__ == "__main__":
    main()
