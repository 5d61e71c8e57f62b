"""The suites of kernels, ops and nn on every machine that this one can stand in for: one line each.

    make test-machines                          everything, half an hour on 2 cores
    make test-machines ARGS=--short             a sample drawn by a printed seed, under 4 minutes
    make test-machines ARGS="--only Haswell tests/kernels/test_blas.py"

A machine is a core type of OpenBLAS, with which the private BLAS and NumPy's choose their kernels, and the flags of our
own kernels' compiler.  What this processor lacks is skipped, by name.  Before its tests run, each machine has to show
that it is what it stands for (`_probe`).
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUITES = ("tests/kernels", "tests/ops", "tests/nn")
DRAWN = 200
# What the cache and the wrappers do does not depend on the machine.
NOT_IN_SHORT = ("tests/kernels/test_compile.py", "tests/kernels/test_cache.py", "tests/kernels/test_lengths.py")

# What OpenBLAS calls itself where that is not the core type asked for: a slip in its table, and one kernel for two.
SAYS = {"Prescott": "Katmai", "Zen": "Haswell"}

V2 = ("ssse3", "sse4_1", "sse4_2", "popcnt", "cx16")
V3 = (*V2, "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe")
V4 = (*V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
# The compiler's own vectors of 4 lanes with fused multiply-adds, and char without a sign: what ARM has.
ARM = "-march=x86-64-v3 -U__AVX__ -U__AVX2__ -mprefer-vector-width=128 -funsigned-char"
PLAIN = "-march=x86-64 -fno-tree-vectorize -fno-tree-slp-vectorize -ffp-contract=off -funsigned-char"


@dataclass(frozen=True)
class Machine:
    """OpenBLAS's core type, flags of the kernels' compiler (None: without), what the processor must have."""

    name: str
    core: str
    flags: str | None
    needs: tuple[str, ...] = ()

    def environment(self) -> dict[str, str]:
        own = {"OPENBLAS_CORETYPE": self.core}
        own |= {"RUSHLIGHT_CC": "none"} if self.flags is None else {"RUSHLIGHT_CFLAGS": self.flags}
        return {**os.environ, **own}

    def lacks(self) -> list[str]:
        """The flags that this processor has not; all of them where it is not an x86."""
        present = set(re.findall(r"\w+", _cpu_flags()))
        return [flag for flag in ("sse2", *self.needs) if flag not in present]


MACHINES = (
    Machine("Prescott, x86-64", "Prescott", "-march=x86-64"),
    Machine("Prescott, x86-64-v2", "Prescott", "-march=x86-64-v2", V2),
    Machine("Sandybridge, AVX without FMA", "Sandybridge", "-march=sandybridge", (*V2, "avx")),
    Machine("Haswell, x86-64-v3", "Haswell", "-march=x86-64-v3", V3),
    Machine("Zen, x86-64-v3", "Zen", "-march=x86-64-v3 -mtune=znver1", V3),
    Machine("SkylakeX, x86-64-v4", "SkylakeX", "-march=x86-64-v4", V4),
    Machine("4 lanes with FMA, as on ARM", "Haswell", ARM, V3),
    Machine("plain C, no vectors, no FMA", "Prescott", PLAIN),
    Machine("no compiler, Prescott", "Prescott", None),
    Machine("no compiler, Haswell", "Haswell", None, V3),
)

_probe = """
import ctypes
from rushlight_tensor.kernels import blas, compile
def core(library):
    library.scipy_openblas_get_corename64_.restype = ctypes.c_char_p
    return library.scipy_openblas_get_corename64_().decode()
compiled = compile.c_library("norm") is not None
lines = open("/proc/self/maps").read().split() if blas.load_private_blas() else []
paths = sorted({word for word in lines if "openblas64_" in word})
print(compiled, *sorted({core(ctypes.CDLL(path)) for path in paths}))
"""


def main() -> int:
    options = _options()
    drawn = _draw(options.seed) if options.short else []
    if options.short:
        print(
            f"{len(drawn)} tests of ops, all of kernels and nn; the same again: --short --seed {options.seed}",
            flush=True,
        )
    failed, skipped, started = [], 0, time.monotonic()
    chosen = [m for m in MACHINES if not options.only or any(word.lower() in m.name.lower() for word in options.only)]
    if not chosen:
        sys.exit(f"--only {' '.join(options.only)}: expects a part of one of {', '.join(m.name for m in MACHINES)}")
    for machine in chosen:
        if lacks := machine.lacks():
            print(f"{machine.name:30} skipped  this processor lacks {', '.join(lacks)}", flush=True)
            skipped += 1
            continue
        began = time.monotonic()
        print(f"{machine.name:30} ", end="", flush=True)  # what is being waited for
        passed, counted, output = _run(machine, options.tests, drawn)
        verdict = "ok" if passed else "FAILED"
        print(f"{verdict:8} {counted}  {time.monotonic() - began:.0f} s", flush=True)
        if not passed:
            failed.append(machine.name)
            print("\n".join(f"    {line}" for line in output.splitlines()[-60:]), flush=True)
    tried = len(chosen) - skipped
    print(f"{tried - len(failed)} of {tried} machines passed, {skipped} skipped, {time.monotonic() - started:.0f} s")
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--short", action="store_true", help="a sample of the ops' tests, and what depends on the machine"
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="which sample")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="a part of a machine's name")
    parser.add_argument("tests", nargs="*", help="pytest's arguments instead of the suites")
    options, more = parser.parse_known_args()
    options.tests += more
    return options


def _run(machine: Machine, tests: Sequence[str], drawn: Sequence[str]) -> tuple[bool, str, str]:
    """Whether the tests passed, what pytest counted, its output."""
    wrong = _is_not_what_it_stands_for(machine)
    if wrong:
        return False, wrong, ""
    suites = ["tests/kernels", "tests/nn", *drawn] if drawn else list(SUITES)
    ignored = [f"--ignore={path}" for path in NOT_IN_SHORT] if drawn else []
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:  # one argument per line: too many for a command
        file.write("\n".join([*ignored, *(tests or suites)]))
        file.flush()
        command = [sys.executable, "-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider", f"@{file.name}"]
        done = subprocess.run(command, cwd=ROOT, env=machine.environment(), capture_output=True, text=True)
    lines = (done.stdout + done.stderr).strip().splitlines() or ["no output"]
    return done.returncode == 0, lines[-1].strip("= "), "\n".join(lines)


def _is_not_what_it_stands_for(machine: Machine) -> str:
    command = [sys.executable, "-c", _probe]
    done = subprocess.run(command, cwd=ROOT, env=machine.environment(), capture_output=True, text=True)
    expected = {f"{machine.flags is not None} {name}" for name in (machine.core, SAYS.get(machine.core))}
    if done.returncode == 0 and done.stdout.strip() in expected:
        return ""
    got = done.stdout.strip() or "nothing"
    return f"not this machine: kernels compiled and BLAS cores: expected {expected}, got {got!r} {done.stderr.strip()}"


def _draw(seed: int) -> list[str]:
    """The tests on several threads of what is large enough for them, and some of all others of the ops."""
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider", "tests/ops"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"collecting tests/ops failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    every = [line for line in done.stdout.splitlines() if "::" in line]
    large = [name for name in every if "test_threads.py" in name and "-large" in name]
    rest = sorted(set(every) - set(large))
    return large + random.Random(seed).sample(rest, min(DRAWN, len(rest)))


def _cpu_flags() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
    return next((line for line in text.splitlines() if line.startswith("flags")), "")


if __name__ == "__main__":
    sys.exit(main())
