"""`import rushlight` starts nothing and pulls in nothing heavy."""

import json
import subprocess
import sys

PROBE = """
import json, os, sys, threading
import numpy  # its BLAS starts threads of its own: what counts is what comes on top
before = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0
import rushlight
after = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0
print(json.dumps({
    "modules": sorted({name.split(".")[0] for name in sys.modules}),
    "native_threads": after - before,
    "python_threads": threading.active_count(),
}))
"""


def test_import_starts_no_thread_and_loads_no_heavy_module():
    answer = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROBE], capture_output=True, text=True, check=True, timeout=120
    )
    state = json.loads(answer.stdout)
    heavy = {"mpi4py", "cupy", "hydra", "omegaconf", "matplotlib", "torch", "tensorboardX", "rich", "pytest"}
    assert heavy & set(state["modules"]) == set()
    assert (state["native_threads"], state["python_threads"]) == (0, 1)
    assert answer.stderr == ""
