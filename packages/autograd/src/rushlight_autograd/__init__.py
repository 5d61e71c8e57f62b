"""Automatic differentiation: the backward engine, grad modes, user functions, hooks, checks."""

from __future__ import annotations

from rushlight_autograd import functional as functional
from rushlight_autograd.anomaly import detect_anomaly as detect_anomaly
from rushlight_autograd.anomaly import is_anomaly_enabled as is_anomaly_enabled
from rushlight_autograd.anomaly import set_detect_anomaly as set_detect_anomaly
from rushlight_autograd.api import backward as backward
from rushlight_autograd.api import grad as grad
from rushlight_autograd.checkpoint import CheckpointError as CheckpointError
from rushlight_autograd.checkpoint import checkpoint as checkpoint
from rushlight_autograd.checkpoint import checkpoint_sequential as checkpoint_sequential
from rushlight_autograd.engine import queue_callback as queue_callback
from rushlight_autograd.function import Function as Function
from rushlight_autograd.gradcheck import GradcheckError as GradcheckError
from rushlight_autograd.gradcheck import gradcheck as gradcheck
from rushlight_autograd.gradcheck import gradgradcheck as gradgradcheck
from rushlight_autograd.mode import enable_grad as enable_grad
from rushlight_autograd.mode import inference_mode as inference_mode
from rushlight_autograd.mode import is_grad_enabled as is_grad_enabled
from rushlight_autograd.mode import is_inference_mode_enabled as is_inference_mode_enabled
from rushlight_autograd.mode import no_grad as no_grad
from rushlight_autograd.mode import set_grad_enabled as set_grad_enabled
from rushlight_tensor.methods import gradient

gradient.BACKWARD = backward
