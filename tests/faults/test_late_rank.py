"""A rank that is late is no fault: the others say whom they wait for, and go on when it comes."""

import os
import sys

import pytest

from tests.launch.job import mpirun, ran

pytestmark = [pytest.mark.mpirun, pytest.mark.mpi_skip]

START = """
import os, signal, subprocess, sys, time
from datetime import timedelta
import rushlight_distributed as dist
import rushlight_tensor as T
from rushlight_distributed import guard
guard.WARN_S = 0.5
"""


@pytest.fixture
def run(tmp_path):
    def on_two_ranks(text):
        path = tmp_path / "program.py"
        path.write_text(START + text)
        return mpirun(2, [path])

    return on_two_ranks


LATE = """
dist.init_process_group()
if dist.get_rank() == 1:
    {how}  # the late line
dist.barrier()
print("arrived")
"""


def test_late_rank_is_named_with_its_line(run):
    ended = run(LATE.format(how="time.sleep(3)"))
    assert ended.code == 0, ended.err
    assert ended.out.count("arrived") == 2
    line = (START + LATE).splitlines().index("    {how}  # the late line") + 1
    assert "rank 0 has waited" in ended.err
    assert f"rank 1 is at {ended.err.split('rank 1 is at ')[1].split(':')[0]}:{line}" in ended.err


def test_stopped_rank_is_named(run):
    stop = "subprocess.Popen(['sh', '-c', f'sleep 3; kill -CONT {os.getpid()}']); os.kill(os.getpid(), signal.SIGSTOP)"
    ended = run(LATE.format(how=stop))
    assert ended.code == 0, ended.err
    assert "(its process is stopped)" in ended.err


def test_time_limit_is_kept(run):
    program = LATE.replace("init_process_group()", "init_process_group(timeout=timedelta(seconds=1.5))")
    ended = run(program.format(how="time.sleep(50)"))
    assert ended.code == 1
    assert "has waited longer than the time limit of 1.5 s in barrier()" in ended.err


@pytest.mark.parametrize("variable", ["SLURM_NTASKS", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "FLUX_JOB_SIZE"])
def test_world_that_mpi_does_not_see_is_refused(variable, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(START + "dist.init_process_group()")
    env = {**os.environ, variable: "4"}
    ended = ran([sys.executable, str(program)], env)
    assert ended.code == 1
    assert f"{variable}=4, but MPI sees 1 rank(s)" in ended.err
    program.write_text(START + "dist.init_process_group(world_size=1)\nprint(dist.get_world_size())")
    assert ran([sys.executable, str(program)], env).out == "1\n"
