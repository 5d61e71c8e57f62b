"""Write the lists of PyTorch's public names, from the PyTorch installed here: what the facade and Tensor may show.

`names.txt` holds the modules whose names are listed one by one, `outlines.txt` all others down to `torch.a.b.c`.

The tests beside it compare the lists with PyTorch; a new version of it means: run `python -m
tests.parity.pytorch_names`, then look at the difference.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import pkgutil
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import torch  # noqa: TID253 - a tool, run where PyTorch is

ROOT = Path(__file__).resolve().parents[2]
FACADE = ROOT / "packages/rushlight/src/rushlight/names.txt"
OUTLINES = FACADE.with_name("outlines.txt")
TENSOR = ROOT / "packages/tensor/src/rushlight_tensor/methods/tensor_names.txt"
MODULES = (
    "torch", "torch.autograd", "torch.autograd.functional", "torch.cuda", "torch.distributed", "torch.jit", "torch.nn",
    "torch.nn.functional", "torch.nn.init", "torch.nn.parallel", "torch.nn.utils", "torch.nn.utils.rnn", "torch.optim",
    "torch.optim.lr_scheduler", "torch.optim.swa_utils", "torch.random", "torch.utils", "torch.utils.checkpoint",
    "torch.utils.data",
)  # fmt: skip
INTERNAL = ("torch.ao.", "torch.contrib", "torch.fx.experimental.", "torch.onnx.", "torch.utils.hipify")  # and below
PUBLIC = ("torch.ao.quantization", "torch.onnx.errors", "torch.onnx.operators", "torch.onnx.utils")  # but not these
PRIVATE = (
    "torch._dynamo", "torch._dynamo.config", "torch._inductor", "torch._inductor.config", "torch._utils",
    "torch.utils._pytree", "torch.utils.data._utils", "torch.utils.data._utils.collate",
)  # fmt: skip  # and yet in public programs
OTHERS = {"torch.utils.tensorboard": ["FileWriter", "RecordWriter", "SummaryWriter"]}  # needs a package to be looked at
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


def below(package: str, path: list[str]) -> Iterator[str]:
    """The public modules below a package; nothing is imported for it."""
    for found in pkgutil.iter_modules(path, package + "."):
        name = found.name.rpartition(".")[2]
        if name.startswith("_") or (found.name.startswith(INTERNAL) and found.name not in PUBLIC):
            continue
        yield found.name
        if found.ispkg and found.name.count(".") < 3:
            yield from below(found.name, [f"{path[0]}/{name}"])


def outlines() -> str:
    """Each module with its names; `name=place` where the same function or class stands in a module of `MODULES`."""
    places: dict[int, str] = {}
    for place in MODULES:
        module = importlib.import_module(place)
        for name in public(module):
            value = getattr(module, name, None)
            if callable(value):
                places.setdefault(id(value), f"{place}.{name}")
    text = ""
    for title in sorted({*below("torch", list(torch.__path__)), *PRIVATE} - set(MODULES)):
        names = OTHERS.get(title, [])
        with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(ImportError):  # it needs another package
            module = importlib.import_module(title)
            shown = {
                *getattr(module, "__all__", ()),
                *public(module),
                *public(type(module)),
                *public(getattr(module, "m", None)),
            }
            for name in sorted(shown - {"m"}):
                same = places.get(id(getattr(module, name, None)))
                names += [] if name.startswith("_") else [f"{name}={same}" if same else name]
        text += section(title, names or ["-"])
    return text


def texts() -> dict[Path, str]:
    """The three files as they should be; the outlines last, as PyTorch shows more when more of it is imported."""
    head = HEAD.format(torch.__version__.split("+")[0])
    facade = "".join(section(name, public(importlib.import_module(name))) for name in MODULES)
    tensor = section("torch.Tensor", public(torch.Tensor))
    return {FACADE: head + facade, TENSOR: head + tensor, OUTLINES: head + outlines()}


if __name__ == "__main__":
    for path, text in texts().items():
        if "--check" not in sys.argv:
            path.write_text(text)
        elif path.read_text().split("\n")[1:] != text.split("\n")[1:]:
            sys.exit(f"{path} is not what this PyTorch has: run python -m tests.parity.pytorch_names")
