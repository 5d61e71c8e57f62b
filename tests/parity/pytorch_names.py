"""Write the lists of PyTorch's public names, from the PyTorch installed here: what the facade and Tensor may show.

The tests beside it compare the lists with PyTorch; a new version of it means: run `python -m
tests.parity.pytorch_names`, then look at the difference.
"""

from __future__ import annotations

import importlib
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import torch  # noqa: TID253 - a tool, run where PyTorch is

ROOT = Path(__file__).resolve().parents[2]
FACADE = ROOT / "packages/rushlight/src/rushlight/names.txt"
TENSOR = ROOT / "packages/tensor/src/rushlight_tensor/methods/tensor_names.txt"
MODULES = (
    "torch", "torch.autograd", "torch.autograd.functional", "torch.cuda", "torch.distributed", "torch.jit", "torch.nn",
    "torch.nn.functional", "torch.nn.init", "torch.nn.parallel", "torch.nn.utils", "torch.nn.utils.rnn", "torch.optim",
    "torch.optim.lr_scheduler", "torch.optim.swa_utils", "torch.random", "torch.utils", "torch.utils.checkpoint",
    "torch.utils.data",
)  # fmt: skip
HEAD = "# The public names of PyTorch {}; written by `python -m tests.parity.pytorch_names`, read at import.\n"


def public(of: object) -> list[str]:
    """Names without underscore that PyTorch itself put there: no module or helper of the standard library."""
    names = []
    for name in dir(of):
        value = getattr(of, name, None)
        home = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None) or "torch"
        foreign = str(home).split(".")[0] in ("typing", "typing_extensions", "collections", "__future__", "contextlib")
        if isinstance(value, ModuleType):
            foreign = not value.__name__.startswith("torch.")
        if not name.startswith("_") and not foreign:
            names.append(name)
    return sorted(names)


def section(title: str, names: list[str]) -> str:
    return f"\n[{title}]\n" + "\n".join(textwrap.wrap(" ".join(names), 120)) + "\n"


def texts() -> dict[Path, str]:
    """The two files as they should be."""
    head = HEAD.format(torch.__version__.split("+")[0])
    facade = "".join(section(name, public(importlib.import_module(name))) for name in MODULES)
    return {
        FACADE: head + facade,
        TENSOR: head + section("torch.Tensor", public(torch.Tensor)),
    }


if __name__ == "__main__":
    for path, text in texts().items():
        if "--check" not in sys.argv:
            path.write_text(text)
        elif path.read_text().split("\n")[1:] != text.split("\n")[1:]:
            sys.exit(f"{path} is not what this PyTorch has: run python -m tests.parity.pytorch_names")
