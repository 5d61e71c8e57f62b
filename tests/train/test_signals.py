"""A signal ends the whole command, once and in order: the running job, its ranks, and the jobs not yet begun."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SWEEP = ["--multirun", "model=mlp", "data.epochs=1,500,501"]


@pytest.fixture
def start(tmp_path):
    """Start `rushlight train` in a process group of its own, in `tmp_path`; it is gone after the test."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("OMPI_", "PMIX_"))}
    running = []

    def begin(words, code="from rushlight_train.main import main; sys.exit(main())"):
        running.append(
            subprocess.Popen(
                [sys.executable, "-c", f"import sys; {code}", *words], cwd=tmp_path, env=env, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
            )
        )  # fmt: skip
        return running[-1]

    yield begin
    for process in running:  # its ranks end with it
        process.kill()
        process.communicate()


def until_said(process, text):
    said = []
    while text not in "".join(said[-1:]):
        said.append(process.stderr.readline())
        assert said[-1], "".join(said)
    return "".join(said)


def left_over(folder):
    """The processes that name this test's folder."""

    def words(path):
        try:
            return path.read_bytes()
        except OSError:
            return b""

    return [path.parent.name for path in Path("/proc").glob("[0-9]*/cmdline") if str(folder).encode() in words(path)]


@pytest.mark.parametrize(
    ("number", "send", "code"),
    [
        (signal.SIGINT, os.killpg, 130),
        (signal.SIGINT, os.kill, 130),
        (signal.SIGTERM, os.kill, 143),
    ],
)
def test_one_signal_ends_a_sweep(start, tmp_path, number, send, code):
    process = start(SWEEP)
    said = until_said(process, "epoch 2/500")
    assert left_over(tmp_path)
    send(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, said + err
    assert len(list(tmp_path.glob("outputs/**/summary.json"))) == 1
    assert len(list(tmp_path.glob("outputs/**/resolved.yaml"))) == 2
    assert "stopped by you" in out
    assert "failed" not in out
    assert "data.epochs=1 " in out
    first, last = err.splitlines()[-2:]
    assert first.startswith(f"rushlight train (model=mlp data.epochs=500): stopped by you ({number.name}) after ")
    assert first.endswith("/1 goes on")
    assert last == (
        f"rushlight train: stopped by you ({number.name}): no further job was started; "
        "--multirun with the values that are left goes on with the sweep"
    )
    until = time.monotonic() + 20
    while left_over(tmp_path) and time.monotonic() < until:
        time.sleep(0.05)
    assert not left_over(tmp_path)


def test_a_signal_between_two_jobs_is_not_lost(start, tmp_path):
    """It comes while the second job is looked at, when no rank of any job runs."""
    code = (
        "import os, signal; from rushlight_train import checks; from rushlight_train.main import main\n"
        "look = checks.values\n"
        "def values(cfg):\n"
        "    look(cfg)\n"
        "    if cfg.data.epochs == 2:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "checks.values = values\n"
        "sys.exit(main())\n"
    )
    process = start(["--multirun", "model=mlp", "launch.ranks=1", "data.epochs=1,2,3"], code)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert len(list(tmp_path.glob("outputs/**/summary.json"))) == 1
    assert "stopped by you" in out
    assert "no further job was started" in err
    assert not list(tmp_path.glob("outputs/sweeps/*/*/1/logs/rank0.log"))
    assert not list(tmp_path.glob("outputs/sweeps/*/*/2"))


def test_a_single_job_that_was_stopped_is_not_called_failed(start):
    process = start(["model=mlp", "launch.ranks=1", "data.epochs=500"])
    until_said(process, "epoch 1/500")
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == ""
    assert "stopped by you (SIGINT)" in err
    assert "failed" not in err


def test_a_sweep_stopped_in_its_first_job_has_its_table_and_says_how_to_go_on(start):
    process = start(["--multirun", "model=mlp", "launch.ranks=1", "data.epochs=500,501"])
    until_said(process, "epoch 2/500")
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "data.epochs=500" in out
    assert "stopped by you" in out
    assert re.search(r"resume_from=outputs/sweeps/\S+/0 goes on\n", err)
    assert err.endswith("--multirun with the values that are left goes on with the sweep\n")


def test_a_killed_rank_leaves_word_of_how_to_go_on(start, tmp_path):
    process = start(["model=mlp", "launch.ranks=1", "data.epochs=500"])
    until_said(process, "epoch 2/500")
    words = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in left_over(tmp_path)}
    (rank,) = (pid for pid, line in words.items() if line[1:3] == [b"-m", b"rushlight_launch.rank"])
    os.kill(rank, signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 137, err
    assert "rank 0 was killed by SIGKILL" in err
    assert re.search(r"\nresume_from=outputs/\S+ goes on\n$", err)
