"""Draws from a generator, and dropout."""
