"""Makes .venv hold what a make target needs: created once, repaired after an interruption, nothing to do the next time.

    bootstrap.py run [test] [lint] [parity]

Each argument is a set of requirements. `.venv/rushlight.json` records which sets were installed from which
declarations; it is taken away before an installation and written after, so a half-finished one is never trusted.
pip's own settings (environment and configuration files) apply.
"""

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = "tools/constraints.txt"
PARITY = "tests/parity/requirements.txt"
OLDEST_PIP = (25, 1)  # the first that reads dependency groups


def distributions(root: Path) -> list[str]:
    """The folders of our distributions, relative to the root, as the workspace table of uv lists them."""
    members = [*sorted(root.glob("packages/*/pyproject.toml")), root / "launch/pyproject.toml"]
    members += sorted(root.glob("services/*/pyproject.toml"))
    return [path.parent.relative_to(root).as_posix() for path in members]


def requirements(name: str, root: Path) -> list[str]:
    """The arguments of `pip install` for one set."""
    if name == "run":
        return ["--no-build-isolation", *(arg for folder in distributions(root) for arg in ("-e", f"./{folder}"))]
    if name == "parity":
        return ["-r", PARITY]
    return ["--group", name]


def fingerprint(name: str, root: Path) -> str:
    """Changes when anything that decides what the set installs changes."""
    declared = ["pyproject.toml", CONSTRAINTS, "tools/bootstrap.py"]
    declared += [f"{folder}/pyproject.toml" for folder in distributions(root)] if name == "run" else []
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

    def installed(self) -> dict[str, str]:
        """Set name -> fingerprint; empty when nothing is known to be complete at this place."""
        try:
            record = json.loads(self.record.read_text())
            return dict(record["sets"]) if record["root"] == str(self.root) else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def write(self, sets: dict[str, str]) -> None:
        partial = self.record.with_suffix(".partial")
        partial.write_text(json.dumps({"root": str(self.root), "sets": sets}, indent=1) + "\n")
        partial.replace(self.record)

    def works(self) -> bool:
        """Does its Python run, is it new enough, and does pip import there?"""
        probe = "import sys, pip; sys.exit(sys.version_info < (3, 11))"
        try:
            return subprocess.run([self.python, "-c", probe], capture_output=True, check=False).returncode == 0
        except OSError:
            return False

    def moved(self) -> bool:
        """Was it made for another folder? Its scripts name their interpreter by absolute path."""
        try:
            activate = (self.folder / "bin" / "activate").read_text()
        except OSError:
            return True
        return str(self.folder) not in activate

    def create(self) -> None:
        say(f"creating .venv with Python {sys.version.split()[0]} ({sys.executable})")
        venv.EnvBuilder(clear=True, with_pip=True, symlinks=True).create(self.folder)

    def pip(self, *args: str) -> None:
        environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_USER": "0"}
        command = [str(self.python), "-m", "pip", "install", "--quiet", *args]
        code = subprocess.run(command, cwd=self.root, env=environment, check=False).returncode
        if code:
            failed = f"`pip install {' '.join(args)}` failed (exit {code}), see above"
            sys.exit(f"bootstrap: {failed}; calling make again continues")

    def pip_version(self) -> tuple[int, int]:
        code = "import pip; print(pip.__version__)"
        text = subprocess.run([self.python, "-c", code], capture_output=True, text=True, check=True).stdout
        major, minor = text.strip().split(".")[:2]
        return int(major), int(minor)


def say(text: str) -> None:
    print(f"bootstrap: {text}", file=sys.stderr, flush=True)


def ensure(sets: list[str], root: Path = ROOT) -> None:
    """Install what is missing or was declared differently; otherwise only read one small file."""
    environment = Environment(root)
    wanted = {name: fingerprint(name, root) for name in sets}
    installed = environment.installed()
    if wanted.items() <= installed.items() and environment.python.exists():
        return
    with open(root / ".venv.lock", "w") as lock:  # `make -j`, or two terminals
        fcntl.flock(lock, fcntl.LOCK_EX)
        installed = environment.installed()
        if environment.moved() or not environment.works():
            environment.create()
            installed = {}
        environment.record.unlink(missing_ok=True)
        if environment.pip_version() < OLDEST_PIP:
            environment.pip("--upgrade", f"pip>={'.'.join(map(str, OLDEST_PIP))}")
        if "run" in wanted and installed.get("run") != wanted["run"]:
            environment.pip("--group", "build", "-c", CONSTRAINTS)
        for name, declared in wanted.items():
            if installed.get(name) != declared:
                say(f"installing what `{name}` needs")
                environment.pip(*requirements(name, root), "-c", CONSTRAINTS)
        environment.write({**installed, **wanted})


if __name__ == "__main__":
    try:
        ensure(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
