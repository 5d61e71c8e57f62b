"""What the launcher does with output that it cannot write: a closed pipe, a full disk, half a character."""

import io
import os
import subprocess
import sys

import pytest

from rushlight_launch.console import Console
from tests.launch.job import LIMIT_S, launched

pytestmark = [pytest.mark.mpirun, pytest.mark.mpi_skip]

LINES = 20_000
CHATTY = f"""
import sys
for i in range({LINES}):
    print("line", i)
if len(sys.argv) > 1:
    raise ValueError("boom")
"""


@pytest.fixture
def chatty(tmp_path):
    path = tmp_path / "chatty.py"
    path.write_text(CHATTY)
    return path


@pytest.mark.parametrize("fails", [False, True])
def test_job_whose_reader_has_gone_runs_to_its_end_and_is_reported(chatty, tmp_path, fails):
    words = [sys.executable, "-m", "rushlight_launch", "launch", "-n", "2", "--log-dir", tmp_path / "logs", chatty]
    words += ["boom"] if fails else []
    reader, writer = os.pipe()
    with subprocess.Popen(words, stdout=writer, stderr=subprocess.PIPE, text=True) as process:
        os.close(writer)
        assert b"line" in os.read(reader, 100)
        os.close(reader)  # as `head` does
        _, said = process.communicate(timeout=LIMIT_S)
    assert "cannot write to stdout (Broken pipe), the job goes on" in said
    assert "BrokenPipeError" not in said
    for rank in range(2):
        assert f"line {LINES - 1}\n" in (tmp_path / "logs" / f"rank{rank}.log").read_text()
    assert process.returncode == (1 if fails else 0), said
    assert said.endswith("ValueError: boom\n") == fails


def test_job_whose_log_cannot_be_written_runs_to_its_end_and_says_so(chatty, tmp_path):
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "rank0.log").symlink_to("/dev/full")
    ended = launched(2, [chatty, "boom"], logs)
    assert ended.code == 1
    assert ended.out.count("[rank 0] line") == LINES
    assert "cannot write to rank0.log (No space left on device), the job goes on" in ended.err
    assert f"logs: {logs} (cut short: rank0.log: No space left on device)" in ended.err
    assert (logs / "rank1.log").read_text().count("line") >= LINES


@pytest.mark.parametrize("kind", ["buffered", "unbuffered", "text"])
def test_character_that_arrives_in_two_parts_is_whole(tmp_path, kind):
    shown = tmp_path / "shown"
    if kind == "text":
        stream = io.StringIO()
    else:
        raw = io.FileIO(shown, "w")
        stream = io.TextIOWrapper(
            raw if kind == "unbuffered" else io.BufferedWriter(raw), encoding="utf-8", write_through=True
        )
    console = Console(tmp_path, "rank0", {"stdout": stream, "stderr": io.StringIO()})
    console.write(0, "stdout", b"caf\xc3")
    console.write(0, "stdout", b"\xa9!")
    console.close()
    assert (stream.getvalue() if kind == "text" else shown.read_text(encoding="utf-8")) == "café!"
    stream.close()


@pytest.mark.parametrize("wrapped", [io.BufferedWriter, lambda raw: raw], ids=["buffered", "unbuffered"])
def test_bytes_that_are_no_text_arrive_as_they_are(tmp_path, wrapped):
    stream = io.TextIOWrapper(wrapped(io.FileIO(tmp_path / "shown", "w")), encoding="utf-8", write_through=True)
    console = Console(tmp_path, "rank0", {"stdout": stream, "stderr": io.StringIO()})
    console.write(0, "stdout", b"\xff\xfe|\x80")
    console.close()
    stream.close()
    assert (tmp_path / "shown").read_bytes() == b"\xff\xfe|\x80"
