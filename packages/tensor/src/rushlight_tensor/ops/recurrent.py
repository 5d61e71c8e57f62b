"""The LSTM recurrence over a whole sequence as one op; layers around it are in `rushlight_nn`."""

from __future__ import annotations

from typing import Any

from rushlight_tensor.infer import Aval
from rushlight_tensor.kernels import recurrent as kernels
from rushlight_tensor.op import Op, fused
from rushlight_tensor.ops.activation import sigmoid
from rushlight_tensor.ops.elementwise import tanh
from rushlight_tensor.ops.join import cat, stack
from rushlight_tensor.ops.linalg import matmul


def _check(x: Any, h: Any, c: Any, w: Any) -> None:
    hidden = w.shape[1] if len(w.shape) == 2 else -1
    if len(x.shape) != 3 or x.shape[2] != 4 * hidden or tuple(w.shape) != (4 * hidden, hidden):
        raise RuntimeError(
            f"lstm_sequence: expected x (T, B, 4 H) and w (4 H, H), got {tuple(x.shape)} and {tuple(w.shape)}"
        )
    for name, s in (("h", h), ("c", c)):
        if tuple(s.shape) != (x.shape[1], hidden):
            raise RuntimeError(f"lstm_sequence: expected {name} {(x.shape[1], hidden)}, got {tuple(s.shape)}")


def _lstm_aval(x: Any, h: Any, c: Any, w: Any, reverse: bool = False) -> tuple[Aval, Aval]:
    _check(x, h, c, w)
    return Aval((2, *x.shape[:2], w.shape[1]), x.dtype), Aval(tuple(x.shape), x.dtype)


def _lstm(x: Any, h: Any, c: Any, w: Any, reverse: bool) -> Any:
    _check(x, h, c, w)
    return kernels.lstm(x, h, c, w, reverse)


def _backward_aval(
    g: Any, x: Any, h: Any, c: Any, w: Any, states: Any, gates: Any, reverse: bool = False,
    needs: tuple[bool, ...] = (True, True, True, True),
) -> tuple[Aval, ...]:  # fmt: skip
    shapes = (gates.shape, c.shape, c.shape, w.shape)
    return tuple(Aval(tuple(s), gates.dtype) for s, need in zip(shapes, needs, strict=True) if need)


def _backward(
    g: Any, x: Any, h: Any, c: Any, w: Any, states: Any, gates: Any, reverse: bool, needs: tuple[bool, ...]
) -> tuple[Any, ...]:
    every = kernels.lstm_backward(g, h, c, w, states, gates, reverse)
    return tuple(d for d, need in zip(every, needs, strict=True) if need)


def _rule(
    g: Any, needs: tuple[bool, ...], x: Any, h: Any, c: Any, w: Any, states: Any, gates: Any, reverse: bool
) -> tuple[Any, ...]:
    """The gradients in public ops, the gates computed again, for higher derivatives."""
    order = range(x.shape[0] - 1, -1, -1) if reverse else range(x.shape[0])
    saved = []
    for t in order:
        i, f, u, o = (x[t] + matmul(h, w.t())).chunk(4, -1)
        i, f, u, o = sigmoid(i), sigmoid(f), tanh(u), sigmoid(o)
        c_before, h_before = c, h
        c = f * c + i * u
        squashed = tanh(c)
        h = o * squashed
        saved.append((t, i, f, u, o, c_before, h_before, squashed))
    dh: Any = 0.0
    dc: Any = 0.0
    dw: Any = 0.0
    dx: dict[int, Any] = {}
    for t, i, f, u, o, c_before, h_before, squashed in reversed(saved):
        dh = g[0, t] + dh
        dc = g[1, t] + dc + dh * o * (1 - squashed * squashed)
        parts = (dc * u * i * (1 - i), dc * c_before * f * (1 - f), dc * i * (1 - u * u), dh * squashed * o * (1 - o))
        dx[t] = cat(parts, -1)
        dw = matmul(dx[t].t(), h_before) + dw
        dc = dc * f
        dh = matmul(dx[t], w)
    every = (stack([dx[t] for t in range(x.shape[0])], 0), dh, dc, dw)
    return tuple(d if need else None for d, need in zip(every, needs, strict=True))


_lstm_backward = Op("lstm_sequence_backward", infer=_backward_aval, cpu=_backward, vjp=None)

lstm_sequence = Op(
    "lstm_sequence",
    infer=_lstm_aval,
    cpu=_lstm,
    aux=True,
    save=("x", "h", "c", "w", "out", "out1"),
    vjp=fused(_lstm_backward, _rule),
)
"""All states (2, T, B, H), h and c of every step, from projected inputs x (T, B, 4 H) in the order i, f, g, o.

h, c (B, H) are the initial state, w (4 H, H) the recurrent weight; `reverse` runs from the last step to the first.
There is no CUDA kernel: layers on a GPU run step by step.
Source: Hochreiter and Schmidhuber 1997.
"""
