"""Same seed, same script: 50 steps on the digits, shuffled and with dropout, lose what they lose under PyTorch."""

import pytest

import rushlight

torch = pytest.importorskip("torch")

from benchmarks.programs import twin  # noqa: E402 - needs torch
from rushlight_data import Digits  # noqa: E402


def losses(framework, make_model, make_optimizer, steps=50):
    digits = Digits(train=True)
    images, labels = (
        framework.from_numpy(digits.data.numpy().copy()),
        framework.from_numpy(digits.targets.numpy().copy()),
    )
    framework.manual_seed(0)
    model = make_model(framework)
    optimizer = make_optimizer(framework.optim, model.parameters())
    data = framework.utils.data
    loader = data.DataLoader(data.TensorDataset(images, labels), batch_size=64, shuffle=True)
    loss_fn = framework.nn.CrossEntropyLoss()
    out = []
    while len(out) < steps:
        for x, y in loader:
            optimizer.zero_grad()
            loss = loss_fn(model(x), y)
            loss.backward()
            optimizer.step()
            out.append(loss.item())
    return out[:steps]


MODELS = {
    "mlp": lambda f: twin(f, "mlp").MLP(),
    "mlp with dropout": lambda f: twin(f, "mlp").MLP(hidden=(64, 64), dropout=0.3),
    "cnn": lambda f: twin(f, "cnn").CNN(dropout=0.0),
    "cnn with dropout": lambda f: twin(f, "cnn").CNN(dropout=0.25),
}
OPTIMIZERS = {
    "SGD": lambda optim, p: optim.SGD(p, lr=0.05, momentum=0.9),
    "Adam": lambda optim, p: optim.Adam(p, lr=1e-3),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("model", MODELS)
def test_losses_of_fifty_steps_are_the_same(model, optimizer):
    ours = losses(rushlight, MODELS[model], OPTIMIZERS[optimizer])
    theirs = losses(torch, MODELS[model], OPTIMIZERS[optimizer])
    assert ours[-1] < ours[0], "it must have learned something"
    assert ours == pytest.approx(theirs, abs=1e-5)
