"""Normalisation: of rows and channels, softmax."""
