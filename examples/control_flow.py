"""Control flow that depends on data, and an RNN over sequences of different lengths.

Runs as it is with `import torch`.
"""

import rushlight as torch
from rushlight import nn
from rushlight.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence


class Dynamic(nn.Module):
    """Repeats a layer as often as its input says, and takes a branch."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.other = nn.Linear(8, 8)

    def forward(self, x):
        for _ in range(int(x.abs().sum().item()) % 3 + 1):
            x = torch.tanh(self.layer(x))
        if x.sum() > 0:
            x = self.other(x)
        while x.norm() > 1:
            x = x / 2
        return x


torch.manual_seed(0)
model = Dynamic()
for scale in (0.5, 2.0, 8.0):
    model.zero_grad()
    out = model(torch.randn(4, 8) * scale)
    out.sum().backward()
    used = [name for name, p in model.named_parameters() if p.grad is not None]
    print(f"sum {out.sum().item():.4f}  gradients in {used}")

sequences = [torch.randn(n, 4) for n in (5, 2, 3)]
lengths = torch.tensor([len(s) for s in sequences])
rnn = nn.GRU(4, 6, batch_first=True)
packed = pack_padded_sequence(
    pad_sequence(sequences, batch_first=True), lengths, batch_first=True, enforce_sorted=False
)
outputs, last = rnn(packed)
padded, sizes = pad_packed_sequence(outputs, batch_first=True)
print(padded.shape, sizes.tolist(), last.shape)
for i, s in enumerate(sequences):
    alone, _ = rnn(s.unsqueeze(0))
    print("sequence", i, "alone gives the same:", torch.allclose(alone[0], padded[i, : len(s)], atol=1e-6))
