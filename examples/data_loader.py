"""A Dataset of 1,000 samples of 32 features through a DataLoader, in this process and with two workers.

Runs as it is with `import torch`, in the same order.
"""

import rushlight as torch
from rushlight.utils.data import DataLoader, Dataset


class Features(Dataset):
    """Sample i holds i in all its features, and its parity as label."""

    def __len__(self):
        return 1000

    def __getitem__(self, i):
        return torch.full((32,), float(i)), i % 2


for workers in (0, 2):
    torch.manual_seed(0)
    loader = DataLoader(Features(), batch_size=64, shuffle=True, num_workers=workers)
    seen = []
    for x, y in loader:
        assert bool(((x[:, 0].long() % 2) == y).all())
        seen += x[:, 0].tolist()
    print(len(loader), "batches, the last of", x.shape[0], "samples; dtypes", x.dtype, y.dtype)
    print("first samples:", [int(i) for i in seen[:5]], "all seen once:", sorted(seen) == list(range(1000)))
