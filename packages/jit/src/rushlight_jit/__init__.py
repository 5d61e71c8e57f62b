"""Tracing and compiling: a function of tensors as one graph; replayed, fused into C, saved without its source."""

from __future__ import annotations

from rushlight_jit.compiled import Compiled as Compiled
from rushlight_jit.compiled import compile as compile
from rushlight_jit.traced import FileError as FileError
from rushlight_jit.traced import TracedModule as TracedModule
from rushlight_jit.traced import load as load
from rushlight_jit.traced import save as save
from rushlight_jit.traced import trace as trace
from rushlight_jit.tracer import TraceError as TraceError
