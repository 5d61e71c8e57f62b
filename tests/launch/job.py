"""Runs programs on ranks for the tests, through the launcher or through bare mpirun, and never hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rushlight_launch.channel import memory_folder
from rushlight_launch.mpi import environment, files_in, find_mpi

LIMIT_S = 200.0  # only keeps a broken version from hanging


@dataclass(frozen=True)
class Ended:
    """How a job ended."""

    code: int
    out: str
    err: str


def launched(ranks: int, program: Sequence[str | Path], log_dir: Path, *options: str) -> Ended:
    """`rushlight launch -n RANKS PROGRAM…`."""
    words = [sys.executable, "-m", "rushlight_launch", "launch", "-n", str(ranks), "--log-dir", str(log_dir), *options]
    return ran([*words, *map(str, program)], dict(os.environ))


def mpirun(ranks: int, program: Sequence[str | Path]) -> Ended:
    """`mpirun -n RANKS python PROGRAM…`, with no help of the launcher."""
    words = find_mpi().command(ranks, None, ())
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder:
        env = {**environment(os.environ, ranks), **files_in(folder)}
        return ran([*words, sys.executable, *map(str, program)], env)


def ran(words: Sequence[str], env: dict[str, str]) -> Ended:
    """A command in a session of its own, all of which is killed when it takes too long."""
    process = subprocess.Popen(
        words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        out, err = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        raise AssertionError(f"still running after {LIMIT_S:g} s: {words}\n{out}\n{err}") from None
    return Ended(process.returncode, out, err)
