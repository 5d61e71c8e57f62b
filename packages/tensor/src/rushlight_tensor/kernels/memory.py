"""Freed memory stays with the process, ready for the next array.

Note [Fresh pages]
    A training step makes and frees the same arrays again and again. By default the C library hands large blocks back
    to the system and takes fresh pages for the next ones, and the system clears each page at its first use: writing a
    result of 1.5 MB then costs several times what computing it does. So blocks up to 32 MB (the most that glibc
    allows) come from the heap, and the heap gives back only what exceeds `_KEPT_BYTES`. Whoever has set glibc's own
    variables keeps what they chose.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT_BYTES = 2**30
_LARGEST_HEAP_BLOCK_BYTES = 2**25
_USERS_OWN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES")


@functools.cache
def keep_freed_pages() -> None:
    """Ask the C library to keep freed memory; does nothing where it is not glibc.  See Note [Fresh pages]."""
    if sys.platform != "linux" or any(name in os.environ for name in _USERS_OWN):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_MMAP_THRESHOLD, _LARGEST_HEAP_BLOCK_BYTES)
