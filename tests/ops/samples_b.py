"""Samples of reductions, products, activations, losses, norms, convolution, pooling, embedding and attention."""

from __future__ import annotations

import math

import numpy as np

from tests.ops.harness import EVERY, FLOATS, INTS, R, sample

SMALL = (*FLOATS, "int64", "bool")
PAIR = {"kernel": (2, 2), "stride": (2, 2)}
OVERLAP = {"kernel": (3, 2), "stride": (2, 1), "padding": (1, 1)}
CLASSES = np.array([2, 0, 2, 1])
TABLE = np.array([[1, 0, 1], [3, 3, 1]])
SEEN = np.array([[True, False, True], [True, True, False], [False, False, False]])
WEIGHTS = np.array([0.5, 1.0, 2.0])
IMAGE = R(2, 3, 5, 6)


def elementwise(*more, **attrs):
    """What every elementwise function is tried on."""
    return [sample(R(3, 4), **attrs), sample(R(), **attrs), sample(R(0, 2), **attrs), *more]


def far(**attrs):
    """Values in the tails, where formulas overflow first."""
    return sample(R(40, low=-60.0, high=60.0), **attrs).but(grad=False, dtypes=("float64", "float32"))


SAMPLES = {
    # Reductions
    "mean": [
        sample(R(3, 4)),
        sample(R(3, 4), dim=1),
        sample(R(2, 3, 4), dim=(0, -1), keepdim=True),
        sample(R()),
        sample(R(3, 0), dim=0),
    ],
    "prod": [
        sample(R(3, 4), dim=1).but(dtypes=EVERY),
        sample(R(2, 3)),
        sample(R(2, 3, 2), dim=1, keepdim=True),
        sample(R()),
        sample(R(0)),
    ],
    "amax": [sample(R(3, 4), dim=(1,)).but(dtypes=EVERY), sample(R(2, 3, 4), dim=(0, 2), keepdim=True), sample(R())],
    "amin": [sample(R(3, 4), dim=(1,)).but(dtypes=EVERY), sample(R(3, 4)), sample(R())],
    "max_dim": [
        sample(R(3, 4), dim=1).but(dtypes=SMALL),
        sample(R(2, 3, 4), dim=1, keepdim=True),
        sample(R(), dim=0),
    ],
    "min_dim": [sample(R(3, 4), dim=0).but(dtypes=SMALL), sample(R(), dim=0)],
    "median_dim": [sample(R(3, 4), dim=1).but(dtypes=(*FLOATS, *INTS)), sample(R(3, 5), dim=0, keepdim=True)],
    "_cummax": [sample(R(3, 4), dim=1).but(dtypes=(*FLOATS, *INTS)), sample(R(), dim=0), sample(R(0, 2), dim=0)],
    "_cummin": [sample(R(3, 4), dim=0).but(dtypes=(*FLOATS, *INTS))],
    "argmax": [sample(R(3, 4)).but(dtypes=(*FLOATS, "int64")), sample(R(3, 4), dim=1, keepdim=True), sample(R())],
    "argmin": [sample(R(3, 4)).but(dtypes=(*FLOATS, "int64")), sample(R(3, 4), dim=0)],
    "any": [sample(R(3, 4)).but(dtypes=EVERY), sample(R(3, 4), dim=1, keepdim=True), sample(R(0, 2), dim=0)],
    "all": [sample(R(3, 4)).but(dtypes=EVERY), sample(R(3, 4), dim=(0, 1)), sample(R(0, 2), dim=0)],
    "norm2": [sample(R(3, 4)), sample(R(3, 4), dim=1, keepdim=True), sample(R(2, 3, 2), dim=(0, 2)), sample(R(0))],
    "var": [
        sample(R(3, 4)),
        sample(R(3, 4), dim=1, keepdim=True),
        sample(R(2, 3, 2), dim=(0, 2), correction=0),
        sample(R(3, 4), dim=0, correction=2),
        sample(R(0, 3), dim=1),
    ],
    "norm_p": [
        sample(R(3, 4), p=3.0),
        sample(R(3, 4), dim=1, keepdim=True, p=1.5),
        sample(R(2, 3, 2), dim=(0, 2), p=0.5),
        sample(R(3, 4), dim=0, p=1.0),
        sample(R(3, 4), dim=0, p=math.inf),
        sample(R(3, 4), dim=1, p=-math.inf, distance=True),
        sample(R(3, 4), dim=-1, p=-1.5),
        sample(R(3, 4), dim=-1, p=0.0, distance=True).but(second=False),
        sample(R(0), p=3.0),
    ],
    **{
        f"{kind}_of_all": [sample(R(3, 4)).but(dtypes=FLOATS), sample(R()), sample(R(2, 3, 2))]
        for kind in ("max", "min", "median")
    },
    "logsumexp": [
        sample(R(3, 4), dim=1),
        sample(R(2, 3, 2), dim=(0, 2), keepdim=True),
        sample(R(), dim=0),
        sample(R(3, low=80.0, high=100.0), dim=0).but(dtypes=("float64", "float32")),
    ],
    "cumsum": [
        sample(R(3, 4), dim=1).but(dtypes=EVERY),
        sample(R(3, 4), dim=0, reverse=True),
        sample(R(), dim=0),
        sample(R(2, 0), dim=1),
    ],
    "cumprod": [sample(R(3, 4), dim=1).but(dtypes=EVERY), sample(R(), dim=0), sample(R(2, 0), dim=1)],
    # Products
    "matmul": [
        sample(R(3, 4), R(4, 2)).but(dtypes=(*FLOATS, "int64")),
        sample(R(4), R(4)),
        sample(R(3, 4), R(4)),
        sample(R(4), R(4, 2)),
        sample(R(2, 3, 4), R(4, 2)),
        sample(R(2, 3, 4), R(2, 4, 2)),
        sample(R(2, 1, 3, 4), R(3, 4, 2)),
        sample(R(4), R(2, 4, 3)),
        sample(R(3, 0), R(0, 2)),
        sample(R(70, 60), R(60, 80)).but(grad=False, ulps=64.0),
    ],
    "linear": [
        sample(R(3, 4), R(2, 4), R(2)),
        sample(R(3, 4), R(2, 4), None),
        sample(R(2, 3, 4), R(2, 4), R(2)),
        sample(R(4), R(2, 4), R(2)),
        sample(R(0, 4), R(2, 4), R(2)),
    ],
    # Activations
    "relu": elementwise(sample(R(3, 4)).but(dtypes=(*FLOATS, *INTS)), sample(R(200, 100)).but(grad=False)),
    "relu6": elementwise(sample(R(9, low=-9.0, high=9.0))),
    "leaky_relu": elementwise(negative_slope=0.2),
    "hardtanh": elementwise(min_val=-0.5, max_val=1.5),
    "threshold": elementwise(threshold=0.3, value=7.0),
    "elu": elementwise(far(alpha=1.5), alpha=1.5),
    "celu": elementwise(far(alpha=0.7), alpha=0.7),
    "selu": elementwise(far()),
    "sigmoid": elementwise(far(), sample(R(3, 4)).but(dtypes=SMALL), sample(R(200, 100)).but(grad=False)),
    "logsigmoid": elementwise(far()),
    "silu": elementwise(far(), sample(R(200, 100)).but(grad=False)),
    "softplus": elementwise(far(), beta=2.0, threshold=3.0),
    "mish": elementwise(far()),
    "hardsigmoid": elementwise(sample(R(9, low=-5.0, high=5.0))),
    "hardswish": elementwise(sample(R(9, low=-5.0, high=5.0))),
    "softsign": elementwise(),
    "tanhshrink": elementwise(),
    "softshrink": elementwise(lambd=0.7),
    "asinh": elementwise(far()),
    "acosh": elementwise(sample(R(5, low=1.1)))[-1:],
    "atanh": elementwise(sample(R(5, low=-0.9, high=0.9)))[-1:],
    "signbit": [sample(R(3, 4)).but(dtypes=(*FLOATS, "int64"))],
    "hardshrink": elementwise(lambd=0.7),
    "erf": elementwise(far(), sample(R(100))),
    "erfc": elementwise(),
    "lgamma": [sample(R(3, 4, low=0.1, high=9.0)), sample(R(5, low=-2.9, high=-2.1)), sample(R(0))],
    "digamma": [
        sample(R(3, 4, low=0.1, high=9.0)).but(second=False),
        sample(R(5, low=-2.9, high=-2.1)).but(second=False),
    ],
    "logcumsumexp": [
        sample(R(3, 4), dim=1),
        sample(R(3, 4), dim=0, reverse=True),
        sample(R(), dim=0),
        sample(R(0, 2), dim=0),
    ],
    "polygamma": [
        sample(R(3, 4, low=0.5, high=9.0), n=2).but(ulps=64.0),
        sample(R(5, low=0.5, high=3.0), n=4).but(ulps=64.0),
        sample(R(5, low=-40.8, high=-40.2), n=3).but(dtypes=("float64", "float32"), ulps=256.0),
    ],
    "trigamma": [sample(R(3, 4, low=0.1, high=9.0)), sample(R(5, low=-2.9, high=-2.1)).but(ulps=64.0)],
    "erfinv": [sample(R(3, 4, low=-0.9, high=0.9)), sample(R(0))],
    "gelu": elementwise(far(), sample(R(100))),
    "gelu_tanh": elementwise(far(), sample(R(100))),
    "softmax": [
        sample(R(3, 4), dim=1),
        sample(R(2, 3, 4), dim=1),
        sample(R(), dim=0),
        sample(R(3, 0), dim=1),
        sample(R(2, 5, low=80.0, high=200.0), dim=-1).but(dtypes=("float64", "float32"), ulps=64.0),
    ],
    "log_softmax": [sample(R(3, 4), dim=1), sample(R(2, 3, 4), dim=0), sample(R(), dim=0), sample(R(0, 3), dim=1)],
    # Losses
    "cross_entropy": [
        sample(R(4, 3), CLASSES, None),
        sample(R(4, 3), CLASSES, None, reduction="none"),
        sample(R(4, 3), CLASSES, None, reduction="sum", ignore_index=2, label_smoothing=0.2),
        sample(R(4, 3), CLASSES, None, ignore_index=0, label_smoothing=0.1),
        sample(R(3), np.array(2), None),
        sample(R(2, 3, 2), np.array([[0, 2], [1, 1]]), None, reduction="none"),
        sample(R(4, 3), CLASSES.astype(np.uint8), None),
        sample(R(0, 3), CLASSES[:0], None, reduction="sum"),
    ],
    "nll_loss": [
        sample(R(4, 3), CLASSES, None),
        sample(R(4, 3), CLASSES, None, reduction="none", ignore_index=2),
        sample(R(3), np.array(2), None, reduction="sum"),
        sample(R(2, 3, 2), np.array([[0, 2], [1, 1]]), None),
    ],
    "class_weights": [
        sample(CLASSES, None, R(4, 3), reduction="mean", label_smoothing=0.1),
        sample(np.array([[0, 2], [1, 1]]), None, R(2, 3, 2), reduction="sum", ignore_index=2),
    ],
    "mse_loss": [
        sample(R(3, 4), R(3, 4)),
        sample(R(3, 4), R(4), reduction="sum"),
        sample(R(3), R(3), reduction="none"),
        sample(R(0), R(0), reduction="sum"),
    ],
    "binary_cross_entropy": [
        sample(R(3, 4, low=0.05, high=0.95), R(3, 4, low=0.0, high=1.0)),
        sample(np.array([0.0, 1.0]), R(2, low=0.0, high=1.0)).but(dtypes=("float64",), grad=False),
    ],
    # Norms
    "layer_norm": [
        sample(R(3, 4), R(4), R(4)),
        sample(R(3, 4), None, None),
        sample(R(2, 3, 4), R(3, 4), R(3, 4), dims=2),
        sample(R(5), R(5), None),
        sample(R(0, 4), R(4), R(4)),
    ],
    "rms_norm": [sample(R(3, 4), R(4)), sample(R(3, 4), None), sample(R(2, 3, 4), R(3, 4), dims=2)],
    "normalize": [
        sample(R(3, 4)),
        sample(R(2, 3, 4), eps=0.5),
        sample(R(5), eps=3.0),  # which is more than the norm
        sample(R(2, 3, low=0.0, high=1e-3), eps=0.01),
        sample(np.array([[3.0, -4.0], [0.0, 0.0]]), eps=0.01).but(grad=False),
        sample(R(0, 3)),
        sample(R(3, 0)),
    ],
    "batch_norm_moments": [sample(R(4, 3)), sample(R(2, 3, 4, 5))],
    "batch_norm_update": [
        sample(R(3), R(3), R(3), R(3, low=0.1), momentum=0.3, correction=1.2).but(mutates=True),
    ],
    "batch_norm": [
        sample(R(4, 3), R(3), R(3), WEIGHTS, WEIGHTS).but(dtypes=("float64", "float32")),
        sample(R(2, 3, 2, 2), None, None, WEIGHTS, WEIGHTS).but(dtypes=("float64", "float32")),
    ],
    # Images
    "conv2d": [
        sample(IMAGE, R(4, 3, 3, 2), R(4)).but(ulps=64.0),
        sample(IMAGE, R(4, 3, 3, 3), None, stride=(2, 1), padding=(1, 2), dilation=(1, 2)).but(ulps=64.0),
        sample(R(2, 4, 5, 5), R(6, 2, 3, 3), R(6), groups=2, padding=(1, 1)).but(ulps=64.0),
        sample(R(0, 3, 5, 5), R(4, 3, 3, 3), R(4)),
    ],
    "conv2d_input_gradient": [
        sample(R(2, 4, 3, 5), R(4, 3, 3, 2), input_shape=(2, 3, 5, 6)).but(ulps=64.0),
        sample(R(2, 4, 3, 3), R(4, 2, 3, 3), input_shape=(2, 4, 6, 6), stride=(2, 2), padding=(1, 1), groups=2).but(
            ulps=64.0
        ),
    ],
    "conv2d_weight_gradient": [
        sample(R(2, 4, 3, 5), IMAGE, weight_shape=(4, 3, 3, 2)).but(ulps=64.0),
        sample(R(2, 4, 3, 3), R(2, 4, 6, 6), weight_shape=(4, 2, 3, 3), stride=(2, 2), padding=(1, 1), groups=2).but(
            ulps=64.0
        ),
    ],
    "max_pool2d": [sample(IMAGE, **PAIR), sample(IMAGE, **OVERLAP, dilation=(1, 2), ceil_mode=True)],
    "max_pool2d_with_indices": [sample(IMAGE, **PAIR), sample(IMAGE, **OVERLAP)],
    "avg_pool2d": [
        sample(IMAGE, **PAIR),
        sample(IMAGE, **OVERLAP, ceil_mode=True, count_include_pad=False),
        sample(IMAGE, **OVERLAP, divisor=5),
    ],
    "constant_pad_nd": [
        sample(R(2, 3), widths=((0, 0), (1, 2)), value=0.5).but(dtypes=EVERY),
        sample(R(3, 4), widths=((-1, 2), (2, -1))),
        sample(R(0, 2), widths=((1, 0), (0, 0))),
    ],
    "col2im": [
        sample(R(2, 8, 6), output_size=(3, 4), window=((2, 2), (1, 1), (0, 0), (1, 1))),
        sample(R(1, 4, 6), output_size=(4, 5), window=((2, 2), (1, 2), (1, 0), (2, 2))),
    ],
    # Tables, attention, dropout
    "embedding": [
        sample(R(4, 3), TABLE),
        sample(R(4, 3), TABLE, padding_idx=1).but(grad=False),  # the row's gradient is zero by decree
        sample(R(4, 3), TABLE[:0]),
        sample(R(4, 3), np.array(2, np.int32)),
    ],
    "one_hot": [sample(TABLE, num_classes=5), sample(np.array(1), num_classes=2), sample(TABLE[:0], num_classes=3)],
    "scaled_dot_product_attention": [
        sample(R(2, 2, 3, 4), R(2, 2, 5, 4), R(2, 2, 5, 3), None, scale=0.5),
        sample(R(1, 2, 4, 4), R(1, 2, 4, 4), R(1, 2, 4, 4), None, is_causal=True, scale=0.5),
        sample(R(2, 3, 4), R(2, 3, 4), R(2, 3, 2), SEEN, scale=0.5),
        sample(R(2, 2, 3, 4), R(1, 2, 2, 4), R(2, 1, 2, 4), np.array([[0.0], [1.0], [-1.0]]), scale=0.5).but(
            dtypes=("float64",)
        ),
    ],
    "dropout": [sample(R(3, 4), p=0.3).but(exact=False, grad=False), sample(R(3, 4), p=0.0).but(exact=False)],
}
