"""The classic loop, with every optimizer and a schedule.

Runs as it is with `import torch`, and prints the same losses.
"""

import rushlight as torch
from rushlight import nn

torch.manual_seed(0)
inputs = torch.randn(256, 20)
labels = (inputs[:, 0] + inputs[:, 1] > 0).long() + (inputs[:, 2] > 1).long()
targets = inputs[:, :3].sum(dim=1, keepdim=True)

OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "Adam": lambda p: torch.optim.Adam(p, lr=1e-2),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=1e-3),
}


def train(loss_fn, wanted, outputs, make_optimizer):
    """200 steps of a small network; returns the losses of the first and the last step."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, outputs))
    optimizer = make_optimizer(model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=50, gamma=0.5)
    losses = []
    for _ in range(200):
        optimizer.zero_grad()
        loss = loss_fn(model(inputs), wanted)
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    return losses[0], losses[-1], scheduler.get_last_lr()[0]


for name, make in OPTIMIZERS.items():
    first, last, lr = train(nn.CrossEntropyLoss(), labels, 3, make)
    print(f"{name:8} cross-entropy  {first:.4f} -> {last:.4f}  lr {lr:g}")
    first, last, lr = train(nn.MSELoss(), targets, 1, make)
    print(f"{name:8} mean squares   {first:.4f} -> {last:.4f}  lr {lr:g}")
