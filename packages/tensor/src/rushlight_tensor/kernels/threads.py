"""How many threads kernels use.

There is one pool, OpenMP's, started by the first kernel that is worth it (see Note [One pool] in `c/rushlight.h`).
Results do not depend on the number; only what NumPy's own BLAS multiplies (matrices of complex numbers, and all large
ones where there is no compiler) may depend on the number of *its* threads (`OPENBLAS_NUM_THREADS`).  A forked child
computes on one thread: the pool does not survive a fork, and waiting for it would hang.
"""

from __future__ import annotations

import os

from rushlight_tensor.kernels.binding import STATE, THREADS

_in_forked_child = False


def get_num_threads() -> int:
    """Threads that kernels of this process use; by default its cores, shared among the MPI ranks of the host."""
    return int(STATE[THREADS])


def set_num_threads(count: int) -> None:
    """Set the number of threads for kernels; without effect in a forked child, which has one.

    Args:
        count: Number of threads, at least 1.
    Raises:
        RuntimeError: `count` is not a positive int.
    """
    if not isinstance(count, int) or count < 1:
        raise RuntimeError(f"set_num_threads: expects a positive integer, got {count!r}")
    if not _in_forked_child:
        STATE[THREADS] = count


def _after_fork() -> None:
    global _in_forked_child
    _in_forked_child = True
    STATE[THREADS] = 1


os.register_at_fork(after_in_child=_after_fork)
