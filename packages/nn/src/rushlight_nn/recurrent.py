"""Recurrent steps and how they run along time: whole batches, packed batches, forward and backward in time.

All functions work on tensors of gates: the projections of the inputs of all steps are one product, made before the
first step, so that a step multiplies by the recurrent weight only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rushlight_nn import functional as F
from rushlight_tensor import Tensor
from rushlight_tensor.ops.create import zeros
from rushlight_tensor.ops.sequence.recurrent import gru_sequence, lstm_sequence
from rushlight_tensor.ops.shape.join import cat

State = tuple[Tensor, ...]
"""(h,) or (h, c), each (B, H)."""
Step = Callable[[Tensor, State], State]
"""From the projected input (B, gates) and the state to the next state."""


def tanh_step(weight: Tensor, bias: Tensor | None) -> Step:
    """h' = tanh(x + W h + b)."""
    return lambda x, state: ((x + F.linear(state[0], weight, bias)).tanh(),)


def relu_step(weight: Tensor, bias: Tensor | None) -> Step:
    """h' = relu(x + W h + b)."""
    return lambda x, state: (F.relu(x + F.linear(state[0], weight, bias)),)


def lstm_step(weight: Tensor, bias: Tensor | None, projection: Tensor | None = None) -> Step:
    """Gates i, f, g, o = x + W h + b; c' = σ(f) c + σ(i) tanh(g); h' = σ(o) tanh(c'), projected if asked for.

    Source: Hochreiter and Schmidhuber 1997; projection: Sak et al. 2014.
    """

    def step(x: Tensor, state: State) -> State:
        h, c = state
        i, f, g, o = (x + F.linear(h, weight, bias)).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        return (h if projection is None else F.linear(h, projection)), c

    return step


def lstm_layer(x: Tensor, state: State, weight: Tensor, reverse: bool) -> tuple[Tensor, State]:
    """An LSTM over all steps of projected inputs (T, B, 4 H) as one op: all h (T, B, H), and the last (h, c)."""
    h, c = lstm_sequence(x, *state, weight, reverse=reverse)
    last = 0 if reverse else -1
    return h, (h[last], c[last])


def gru_step(weight: Tensor, bias: Tensor | None) -> Step:
    """r, z = σ(x + W h + b); n = tanh(x_n + r (W_n h + b_n)); h' = n + z (h - n).  Source: Cho et al. 2014."""

    def step(x: Tensor, state: State) -> State:
        (h,) = state
        x_r, x_z, x_n = x.chunk(3, -1)
        h_r, h_z, h_n = F.linear(h, weight, bias).chunk(3, -1)
        r, z = (x_r + h_r).sigmoid(), (x_z + h_z).sigmoid()
        n = (x_n + r * h_n).tanh()
        return (n + z * (h - n),)

    return step


def gru_layer(x: Tensor, state: State, weight: Tensor, bias: Tensor | None, reverse: bool) -> tuple[Tensor, State]:
    """A GRU over all steps of projected inputs (T, B, 3 H) as one op: all h (T, B, H), and the last (h,)."""
    no_bias = zeros(weight.shape[0], dtype=weight.dtype) if bias is None else bias
    h: Tensor = gru_sequence(x, state[0], weight, no_bias, reverse=reverse)
    return h, (h[0 if reverse else -1],)


def run_forward(step: Step, steps: Sequence[Tensor], state: State) -> tuple[list[Tensor], State]:
    """Apply `step` from the first to the last of `steps`.

    Args:
        steps: Projected inputs (B_t, gates); B_t may shrink, as in a packed batch, but not grow.
        state: The state of all B_0 sequences before the first step.
    Returns:
        The h of every step, and the last state of every sequence (B_0, H).
    """
    outputs, ended = [], []
    rows = state[0].shape[0]
    for x in steps:
        n = x.shape[0]
        if n < rows:
            ended.append(tuple(s[n:] for s in state))
            state, rows = tuple(s[:n] for s in state), n
        state = step(x, state)
        outputs.append(state[0])
    if ended:
        state = tuple(cat(parts, 0) for parts in zip(state, *reversed(ended), strict=True))
    return outputs, state


def run_backward(step: Step, steps: Sequence[Tensor], initial: State) -> tuple[list[Tensor], State]:
    """As `run_forward`, from the last of `steps` to the first: every sequence starts at its own end."""
    outputs: list[Tensor] = []
    rows = steps[-1].shape[0]
    state = initial if rows == initial[0].shape[0] else tuple(s[:rows] for s in initial)
    for x in reversed(steps):
        n = x.shape[0]
        if n > rows:
            state = tuple(cat([s, first[rows:n]], 0) for s, first in zip(state, initial, strict=True))
            rows = n
        state = step(x, state)
        outputs.append(state[0])
    return outputs[::-1], state
