"""`make` on a fresh clone: which Python is taken, what is installed, and when nothing is to be done."""

import json
import os
import shutil
import subprocess
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load_bootstrap():
    spec = spec_from_file_location("bootstrap", ROOT / "tools/bootstrap.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bootstrap = load_bootstrap()


@pytest.fixture
def clone(tmp_path):
    """A workspace of one distribution, in a folder whose name has a space."""
    root = tmp_path / "my clone"
    for name in ("pyproject.toml", "tools/constraints.txt", "tools/bootstrap.py", "tests/parity/requirements.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    for folder in ("packages/tensor", "launch", "services/train"):
        (root / folder).mkdir(parents=True)
        shutil.copy(ROOT / folder / "pyproject.toml", root / folder)
    return root


@pytest.fixture
def pip_calls(monkeypatch):
    """Stands in for pip and for venv; what it was asked for."""
    calls = []
    monkeypatch.setattr(bootstrap.Environment, "pip", lambda self, *args: calls.append(args) or "")
    monkeypatch.setattr(bootstrap.Environment, "pip_version", lambda self: bootstrap.OLDEST_PIP)
    monkeypatch.setattr(bootstrap.Environment, "works", lambda self: self.at_home())

    def create(self):
        calls.append(("create",))
        (self.folder / "bin").mkdir(parents=True, exist_ok=True)
        self.python.touch()
        (self.folder / "bin/activate").write_text(f"VIRTUAL_ENV='{self.folder}'")
        self.sets = {}

    monkeypatch.setattr(bootstrap.Environment, "create", create)
    return calls


def test_second_call_installs_nothing(clone, pip_calls):
    bootstrap.ensure(["run", "test"], clone)
    assert pip_calls[0] == ("create",)
    assert ("--group", "test", "-c", bootstrap.CONSTRAINTS) in pip_calls
    pip_calls.clear()
    bootstrap.ensure(["run", "test"], clone)
    bootstrap.ensure(["run"], clone)
    assert pip_calls == []


def test_changed_declaration_installs_again_into_the_same_environment(clone, pip_calls):
    bootstrap.ensure(["run", "test"], clone)
    pip_calls.clear()
    with open(clone / "launch/pyproject.toml", "a") as file:
        file.write("# one more dependency\n")
    bootstrap.ensure(["run", "test"], clone)
    installed = [call for call in pip_calls if call[0] not in ("--group", "create")]
    assert len(installed) == 2
    assert "./launch" in installed[-1]
    assert ("create",) not in pip_calls


def test_interrupted_installation_is_made_anew(clone, pip_calls, monkeypatch):
    def killed(self, *args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(bootstrap.Environment, "pip", killed)
        with pytest.raises(KeyboardInterrupt):
            bootstrap.ensure(["run"], clone)
    pip_calls.clear()
    bootstrap.ensure(["run"], clone)
    assert pip_calls[0] == ("create",)
    assert json.loads((clone / ".venv/rushlight.json").read_text())["state"] == "complete"


def test_failed_installation_is_tried_again(clone, pip_calls, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(bootstrap.Environment, "pip", lambda self, *args: "no such index")
        with pytest.raises(SystemExit, match="no such index; see above"):
            bootstrap.ensure(["run"], clone)
    pip_calls.clear()
    bootstrap.ensure(["run"], clone)
    assert ("create",) not in pip_calls
    assert any("./launch" in call for call in pip_calls)


def test_moved_folder_gets_a_new_environment(clone, pip_calls):
    bootstrap.ensure(["run"], clone)
    pip_calls.clear()
    moved = clone.rename(clone.with_name("elsewhere"))
    bootstrap.ensure(["run"], moved)
    assert pip_calls[0] == ("create",)


def test_environment_made_by_hand_is_kept(clone, pip_calls):
    bootstrap.Environment(clone).create()
    pip_calls.clear()
    bootstrap.ensure(["run"], clone)
    assert ("create",) not in pip_calls


def search_path(folder: Path, **pythons: str) -> str:
    """A PATH with only `dirname` and the given stand-ins for Python, each a line of shell."""
    folder.mkdir()
    (folder / "dirname").symlink_to(shutil.which("dirname"))
    for name, script in pythons.items():
        path = folder / name.replace("_", ".")
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    return str(folder)


def find_python(path: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["/bin/sh", ROOT / "tools/bootstrap.sh"],
        env={"PATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


TOO_OLD = 'case "$2" in *ensurepip*sys.exit*|*version_info*) exit 3;; *version.split*) echo 3.9.2;; esac'
WITHOUT_VENV = 'case "$2" in *version.split*) echo 3.12.4;; *) exit 4;; esac'
GOOD = 'case "$1" in -c) exit 0;; *) echo "took $0";; esac'


def test_first_python_that_fits_is_taken(tmp_path):
    path = search_path(tmp_path / "bin", python3=TOO_OLD, python3_13=WITHOUT_VENV, python3_12=GOOD, python3_11=GOOD)
    assert "python3.12" in find_python(path).stdout


def test_python_can_be_named(tmp_path):
    path = search_path(tmp_path / "bin", python3=GOOD, python3_11=GOOD)
    assert find_python(path, PYTHON=f"{path}/python3.11").stdout == f"took {path}/python3.11\n"


def test_no_suitable_python_is_explained(tmp_path):
    path = search_path(tmp_path / "bin", python3=TOO_OLD, python3_12=WITHOUT_VENV)
    answer = find_python(path)
    assert answer.returncode == 1
    assert "/python3: Python 3.9.2, too old" in answer.stderr
    assert "/python3.12: Python 3.12.4, lacks ensurepip (Debian, Ubuntu: apt install python3.12-venv)" in answer.stderr


def test_help_lists_every_target():
    makefile = (ROOT / "Makefile").read_text()
    phony = [name for line in makefile.splitlines() if line.startswith(".PHONY:") for name in line.split()[1:]]
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    helped = subprocess.run(["make", "help"], cwd=ROOT, env=outside, capture_output=True, text=True, check=True).stdout
    assert sorted(line.split()[1] for line in helped.splitlines()) == sorted(phony)
