"""Writes constraints.txt: the newest versions of everything we depend on, resolved afresh, without PyTorch."""

import json
import subprocess
import sys
from pathlib import Path

from bootstrap import CONSTRAINTS, ROOT, requirements

HEADER = """\
# The versions that `make` installs and CI tests with. Written by `make constraints`, not by hand.
# People who install our distributions with pip get whatever satisfies their declarations instead.
"""


def resolved() -> dict[str, str]:
    """Project name -> newest version that pip would install into an empty environment."""
    wanted = [arg for name in ("build", "run", "test", "lint") for arg in requirements(name, ROOT)]
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    answer = subprocess.run([*command, *wanted], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    found = [item for item in json.loads(answer)["install"] if "dir_info" not in item["download_info"]]
    return {item["metadata"]["name"]: item["metadata"]["version"] for item in found}


if __name__ == "__main__":
    if sys.version_info[:2] != (3, 11):
        sys.exit(f"the versions must fit Python 3.11, the oldest supported; got {sys.version}; use PYTHON=python3.11")
    versions = resolved()
    lines = [f"{name}=={versions[name]}\n" for name in sorted(versions, key=str.lower)]
    Path(ROOT, CONSTRAINTS).write_text(HEADER + "".join(lines))
