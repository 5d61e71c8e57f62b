"""Recurrent layers: packed and padded batches agree, directions, states, single steps, one op for a whole LSTM."""

import numpy as np
import pytest

import rushlight_nn as nn
import rushlight_tensor as T
from rushlight_nn import recurrent
from rushlight_nn.utils import rnn
from rushlight_tensor.core import dispatch
from rushlight_tensor.ops.sequence.recurrent import lstm_sequence

LENGTHS = [4, 2, 3]


def seeded(kind, **options):
    T.manual_seed(0)
    return getattr(nn, kind)(3, 5, **options)


def states(result):
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_packed_batch_gives_what_each_sequence_gives_alone(kind, bidirectional):
    layer = seeded(kind, num_layers=2, bidirectional=bidirectional)
    x = T.randn(4, 3, 3)
    packed = rnn.pack_padded_sequence(x, LENGTHS, enforce_sorted=False)
    out, last = layer(packed)
    padded, lengths = rnn.pad_packed_sequence(out)
    assert lengths.tolist() == LENGTHS
    for i, n in enumerate(LENGTHS):
        alone, alone_last = layer(x[:n, i : i + 1])
        np.testing.assert_allclose(padded[:n, i].detach().numpy(), alone[:, 0].detach().numpy(), atol=1e-6)
        assert (padded[n:, i].detach().numpy() == 0).all()
        for a, b in zip(states(last), states(alone_last), strict=True):
            np.testing.assert_allclose(a[:, i].detach().numpy(), b[:, 0].detach().numpy(), atol=1e-6)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_batch_first_and_unbatched_agree_with_time_first(kind):
    layer, first = seeded(kind), seeded(kind, batch_first=True)
    x = T.randn(4, 2, 3)
    a = layer(x)[0].detach().numpy()
    np.testing.assert_array_equal(a, first(x.transpose(0, 1))[0].transpose(0, 1).detach().numpy())
    np.testing.assert_allclose(a[:, 1], layer(x[:, 1])[0].detach().numpy(), atol=1e-6)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_a_layer_is_its_cell_step_by_step(kind):
    layer, cell = seeded(kind), getattr(nn, f"{kind}Cell")(3, 5)
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in layer.state_dict().items()})
    x = T.randn(4, 2, 3)
    state = None
    for t in range(4):
        state = cell(x[t], state)
    for a, b in zip(states(state), states(layer(x)[1]), strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b[0].detach().numpy(), atol=1e-6)


def test_dropout_acts_between_layers_in_training_only():
    layer = seeded("GRU", num_layers=2, dropout=0.5)
    x = T.randn(4, 2, 3)
    assert not np.array_equal(layer(x)[0].detach().numpy(), layer(x)[0].detach().numpy())
    layer.eval()
    np.testing.assert_array_equal(layer(x)[0].detach().numpy(), layer(x)[0].detach().numpy())


@pytest.mark.parametrize("reverse", [False, True])
def test_the_recurrence_op_agrees_with_single_steps(reverse):
    rng = np.random.default_rng(0)
    x, h, c, w = (T.tensor(rng.standard_normal(s), requires_grad=True) for s in ((4, 2, 12), (2, 3), (2, 3), (12, 3)))
    whole = lstm_sequence(x, h, c, w, reverse=reverse)
    step = recurrent.lstm_step(w, None)
    state = (h, c)
    for t in range(3, -1, -1) if reverse else range(4):
        state = step(x[t], state)
        np.testing.assert_allclose(whole[:, t].detach().numpy(), [s.detach().numpy() for s in state], atol=1e-12)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_gradients_of_a_layer_are_those_of_its_cells_step_by_step(kind, bidirectional):
    layer, cells = seeded(kind, bidirectional=bidirectional), []
    x = T.randn(4, 2, 3).requires_grad_()
    g = T.randn(4, 2, 10 if bidirectional else 5)
    (layer(x)[0] * g).sum().backward()
    want_x, x.grad, outs = x.grad, None, []
    for end in ("_l0", "_l0_reverse")[: 1 + bidirectional]:
        cell, state, steps = getattr(nn, f"{kind}Cell")(3, 5), None, []
        own = {k.removesuffix(end): v for k, v in layer.state_dict().items() if k.endswith(end)}
        cell.load_state_dict(own)
        for t in range(3, -1, -1) if "reverse" in end else range(4):
            state = cell(x[t], state)
            steps.append(states(state)[0])
        outs.append(T.stack(steps[::-1] if "reverse" in end else steps))
        cells.append((end, cell))
    (T.cat(outs, -1) * g).sum().backward()
    np.testing.assert_allclose(want_x.numpy(), x.grad.numpy(), atol=1e-5)
    for end, cell in cells:
        for name, p in cell.named_parameters():
            got = getattr(layer, name + end).grad
            np.testing.assert_allclose(got.numpy(), p.grad.numpy(), atol=1e-5, err_msg=name + end)


def test_an_lstm_is_few_ops_however_long_the_sequence():
    class Count:
        n = 0

        def execute(self, op, arrays, attrs):
            self.n += 1
            return dispatch.run(op, arrays, attrs)

    layer, counts = seeded("LSTM"), []
    for steps in (2, 50):
        counter = Count()
        old = dispatch.set_intercept(counter)
        try:
            from rushlight_autograd import no_grad

            with no_grad():
                layer(T.zeros(steps, 1, 3))
        finally:
            dispatch.set_intercept(old)
        counts.append(counter.n)
    assert counts[0] == counts[1] < 20


def test_shapes_that_do_not_fit_are_explained():
    with pytest.raises(RuntimeError, match=r"expected x \(T, B, 4 H\) and w \(4 H, H\), got \(2, 1, 8\) and \(8, 3\)"):
        lstm_sequence(T.zeros(2, 1, 8), T.zeros(1, 2), T.zeros(1, 2), T.zeros(8, 3))
    with pytest.raises(RuntimeError, match="lengths reach 9, but the input has 4 steps"):
        rnn.pack_padded_sequence(T.zeros(4, 2, 3), [9, 1])


def test_packed_sequences_move_and_invert():
    packed = rnn.pack_sequence([T.ones(2, 1), T.zeros(3, 1)], enforce_sorted=False)
    assert packed.to(T.float64).data.dtype is T.float64
    assert packed.cpu() is packed
    assert packed.sorted_indices.tolist() == [1, 0]
    assert rnn.invert_permutation(T.tensor([2, 0, 1])).tolist() == [1, 2, 0]
    assert [s.shape[0] for s in rnn.unpack_sequence(packed)] == [2, 3]


def test_a_dropout_that_does_nothing_warns():
    with pytest.warns(UserWarning, match="non-zero dropout expects num_layers"):
        nn.LSTM(2, 3, dropout=0.5)
