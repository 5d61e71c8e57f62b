"""LSTM and GRU over a whole sequence: the NumPy texts of their records, and the sizes of their C kernels.

Projected inputs of an LSTM are (T, B, 4 H), in the order i, f, g, o, those of a GRU (T, B, 3 H), in the order r, z, n.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rushlight_tensor.core.op import REGISTRY
from rushlight_tensor.kernels.arrays import on_host
from rushlight_tensor.kernels.linear import linear_backward

Array = Any


def sizes(x: Any, h: Any, *others: Any, **attrs: Any) -> dict[str, int]:
    """Sizes of the C kernels."""
    return {"steps": x.shape[0], "batch": x.shape[1], "hidden": h.shape[1]}


def backward_sizes(g: Any, *others: Any, **attrs: Any) -> dict[str, int]:
    """Sizes of those of the gradients."""
    return sizes(*others)


def lstm(x: Array, h: Array, c: Array, w: Array, reverse: bool) -> tuple[Array, Array]:
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
    states = np.empty_like(x, shape=(2, steps, batch, hidden), order="C")
    gates = np.empty_like(x, order="C")
    for t in _times(steps, reverse):
        gate = x[t] + h @ w.T
        i, f, g, o = np.split(gates[t], 4, -1)  # views
        i[...], f[...], g[...], o[...] = (_sigmoid(part) for part in np.split(gate, 4, -1))
        g[...] = np.tanh(gate[:, 2 * hidden : 3 * hidden])
        c = states[1, t] = f * c + i * g
        h = states[0, t] = o * np.tanh(c)
    return states, gates


def lstm_backward(
    grad: Array, x: Array, h: Array, c: Array, w: Array, states: Array, gates: Array, reverse: bool,
    needs: tuple[bool, ...],
) -> tuple[Array, ...]:  # fmt: skip
    """Gradients of `lstm` by x, h, c and w, those that are needed.

    Args:
        grad: (2, T, B, H), gradient of the states.
        x: As for `lstm`, as are h, c, w and `reverse`.
        states: As `lstm` returned them.
        gates: As `lstm` returned them.
        needs: Which gradients to return.
    """
    steps, batch, wide = gates.shape
    dx = np.empty_like(gates)
    dh, dc = (np.zeros_like(gates, shape=(batch, wide // 4)) for _ in range(2))
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
    return tuple([d for d, need in zip((dx, dh, dc, dw), needs, strict=True) if need])


def gru(x: Array, h: Array, w: Array, b: Array, reverse: bool) -> tuple[Array, Array]:
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
    hs = np.empty_like(x, shape=(steps, batch, hidden), order="C")
    kept = np.empty_like(x, shape=(steps, batch, 4 * hidden), order="C")
    for t in _times(steps, reverse):
        xr, xz, xn = np.split(x[t], 3, -1)
        ar, az, an = np.split(h @ w.T + b, 3, -1)
        r, z = _sigmoid(xr + ar), _sigmoid(xz + az)
        n = np.tanh(xn + r * an)
        kept[t] = np.concatenate((r, z, n, an), -1)
        h = hs[t] = n + z * (h - n)
    return hs, kept


def gru_backward(
    grad: Array, x: Array, h: Array, w: Array, b: Array, hs: Array, kept: Array, reverse: bool, needs: tuple[bool, ...]
) -> tuple[Array, ...]:
    """Gradients of `gru` by x, h, w and b, those that are needed.

    Args:
        grad: (T, B, H), gradient of h of every step.
        x: As for `gru`, as are h, w, b and `reverse`.
        hs: As `gru` returned it.
        kept: As `gru` returned it.
        needs: Which gradients to return.
    """
    steps, batch, hidden = hs.shape
    dx, da = (np.empty_like(hs, shape=(steps, batch, 3 * hidden)) for _ in range(2))
    dh = np.zeros_like(hs, shape=(batch, hidden))
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
    return tuple([d for d, need in zip((dx, dh, dw, db), needs, strict=True) if need])


def _weight_gradients(da: Array, h: Array, hs: Array, w: Array, reverse: bool) -> tuple[Array, ...]:
    """Gradients of the recurrent weight and bias: one product over all steps at once."""
    before = np.concatenate([hs[1:], h[None]] if reverse else [h[None], hs[:-1]])[: len(hs)]  # of no steps, none
    gates, hidden = w.shape
    backward = REGISTRY["linear_backward"].cpu if on_host(da, before) else linear_backward
    made: tuple[Array, ...] = backward(da.reshape(-1, gates), before.reshape(-1, hidden), w, needs=(False, True, True))
    return made


def _times(steps: int, reverse: bool) -> range:
    return range(steps - 1, -1, -1) if reverse else range(steps)


def _sigmoid(x: Array) -> Array:
    if x.dtype.kind == "c":
        return 1 / (1 + np.exp(-x))
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)
