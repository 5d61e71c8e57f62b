"""`torch.__config__`: what this was built with."""

from __future__ import annotations

from importlib.metadata import version


def show() -> str:
    """A text for people, in PyTorch's form; programs look into it for `USE_MKL=…` and the like."""
    settings = "USE_CUDA=OFF, USE_MKL=OFF, USE_MKLDNN=OFF, USE_NCCL=OFF, USE_OPENMP=OFF"
    return (
        f"rushlight {version('rushlight')}, as PyTorch; nothing is built before it runs:\n"
        f"  - NumPy {version('numpy')}\n"
        f"  - C and CUDA kernels compiled on this machine at first use\n"
        f"  - Build settings: {settings}\n"
    )
