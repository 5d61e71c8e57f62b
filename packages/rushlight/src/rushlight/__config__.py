"""`torch.__config__`: what this was built with."""

from __future__ import annotations

from rushlight._alias import version


def show() -> str:
    """A text for people, in PyTorch's form; programs look into it for `USE_MKL=…` and the like."""
    settings = "USE_CUDA=OFF, USE_MKL=OFF, USE_MKLDNN=OFF, USE_NCCL=OFF, USE_OPENMP=OFF"
    return (
        f"rushlight as PyTorch {version()}; nothing is built before it runs:\n"
        "  - C and CUDA kernels compiled on this machine at first use\n"
        f"  - Build settings: {settings}\n"
    )
