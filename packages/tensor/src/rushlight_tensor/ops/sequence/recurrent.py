"""The LSTM and GRU recurrences over a whole sequence, one op each; layers around them are in `rushlight_nn`."""

from __future__ import annotations

from typing import Any

from rushlight_tensor.core import kinds
from rushlight_tensor.core.dispatch import call
from rushlight_tensor.core.infer import Aval
from rushlight_tensor.core.op import REGISTRY, Gradient, Op
from rushlight_tensor.kernels import recurrent as kernels
from rushlight_tensor.kernels.plan import C
from rushlight_tensor.ops.linalg.linalg import matmul
from rushlight_tensor.ops.math.activation import sigmoid
from rushlight_tensor.ops.math.elementwise import tanh
from rushlight_tensor.ops.shape.join import cat, stack
from rushlight_tensor.ops.shape.samples import _in_front, _merged, _parted

_SEQUENCE = kinds.opaque("the first dimension is time, and the second the batch, of some inputs only")


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


def _lstm_grads(known: Any) -> tuple[Aval, ...]:
    shapes = (known.out1.shape, known.c.shape, known.c.shape, known.w.shape)
    return tuple([Aval(tuple(shape), known.out1.dtype) for shape in shapes])


def _gru_grads(known: Any) -> tuple[Aval, ...]:
    return tuple([Aval(tuple(z.shape), known.y.dtype) for z in (known.x, known.h, known.w, known.b)])


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


def _sequence_samples(name: str, state: int, shared: int) -> Any:
    """The batching rule of a recurrence: where the `shared` weights are the same for all samples, these are a batch.

    The result has its batch dimension at `state`, what is kept of the steps as x has.
    """

    def batch(size: int, batched: Any, xs: Any, attrs: Any) -> Any:
        own = len(xs) - shared
        if any(batched[own:]):
            return None
        x, *states = _in_front(size, batched[:own], xs[:own])
        merged = (_merged(x, 1), *[_merged(h, 0) for h in states], *xs[own:])
        out, kept = call(REGISTRY[name], merged, attrs, whole=True)
        return _parted(out, state, size), _parted(kept, 1, size)

    return batch


lstm_sequence = Op(
    "lstm_sequence",
    batch=_sequence_samples("lstm_sequence", 2, 1),
    kind=_SEQUENCE,
    infer=_lstm_aval,
    numpy=kernels.lstm,
    c=C("recurrent", "lstm_forward", kernels.sizes, blas=True),
    side_results=True,
    save=("x", "h", "c", "w", "out", "out1"),
    vjp=Gradient(
        _rule,
        results=_lstm_grads,
        numpy=kernels.lstm_backward,
        c=C("recurrent", "lstm_backward", kernels.backward_sizes, blas=True),
    ),
)
"""All states (2, T, B, H), h and c of every step, from projected inputs x (T, B, 4 H) in the order i, f, g, o.

h, c (B, H) are the initial state, w (4 H, H) the recurrent weight; `reverse` runs from the last step to the first.
There is no CUDA kernel: on a GPU its NumPy text runs, step by step.
Source: Hochreiter and Schmidhuber 1997.
"""


def _gru_check(x: Any, h: Any, w: Any, b: Any) -> None:
    hidden = w.shape[1] if len(w.shape) == 2 else -1
    if len(x.shape) != 3 or x.shape[2] != 3 * hidden or tuple(w.shape) != (3 * hidden, hidden):
        raise RuntimeError(
            f"gru_sequence: expected x (T, B, 3 H) and w (3 H, H), got {tuple(x.shape)} and {tuple(w.shape)}"
        )
    if tuple(h.shape) != (x.shape[1], hidden) or tuple(b.shape) != (3 * hidden,):
        raise RuntimeError(
            f"gru_sequence: expected h {(x.shape[1], hidden)} and b {(3 * hidden,)}, got {tuple(h.shape)} and "
            f"{tuple(b.shape)}"
        )


def _gru_aval(x: Any, h: Any, w: Any, b: Any, reverse: bool = False) -> tuple[Aval, Aval]:
    _gru_check(x, h, w, b)
    hidden = w.shape[1]
    return Aval((*x.shape[:2], hidden), x.dtype), Aval((*x.shape[:2], 4 * hidden), x.dtype)


def _gru_rule(
    g: Any, needs: tuple[bool, ...], x: Any, h: Any, w: Any, b: Any, hs: Any, kept: Any, reverse: bool
) -> tuple[Any, ...]:
    """The gradients in public ops, the gates computed again, for higher derivatives."""
    order = range(x.shape[0] - 1, -1, -1) if reverse else range(x.shape[0])
    saved = []
    for t in order:
        (xr, xz, xn), (ar, az, an) = x[t].chunk(3, -1), (matmul(h, w.t()) + b).chunk(3, -1)
        r, z = sigmoid(xr + ar), sigmoid(xz + az)
        n = tanh(xn + r * an)
        saved.append((t, r, z, n, an, h))
        h = n + z * (h - n)
    dh: Any = 0.0
    dw: Any = 0.0
    db: Any = 0.0
    dx: dict[int, Any] = {}
    for t, r, z, n, an, before in reversed(saved):
        dh = g[t] + dh
        dz, dn = dh * (before - n) * z * (1 - z), dh * (1 - z) * (1 - n * n)
        dr = dn * an * r * (1 - r)
        dx[t] = cat((dr, dz, dn), -1)
        da = cat((dr, dz, dn * r), -1)
        dw, db = matmul(da.t(), before) + dw, da.sum(0) + db
        dh = dh * z + matmul(da, w)
    every = (stack([dx[t] for t in range(x.shape[0])], 0), dh, dw, db)
    return tuple(d if need else None for d, need in zip(every, needs, strict=True))


gru_sequence = Op(
    "gru_sequence",
    batch=_sequence_samples("gru_sequence", 1, 2),
    kind=_SEQUENCE,
    infer=_gru_aval,
    numpy=kernels.gru,
    c=C("recurrent", "gru_forward", kernels.sizes, blas=True),
    side_results=True,
    save=("x", "h", "w", "b", "out", "out1"),
    vjp=Gradient(
        _gru_rule,
        results=_gru_grads,
        numpy=kernels.gru_backward,
        c=C("recurrent", "gru_backward", kernels.backward_sizes, blas=True),
    ),
)
"""h of every step (T, B, H), from projected inputs x (T, B, 3 H) in the order r, z, n.

h (B, H) is the initial state, w (3 H, H) and b (3 H,) the recurrent weight and bias; `reverse` as for `lstm_sequence`.
Source: Cho et al. 2014.
"""
