"""Fit y = 2x + 3 with one linear layer.  Runs as it is with `import torch`, and prints the same digits."""

import rushlight as torch
from rushlight import nn

torch.manual_seed(0)
x = torch.linspace(-1, 1, 64).unsqueeze(1)
y = 2 * x + 3

model = nn.Linear(1, 1)
loss_fn = nn.MSELoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

for step in range(1000):
    optimizer.zero_grad()
    loss = loss_fn(model(x), y)
    loss.backward()
    optimizer.step()
    if step % 250 == 0:
        print(f"step {step:4d}  loss {loss.item():.4f}")

print(f"weight {model.weight.item():.4f}  bias {model.bias.item():.4f}")
