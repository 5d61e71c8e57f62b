"""`make test` runs two tests at a time, ends with one summary and one exit code, and one at a time where asked."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MEETING = """
import os, time
from pathlib import Path
import pytest

def come(name, other):
    print("worker", os.environ.get("PYTEST_XDIST_WORKER", "none"))
    place = Path(__file__).parent
    (place / name).touch()
    until = time.monotonic() + PATIENCE
    while not (place / other).exists():
        assert time.monotonic() < until, "nobody came"
        time.sleep(0.01)

def test_one(): come("one", "another")
def test_another(): come("another", "one")
"""


def make_test(tests, patience, *words):
    """The command of `make test` on tests that wait for one another."""
    tests.write_text(MEETING.replace("PATIENCE", str(patience)))
    arguments = f"-p tests.conftest -p no:cacheprovider -c pyproject.toml --rootdir . {tests} {' '.join(words)}"
    shown = subprocess.run(
        ["make", "--no-print-directory", "-n", "test", f"ARGS={arguments}"],
        cwd=ROOT, env={**os.environ, "MAKEFLAGS": ""}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    command = shown.stdout.splitlines()[-1].replace(".venv/bin/python", sys.executable)
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    return subprocess.run(command, shell=True, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)


def test_tests_run_side_by_side_with_one_summary(tmp_path):
    done = make_test(tmp_path / "test_meeting.py", 60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"^=+ (2 passed) in .* =+$", done.stdout, re.MULTILINE) == ["2 passed"]  # what .ci/run looks for


@pytest.mark.parametrize("option", ["-s", "-n 0"])
def test_one_at_a_time_where_asked(tmp_path, option):
    done = make_test(tmp_path / "test_meeting.py", 0.2, option)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "nobody came" in done.stdout
    assert "1 failed, 1 passed" in done.stdout
    assert "worker none" in done.stdout
