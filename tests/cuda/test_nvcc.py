"""NVIDIA's own compiler takes every .cu text; this needs the CUDA toolkit, but no GPU."""

import shutil
import subprocess

import numpy as np
import pytest

from rushlight_tensor import REGISTRY
from rushlight_tensor.kernels import elementwise_cuda
from rushlight_tensor.kernels.cuda_text import SOURCES, attributes_of, elementwise_text, source

pytestmark = pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")


def generated():
    """The kernels of all ops with an expression: for float32, and those of bits for int64."""
    specs = []
    for op in REGISTRY.values():
        if op.expr is not None:
            dtype = np.dtype(np.int64 if op.name.startswith("bitwise") else np.float32)
            used = {name: op.defaults[name] for name in attributes_of(op.expr, op.input_names)}
            inputs = [np.empty(1, dtype) for _ in op.input_names]
            specs.append(elementwise_cuda.specification(op, inputs, used, dtype))
    return elementwise_text(specs)


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize("name", [*sorted(path.name for path in SOURCES.glob("*.cu")), "elementwise"])
def test_text_compiles_without_warnings(tmp_path, name, architecture):
    file = tmp_path / "kernel.cu"
    text = generated() if name == "elementwise" else source(name)
    file.write_text(text)
    command = [
        "nvcc",
        "-cubin",
        "-std=c++17",
        f"-arch={architecture}",
        "-Werror",
        "all-warnings",
        "-o",
        "kernel.cubin",
        str(file),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
