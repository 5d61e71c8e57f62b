"""Workers of a process that has initialised MPI."""

import textwrap

import pytest

from tests.launch.job import mpirun

pytestmark = [pytest.mark.mpirun, pytest.mark.mpi_skip]

SCRIPT = """
    import os, sys
    from mpi4py import MPI
    from rushlight_data import DataLoader, Dataset, get_worker_info

    class Mine(Dataset):
        def __len__(self):
            return 40
        def __getitem__(self, index):
            assert get_worker_info() is not None
            assert "mpi4py.MPI" not in sys.modules
            assert not [name for name in os.environ if name.startswith(("OMPI_", "PMIX_", "PMI_"))]
            return float(index)

    total = 0
    for _ in range(10):
        total += sum(float(batch.sum()) for batch in DataLoader(Mine(), 4, num_workers=2))
        MPI.COMM_WORLD.Barrier()
    total = MPI.COMM_WORLD.allreduce(total)
    if MPI.COMM_WORLD.rank == 0:
        print(total)
"""


def test_ten_epochs_with_two_workers_on_each_rank(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    ended = mpirun(2, ["-W", "error", "-W", "ignore:This DataLoader:UserWarning", script])
    assert (ended.code, ended.out) == (0, "15600.0\n"), ended.err
