"""The facade's modules: which of our modules stands under which of PyTorch's names, and what of it shows there.

`names.txt` lists the public names of PyTorch's larger modules.  A module of the facade holds those of them that ours
has, and no other: what PyTorch lacks (helpers, our own extensions) is reached under the package that defines it.
A module without a list (`rushlight.nn.modules`) is ours itself, entered into `sys.modules` under a second name, and
what lies below it is found by `_Below`; Python's own search would load the file a second time, and there would be two
classes of one name.  Modules of PyTorch that are not here at all are outlines: see `_outlines.py`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from rushlight._alias import OneModule
from rushlight._outlines import HERE, Outline, nearest, outlined
from rushlight._outlines import absent as placeholder

ALIASES = {
    "autograd": "rushlight_autograd",
    "autograd.function": "rushlight_autograd.function",
    "autograd.functional": "rushlight_autograd.functional",
    "autograd.gradcheck": "rushlight_autograd.gradcheck",
    "cuda": "rushlight_tensor.core.cuda",
    "distributed": "rushlight_distributed",
    "jit": "rushlight_jit",
    "nn": "rushlight_nn",
    "nn.functional": "rushlight_nn.functional",
    "nn.init": "rushlight_nn.init",
    "nn.modules": "rushlight_nn.modules",
    "nn.parallel": "rushlight_distributed.ddp",
    "nn.parameter": "rushlight_nn.parameter",
    "nn.utils": "rushlight_nn.utils",
    "nn.utils.clip_grad": "rushlight_nn.utils.clip_grad",
    "nn.utils.convert_parameters": "rushlight_nn.utils.convert_parameters",
    "nn.utils.rnn": "rushlight_nn.utils.rnn",
    "optim": "rushlight_optim",
    "optim.adam": "rushlight_optim.adam",
    "optim.lr_scheduler": "rushlight_optim.lr_scheduler",
    "optim.optimizer": "rushlight_optim.optimizer",
    "optim.sgd": "rushlight_optim.sgd",
    "optim.swa_utils": "rushlight_nn.averaging",
    "random": "rushlight_tensor.random",
    "utils.checkpoint": "rushlight_autograd.checkpoint",
    "utils.data": "rushlight_data",
    "utils.data.dataloader": "rushlight_data.dataloader",
    "utils.data.dataset": "rushlight_data.dataset",
    "utils.data.distributed": "rushlight_data.distributed",
    "utils.data.sampler": "rushlight_data.sampler",
}


def listed() -> dict[str, frozenset[str]]:
    """PyTorch's public names, by module: "torch", "torch.nn", …"""
    text = Path(__file__).with_name("names.txt").read_text(encoding="utf-8")
    sections = text.split("\n[")[1:]
    return {title: frozenset(names.split()) for title, _, names in (s.partition("]") for s in sections)}


_ONLY_PYTORCH = "; PyTorch has it, but rushlight does not"
# Programs name these where they define things (a base, an annotation), whether they will need them or not.
_NAMED_EARLY = frozenset({"torch.jit"})


class _Below(OneModule, MetaPathFinder, Loader):
    """Finds `facade.alias.rest` as `target.rest`, below modules that are shown whole."""

    def __init__(self, facade: str) -> None:
        super().__init__()
        self._facade = facade

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        place, _, rest = fullname.rpartition(".")
        above = sys.modules.get(place)
        if not place.startswith(f"{self._facade}.") or above is None or above.__name__ == place:
            return None
        origin = f"{above.__name__}.{rest}"
        return None if importlib.util.find_spec(origin) is None else ModuleSpec(fullname, self, origin=origin)


