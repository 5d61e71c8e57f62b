"""`torch` is rushlight: a finder for this process, two environment variables for the processes that it starts.

Every Python process below loads this file, so it imports as good as nothing, and rushlight itself when `torch` is.

Note [Child processes]
Workers that spawn, ranks and whatever else a program starts with this Python import `torch`, too.  They inherit
RUSHLIGHT_AS_TORCH, which holds this environment's prefix, and PYTHONPATH with the folder `_start` in front, whose
`sitecustomize.py` enters the finder, takes the folder out of `sys.path` again and runs the `sitecustomize` that would
have been found without it.  So nothing is installed into anybody's environment, processes of others never see it, and a
Python of another environment does nothing when it does.  A child that ignores its environment (-I, -E, -S, or one
that is given another) has PyTorch's `torch`, if any.
"""

from __future__ import annotations

import importlib
import os
import sys
from importlib.machinery import ModuleSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.metadata import Distribution
    from types import ModuleType
    from typing import Any

HOME = os.path.dirname(os.path.abspath(__file__))
START = os.path.join(HOME, "_start")
VARIABLE = "RUSHLIGHT_AS_TORCH"
NAME = "torch"


def version() -> str:
    """The version of PyTorch whose names these are, as `torch.__version__` says it: "2.13.0+rushlight"."""
    with open(os.path.join(HOME, "names.txt"), encoding="utf-8") as names:
        return names.readline().split("PyTorch ")[1].split(";")[0] + "+rushlight"


class OneModule:
    """Loads a module under another name as the one module that it is, which the spec's `origin` names."""

    def __init__(self) -> None:
        self._specs: dict[str, ModuleSpec | None] = {}

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(str(spec.origin))
        self._specs[spec.name] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is run again; the module keeps the spec that it had."""
        spec = module.__spec__
        assert spec is not None
        module.__spec__ = self._specs.pop(spec.name)


class _Torch(OneModule):
    """Finds `torch.x.y` as `rushlight.x.y`, and answers for a distribution "torch"."""

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        head, dot, rest = fullname.partition(".")
        ours = f"rushlight{dot}{rest}"
        if head != NAME:
            return None
        if dot and ours not in sys.modules:
            from importlib.util import find_spec  # noqa: PLC0415 - rushlight is there by now, and has imported it

            if find_spec(ours) is None:
                return None
        return ModuleSpec(fullname, self, origin=ours, is_package=not dot)  # type: ignore[arg-type]  # no base class

    def find_distributions(self, context: Any = None) -> Iterator[Distribution]:
        """What `importlib.metadata` asks; a PyTorch that is installed, too, stands behind it."""
        from importlib.metadata import Distribution  # noqa: PLC0415 - costly, and loaded by whoever asks

        class Torch(Distribution):
            def read_text(self, filename: str) -> str | None:
                text = f"Metadata-Version: 2.1\nName: torch\nVersion: {version()}\nSummary: rushlight, as torch\n"
                return text if filename in ("METADATA", "PKG-INFO") else None

            def locate_file(self, path: Any) -> Any:
                return os.path.join(HOME, path)

        if getattr(context, "name", None) in (None, NAME):
            yield Torch()


def enter() -> None:
    """Put the finder before all others, once; `torch` is imported when the program does."""
    if not any(isinstance(finder, _Torch) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Torch())


def install() -> None:
    """Make `torch` and all `torch.…` this process and those that it starts import rushlight.

    Raises:
        ImportError: Another `torch` is loaded already.
    """
    loaded = sys.modules.get(NAME)
    if loaded is not None and loaded is not sys.modules.get("rushlight"):
        where = getattr(loaded, "__file__", None) or "an unknown place"
        raise ImportError(
            f"torch cannot be rushlight in this process: another one ({where}) has been imported already, and objects "
            "of the two do not mix; call rushlight.as_torch.install() before anything imports torch, or run the "
            "program as python -m rushlight.as_torch SCRIPT",
            name=NAME,
        )
    enter()
    os.environ[VARIABLE] = sys.prefix
    paths = os.environ.get("PYTHONPATH")
    if paths is None or START not in paths.split(os.pathsep):
        os.environ["PYTHONPATH"] = f"{START}{os.pathsep}{paths}" if paths else START
    importlib.import_module(NAME)
