"""Mutation check: plants the faults of `tests/mutants/planted.py` one at a time and looks whether the tests notice.

    make mutants                                every fault, some minutes
    make mutants ARGS="--sample 10"             some of them, drawn by a printed seed
    make mutants ARGS="--only engine"           those whose place contains a word

The tree is copied first, so nothing is planted in the working tree.  A text that does not occur exactly once in its
file is an error, and so are tests that fail without a fault.  Ends with 1 for an error, or a survivor without a reason.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.mutants.planted import PLANTED, Fault  # noqa: E402

LIMIT_S = 240
WITHOUT_FAULT_S = 1800  # all tests of all faults in one run
KILLED, SURVIVED, BROKEN = "killed", "SURVIVED", "BROKEN"


class Copy:
    """A copy of the tree to plant faults in, and to run tests in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
        for name in filter(None, listed.stdout.decode().split("\0")):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
        sources = [str(path) for path in sorted(folder.glob("*/*/src")) + sorted(folder.glob("*/src"))]
        self.environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sources)}
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self._stamp = int(time.time()) + 10

    def check_imports(self) -> None:
        """The tests must see the copy, whatever is installed."""
        code = "import rushlight_tensor, rushlight_autograd, rushlight_jit; print(rushlight_tensor.__file__)"
        done = subprocess.run([sys.executable, "-c", code], cwd=self.folder, env=self.environment, capture_output=True)
        if not done.stdout.decode().startswith(str(self.folder)):
            sys.exit(f"the copy is not what is imported: {done.stdout.decode()}{done.stderr.decode()}")

    def has(self, fault: Fault) -> bool:
        """Whether the text of a fault occurs exactly once."""
        path = self.folder / fault.file
        return path.exists() and path.read_text().count(fault.text) == 1

    def write(self, name: str, text: str) -> None:
        """Write a file, with a time that no earlier bytecode of it has."""
        path = self.folder / name
        path.write_text(text)
        self._stamp += 2
        os.utime(path, (self._stamp, self._stamp))

    def run(
        self, tests: Sequence[str], ranks: int = 0, python: bool = False, limit_s: int = LIMIT_S
    ) -> subprocess.CompletedProcess[str]:
        """Run pytest; `python`: on the Python twins of what is accelerated, which would not be seen to fail else."""
        options = ["-x", "-q", "-p", "no:cacheprovider", "--no-header", *tests]
        program = ["-m", "tests.mpi.run", str(ranks)] if ranks else ["-m", "pytest"]
        command = [sys.executable, *program, *options]
        return subprocess.run(
            command,
            cwd=self.folder,
            env={**self.environment, **({"RUSHLIGHT_ACCELERATOR": "none"} if python else {})},
            capture_output=True,
            text=True,
            timeout=limit_s,
        )


def main() -> int:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="rushlight-mutants-") as folder:
        copy = Copy(Path(folder).resolve())
        copy.check_imports()
        chosen = _choose(options, PLANTED)
        wrong = [fault for fault in chosen if not copy.has(fault)]
        for fault in wrong:
            print(f"{BROKEN}    {fault}: its text does not occur exactly once")
        chosen = [fault for fault in chosen if fault not in wrong]
        failing = _failing_without_fault(copy, chosen)
        if failing:
            print(f"the tests fail without a fault:\n{failing}")
            return 1
        verdicts = [_try(copy, fault) for fault in chosen]
    killed, survived = verdicts.count(KILLED), verdicts.count(SURVIVED)
    unexplained = sum(v == SURVIVED and not f.reason for v, f in zip(verdicts, chosen, strict=True))
    print(f"{len(verdicts)} planted, {killed} killed ({killed / max(1, len(verdicts)):.0%}), {survived} survived")
    return 1 if wrong or unexplained or BROKEN in verdicts else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sample", type=int, metavar="N", help="only so many, drawn by the seed")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="which sample")
    parser.add_argument("--only", metavar="WORD", help="only faults whose file or text contains it")
    return parser.parse_args()


def _choose(options: argparse.Namespace, faults: list[Fault]) -> list[Fault]:
    if options.only:
        faults = [fault for fault in faults if options.only in f"{fault.file} {fault.text}"]
    if options.sample is not None and options.sample < len(faults):
        again = f"--sample {options.sample} --seed {options.seed}"
        print(f"{options.sample} of {len(faults)} faults; the same again: {again}", flush=True)
        faults = random.Random(options.seed).sample(faults, options.sample)
    return faults


def _failing_without_fault(copy: Copy, faults: list[Fault]) -> str:
    for ranks in sorted({fault.ranks for fault in faults}):
        tests = list(dict.fromkeys(test for fault in faults if fault.ranks == ranks for test in fault.tests))
        done = copy.run(tests, ranks, limit_s=WITHOUT_FAULT_S)
        if done.returncode != 0:
            return done.stdout[-4000:] + done.stderr[-1000:]
    return ""


def _try(copy: Copy, fault: Fault) -> str:
    original = (copy.folder / fault.file).read_text()
    copy.write(fault.file, original.replace(fault.text, fault.planted))
    started = time.monotonic()
    try:
        done = copy.run(fault.tests, fault.ranks, python="accelerator" not in fault.file)
        # pytest: 0 all passed, 1 a test failed; anything else means that no test has judged the fault.
        verdict = {0: SURVIVED, 1: KILLED}.get(done.returncode, KILLED if fault.ranks else BROKEN)
        said = done.stdout[-1500:] if verdict == BROKEN else ""
    except subprocess.TimeoutExpired:
        verdict, said = KILLED, ""
    finally:
        copy.write(fault.file, original)
    reason = f"  ({fault.reason})" if verdict == SURVIVED and fault.reason else ""
    print(f"{verdict:8}  {time.monotonic() - started:4.0f} s  {fault}{reason}{said}", flush=True)
    return verdict


if __name__ == "__main__":
    sys.exit(main())
