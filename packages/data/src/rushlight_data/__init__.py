"""Datasets, samplers and a DataLoader with worker processes."""
