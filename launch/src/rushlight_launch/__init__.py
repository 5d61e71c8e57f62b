"""Puts a program on nodes with mpirun, watches it, and tells the truth about how it ended."""
