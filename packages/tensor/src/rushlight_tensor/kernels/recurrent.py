"""LSTM and GRU over a whole sequence: float32 in C, the rest in NumPy by the same formulas.

Projected inputs of an LSTM are (T, B, 4 H), in the order i, f, g, o, those of a GRU (T, B, 3 H), in the order r, z, n.
"""

from __future__ import annotations

import numpy as np

from rushlight_tensor.core.op import REGISTRY
from rushlight_tensor.kernels.arrays import contiguous, on_host
from rushlight_tensor.kernels.binding import Library
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
        The states (2, T, B, H), h and c of every step, and the gates, as x.
    """
    steps, batch, wide = x.shape
    hidden = wide // 4
    x, h, c, w = (contiguous(a) for a in (x, h, c, w))
    states = np.empty_like(x, shape=(2, steps, batch, hidden))
    gates = np.empty_like(x)
    library = _library(x, h, c, w)
    if library is not None:
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
    grad, c, w, states, gates = (contiguous(a) for a in (grad, c, w, states, gates))
    dx = np.empty_like(gates)
    dh, dc = (np.zeros_like(gates, shape=(batch, hidden)) for _ in range(2))
    library = _library(grad, c, w, states, gates)
    if library is not None:
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
    dw, _ = _weight_gradients(dx, h, states[0], w, reverse)
    return dx, dh, dc, dw


def gru(
    x: np.ndarray, h: np.ndarray, w: np.ndarray, b: np.ndarray, reverse: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Run the recurrence.

    Args:
        x: (T, B, 3 H), the projected inputs with their bias.
        h: (B, H), initial.
        w: (3 H, H), recurrent weight.
        b: (3 H,), recurrent bias.
        reverse: From the last step to the first.
    Returns:
        h of every step (T, B, H), and what the gradient needs (T, B, 4 H): r, z, n, and the recurrent part of n.
    """
    steps, batch, wide = x.shape
    hidden = wide // 3
    x, h, w, b = (contiguous(a) for a in (x, h, w, b))
    hs = np.empty_like(x, shape=(steps, batch, hidden))
    kept = np.empty_like(x, shape=(steps, batch, 4 * hidden))
    library = _library(x, h, w, b)
    if library is not None:
        library.gru_forward(x, h, w, b, hs, kept, np.empty((batch, wide), x.dtype), steps, batch, hidden, reverse)
        return hs, kept
    for t in _times(steps, reverse):
        xr, xz, xn = np.split(x[t], 3, -1)
        ar, az, an = np.split(h @ w.T + b, 3, -1)
        r, z = _sigmoid(xr + ar), _sigmoid(xz + az)
        n = np.tanh(xn + r * an)
        kept[t] = np.concatenate((r, z, n, an), -1)
        h = hs[t] = n + z * (h - n)
    return hs, kept


def gru_backward(
    grad: np.ndarray, h: np.ndarray, w: np.ndarray, hs: np.ndarray, kept: np.ndarray, reverse: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of `gru` with respect to x, h, w and b.

    Args:
        grad: (T, B, H), gradient of h of every step.
        h: (B, H), initial.
        w: (3 H, H).
        hs: As `gru` returned it.
        kept: As `gru` returned it.
        reverse: As in `gru`.
    """
    steps, batch, hidden = hs.shape
    grad, h, w, hs, kept = (contiguous(a) for a in (grad, h, w, hs, kept))
    dx, da = (np.empty_like(hs, shape=(steps, batch, 3 * hidden)) for _ in range(2))
    dh = np.zeros_like(hs, shape=(batch, hidden))
    library = _library(grad, h, w, hs, kept)
    if library is not None:
        scratch = np.empty_like(dh)
        library.gru_backward(grad, kept, hs, h, w, dx, da, dh, scratch, steps, batch, hidden, reverse)
    else:
        order = list(_times(steps, reverse))
        for s in range(steps - 1, -1, -1):
            t = order[s]
            r, z, n, an = np.split(kept[t], 4, -1)
            before = hs[order[s - 1]] if s else h
            dh = dh + grad[t]
            dz, dn = dh * (before - n) * z * (1 - z), dh * (1 - z) * (1 - n * n)
            dr = dn * an * r * (1 - r)
            dx[t] = np.concatenate((dr, dz, dn), -1)
            da[t] = np.concatenate((dr, dz, dn * r), -1)
            dh = dh * z + da[t] @ w
    dw, db = _weight_gradients(da, h, hs, w, reverse)
    return dx, dh, dw, db


def _library(*arrays: np.ndarray) -> Library | None:
    library = c_library("recurrent") if blas_library() is not None else None
    return library if library is not None and library.float32(*arrays) else None


def _weight_gradients(
    da: np.ndarray, h: np.ndarray, hs: np.ndarray, w: np.ndarray, reverse: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Gradients of the recurrent weight and bias: one product over all steps at once."""
    before = np.concatenate([hs[1:], h[None]] if reverse else [h[None], hs[:-1]])
    gates, hidden = w.shape
    backward = REGISTRY["linear_backward"].cpu if on_host(da, before) else linear_backward
    dw, db = backward(da.reshape(-1, gates), before.reshape(-1, hidden), w, needs=(False, True, True))
    return dw, db


def _times(steps: int, reverse: bool) -> range:
    return range(steps - 1, -1, -1) if reverse else range(steps)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    if x.dtype.kind == "c":
        return 1 / (1 + np.exp(-x))
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)
