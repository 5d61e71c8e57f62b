"""What a compiled accelerator has put in place of loops in Python; None: Python's text runs.

`kernels/accelerator.py` sets these; whoever has such a loop asks here.  The straight lines themselves (`Op.fast`,
`Op.pull_bare`) are exchanged in the records.
"""

from __future__ import annotations

from typing import Any

walk: Any = None
count: Any = None
"""`_Walk._walk` and `_count` of the backward pass."""
