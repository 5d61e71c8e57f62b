"""Samples of the ops that `rushlight_nn` and `rushlight_optim` declare, and of the recurrence."""

from __future__ import annotations

import numpy as np

from tests.ops.harness import R, Sample, sample

SINGLE = ("float64", "float32")


def _positive() -> list[R]:
    return [R(3, 4, low=0.1), R(5, low=0.1)]


def _any() -> list[R]:
    return [R(3, 4), R(5)]


def _steps(at: float) -> list[np.ndarray]:
    return [np.array(at, np.float32), np.array(at + 3, np.float32)]


def _step(columns: list[list], **options: object) -> Sample:
    """A step over two parameters, from columns of two arrays each: parameters, state, gradients."""
    return sample(*[x for column in columns for x in column], **options).but(mutates=True, ulps=64)


SAMPLES: dict[str, list[Sample]] = {
    "lstm_sequence": [
        sample(R(3, 2, 8), R(2, 2), R(2, 2), R(8, 2)).but(dtypes=SINGLE),
        sample(R(2, 1, 12), R(1, 3), R(1, 3), R(12, 3), reverse=True).but(dtypes=SINGLE),
        sample(R(4, 2, 8), R(2, 2), R(2, 2), R(8, 2), reverse=True).but(dtypes=SINGLE),
    ],
    "gru_sequence": [
        sample(R(3, 2, 6), R(2, 2), R(6, 2), R(6)).but(dtypes=SINGLE),
        sample(R(2, 1, 9), R(1, 3), R(9, 3), R(9), reverse=True).but(dtypes=SINGLE),
        sample(R(4, 2, 6), R(2, 2), R(6, 2), R(6), reverse=True).but(dtypes=SINGLE),
    ],
    "total_norm": [
        sample(R(3, 4), R(5)),
        sample(R(3, 4), R(5), norm_type=1.0),
        sample(R(3, 4), R(5), norm_type=float("inf")),
        sample(R(3, 4), R(5), norm_type=-float("inf")),
    ],
    "scale_all": [sample(R(3, 4), R(5), np.array(0.5, np.float32)).but(mutates=True)],
    "sgd_step": [
        _step([_any(), _any()], lr=0.1),
        _step([_any(), _any(), _any()], lr=0.1, momentum=0.9, dampening=0.2, weight_decay=0.1),
        _step([_any(), _any(), _any()], lr=0.1, momentum=0.9, nesterov=True, maximize=True),
        _step([_any(), _any(), _any()], lr=0.1, momentum=0.9, first=True),
    ],
    "adam_step": [
        _step([_any(), _steps(0), _any(), _positive(), _any()], lr=0.1),
        _step([_any(), _steps(2), _any(), _positive(), _any()], lr=0.1, weight_decay=0.1, decoupled=True),
        _step([_any(), _steps(2), _any(), _positive(), _positive(), _any()], lr=0.1, amsgrad=True, maximize=True),
    ],
    "rmsprop_step": [
        _step([_any(), _steps(2), _positive(), _any()], lr=0.1),
        _step([_any(), _steps(2), [R(3, 4, low=5, high=6), R(5, low=5, high=6)], _any(), _any(), _any()],
              lr=0.1, momentum=0.9, centered=True, weight_decay=0.1),
    ],
    "adagrad_step": [_step([_any(), _steps(2), _positive(), _any()], lr=0.1, lr_decay=0.1, weight_decay=0.1)],
    "adadelta_step": [_step([_any(), _steps(2), _positive(), _positive(), _any()], lr=0.1, weight_decay=0.1)],
    "adamax_step": [_step([_any(), _steps(2), _any(), _positive(), _any()], lr=0.1, weight_decay=0.1)],
    "nadam_step": [
        _step([_any(), _steps(2), [np.array(0.9, np.float32), np.array(0.8, np.float32)], _any(), _positive(), _any()],
              lr=0.1, weight_decay=0.1)
    ],
    "radam_step": [
        _step([_any(), _steps(2), _any(), _positive(), _any()], lr=0.1, weight_decay=0.1),
        _step([_any(), _steps(20), _any(), _positive(), _any()], lr=0.1, decoupled=True, weight_decay=0.1),
    ],
}  # fmt: skip
