"""The facade's submodules: which of our modules stands under which of PyTorch's names.

An alias is the module itself, entered into `sys.modules` under a second name, so that `import rushlight.nn.functional
as F`, `from rushlight.utils.data import DataLoader` and `rushlight.nn` all lead to one object.  What lies below an
alias (`rushlight.nn.modules.linear`) is found by `_Below`; Python's own search would load the file a second time, and
there would be two classes of one name.
"""

from __future__ import annotations

import importlib
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

ALIASES = {
    "autograd": "rushlight_autograd",
    "autograd.functional": "rushlight_autograd.functional",
    "cuda": "rushlight_tensor.cuda",
    "distributed": "rushlight_distributed",
    "jit": "rushlight_jit",
    "models": "rushlight_models",
    "nn": "rushlight_nn",
    "nn.functional": "rushlight_nn.functional",
    "nn.init": "rushlight_nn.init",
    "nn.parallel": "rushlight_distributed.ddp",
    "nn.utils": "rushlight_nn.utils",
    "nn.utils.rnn": "rushlight_nn.utils.rnn",
    "optim": "rushlight_optim",
    "optim.lr_scheduler": "rushlight_optim.lr_scheduler",
    "optim.swa_utils": "rushlight_nn.averaging",
    "random": "rushlight_tensor.random",
    "utils.checkpoint": "rushlight_autograd.checkpoint",
    "utils.data": "rushlight_data",
    "utils.data.dataloader": "rushlight_data.dataloader",
    "utils.data.dataset": "rushlight_data.dataset",
    "utils.data.distributed": "rushlight_data.distributed",
    "utils.data.sampler": "rushlight_data.sampler",
}


class _Below(MetaPathFinder, Loader):
    """Finds `facade.alias.rest` as `target.rest`, the one module that it is."""

    def __init__(self, facade: str) -> None:
        self._facade = facade
        self._specs: dict[str, ModuleSpec | None] = {}

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        facade, _, name = fullname.partition(".")
        alias, _, rest = name.rpartition(".")
        if facade != self._facade or not rest:
            return None
        above = sys.modules.get(f"{facade}.{alias}")
        if above is None or above.__name__ == f"{facade}.{alias}":
            return None
        return ModuleSpec(fullname, self, origin=f"{above.__name__}.{rest}")

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(str(spec.origin))
        self._specs[spec.name] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is run again; the module keeps the spec that it had."""
        spec = module.__spec__
        assert spec is not None
        module.__spec__ = self._specs.pop(spec.name)


def install(facade: str) -> dict[str, Any]:
    """Enter the aliases into `sys.modules`; returns the top-level ones by name."""
    sys.meta_path.insert(0, _Below(facade))
    top: dict[str, Any] = {}
    utils = ModuleType(f"{facade}.utils", "What PyTorch keeps under `torch.utils`.")
    sys.modules[utils.__name__] = utils
    top["utils"] = utils
    for alias, target in ALIASES.items():
        module = importlib.import_module(target)
        sys.modules[f"{facade}.{alias}"] = module
        parent, _, name = alias.rpartition(".")
        if not parent:
            top[name] = module
        elif parent == "utils":
            setattr(utils, name, module)
        elif parent == "nn" and name == "parallel":
            module_nn = top["nn"]
            module_nn.parallel = module
    return top
