"""A world that is not the one that was started is refused, with the command to use; never n silent worlds of one."""

import os
import sys

import pytest

from rushlight_distributed.mpi import check_world
from tests.launch.job import mpirun, ran

pytestmark = pytest.mark.mpi_skip

# What MPI sees, the environment, and what is refused of it; None if nothing is.
WORLDS = [
    ((1, 0), {}, None),
    ((1, 0), {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}, None),  # torchrun --nproc-per-node 1
    ((1, 0), {"RANK": "7"}, None),  # a variable of somebody else's
    ((1, 0), {"WORLD_SIZE": "big"}, None),
    ((1, 0), {"RANK": "0", "WORLD_SIZE": "2"}, "WORLD_SIZE=2 says .* one of 2, as torchrun .*`rushlight launch -n 2 "),
    ((1, 0), {"RANK": "1", "WORLD_SIZE": "2"}, "WORLD_SIZE=2 .* MPI sees 1 rank.*or `mpirun -n 2 python "),
    ((1, 0), {"RANK": "1", "WORLD_SIZE": "1"}, "RANK=1, but MPI says that this process is rank 0"),
    ((2, 1), {"RANK": "1", "WORLD_SIZE": "2"}, None),
    ((2, 1), {"RANK": "0", "WORLD_SIZE": "2"}, "RANK=0, but MPI says that this process is rank 1"),
    ((2, 1), {"WORLD_SIZE": "4"}, "WORLD_SIZE=4 .* MPI sees 2 rank"),
    ((2, 1), {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "PMIX_RANK": "1"}, None),
    ((2, 1), {"OMPI_COMM_WORLD_SIZE": "2", "SLURM_NTASKS": "8"}, None),  # mpirun in a larger allocation
    ((1, 0), {"SLURM_NTASKS": "4"}, "Slurm: SLURM_NTASKS=4, but MPI sees 1"),
    ((1, 0), {"SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "8"}, "SLURM_STEP_NUM_TASKS=4, but MPI sees 1"),
    ((1, 0), {"PMI_SIZE": "2"}, "PMI_SIZE=2, but MPI sees 1"),
    ((1, 0), {"PMI_RANK": "1"}, "PMI_RANK=1, but MPI says that this process is rank 0"),
    ((1, 0), {"PMIX_RANK": "3"}, "PMIX_RANK=3, but MPI says that this process is rank 0"),
    ((1, 0), {"OMPI_COMM_WORLD_RANK": "1"}, "OMPI_COMM_WORLD_RANK=1, but MPI says"),
    ((1, 0), {"MPI_LOCALNRANKS": "2"}, "mpirun, on this host alone=2, but MPI sees 1"),
]


@pytest.mark.parametrize(("seen", "env", "refused"), WORLDS)
def test_environment_is_compared_with_mpi(seen, env, refused):
    if refused is None:
        check_world(*seen, env, -1, -1)
    else:
        with pytest.raises(RuntimeError, match=refused):
            check_world(*seen, env, -1, -1)
    check_world(*seen, env, *seen)  # what the caller says overrules it


@pytest.mark.parametrize(
    ("asked", "refused"),
    [
        ((4, -1), "world_size=4 was asked for, but MPI has 2 ranks; start with `rushlight launch -n 4 "),
        ((1, 0), "world_size=1 was asked for, but MPI has 2 ranks"),
        ((-1, 0), "rank=0 was asked for, but MPI says 1"),
        ((2, 5), "rank=5 was asked for, but MPI says 1"),
    ],
)
def test_arguments_are_compared_with_mpi(asked, refused):
    with pytest.raises(ValueError, match=refused):
        check_world(2, 1, {}, *asked)


PROGRAM = (
    "import sys\nimport rushlight_distributed as dist\ndist.init_process_group({})\nprint(dist.get_world_size())\n"
)


def test_processes_that_torchrun_starts_are_refused(tmp_path):
    (tmp_path / "train.py").write_text(PROGRAM.format(""))
    for rank in "01":
        torchrun = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": "29500",
        }
        ended = ran([sys.executable, str(tmp_path / "train.py")], {**os.environ, **torchrun})
        assert ended.code == 1
        assert "without torchrun: `rushlight launch -n 2 train.py` or `mpirun -n 2 python train.py`" in ended.err


@pytest.mark.mpirun
def test_pytorchs_way_to_name_a_place_is_taken_when_it_agrees(tmp_path):
    place = 'init_method="tcp://127.0.0.1:29500", world_size=2'
    (tmp_path / "train.py").write_text(PROGRAM.format(place))
    ended = mpirun(2, [tmp_path / "train.py"])
    assert ended.code != 0
    assert "With it, give rank and world_size, too" in ended.err
    (tmp_path / "train.py").write_text("from tests.mpi.ranks import RANK\n" + PROGRAM.format(f"{place}, rank=RANK"))
    ended = mpirun(2, ["-c", f"import runpy; runpy.run_path({str(tmp_path / 'train.py')!r})"])
    assert (ended.code, ended.out) == (0, "2\n2\n"), ended.err
