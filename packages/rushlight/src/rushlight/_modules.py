"""The facade's submodules: which of our modules stands under which of PyTorch's names.

An alias is the module itself, entered into `sys.modules` under a second name, so that `import rushlight.nn.functional
as F`, `from rushlight.utils.data import DataLoader` and `rushlight.nn` all lead to one object.
"""

from __future__ import annotations

import importlib
import sys
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
    "random": "rushlight_tensor.random",
    "utils.checkpoint": "rushlight_autograd.checkpoint",
    "utils.data": "rushlight_data",
    "utils.data.dataloader": "rushlight_data.dataloader",
    "utils.data.dataset": "rushlight_data.dataset",
    "utils.data.distributed": "rushlight_data.distributed",
    "utils.data.sampler": "rushlight_data.sampler",
}


def install(facade: str) -> dict[str, Any]:
    """Enter the aliases into `sys.modules`; returns the top-level ones by name."""
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
