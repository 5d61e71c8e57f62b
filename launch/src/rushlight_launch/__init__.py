"""Puts a program on nodes with mpirun, watches it, and tells the truth about how it ended."""

from rushlight_launch.mpi import LaunchError as LaunchError
from rushlight_launch.runner import LaunchResult as LaunchResult
from rushlight_launch.runner import launch as launch
