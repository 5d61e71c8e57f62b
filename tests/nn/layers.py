"""One or more examples of every layer: how it is made and what it is called with.

A layer without an example fails the suite.  The examples are written for any namespace that is shaped like `torch.nn`,
so the parity tests use them too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Example:
    """`make(nn)` gives the layer; `inputs` are its arguments: shapes for floats, arrays as they are."""

    make: Callable[[Any], Any]
    inputs: tuple[Any, ...]
    options: dict[str, Any] = field(default_factory=dict)

    def arguments(self, namespace: Any, requires_grad: bool = False) -> list[Any]:
        """The inputs as tensors of `namespace`; the same numbers for any namespace."""
        random = np.random.RandomState(0)
        out = []
        for item in self.inputs:
            if isinstance(item, tuple):
                array = random.randn(*item).astype(np.float32)
                out.append(namespace.tensor(array, requires_grad=requires_grad))
            else:
                out.append(namespace.tensor(item))
        return out


def _each(names: list[str], inputs: tuple[Any, ...], *args: Any, **kwargs: Any) -> dict[str, list[Example]]:
    return {n: [Example(lambda nn, n=n: getattr(nn, n)(*args, **kwargs), inputs)] for n in names}


CLASSES = np.array([1, 0, 3, 2])
HALF = np.array([[0.2, 0.9, 0.5], [0.1, 0.4, 0.7]], dtype=np.float32)
SIGNS = np.array([1, -1, 1, -1])
PROBABILITIES = np.array([[0.2, 0.5, 0.3], [0.1, 0.2, 0.7]], dtype=np.float32)

EXAMPLES: dict[str, list[Example]] = {
    **_each(
        [
            "ReLU",
            "SiLU",
            "Mish",
            "SELU",
            "Hardswish",
            "Hardsigmoid",
            "Sigmoid",
            "Tanh",
            "LogSigmoid",
            "Softsign",
            "Tanhshrink",
            "GELU",
            "LeakyReLU",
            "ELU",
            "CELU",
            "Softplus",
            "Hardtanh",
            "ReLU6",
            "Hardshrink",
            "Softshrink",
            "GLU",
            "Identity",
        ],
        ((3, 4),),
    ),
    **_each(["Softmax", "LogSoftmax", "Softmin"], ((3, 4),), 1),
    **_each(["L1Loss", "MSELoss", "SmoothL1Loss", "HuberLoss"], ((3, 4), (3, 4))),
    **_each(["CosineEmbeddingLoss"], ((4, 3), (4, 3), SIGNS), 0.1),
    **_each(["MarginRankingLoss"], ((4,), (4,), SIGNS), 0.1),
    **_each(["HingeEmbeddingLoss"], ((4,), SIGNS)),
    **_each(["SoftMarginLoss"], ((4,), SIGNS.astype(np.float32))),
    **_each(["TripletMarginLoss"], ((4, 3), (4, 3), (4, 3))),
    **_each(["ConstantPad1d", "ConstantPad2d"], ((2, 3, 4, 4),), 1, 0.5),
    **_each(["ZeroPad1d"], ((2, 3, 4),), (1, 2)),
    **_each(["ZeroPad2d"], ((2, 3, 4, 4),), (1, 2, 0, 1)),
    **_each(["ReflectionPad1d", "ReplicationPad1d", "CircularPad1d"], ((2, 3, 4),), 2),
    **_each(["ReflectionPad2d", "ReplicationPad2d", "CircularPad2d"], ((2, 3, 4, 4),), (1, 2, 1, 0)),
    **_each(["MaxPool1d"], ((2, 3, 8),), 2),
    **_each(["AvgPool1d"], ((2, 3, 8),), 3, 2, 1),
    **_each(["AdaptiveAvgPool1d"], ((2, 3, 8),), 3),
    **_each(["Dropout"], ((3, 4),)),
    **_each(["AlphaDropout"], ((3, 4),), 0.3),
    **_each(["UpsamplingNearest2d", "UpsamplingBilinear2d"], ((2, 3, 4, 4),), scale_factor=2),
    **_each(["Dropout1d"], ((2, 3, 4),)),
    **_each(["Dropout2d"], ((2, 3, 4, 4),)),
    **_each(["InstanceNorm1d"], ((2, 3, 4),), 3),
    **_each(["BatchNorm3d"], ((2, 3, 2, 2, 2),), 3),
    **_each(["LocalResponseNorm"], ((2, 5, 3, 3),), 3),
    **_each(["PixelShuffle"], ((2, 8, 3, 3),), 2),
    **_each(["PixelUnshuffle"], ((2, 2, 4, 4),), 2),
    **_each(["CosineSimilarity", "PairwiseDistance"], ((3, 4), (3, 4))),
    **_each(["AdaptiveMaxPool1d"], ((2, 3, 8),), 3),
    **_each(["AdaptiveMaxPool2d"], ((2, 3, 6, 6),), (2, 3)),
    **_each(["ChannelShuffle"], ((2, 6, 3, 3),), 2),
    **_each(["Unfold"], ((2, 3, 5, 5),), 3, padding=1, stride=2),
    **_each(["Fold"], ((2, 12, 9),), (4, 4), 2),
    **_each(["Softmax2d"], ((2, 3, 4, 4),)),
    **_each(["Flatten"], ((2, 3, 4),)),
    **_each(["Bilinear"], ((5, 2), (5, 3)), 2, 3, 4),
    **_each(["KLDivLoss"], ((2, 3), PROBABILITIES), reduction="batchmean"),
    **_each(["PoissonNLLLoss"], ((2, 3), HALF)),
    "GELU-tanh": [Example(lambda nn: nn.GELU("tanh"), ((3, 4),))],
    "GaussianNLLLoss": [Example(lambda nn: nn.GaussianNLLLoss(full=True), ((2, 3), HALF, HALF + 0.5))],
    "PReLU": [Example(lambda nn: nn.PReLU(), ((3, 4),)), Example(lambda nn: nn.PReLU(3), ((2, 3, 4),))],
    "Threshold": [Example(lambda nn: nn.Threshold(0.1, 0.5), ((3, 4),))],
    "Unflatten": [Example(lambda nn: nn.Unflatten(1, (2, 3)), ((4, 6),))],
    "Upsample": [
        Example(lambda nn: nn.Upsample(scale_factor=2), ((2, 3, 4, 4),)),
        Example(lambda nn: nn.Upsample(size=(6, 5), mode="bilinear"), ((2, 3, 4, 4),)),
    ],
    "MaxPool2d": [
        Example(lambda nn: nn.MaxPool2d(2), ((2, 3, 6, 6),)),
        Example(lambda nn: nn.MaxPool2d(3, 2, 1), ((2, 3, 6, 6),)),
    ],
    "AvgPool2d": [
        Example(lambda nn: nn.AvgPool2d(2), ((2, 3, 6, 6),)),
        Example(lambda nn: nn.AvgPool2d((3, 2), 2, 1, count_include_pad=False), ((2, 3, 6, 6),)),
    ],
    "AdaptiveAvgPool2d": [
        Example(lambda nn: nn.AdaptiveAvgPool2d(1), ((2, 3, 6, 6),)),
        Example(lambda nn: nn.AdaptiveAvgPool2d((None, 4)), ((2, 3, 6, 6),)),
    ],
    "Linear": [
        Example(lambda nn: nn.Linear(4, 3), ((2, 4),)),
        Example(lambda nn: nn.Linear(4, 3, bias=False), ((2, 5, 4),)),
    ],
    "Conv1d": [
        Example(lambda nn: nn.Conv1d(3, 4, 3, padding=1), ((2, 3, 8),)),
        Example(lambda nn: nn.Conv1d(4, 4, 3, stride=2, dilation=2, groups=2, bias=False), ((2, 4, 9),)),
    ],
    "Conv2d": [
        Example(lambda nn: nn.Conv2d(3, 4, 3, padding=1), ((2, 3, 6, 6),)),
        Example(lambda nn: nn.Conv2d(4, 6, (3, 2), stride=2, padding=(1, 0), groups=2), ((2, 4, 6, 6),)),
        Example(lambda nn: nn.Conv2d(3, 4, 3, padding="same", padding_mode="reflect", bias=False), ((2, 3, 6, 6),)),
    ],
    "ConvTranspose1d": [Example(lambda nn: nn.ConvTranspose1d(3, 4, 3, 2, 1, 1), ((2, 3, 5),))],
    "ConvTranspose2d": [Example(lambda nn: nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2), ((2, 4, 5, 5),))],
    "BatchNorm1d": [
        Example(lambda nn: nn.BatchNorm1d(3), ((4, 3),)),
        Example(lambda nn: nn.BatchNorm1d(3, momentum=None, affine=False), ((4, 3, 5),)),
    ],
    "BatchNorm2d": [
        Example(lambda nn: nn.BatchNorm2d(3), ((2, 3, 4, 4),)),
        Example(lambda nn: nn.BatchNorm2d(3, track_running_stats=False), ((2, 3, 4, 4),)),
    ],
    "InstanceNorm2d": [
        Example(lambda nn: nn.InstanceNorm2d(3), ((2, 3, 4, 4),)),
        Example(lambda nn: nn.InstanceNorm2d(3, affine=True, track_running_stats=True), ((2, 3, 4, 4),)),
    ],
    "LayerNorm": [
        Example(lambda nn: nn.LayerNorm(4), ((3, 4),)),
        Example(lambda nn: nn.LayerNorm((3, 4), bias=False), ((2, 3, 4),)),
    ],
    "RMSNorm": [
        Example(lambda nn: nn.RMSNorm(4), ((3, 4),)),
        Example(lambda nn: nn.RMSNorm(4, 1e-3, False), ((3, 4),)),
    ],
    "GroupNorm": [Example(lambda nn: nn.GroupNorm(2, 4), ((3, 4, 5),))],
    "Embedding": [
        Example(lambda nn: nn.Embedding(5, 3), (np.array([[1, 0], [4, 1]]),)),
        Example(lambda nn: nn.Embedding(5, 3, padding_idx=1), (np.array([1, 4]),)),
    ],
    "CrossEntropyLoss": [
        Example(lambda nn: nn.CrossEntropyLoss(), ((4, 5), CLASSES)),
        Example(
            lambda nn: nn.CrossEntropyLoss(reduction="sum", ignore_index=3, label_smoothing=0.1), ((4, 5), CLASSES)
        ),
    ],
    "NLLLoss": [Example(lambda nn: nn.NLLLoss(), ((4, 5), CLASSES))],
    "BCELoss": [Example(lambda nn: nn.BCELoss(), (HALF, PROBABILITIES))],
    "BCEWithLogitsLoss": [Example(lambda nn: nn.BCEWithLogitsLoss(), ((2, 3), HALF))],
    "RNN": [
        Example(lambda nn: nn.RNN(3, 4), ((5, 2, 3),)),
        Example(lambda nn: nn.RNN(3, 4, 2, nonlinearity="relu", bias=False, batch_first=True), ((2, 5, 3),)),
    ],
    "LSTM": [
        Example(lambda nn: nn.LSTM(3, 4), ((5, 2, 3),)),
        Example(lambda nn: nn.LSTM(3, 4, 2, bidirectional=True, batch_first=True), ((2, 5, 3),)),
        Example(lambda nn: nn.LSTM(3, 4, proj_size=2), ((5, 3),)),
    ],
    "GRU": [
        Example(lambda nn: nn.GRU(3, 4), ((5, 2, 3),)),
        Example(lambda nn: nn.GRU(3, 4, 2, bidirectional=True), ((5, 2, 3), (4, 2, 4))),
    ],
    "RNNCell": [Example(lambda nn: nn.RNNCell(3, 4, nonlinearity="relu"), ((2, 3), (2, 4)))],
    "LSTMCell": [Example(lambda nn: nn.LSTMCell(3, 4), ((2, 3),))],
    "GRUCell": [Example(lambda nn: nn.GRUCell(3, 4, bias=False), ((3,), (4,)))],
    "MultiheadAttention": [
        Example(lambda nn: nn.MultiheadAttention(4, 2), ((5, 3, 4), (6, 3, 4), (6, 3, 4))),
        Example(
            lambda nn: nn.MultiheadAttention(4, 2, bias=False, batch_first=True, kdim=3, vdim=5, add_bias_kv=True),
            ((2, 5, 4), (2, 6, 3), (2, 6, 5)),
        ),
        Example(lambda nn: nn.MultiheadAttention(4, 2, add_zero_attn=True), ((5, 4), (6, 4), (6, 4))),
    ],
    "TransformerEncoderLayer": [
        Example(lambda nn: nn.TransformerEncoderLayer(4, 2, 8, 0.0), ((5, 3, 4),)),
        Example(
            lambda nn: nn.TransformerEncoderLayer(4, 2, 8, 0.0, "gelu", batch_first=True, norm_first=True, bias=False),
            ((3, 5, 4),),
        ),
    ],
    "TransformerEncoder": [
        Example(
            lambda nn: nn.TransformerEncoder(
                nn.TransformerEncoderLayer(4, 2, 8, 0.0, batch_first=True), 2, nn.LayerNorm(4)
            ),
            ((3, 5, 4),),
        )
    ],
    "TransformerDecoderLayer": [
        Example(lambda nn: nn.TransformerDecoderLayer(4, 2, 8, 0.0), ((5, 3, 4), (6, 3, 4))),
        Example(lambda nn: nn.TransformerDecoderLayer(4, 2, 8, 0.0, norm_first=True), ((5, 3, 4), (6, 3, 4))),
    ],
    "TransformerDecoder": [
        Example(lambda nn: nn.TransformerDecoder(nn.TransformerDecoderLayer(4, 2, 8, 0.0), 2), ((5, 3, 4), (6, 3, 4)))
    ],
    "Transformer": [Example(lambda nn: nn.Transformer(4, 2, 1, 2, 8, 0.0, batch_first=True), ((3, 5, 4), (3, 6, 4)))],
    "Sequential": [Example(lambda nn: nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), ((5, 4),))],
}

NOT_CALLED = {"Module", "ModuleList", "ModuleDict", "ParameterList", "ParameterDict", "RNNBase", "Parameter", "Buffer"}
"""What is no layer by itself; tests of its own cover it."""
