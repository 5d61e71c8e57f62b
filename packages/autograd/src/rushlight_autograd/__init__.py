"""Reverse-mode engine, grad modes, Function, checkpoint, gradcheck."""
