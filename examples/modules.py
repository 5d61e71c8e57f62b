"""A Module subclass: printing, parameters, train and eval, state_dict.  Runs as it is with `import torch`."""

import rushlight as torch
import rushlight.nn.functional as F
from rushlight import nn


class Network(nn.Module):
    """Three layers for flattened images."""

    def __init__(self, inputs: int, hidden: int, outputs: int):
        super().__init__()
        self.fc1 = nn.Linear(inputs, hidden)
        self.dropout = nn.Dropout(0.2)
        self.fc2 = nn.Linear(hidden, outputs)

    def forward(self, x):
        x = F.relu(self.fc1(x))
        return self.fc2(self.dropout(x))


torch.manual_seed(0)
for sizes in ((784, 128, 10), (10, 32, 1)):
    model = Network(*sizes)
    print(model)
    print([(name, tuple(p.shape)) for name, p in model.named_parameters()])
    print(sum(p.numel() for p in model.parameters() if p.requires_grad), "parameters")

    x = torch.randn(5, sizes[0])
    model.train()
    print("training:", model.training, model(x).shape)
    model.eval()
    with torch.no_grad():
        print("evaluating:", model.training, torch.equal(model(x), model(x)))

    twin = Network(*sizes)
    print(twin.load_state_dict(model.state_dict()))
    twin.to("cpu").eval()
    print("same results:", torch.equal(model(x), twin(x)))
    print(list(model.state_dict()))