class _Rest(MetaPathFinder, Loader):
    """Asked last: makes an outline of what PyTorch has and we have not; of other names it says so.

    `from facade import name` looks for a module when there is no attribute, and gives its own bare message unless that
    search fails with another name than the one it looked for.
    """

    def __init__(self, facade: str, names: dict[str, frozenset[str]]) -> None:
        self._facade, self._names = facade, names

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        facade, _, name = fullname.partition(".")
        if facade != self._facade:
            return None
        if f"torch.{name}" in outlined():
            return ModuleSpec(fullname, self, is_package=True)
        place, _, rest = fullname.rpartition(".")
        names = self._names.get(_theirs(place), frozenset())
        asked = sys._getframe(1).f_back  # who only asks whether there is a module gets None, as everywhere
        imported = asked is not None and asked.f_globals.get("__name__") == "importlib._bootstrap"
        have = vars(sys.modules[place]) if place in sys.modules else {}
        why = _why(rest, names, have) if names and rest not in have else ""
        if imported and why:
            raise ModuleNotFoundError(f"cannot import '{rest}' from '{place}'{why}", name=rest)
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return Outline(spec.name, _theirs(spec.name), self._facade)

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing to run."""


def _theirs(place: str) -> str:
    """PyTorch's name of a module of the facade."""
    return ".".join(["torch", *place.split(".")[1:]])


def _why(name: str, names: frozenset[str], have: Mapping[str, Any]) -> str:
    """The end of a message about a name that a module does not have: PyTorch has it, or it is misspelt."""
    if name in names:
        return _ONLY_PYTORCH + nearest(name, have)
    return "; it is private to PyTorch" if name.startswith("_") else nearest(name, have)


def shown(names: frozenset[str], of: ModuleType) -> dict[str, Any]:
    """What of a module of ours its counterpart shows: PyTorch's names, but no modules: `install` enters those."""
    have = vars(of)
    return {name: have[name] for name in names if name in have and not isinstance(have[name], ModuleType)}


def absent(module: str, names: frozenset[str]) -> Callable[[str], Any]:
    """The `__getattr__` of a facade's module: imports what is a module of PyTorch, and says what else is missing."""
    theirs = _theirs(module)

    def __getattr__(name: str) -> Any:
        here = sys.modules[module]
        if name.startswith("__"):
            raise AttributeError(f"module '{module}' has no attribute '{name}'", name=name, obj=here)
        if f"{theirs}.{name}" in outlined():
            return importlib.import_module(f"{module}.{name}")
        if f"{theirs}.{name}" in HERE:
            return HERE[f"{theirs}.{name}"]
        if theirs in _NAMED_EARLY and name in names:
            value = placeholder(f"{theirs}.{name}")
            setattr(here, name, value)
            return value
        # Without `obj`: from it Python would make a suggestion of its own behind ours.
        raise AttributeError(f"module '{module}' has no attribute '{name}'{_why(name, names, vars(here))}", name=name)

    return __getattr__


def install(facade: str, names: dict[str, frozenset[str]]) -> dict[str, Any]:
    """Enter the modules into `sys.modules`; returns the top-level ones by name."""
    sys.meta_path.insert(0, _Below(facade))
    sys.meta_path.append(_Rest(facade, names))
    top = {"utils": _namespace(f"{facade}.utils", "What PyTorch keeps under `torch.utils`.")}
    vars(top["utils"])["__getattr__"] = absent(f"{facade}.utils", names["torch.utils"])
    for alias, target in ALIASES.items():
        module = importlib.import_module(target)
        list_ = names.get(f"torch.{alias}")
        if list_ is not None:
            ours = module
            module = _namespace(f"{facade}.{alias}", ours.__doc__)
            vars(module).update(shown(list_, ours), __getattr__=absent(module.__name__, list_))
        sys.modules[f"{facade}.{alias}"] = module
        parent, _, name = alias.rpartition(".")
        if not parent:
            top[name] = module
        elif name in names.get(f"torch.{parent}", ()):
            vars(sys.modules[f"{facade}.{parent}"]).setdefault(name, module)
    return top


def _namespace(name: str, doc: str | None) -> ModuleType:
    module = ModuleType(name, doc)
    module.__path__ = []  # a package, for `import rushlight.nn.functional`
    module.__spec__ = ModuleSpec(name, None, is_package=True)
    sys.modules[name] = module
    return module
