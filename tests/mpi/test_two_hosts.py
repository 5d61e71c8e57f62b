"""Two hosts on one machine: an ssh agent that gives each daemon a host name of its own, so that MPI sees two nodes."""

import subprocess
from pathlib import Path

import pytest

from rushlight_launch.mpi import find_mpi
from tests.launch.job import launched

FAKE_SSH = """#!/bin/bash
while [[ "$1" == -* ]]; do case "$1" in -o|-p|-l|-i) shift 2;; *) shift;; esac; done
host=$1; shift
exec unshare --uts bash -c "hostname $host; $*"
"""


def _cannot_rename_hosts():
    return subprocess.run(["unshare", "--uts", "true"], capture_output=True, check=False).returncode != 0


pytestmark = [
    pytest.mark.mpirun,
    pytest.mark.mpi_skip,
    pytest.mark.slow,
    pytest.mark.skipif(find_mpi().kind != "open mpi", reason="the fake ssh agent is one for Open MPI"),
    pytest.mark.skipif(_cannot_rename_hosts(), reason="needs `unshare --uts`, which this user may not call"),
]


@pytest.fixture
def start(tmp_path, monkeypatch):
    agent = tmp_path / "fakessh"
    agent.write_text(FAKE_SSH)
    agent.chmod(0o755)
    monkeypatch.setenv("PRTE_MCA_plm_ssh_agent", str(agent))
    hosts = tmp_path / "hosts"
    hosts.write_text("fakeA slots=2\nfakeB slots=1\n")

    def job(*program):
        return launched(3, program, tmp_path / "logs", "--hostfile", str(hosts), "--timeout", "40")

    return job


FAULTS = Path(__file__).parents[1] / "faults"


def test_training_sees_two_hosts(start, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import socket, sys, rushlight_distributed as dist\n"
        f"sys.argv[1:] = ['none', 'nowhere']; exec(open({str(FAULTS / 'training.py')!r}).read())\n"
        "print(socket.gethostname(), dist.get_rank(), dist.get_node_local_rank())\n"
    )
    ended = start(program)
    assert ended.code == 0, ended.err
    for line in ("[rank 0] fakeA 0 0", "[rank 1] fakeA 1 1", "[rank 2] fakeB 2 0"):
        assert line in ended.out


def test_disagreement_with_another_host_is_named(start):
    ended = start(FAULTS / "disagreement.py", "shape", "2")
    assert ended.code == 1
    assert "ranks disagree on collective 2 of the world:" in ended.err
    assert "rank 2: all_reduce(float32[5], SUM) at " in ended.err
    assert "all_reduce(float32[4], SUM) at " in ended.err


def test_rank_that_leaves_another_host_early_is_named(start):
    ended = start(FAULTS / "disagreement.py", "skip", "2")
    assert ended.code == 1
    assert "rank 2 has left: it came to the end of its program, or called sys.exit" in ended.err


def test_token_is_on_no_command_line(start, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "from pathlib import Path\n"
        "own = Path('/proc/self/environ').read_bytes().split(b'\\0')\n"
        "token = next(v for v in own if v.startswith(b'RUSHLIGHT_LAUNCH_TOKEN=')).partition(b'=')[2]\n"
        "lines = [p.read_bytes() for p in Path('/proc').glob('[0-9]*/cmdline')]\n"
        "print(len(token), any(b'prted' in line for line in lines), any(token in line for line in lines))\n"
    )
    ended = start(program)
    assert ended.code == 0, ended.err
    assert sorted(ended.out.splitlines()) == [f"[rank {r}] 64 True False" for r in range(3)]
