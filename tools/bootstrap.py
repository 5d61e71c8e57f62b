"""Makes .venv hold what a make target needs: created once, repaired after an interruption, nothing to do the next time.

    bootstrap.py run [test] [lint] [parity]

Each argument is a set of requirements. `.venv/rushlight.json` records which sets were installed from which
declarations, and whether an installation was under way: a half-finished environment is made anew. pip's own settings
(environment and configuration files) apply.
"""

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = "tools/constraints.txt"
PARITY = "tests/parity/requirements.txt"
PARTS = {"run": ["build", "run", "ours"]}  # in this order
PURPOSE = {
    "build": "the build tool",
    "run": "what rushlight needs",
    "ours": "rushlight",
    "test": "the test tools",
    "lint": "the linters",
    "parity": "PyTorch, for comparison only",
}
OLDEST_PIP = (25, 1)  # the first that reads dependency groups


def distributions(root: Path) -> list[str]:
    """The folders of our distributions, relative to the root, as the workspace table of uv lists them."""
    members = [*sorted(root.glob("packages/*/pyproject.toml")), root / "launch/pyproject.toml"]
    members += sorted(root.glob("services/*/pyproject.toml"))
    return [path.parent.relative_to(root).as_posix() for path in members]


def third_party(root: Path) -> list[str]:
    """What our distributions declare, without each other."""
    projects = [tomllib.loads((root / f / "pyproject.toml").read_text())["project"] for f in distributions(root)]
    ours = tuple(f"{project['name']}==" for project in projects)
    return sorted({need for project in projects for need in project["dependencies"] if not need.startswith(ours)})


def requirements(name: str, root: Path) -> list[str]:
    """The arguments of `pip install` for one set."""
    if name == "run":
        return third_party(root)
    if name == "ours":  # needs "build" and "run"; without isolation pip fetches the build tool once, not eleven times
        return ["--no-build-isolation", "--no-deps", *(a for f in distributions(root) for a in ("-e", f"./{f}"))]
    if name == "parity":
        return ["-r", PARITY]
    return ["--group", name]


def fingerprint(name: str, root: Path) -> str:
    """Changes when anything that decides what the set installs changes."""
    declared = ["pyproject.toml", CONSTRAINTS, "tools/bootstrap.py"]
    declared += [f"{folder}/pyproject.toml" for folder in distributions(root)] if name in PARTS["run"] else []
    declared += [PARITY] if name == "parity" else []
    digest = hashlib.sha256()
    for path in declared:
        digest.update(path.encode() + b"\0" + (root / path).read_bytes() + b"\0")
    return digest.hexdigest()


class Environment:
    """One virtual environment and the record of what was put into it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / ".venv"
        self.python = self.folder / "bin" / "python"
        self.record = self.folder / "rushlight.json"
        self.sets: dict[str, str] = {}  # set -> fingerprint of the declarations it was installed from
        self.interrupted = False
        self.read()

    def read(self) -> None:
        try:
            record = json.loads(self.record.read_text())
            self.sets, self.interrupted = dict(record["sets"]), record["state"] != "complete"
        except (OSError, ValueError, KeyError, TypeError):  # made by hand, or not at all: nothing is known
            self.sets, self.interrupted = {}, False

    def write(self, state: str) -> None:
        partial = self.record.with_suffix(".partial")
        partial.write_text(json.dumps({"state": state, "sets": self.sets}, indent=1) + "\n")
        partial.replace(self.record)

    def has(self, wanted: dict[str, str]) -> bool:
        return not self.interrupted and wanted.items() <= self.sets.items() and self.at_home()

    def at_home(self) -> bool:
        """False when the folder was moved or copied: its scripts name their interpreter by absolute path."""
        try:
            return str(self.folder) in (self.folder / "bin" / "activate").read_text() and self.python.exists()
        except OSError:
            return False

    def works(self) -> bool:
        """Does its Python run, is it new enough, and does pip import there?"""
        probe = "import sys, pip; sys.exit(sys.version_info < (3, 11))"
        return self.at_home() and not subprocess.run([self.python, "-c", probe], capture_output=True).returncode

    def create(self) -> None:
        say(f"creating .venv with Python {sys.version.split()[0]} ({sys.executable})")
        venv.EnvBuilder(clear=True, with_pip=True, symlinks=True).create(self.folder)
        self.sets = {}

    def install(self, wanted: dict[str, str]) -> None:
        """A kill in here leaves a record that says so; a failure of pip does not, pip cleans up after itself."""
        self.write("installing")
        too_old = self.pip_version() < OLDEST_PIP
        failure = self.pip("--upgrade", "pip>={}.{}".format(*OLDEST_PIP)) if too_old else ""
        for name, declared in wanted.items():
            if not failure and self.sets.get(name) != declared:
                say(f"installing {PURPOSE[name]}")
                failure = self.pip(*requirements(name, self.root), "-c", CONSTRAINTS)
                if not failure:
                    self.sets[name] = declared
        self.write("complete")
        if failure:
            sys.exit(f"bootstrap: {failure}; see above, then call make again")

    def pip(self, *args: str) -> str:
        """What failed, or an empty string."""
        environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_USER": "0"}
        command = [str(self.python), "-m", "pip", "install", "--quiet", *args]
        code = subprocess.run(command, cwd=self.root, env=environment).returncode
        return f"`pip install {' '.join(args)}` failed (exit {code})" if code else ""

    def pip_version(self) -> tuple[int, int]:
        command = [str(self.python), "-c", "import pip; print(pip.__version__)"]
        major, minor = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().split(".")[:2]
        return int(major), int(minor)


def say(text: str) -> None:
    print(f"bootstrap: {text}", file=sys.stderr, flush=True)


def ensure(sets: list[str], root: Path = ROOT) -> None:
    """Install what is missing or was declared differently; otherwise only read small files."""
    wanted = {name: fingerprint(name, root) for given in sets for name in PARTS.get(given, [given])}
    if Environment(root).has(wanted):
        return
    with open(root / ".venv.lock", "w") as lock:  # `make -j`, or two terminals
        fcntl.flock(lock, fcntl.LOCK_EX)
        environment = Environment(root)
        if environment.has(wanted):
            return
        if environment.interrupted or not environment.works():
            environment.create()
        environment.install(wanted)


if __name__ == "__main__":
    try:
        ensure(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
