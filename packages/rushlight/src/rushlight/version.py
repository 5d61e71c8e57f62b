"""`torch.version`: which PyTorch these names are of; what it was built with is None, as nothing was."""

from __future__ import annotations

from rushlight._alias import version as _version

__version__ = _version()
debug = False
git_version = "unknown"
cuda = hip = rocm = xpu = None
