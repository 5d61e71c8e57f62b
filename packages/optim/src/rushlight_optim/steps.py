"""The update rules: each is one op that writes into the parameters and state of all tensors of a group.

The inputs of an op are columns of n arrays: the parameters, each kind of state, and last the gradients.  So a step is
one call for the interpreter and one record for the tracer.  SGD and Adam are C kernels over the whole list; the others
are a rule for one parameter, in NumPy.

Note [Complex parameters]
    A complex number is a pair of real ones to every rule, as in PyTorch: `step_op` shows the rules views of twice as
    many real elements.  A square in a rule is the square of each part, not of the complex number.

Note [Rounding]
    The order of operations and what is computed in double precision (bias corrections, step sizes) are PyTorch's, so
    that results differ by rounding only.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from rushlight_tensor import Op, Tensor
from rushlight_tensor.core import kinds
from rushlight_tensor.core.cuda import NUMPY_TEXT
from rushlight_tensor.core.half_precision import wide
from rushlight_tensor.core.infer import broadcast_shapes
from rushlight_tensor.core.inplace import mutate
from rushlight_tensor.kernels import cuda_kernels
from rushlight_tensor.kernels import optim as kernels
from rushlight_tensor.kernels.arrays import contiguous
from rushlight_tensor.kernels.columns import Columns

Array = Any  # NumPy or CuPy


def step_op(
    name: str,
    options: Callable[..., tuple[()]],
    rule: Callable[..., None],
    columns: Callable[..., int],
    counters: int = 1,
    c: Columns | None = None,
    cuda: Any = NUMPY_TEXT,
) -> Op:
    """An op that returns nothing and writes into its inputs.

    Args:
        options: `(*xs, **options)`, whose signature names the options and their defaults.
        rule: What is done to the arrays of one parameter, in NumPy: the parameter, its state, and its gradient.
        columns: From the options, the number of columns: the parameters, each kind of state, and the gradients.
        counters: How many columns after the parameters' hold one number each.
        c: A C kernel over all columns.
        cuda: A launcher over all arrays.
    """

    defaults = {p.name: p.default for p in inspect.signature(options).parameters.values() if p.default is not p.empty}

    @wraps(options)
    def infer(*arrays: Any, **given: Any) -> tuple[()]:
        count = columns(**{**defaults, **given})
        if len(arrays) % count:
            raise RuntimeError(f"{name}: expected {count} columns of equally many tensors, got {len(arrays)} tensors")
        _check_shapes(arrays, len(arrays) // count, counters)
        return ()

    def numpy(*arrays: Array, **options: Any) -> tuple[()]:
        infer(*arrays, **options)
        n = len(arrays) // columns(**options)
        for x in arrays[:n]:
            if x.dtype.kind == "c":
                arrays = tuple([_pairs(x) if x.dtype.kind == "c" else x for x in arrays])
                break
        for i in range(n):
            _widely(rule, arrays[i::n], options)
        return ()

    return Op(
        name,
        kind=kinds.opaque("lists of parameters and their state"),
        writes=lambda count, **options: count - count // columns(**options),  # all but the gradients
        scheduled=True,
        infer=infer,
        numpy=numpy,
        c=c,
        cuda=cuda,
        vjp=None,
    )


def _widely(rule: Callable[..., None], arrays: tuple[Array, ...], options: dict[str, Any]) -> None:
    """Apply a rule; of half types in float32, since squares and differences may be too large for them, rounded once."""
    wider = [x.astype(to, copy=False) if (to := wide(x.dtype)) != x.dtype else x for x in arrays]
    rule(*wider, **options)
    for x, written in zip(arrays[:-1], wider[:-1], strict=True):  # the last is the gradient
        if written is not x:
            x[...] = written


def _check_shapes(arrays: tuple[Array, ...], n: int, counters: int) -> None:
    """State and gradients have the shapes of the parameters, or nothing is written.  The errors are PyTorch's."""
    shapes = [x.shape for x in arrays]
    params = shapes[:n]
    if shapes == params + [()] * (counters * n) + params * (len(shapes) // max(n, 1) - 1 - counters):
        return
    for first in range((1 + counters) * n, len(shapes), n):
        if shapes[first : first + n] != params:
            state, param = next((s, p) for s, p in zip(shapes[first : first + n], params, strict=True) if s != p)
            try:
                both = broadcast_shapes(state, param)
            except RuntimeError as error:
                raise RuntimeError(str(error).split(";")[0]) from None
            out = list(param if both == state else state)
            raise RuntimeError(f"output with shape {out} doesn't match the broadcast shape {list(both)}")
    for x in arrays[n : (1 + counters) * n]:
        if math.prod(x.shape) != 1:
            raise RuntimeError(f"optimizer step: a counter must hold one number, got a tensor of shape {x.shape}")


def _pairs(x: Array) -> Array:
    """The real and imaginary parts of `x` as one more dimension, in its memory.  See Note [Complex parameters]."""
    return x[..., None].view(x.real.dtype)


def run(op: Op, written: tuple[list[Tensor], ...], grads: list[Tensor], **options: Any) -> None:
    """Apply a step op to columns of equally many tensors: the parameters, their state, and the gradients it reads."""
    if grads:
        mutate(op, (*[t for column in written for t in column], *grads), options)


def _gradient(p: Array, g: Array, weight_decay: float, maximize: bool) -> Array:
    """The gradient to descend: turned round to maximise, with L2 decay."""
    if maximize:
        g = -g
    return g + weight_decay * p if weight_decay else g


def _lerp(x: Array, to: Array, weight: float) -> None:
    """x += weight (to - x)."""
    change = to - x
    change *= weight
    x += change


def _decayed_square(v: Array, g: Array, beta: float) -> None:
    """v = beta v + (1 - beta) g²."""
    v *= beta
    square = g * g
    square *= 1 - beta
    v += square


# --- SGD.  Source: Sutskever et al. 2013, in PyTorch's form: buf = momentum buf + (1 - dampening) g.


def _sgd_out(
    *xs: Any, lr: float = 0.0, momentum: float = 0.0, dampening: float = 0.0, weight_decay: float = 0.0,
    nesterov: bool = False, first: bool = False, maximize: bool = False,
) -> tuple[()]:  # fmt: skip
    return ()


sgd_step = step_op(
    "sgd_step",
    _sgd_out,
    kernels.sgd,
    lambda **o: 3 if o["momentum"] else 2,
    counters=0,
    c=Columns("optim", "sgd", lambda **o: 3 if o["momentum"] else 2, each=True),
)


# --- Adam and AdamW.  Sources: Kingma and Ba 2014; Loshchilov and Hutter 2017; amsgrad: Reddi et al. 2018.


def _adam_out(
    *xs: Any, lr: float = 0.0, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.0,
    decoupled: bool = False, amsgrad: bool = False, maximize: bool = False,
) -> tuple[()]:  # fmt: skip
    return ()


def _amsgrad(
    p: Array, step: Array, m: Array, v: Array, largest: Array, g: Array, *, lr: float, beta1: float, beta2: float,
    eps: float, weight_decay: float, decoupled: bool, maximize: bool,
) -> None:  # fmt: skip
    step += 1
    t = float(step)
    g = _gradient(p, g, 0.0 if decoupled else weight_decay, maximize)
    if decoupled and weight_decay:
        p *= 1 - lr * weight_decay
    _lerp(m, g, 1 - beta1)
    _decayed_square(v, g, beta2)
    np.maximum(largest, v, out=largest)
    p -= (lr / (1 - beta1**t)) * (m / (np.sqrt(largest) / math.sqrt(1 - beta2**t) + eps))


def _adam(*arrays: Array, amsgrad: bool, **options: Any) -> None:
    (_amsgrad if amsgrad else kernels.adam)(*arrays, **options)


def _adam_on_device(*arrays: Array, amsgrad: bool, **options: Any) -> tuple[()]:
    n = len(arrays) // 5
    if amsgrad or not all(x.dtype == np.float32 for x in arrays) or not all(x.flags.c_contiguous for x in arrays[:-n]):
        done: tuple[()] = adam_step.numpy(*arrays, amsgrad=amsgrad, **options)
        return done
    grads = [contiguous(g) for g in arrays[-n:]]
    params, steps, means, squares = (list(arrays[i : i + n]) for i in range(0, 4 * n, n))
    cuda_kernels.adam(params, steps, means, squares, grads, **options)
    return ()


adam_step = step_op(
    "adam_step",
    _adam_out,
    _adam,
    lambda **o: 6 if o["amsgrad"] else 5,
    c=Columns("optim", "adam", when=lambda **o: not o["amsgrad"], each=True),
    cuda=_adam_on_device,
)


# --- RMSprop.  Source: Tieleman and Hinton 2012; centered: Graves 2013.


def _rmsprop_out(
    *xs: Any, lr: float = 0.0, alpha: float = 0.99, eps: float = 1e-8, weight_decay: float = 0.0,
    momentum: float = 0.0, centered: bool = False, maximize: bool = False,
) -> tuple[()]:  # fmt: skip
    return ()


def _rmsprop(
    p: Array, step: Array, v: Array, *rest: Array, lr: float, alpha: float, eps: float, weight_decay: float,
    momentum: float, centered: bool, maximize: bool,
) -> None:  # fmt: skip
    step += 1
    g = _gradient(p, rest[-1], weight_decay, maximize)
    _decayed_square(v, g, alpha)
    if centered:
        mean = rest[-2]
        _lerp(mean, g, 1 - alpha)
        average = np.sqrt(v - mean * mean)
    else:
        average = np.sqrt(v)
    average += eps
    if momentum:
        buf = rest[0]
        buf *= momentum
        buf += g / average
        p -= lr * buf
    else:
        p -= lr * (g / average)


rmsprop_step = step_op(
    "rmsprop_step", _rmsprop_out, _rmsprop, lambda **o: 4 + bool(o["momentum"]) + bool(o["centered"])
)


# --- Adagrad.  Source: Duchi et al. 2011.


def _adagrad_out(
    *xs: Any, lr: float = 0.0, lr_decay: float = 0.0, weight_decay: float = 0.0, eps: float = 1e-10,
    maximize: bool = False,
) -> tuple[()]:  # fmt: skip
    return ()


def _adagrad(
    p: Array, step: Array, total: Array, g: Array, *, lr: float, lr_decay: float, weight_decay: float, eps: float,
    maximize: bool,
) -> None:  # fmt: skip
    step += 1
    g = _gradient(p, g, weight_decay, maximize)
    total += g * g
    p -= (lr / (1 + (float(step) - 1) * lr_decay)) * (g / (np.sqrt(total) + eps))


adagrad_step = step_op("adagrad_step", _adagrad_out, _adagrad, lambda **o: 4)


# --- Adadelta.  Source: Zeiler 2012.


def _adadelta_out(
    *xs: Any, lr: float = 0.0, rho: float = 0.9, eps: float = 1e-6, weight_decay: float = 0.0, maximize: bool = False
) -> tuple[()]:
    return ()


def _adadelta(
    p: Array, step: Array, v: Array, acc: Array, g: Array, *, lr: float, rho: float, eps: float, weight_decay: float,
    maximize: bool,
) -> None:  # fmt: skip
    step += 1
    g = _gradient(p, g, weight_decay, maximize)
    _decayed_square(v, g, rho)
    delta = np.sqrt(acc + eps)
    delta /= np.sqrt(v + eps)
    delta *= g
    _decayed_square(acc, delta, rho)
    p -= lr * delta


adadelta_step = step_op("adadelta_step", _adadelta_out, _adadelta, lambda **o: 5)


# --- Adamax.  Source: Kingma and Ba 2014.


def _adamax_out(
    *xs: Any, lr: float = 0.0, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.0,
    maximize: bool = False,
) -> tuple[()]:  # fmt: skip
    return ()


def _adamax(
    p: Array, step: Array, m: Array, largest: Array, g: Array, *, lr: float, beta1: float, beta2: float, eps: float,
    weight_decay: float, maximize: bool,
) -> None:  # fmt: skip
    step += 1
    g = _gradient(p, g, weight_decay, maximize)
    _lerp(m, g, 1 - beta1)
    largest *= beta2
    np.maximum(largest, np.abs(g) + eps, out=largest)
    p -= (lr / (1 - beta1 ** float(step))) * (m / largest)


adamax_step = step_op("adamax_step", _adamax_out, _adamax, lambda **o: 5)


# --- NAdam.  Source: Dozat 2016.


def _nadam_out(
    *xs: Any, lr: float = 0.0, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.0,
    momentum_decay: float = 0.004, decoupled: bool = False, maximize: bool = False,
) -> tuple[()]:  # fmt: skip
    return ()


def _nadam(
    p: Array, step: Array, mu_product: Array, m: Array, v: Array, g: Array, *, lr: float, beta1: float, beta2: float,
    eps: float, weight_decay: float, momentum_decay: float, decoupled: bool, maximize: bool,
) -> None:  # fmt: skip
    step += 1
    t = float(step)
    g = _gradient(p, g, 0.0 if decoupled else weight_decay, maximize)
    if decoupled and weight_decay:
        p *= 1 - lr * weight_decay
    mu, mu_next = (beta1 * (1.0 - 0.5 * 0.96 ** (s * momentum_decay)) for s in (t, t + 1))
    mu_product *= mu
    product = float(mu_product)
    _lerp(m, g, 1 - beta1)
    _decayed_square(v, g, beta2)
    denominator = np.sqrt(v / (1 - beta2**t))
    denominator += eps
    p -= (lr * (1.0 - mu) / (1.0 - product)) * (g / denominator)
    p -= (lr * mu_next / (1.0 - product * mu_next)) * (m / denominator)


nadam_step = step_op("nadam_step", _nadam_out, _nadam, lambda **o: 6, counters=2)


# --- RAdam.  Source: Liu et al. 2019.


def _radam_out(
    *xs: Any, lr: float = 0.0, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.0,
    decoupled: bool = False, maximize: bool = False,
) -> tuple[()]:  # fmt: skip
    return ()


def _radam(
    p: Array, step: Array, m: Array, v: Array, g: Array, *, lr: float, beta1: float, beta2: float, eps: float,
    weight_decay: float, decoupled: bool, maximize: bool,
) -> None:  # fmt: skip
    step += 1
    t = float(step)
    g = _gradient(p, g, 0.0 if decoupled else weight_decay, maximize)
    if decoupled and weight_decay:
        p *= 1 - lr * weight_decay
    _lerp(m, g, 1 - beta1)
    _decayed_square(v, g, beta2)
    bias_correction2 = 1 - beta2**t
    update = m / (1 - beta1**t)
    rho_inf = 2 / (1 - beta2) - 1
    rho = rho_inf - 2 * t * beta2**t / bias_correction2
    if rho > 5.0:  # the variance of the adaptive rate is tractable
        rectified = math.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
        update *= lr * rectified
        update *= math.sqrt(bias_correction2) / (np.sqrt(v) + eps)
    else:
        update *= lr
    p -= update


radam_step = step_op("radam_step", _radam_out, _radam, lambda **o: 5)
