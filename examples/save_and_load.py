"""Save a model's state and load it again.  Runs as it is with `import torch`; each opens the other's file."""

import os
import tempfile

import rushlight as torch
from rushlight import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
model(torch.randn(4, 8)).sum().backward()
optimizer.step()

path = os.path.join(tempfile.mkdtemp(), "model.pt")
torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}, path)

torch.manual_seed(1)
again = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))
state = torch.load(path, weights_only=True)
print(again.load_state_dict(state["model"]), "epoch", state["epoch"])
fresh = torch.optim.Adam(again.parameters(), lr=5.0)
fresh.load_state_dict(state["optimizer"])
print("learning rate", fresh.param_groups[0]["lr"], "steps", int(fresh.state_dict()["state"][0]["step"]))
x = torch.randn(3, 8)
model.eval()
again.eval()
print("same results:", torch.equal(model(x), again(x)))
