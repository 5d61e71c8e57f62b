"""Fewer elements than before: sums, extremes, statistics, order."""
