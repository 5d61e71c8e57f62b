"""All C under AddressSanitizer and UBSan: hostile calls, and the suites that reach it.  `make sanitize [ARGS=...]`.

    --short           hostile cases only, fewer: the form of CI
    --cases N         hostile cases (default 20000; 2500 in the short form)
    --seed N          what they are drawn from (default: a new one each time, printed)
    --no-suites       leave out the suites of ops, nn, optim, kernels and jit

Every report ends the run with what the sanitizer said and the last case.  The libraries are built with
`RUSHLIGHT_CFLAGS` into a cache folder of their own; Python runs with libasan in front, so NumPy's arrays have zones
around them.  OpenBLAS is as it comes: what it does is seen only where it writes.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent
FLAGS = "-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"
SUITES = ("tests/ops", "tests/nn", "tests/optim", "tests/kernels", "tests/jit")
# Tests of the compiler's own handling: they start processes with other compilers, caches and flags.
NOT_SUITES = ("tests/kernels/test_compile.py", "tests/kernels/test_cache.py")
MOST_MB = 2048  # what one allocation may take; more is a MemoryError, so sizes of 2**31 are tried, too


def runtime() -> str:
    """The sanitizers' shared libraries of the compiler, as LD_PRELOAD wants them."""
    found = []
    for name in ("libasan.so", "libubsan.so"):
        said = subprocess.run(["cc", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout
        path = Path(said.strip())
        if not path.is_absolute():
            sys.exit(
                f"sanitize: the compiler has no {name}; install gcc with its sanitizers (Debian: libasan, libubsan)"
            )
        found.append(str(path.resolve()))
    return " ".join(found)


def environment() -> dict[str, str]:
    """What the tests run with."""
    options = {
        "detect_leaks": 0,  # Python keeps what it has until the process ends
        "allocator_may_return_null": 1,
        "max_allocation_size_mb": MOST_MB,
        "abort_on_error": 0,
        "exitcode": 99,
    }
    return {
        **os.environ,
        "LD_PRELOAD": runtime(),
        "ASAN_OPTIONS": ":".join(f"{k}={v}" for k, v in options.items()),
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "RUSHLIGHT_CFLAGS": FLAGS,
        "RUSHLIGHT_CACHE": os.environ.get("RUSHLIGHT_SANITIZED_CACHE", str(ROOT / ".sanitize" / "cache")),
        "OMP_NUM_THREADS": "2",
        "PYTHONMALLOC": "malloc",
    }


def run(arguments: list[str], env: dict[str, str]) -> tuple[int, list[str]]:
    """pytest: how it ended, and what a sanitizer said from its first line on.  Its output is shown as it comes."""
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", "--timeout=0", *arguments]
    said: list[str] = []
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as p:
        assert p.stdout is not None
        for line in p.stdout:
            if said or any(mark in line for mark in ("ERROR: AddressSanitizer", "runtime error:")):
                said.append(line)
            if not line.startswith(" ** On entry to "):  # BLAS about a case that it refuses
                print(line, end="", flush=True)
    return p.returncode, said


def main() -> int:
    parser = argparse.ArgumentParser(description="all C under AddressSanitizer and UBSan")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--cases", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--no-suites", action="store_true")
    chosen = parser.parse_args()
    cases = chosen.cases or (2500 if chosen.short else 20000)
    seed = secrets.randbelow(2**31) if chosen.seed is None else chosen.seed
    started = time.monotonic()
    print(
        f"sanitize: {cases} hostile cases from seed {seed} (again: make sanitize ARGS='--cases {cases} --seed {seed}')"
    )
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        env = environment()
        # A share of the drawn cases is too large to be run: draw some more.
        hostile = {**env, "RUSHLIGHT_HOSTILE": f"{cases + cases // 5}:{seed}:{work / 'hostile'}"}
        failed, said = run(["-x", "tests/hostile"], hostile)
        counts: Counter[str] = Counter()
        for path in work.glob("hostile.*.json"):
            counts.update(json.loads(path.read_text()))
        if failed and (work / "hostile.case").exists():
            print(f"sanitize: the last case was {(work / 'hostile.case').read_text()}")
        if not failed and not chosen.short and not chosen.no_suites:
            failed, said = run([*SUITES, *(f"--ignore={path}" for path in NOT_SUITES)], env)
    ops = {name[3:]: n for name, n in counts.items() if name.startswith("op ")}
    ran = counts["prototypes"] + counts["operations"]
    print(
        f"sanitize: {ran} hostile cases ({counts['prototypes']} of kernels, {counts['operations']} of {len(ops)} ops), "
        f"{int(bool(said))} reports, seed {seed}, {time.monotonic() - started:.0f} s"
    )
    return 1 if failed or said or ran < cases else 0


if __name__ == "__main__":
    sys.exit(main())
