"""Tensor, op records and their registry, dispatch, dtypes, random streams, kernels and files."""
