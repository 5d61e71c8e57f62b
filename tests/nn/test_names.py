"""One module, one class, under every name: `rushlight.nn.modules.linear.Linear is rushlight.nn.Linear`."""

import importlib.util
import pickle
import subprocess
import sys

import pytest

import rushlight
from rushlight import _modules


@pytest.mark.parametrize(
    ("module", "name", "same"),
    [
        ("rushlight.nn.parameter", "Parameter", rushlight.nn.Parameter),
        ("rushlight.nn.modules.linear", "Linear", rushlight.nn.Linear),
        ("rushlight.nn.modules.module", "Module", rushlight.nn.Module),
        ("rushlight.nn.utils.clip_grad", "clip_grad_norm_", rushlight.nn.utils.clip_grad_norm_),
        ("rushlight.optim.adam", "Adam", rushlight.optim.Adam),
        ("rushlight.optim.optimizer", "Optimizer", rushlight.optim.Optimizer),
        ("rushlight.optim.lr_scheduler", "LRScheduler", rushlight.optim.lr_scheduler.LRScheduler),
        ("rushlight.optim.swa_utils", "AveragedModel", importlib.import_module("rushlight_nn.averaging").AveragedModel),
    ],
)
def test_what_lies_below_an_alias_is_the_same_object(module, name, same):
    found = importlib.import_module(module)
    assert getattr(found, name) is same
    assert found.__spec__.name == found.__name__
    assert importlib.import_module(module) is found
    assert pickle.loads(pickle.dumps(getattr(found, name))) is same


def test_a_fresh_process_can_start_from_any_of_the_names():
    code = "from rushlight.nn.modules.conv import Conv2d; import rushlight_nn; assert Conv2d is rushlight_nn.Conv2d"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_a_name_that_does_not_exist_is_not_found():
    with pytest.raises(ModuleNotFoundError, match="nothing_here"):
        importlib.import_module("rushlight.nn.nothing_here")


@pytest.mark.parametrize("name", ["dispatch", "nn.losses", "optim.steps", "models", "optim.lr_scheduler.base"])
def test_internals_are_not_found_below_the_facade(name):
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(f"rushlight.{name}")


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("", "cholesky"),
        (".nn", "Conv3d"),
        (".nn.functional", "conv3d"),
        (".optim", "LBFGS"),
        (".utils", "swap_tensors"),
    ],
)
def test_what_only_pytorch_has_is_told_from_what_is_misspelt(module, name):
    shown = importlib.import_module(f"rushlight{module}")
    near = max(shown.__dict__.keys() & _modules.listed()[f"torch{module}"], key=len)
    with pytest.raises(AttributeError, match=rf"'rushlight{module}' has no attribute '{name}'; PyTorch has it, but"):
        getattr(shown, name)
    for strange, hint in (("qqqqqq", ""), (f"{near}x", f"; did you mean '{near}'.")):
        with pytest.raises(AttributeError, match=rf"'rushlight{module}' has no attribute '{strange}'{hint}$") as caught:
            getattr(shown, strange)
        assert (caught.value.name, caught.value.obj) == (strange, None)  # with `obj`, Python would add its own hint
    assert not hasattr(shown, name)
    # Each of the two ways to import it, and a name that nobody has in Python's own words.
    for statement in (f"from rushlight{module} import {name}", f"import rushlight{module}.{name}"):
        with pytest.raises(ImportError, match=f"'{name}' from 'rushlight{module}'; PyTorch has it, but"):
            exec(statement, {})
    with pytest.raises(ImportError, match=rf"cannot import name 'qqqqqq' from 'rushlight{module}' \("):
        exec(f"from rushlight{module} import qqqqqq", {})
    with pytest.raises(ImportError, match=rf"cannot import '{near}x' from 'rushlight{module}'; did you mean '{near}'"):
        exec(f"from rushlight{module} import {near}x", {})


def test_whether_there_is_a_module_can_be_asked():
    assert importlib.util.find_spec("rushlight.nn.Conv3d") is None
    assert importlib.util.find_spec("rushlight.fx") is not None
