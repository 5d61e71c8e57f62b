"""torchrun, which people who come from PyTorch type first, is told apart from MPI and answered with a command."""

import os
import sys

import pytest

from tests.launch.job import ran

pytest.importorskip("torch")


def test_torchrun_is_answered_with_the_command_to_use(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(
        "import rushlight.distributed as dist\ndist.init_process_group()\nprint('world of', dist.get_world_size())\n"
    )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node"]
    ended = ran([*torchrun, "2", str(script)], dict(os.environ))
    assert ended.code != 0
    assert "world of" not in ended.out
    assert "`rushlight launch -n 2 train.py` or `mpirun -n 2 python train.py`" in ended.err
    alone = ran([*torchrun, "1", str(script)], dict(os.environ))
    assert (alone.code, alone.out) == (0, "world of 1\n"), alone.err
