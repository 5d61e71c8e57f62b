"""The same program under both names prints the same: texts alike, numbers to the last printed digit but one."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
EXAMPLES = Path(__file__).parents[2] / "examples"
NUMBER = re.compile(r"-?\d+\.\d+")


def as_torch(text: str) -> str:
    text = text.replace("import rushlight as torch", "import torch")
    return re.sub(r"\brushlight(?=[. ])", "torch", text)


@pytest.mark.parametrize(
    "name", ["tensors", "linear_regression", "modules", "training_loop", "data_loader", "control_flow", "save_and_load"]
)
def test_example_prints_the_same_under_both_names(name, tmp_path):
    text = (EXAMPLES / f"{name}.py").read_text()
    (tmp_path / "twin.py").write_text(as_torch(text))
    programs = {"rushlight": EXAMPLES / f"{name}.py", "torch": tmp_path / "twin.py"}
    printed = {
        who: subprocess.run([sys.executable, str(p)], capture_output=True, text=True, timeout=240, check=True).stdout
        for who, p in programs.items()
    }
    assert NUMBER.sub("#", printed["rushlight"]) == NUMBER.sub("#", printed["torch"])
    ours, theirs = ([float(n) for n in NUMBER.findall(printed[who])] for who in ("rushlight", "torch"))
    assert ours == pytest.approx(theirs, rel=1e-4, abs=1.5e-4)
