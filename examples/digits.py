"""Handwritten digits on any number of ranks: one script, no variables, the same numbers.

    python examples/digits.py [EPOCHS]
    mpirun -n 4 python examples/digits.py
    rushlight launch -n 2 examples/digits.py

Every sample is seen once per epoch. A batch has 32 images, shared among the ranks, whatever their number; the last
one is smaller, and its shares may be uneven: so each rank's loss is a sum, divided by the size of the whole batch.
"""

import sys

import rushlight as torch
import rushlight.distributed as dist
from rushlight import nn
from rushlight.nn import functional as F
from rushlight.nn.parallel import DistributedDataParallel
from rushlight.utils.data import DataLoader, DistributedSampler
from rushlight_data import Digits

EPOCHS, BATCH = int(sys.argv[1]) if len(sys.argv) > 1 else 12, 32

dist.init_process_group()
rank, size = dist.get_rank(), dist.get_world_size()
if BATCH % size:
    raise SystemExit(f"the batch of {BATCH} cannot be shared by {size} ranks; use 1, 2, 4, 8 …")
torch.manual_seed(0)

model = DistributedDataParallel(
    nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 2 * 2, 10),
    )
)
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

train, test = Digits(train=True), Digits(train=False)
order = DistributedSampler(train, exact=True)  # neither repeats a sample nor leaves one out
train_loader = DataLoader(train, batch_size=BATCH // size, sampler=order)
test_loader = DataLoader(test, batch_size=BATCH, sampler=DistributedSampler(test, shuffle=False, exact=True))


def added_up(*values):
    """The values, each summed over all ranks."""
    total = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(total)
    return total.tolist()


for epoch in range(EPOCHS):
    model.train()
    order.set_epoch(epoch)
    seen, loss_sum = 0, 0.0
    for step, (images, labels) in enumerate(train_loader):
        whole_batch = min(BATCH, len(train) - step * BATCH)
        loss = F.cross_entropy(model(images), labels, reduction="sum")
        optimizer.zero_grad()
        (loss * (size / whole_batch)).backward()  # gradients are averaged over the ranks
        optimizer.step()
        seen, loss_sum = seen + len(labels), loss_sum + loss.item()

    model.eval()
    with torch.no_grad():
        right = sum((model(images).argmax(1) == labels).sum().item() for images, labels in test_loader)

    seen, loss_sum, right = added_up(seen, loss_sum, right)
    if rank == 0:
        print(
            f"epoch {epoch + 1}: {seen:.0f} images, loss {loss_sum / seen:.5f}, "
            f"test accuracy {100 * right / len(test):.2f} %",
            flush=True,
        )

dist.destroy_process_group()
