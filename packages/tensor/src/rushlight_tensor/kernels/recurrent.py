"""LSTM over a whole sequence: float32 in C, the rest in NumPy by the same formulas.

Projected inputs and gates are (T, B, 4 H), in the order i, f, g, o; states are (2, T, B, H), h and c of every step.
"""

from __future__ import annotations

import numpy as np

from rushlight_tensor.kernels.blas import blas_library
from rushlight_tensor.kernels.compile import c_library
from rushlight_tensor.kernels.linear import linear_backward


def lstm(
    x: np.ndarray, h: np.ndarray, c: np.ndarray, w: np.ndarray, reverse: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Run the recurrence.

    Args:
        x: (T, B, 4 H), the projected inputs with all biases.
        h: (B, H), initial.
        c: (B, H), initial.
        w: (4 H, H), recurrent weight.
        reverse: From the last step to the first.
    Returns:
        The states and the gates.
    """
    steps, batch, wide = x.shape
    hidden = wide // 4
    x, h, c, w = (np.ascontiguousarray(a) for a in (x, h, c, w))
    states = np.empty((2, steps, batch, hidden), x.dtype)
    gates = np.empty(x.shape, x.dtype)
    library = c_library("recurrent") if blas_library() is not None else None
    if library is not None and library.float32(x, h, c, w):
        library.lstm_forward(x, h, c, w, states, gates, steps, batch, hidden, reverse)
        return states, gates
    for t in _times(steps, reverse):
        gate = x[t] + h @ w.T
        i, f, g, o = np.split(gates[t], 4, -1)  # views
        i[...], f[...], g[...], o[...] = (_sigmoid(part) for part in np.split(gate, 4, -1))
        g[...] = np.tanh(gate[:, 2 * hidden : 3 * hidden])
        c = states[1, t] = f * c + i * g
        h = states[0, t] = o * np.tanh(c)
    return states, gates


def lstm_backward(
    grad: np.ndarray, h: np.ndarray, c: np.ndarray, w: np.ndarray, states: np.ndarray, gates: np.ndarray,
    reverse: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Gradients of `lstm` with respect to x, h, c and w.

    Args:
        grad: (2, T, B, H), gradient of the states.
        h: (B, H), initial.
        c: (B, H), initial.
        w: (4 H, H).
        states: As `lstm` returned them.
        gates: As `lstm` returned them.
        reverse: As in `lstm`.
    """
    steps, batch, wide = gates.shape
    hidden = wide // 4
    grad, c, w, states, gates = (np.ascontiguousarray(a) for a in (grad, c, w, states, gates))
    dx = np.empty(gates.shape, gates.dtype)
    dh, dc = np.zeros((batch, hidden), gates.dtype), np.zeros((batch, hidden), gates.dtype)
    library = c_library("recurrent") if blas_library() is not None else None
    if library is not None and library.float32(grad, c, w, states, gates):
        library.lstm_backward(grad, gates, states, c, w, dx, dh, dc, steps, batch, hidden, reverse)
    else:
        order = list(_times(steps, reverse))
        for s in range(steps - 1, -1, -1):
            t = order[s]
            i, f, g, o = np.split(gates[t], 4, -1)
            before = states[1, order[s - 1]] if s else c
            tanh = np.tanh(states[1, t])
            dh = dh + grad[0, t]
            dc = dc + grad[1, t] + dh * o * (1 - tanh * tanh)
            parts = (dc * g * i * (1 - i), dc * before * f * (1 - f), dc * i * (1 - g * g), dh * tanh * o * (1 - o))
            dx[t] = np.concatenate(parts, -1)
            dc = dc * f
            dh = dx[t] @ w
    hs = states[0]
    before_h = np.concatenate([hs[1:], h[None]] if reverse else [h[None], hs[:-1]])
    _, dw, _ = linear_backward(dx.reshape(-1, wide), before_h.reshape(-1, hidden), w, (False, True, False))
    assert dw is not None
    return dx, dh, dc, dw


def _times(steps: int, reverse: bool) -> range:
    return range(steps - 1, -1, -1) if reverse else range(steps)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)
