"""The models: shapes, options, what they share, and that they learn."""

import numpy as np
import pytest

import rushlight_models as models
import rushlight_optim as optim
import rushlight_tensor as T
from rushlight_autograd import no_grad
from rushlight_data import Digits
from rushlight_nn import functional as F


def test_mlp_flattens_its_input():
    model = models.MLP(64, [32, 16], 10, dropout=0.1)
    assert model(T.zeros(5, 1, 8, 8)).shape == (5, 10)
    assert sum(p.numel() for p in model.parameters()) == 64 * 32 + 32 + 32 * 16 + 16 + 16 * 10 + 10


def test_cnn_takes_images_with_and_without_channel():
    model = models.CNN().eval()
    x = T.randn(3, 8, 8)
    np.testing.assert_array_equal(model(x).detach().numpy(), model(x.unsqueeze(1)).detach().numpy())
    with pytest.raises(ValueError, match="image_size must be a multiple of 4, got 10"):
        models.CNN(image_size=10)


def test_resnet18_has_the_size_of_the_paper():
    model = models.ResNet18()
    assert sum(p.numel() for p in model.parameters()) == 11_173_962
    small = models.ResNet18(classes=7, in_channels=1, width=8)
    assert small(T.randn(2, 1, 16, 16)).shape == (2, 7)


def test_lstm_carries_its_state():
    model = models.LSTMLanguageModel(20, 8, 8, 2, tie_weights=True).eval()
    assert model.output.weight is model.embedding.weight
    tokens = T.randint(0, 20, (3, 6))
    whole, _ = model(tokens)
    first, state = model(tokens[:, :4])
    second, _ = model(tokens[:, 4:], state)
    np.testing.assert_allclose(
        whole.detach().numpy(), np.concatenate([first.detach().numpy(), second.detach().numpy()], 1), atol=1e-6
    )
    with pytest.raises(ValueError, match="tie_weights needs embedding_dim = hidden_size, got 8 and 9"):
        models.LSTMLanguageModel(20, 8, 9, tie_weights=True)


def test_gpt_sees_only_the_past():
    model = models.GPT(vocab_size=11, block_size=8, n_layer=2, n_head=2, n_embd=16).eval()
    tokens = T.randint(0, 11, (2, 8))
    before = model(tokens).detach().numpy()
    tokens[:, 5:] = 0
    after = model(tokens).detach().numpy()
    np.testing.assert_allclose(before[:, :5], after[:, :5], atol=1e-6)
    assert np.abs(before[:, 5:] - after[:, 5:]).max() > 1e-4


def test_gpt_shares_one_table_between_tokens_and_logits():
    model = models.GPT(models.GPTConfig(vocab_size=11, block_size=8, n_layer=1, n_head=2, n_embd=16, bias=True))
    assert model.wte.weight is model.lm_head.weight
    names = [n for n, _ in model.named_parameters()]
    assert "lm_head.weight" not in names
    assert "h.0.attn.c_attn.bias" in names
    logits, loss = model(T.zeros(2, 3, dtype=T.int64), T.zeros(2, 3, dtype=T.int64))
    assert logits.shape == (2, 3, 11)
    assert loss.shape == ()


def test_gpt_mistakes_are_refused():
    with pytest.raises(ValueError, match="n_embd must be a multiple of n_head, got 10 and 4"):
        models.GPT(n_embd=10, n_head=4)
    with pytest.raises(TypeError, match="not both"):
        models.GPT(models.GPTConfig(), n_head=2)
    with pytest.raises(ValueError, match="has 9 tokens, the model takes 8; cut it"):
        models.GPT(block_size=8, n_layer=1)(T.zeros(1, 9, dtype=T.int64))


@pytest.mark.parametrize("name", ["LSTMLanguageModel", "GPT"])
def test_language_models_learn_a_sequence_by_heart(name):
    T.manual_seed(0)
    if name == "GPT":
        model = models.GPT(vocab_size=10, block_size=16, n_layer=1, n_head=2, n_embd=32)
    else:
        model = models.LSTMLanguageModel(10, 16, 32)
    optimizer = optim.AdamW(model.parameters(), lr=1e-2)
    text = T.tensor([[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2]])
    for _ in range(150):
        out = model(text[:, :-1])
        logits = out[0] if isinstance(out, tuple) else out
        loss = F.cross_entropy(logits.reshape(-1, 10), text[:, 1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


@pytest.mark.slow
def test_cnn_reads_98_percent_of_the_digits():
    T.manual_seed(0)
    train, test = Digits(train=True), Digits(train=False)
    model = models.CNN(dropout=0.25)
    epochs, batch = 8, 64
    optimizer = optim.Adam(model.parameters())
    schedule = optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=epochs * (len(train) // batch))
    images, labels = train.data, train.targets
    for _ in range(epochs):
        order = T.randperm(len(train))
        for i in range(len(train) // batch):
            rows = order[i * batch : (i + 1) * batch]
            loss = F.cross_entropy(model(images[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    with no_grad():
        right = (model(test.data).argmax(1) == test.targets).sum().item()
    assert right / len(test) >= 0.98
