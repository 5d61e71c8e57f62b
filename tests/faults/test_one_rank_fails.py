"""One rank fails, all stop: soon, with an exit code that is not 0, the guilty rank's traceback last.

The limit of a job here only keeps a broken version from hanging; measured on 2 idle cores, jobs end in 0.5 to 3 s.
"""

from pathlib import Path

import pytest

from tests.launch.job import launched, mpirun

pytestmark = [pytest.mark.mpirun, pytest.mark.mpi_skip]

TRAINING = Path(__file__).parent / "training.py"
PLACES = ["forward", "backward", "allreduce"]


@pytest.fixture(params=["launcher", "mpirun"])
def start(request, tmp_path):
    if request.param == "launcher":
        return lambda *words: launched(2, [TRAINING, *words], tmp_path / "logs")
    return lambda *words: mpirun(2, [TRAINING, *words])


def test_healthy_training_ends_well(start):
    ended = start("none", "nowhere")
    assert ended.code == 0, ended.err
    assert ended.out.count("trained") == 2
    assert ended.err == ""


@pytest.mark.parametrize("place", PLACES)
def test_exception(start, place):
    ended = start("raise", place)
    assert ended.code == 1
    assert "trained" not in ended.out
    last = ended.err[ended.err.rindex("Traceback (most recent call last)") :]
    assert "RuntimeError: boom on rank 1" in last, ended.err
    assert "training.py" in last
    if "rushlight launch:" in ended.err:  # bare mpirun adds a notice of its own behind it
        end = last[last.index("RuntimeError: boom on rank 1") :].splitlines()
        assert all(line.startswith("in DistributedDataParallel") for line in end[1:]), end  # the module's own note


@pytest.mark.parametrize("place", PLACES)
def test_kill(start, place):
    ended = start("kill", place)
    assert ended.code != 0
    assert "trained" not in ended.out
    if "rushlight launch:" in ended.err:
        assert ended.code == 137
        assert "rank 1 was killed by SIGKILL" in ended.err


@pytest.mark.parametrize("place", PLACES)
def test_early_exit_with_code_0(start, place):
    ended = start("exit 0", place)
    assert ended.code == 1
    assert "trained" not in ended.out
    assert "rank 1 has left: it came to the end of its program, or called sys.exit" in ended.err
    assert "rank 0 waits in vain in " in ended.err
    assert "training.py" in ended.err
    assert "rushlight_distributed/" not in ended.err  # the user's lines, not ours


@pytest.mark.parametrize("kind", ["exit 3", "segfault"])
def test_other_ways_to_fail(start, kind):
    ended = start(kind, "backward")
    assert ended.code != 0
    assert "trained" not in ended.out


def test_exit_past_python_is_noticed_by_the_launcher(tmp_path):  # MPICH's bare mpirun would say 0
    ended = launched(2, [TRAINING, "os._exit 0", "backward"], tmp_path / "logs")
    assert ended.code == 1
    assert "rank 1 left without finishing" in ended.err
