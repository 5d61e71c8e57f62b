"""How many cases are drawn, from which seed, and what is left behind when one of them ends the process.

`RUSHLIGHT_HOSTILE` holds `cases:seed:log` (see tools/sanitize.py); without it, the short form of `make test`.
"""

from __future__ import annotations

import atexit
import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

_given = os.environ.get("RUSHLIGHT_HOSTILE", "").split(":")
_cases, _seed = (int(_given[0]), int(_given[1])) if _given[0] else (0, 0)
_log = Path(_given[2]) if _given[0] else None
counted: Counter[str] = Counter()


def hostile(kind: str, short: int, share: float) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A test of drawn cases, `test(data)`; `short` of them, or its `share` of those that were asked for."""
    examples = max(1, int(_cases * share)) if _cases else short
    options = settings(
        max_examples=examples,
        derandomize=not _cases,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink) if not _cases else (Phase.generate,),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )

    def mark(test: Callable[..., None]) -> Callable[..., None]:
        def counting(data: Any) -> None:
            test(data)
            counted[kind] += 1

        counting.__name__, counting.__doc__ = test.__name__, test.__doc__
        drawn = options(given(st.data())(counting))
        return seed(_seed)(drawn) if _cases else drawn

    return mark


def about_to_run(what: str) -> None:
    """Leave the case on disk: a sanitizer ends the process at once."""
    if _log is not None:
        _log.with_suffix(".case").write_text(what)


@atexit.register
def _leave_counts() -> None:
    if _log is not None:
        _log.with_suffix(f".{os.getpid()}.json").write_text(json.dumps(dict(counted)))
