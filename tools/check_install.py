"""Installs every distribution alone, in a clean environment, with what it declares, and imports it without a warning.

    check_install.py [NAME ...]        for instance rushlight-nn; all of them without arguments

Our own distributions come from wheels built here; everything else from pip's configured index.
"""

import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

from bootstrap import CONSTRAINTS, ROOT, distributions


def build_wheels(into: Path) -> dict[str, str]:
    """Build every wheel; returns distribution name -> requirement that pins its version."""
    wheel = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(into)]
    subprocess.run([sys.executable, *wheel, *(f"./{f}" for f in distributions(ROOT))], cwd=ROOT, check=True)
    projects = [tomllib.loads((ROOT / f / "pyproject.toml").read_text())["project"] for f in distributions(ROOT)]
    return {project["name"]: f"{project['name']}=={project['version']}" for project in projects}


def install_alone(name: str, requirement: str, wheels: Path) -> str:
    """What went wrong, or an empty string."""
    with tempfile.TemporaryDirectory(prefix="rushlight-alone-") as folder:
        venv.EnvBuilder(with_pip=True, symlinks=True).create(folder)
        python = f"{folder}/bin/python"
        pip = [python, "-m", "pip"]
        steps = [
            [*pip, "install", "--quiet", "--find-links", str(wheels), "-c", str(ROOT / CONSTRAINTS), requirement],
            [*pip, "check"],
            [python, "-W", "error", "-c", f"import {name.replace('-', '_')}"],
        ]
        for step in steps:
            done = subprocess.run(step, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode:
                return f"{' '.join(step[1:])}\n{done.stdout}{done.stderr}"
    return ""


def main(names: list[str]) -> int:
    failed = 0
    with tempfile.TemporaryDirectory(prefix="rushlight-wheels-") as folder:
        pinned = build_wheels(Path(folder))
        unknown = sorted(set(names) - set(pinned))
        if unknown:
            sys.exit(f"no such distribution: {', '.join(unknown)}; there are {', '.join(pinned)}")
        for name in names or pinned:
            problem = install_alone(name, pinned[name], Path(folder))
            failed += bool(problem)
            print(f"{name:24}", f"FAILED: {problem}" if problem else "ok", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
