"""Trace a model, save it, and run it in a process that never sees the model's code."""

import os
import subprocess
import sys
import tempfile

import rushlight as torch
from rushlight import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
x = torch.ones(2, 4)
traced = torch.jit.trace(model, x)
print(traced.graph)

path = os.path.join(tempfile.mkdtemp(), "model.rl")
traced.save(path)
program = f"import rushlight as torch; print(torch.jit.load({path!r})(torch.ones(2, 4)).tolist())"
printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
print("another process gives the same:", printed.strip() == str(model(x).tolist()))
