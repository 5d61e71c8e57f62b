"""Convolution, pooling, resampling."""
