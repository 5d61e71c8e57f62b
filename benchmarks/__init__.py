"""Benchmarks against PyTorch, gloo and memcpy; `python -m benchmarks` runs them all."""
