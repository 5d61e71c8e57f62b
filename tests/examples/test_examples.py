"""The examples are the programs that people first write: each runs to its end and says what it is there to say."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

SAYS = {
    "tensors": ["tensor([ 0.6000, -1.9000,  6.1000], grad_fn=<AddBackward0>)", "tensor([1., 2., 3.]) tensor(3.)"],
    "linear_regression": ["bias 3.0"],
    "modules": ["(fc1): Linear(in_features=784, out_features=128, bias=True)", "<All keys matched successfully>"],
    "training_loop": ["Adam     cross-entropy", "RMSprop  mean squares"],
    "data_loader": ["16 batches, the last of 40 samples", "all seen once: True"],
    "control_flow": ["sequence 2 alone gives the same: True"],
    "save_and_load": ["<All keys matched successfully> epoch 3", "same results: True"],
    "trace_model": ["graph(", "another process gives the same: True"],
}


def test_every_example_is_tried():
    assert {p.stem for p in EXAMPLES.glob("*.py")} == {*SAYS, "digits"}, (
        "digits.py is tried in tests/mpi and tests/launch"
    )


@pytest.mark.parametrize("name", SAYS)
def test_example_runs_and_says_what_it_should(name):
    command = [sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for text in SAYS[name]:
        assert text in done.stdout, done.stdout
