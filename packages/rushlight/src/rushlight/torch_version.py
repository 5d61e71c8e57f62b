"""`torch.__version__`: text that compares with versions, given as text or numbers, as versions do."""

from __future__ import annotations

import re
from typing import Any

from rushlight._alias import version as _version

_FORM = re.compile(
    r"v?(?:(\d+)!)?(\d+(?:\.\d+)*)(?:[-_.]?(a|alpha|b|beta|c|rc|pre|preview)[-_.]?(\d*))?"
    r"(?:-(\d+)|[-_.]?(?:post|rev|r)[-_.]?(\d*))?(?:[-_.]?(dev)[-_.]?(\d*))?(?:\+([a-z0-9]+(?:[-_.][a-z0-9]+)*))?",
    re.IGNORECASE,
)
_EARLY = {"a": 0, "alpha": 0, "b": 1, "beta": 1, "c": 2, "rc": 2, "pre": 2, "preview": 2}


def _key(text: str) -> tuple[Any, ...] | None:
    """What orders versions (PEP 440); None where `text` is none."""
    found = _FORM.fullmatch(text.strip())
    if found is None:
        return None
    epoch, numbers, early, early_number, dash, post, dev, dev_number, local = found.groups()
    release = [int(n) for n in numbers.split(".")]
    while release and release[-1] == 0:
        release.pop()
    after = -1 if dash is None and post is None else int(dash or post or 0)
    if early is not None:
        before = (_EARLY[early.lower()], int(early_number or 0))
    else:
        before = (-1, 0) if dev is not None and after < 0 else (3, 0)
    development = float("inf") if dev is None else int(dev_number or 0)
    parts = re.split(r"[-_.]", local.lower()) if local else []
    labels = [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]
    return int(epoch or 0), release, before, after, development, labels


class TorchVersion(str):
    """A version that is a `str`, and comparable with text, tuples and lists of numbers: `version >= (1, 10)`."""

    __slots__ = ()

    def _compared(self, other: Any, how: str) -> Any:
        text = ".".join(str(part) for part in other) if isinstance(other, tuple | list) else str(other)
        mine, theirs = _key(self), _key(text)
        if mine is None or theirs is None:
            return getattr(str, how)(str(self), text)
        return getattr(mine, how)(theirs)

    def __eq__(self, other: object) -> bool:
        return bool(self._compared(other, "__eq__"))

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __lt__(self, other: Any) -> bool:
        return bool(self._compared(other, "__lt__"))

    def __le__(self, other: Any) -> bool:
        return bool(self._compared(other, "__le__"))

    def __gt__(self, other: Any) -> bool:
        return bool(self._compared(other, "__gt__"))

    def __ge__(self, other: Any) -> bool:
        return bool(self._compared(other, "__ge__"))

    __hash__ = str.__hash__


__version__ = TorchVersion(_version())
