"""The one exception for files that are damaged, hostile or of a kind that is not read."""

from __future__ import annotations


class FileFormatError(RuntimeError):
    """A file is not what it should be: the message says what was expected, what was found and what to do."""
