"""`examples/digits.py` is one script for any number of ranks: no variables, the same numbers to rounding."""

import os
import sys
from pathlib import Path

import pytest

from tests.launch.job import launched, mpirun, ran

pytestmark = [pytest.mark.mpirun, pytest.mark.mpi_skip]

SCRIPT = Path(__file__).parents[2] / "examples" / "digits.py"


def _numbers(text):
    """(images seen, loss, accuracy) of each epoch."""
    lines = [line.partition("epoch ")[2].split() for line in text.splitlines() if "epoch " in line]
    return [(int(words[1]), float(words[4].rstrip(",")), float(words[7])) for words in lines]


def test_digits_alone_on_two_and_on_four_ranks(tmp_path):
    alone = ran([sys.executable, str(SCRIPT), "3"], dict(os.environ))
    two = launched(2, [SCRIPT, "3"], tmp_path / "logs")
    four = mpirun(4, [SCRIPT, "3"])
    for ended in (alone, two, four):
        assert ended.code == 0, ended.err
        assert len(_numbers(ended.out)) == 3
        for (seen, loss, accuracy), (_, same_loss, same_accuracy) in zip(
            _numbers(ended.out), _numbers(alone.out), strict=True
        ):
            assert seen == 1437  # every sample once per epoch
            assert loss == pytest.approx(same_loss, rel=1e-3)
            assert accuracy == pytest.approx(same_accuracy, abs=1)
    assert _numbers(alone.out)[-1][2] > 90
