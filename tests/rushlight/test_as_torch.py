"""`python -m rushlight.as_torch` is `python` with rushlight as `torch`: the program, its names, its child processes."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.version import Version

import rushlight
from rushlight.torch_version import TorchVersion
from tests.launch.job import launched

ALIASED = ["-W", "error", "-m", "rushlight.as_torch"]

# What stands where PyTorch could: nothing of it may run, in no process. And a sitecustomize that has to run, still.
ANOTHER_TORCH = "raise SystemExit('the torch of the environment was loaded')"
SITECUSTOMIZE = "import builtins; builtins.site_was_customized = True"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to run in; another torch is importable in all processes."""
    other = tmp_path / "installed"
    (other / "torch").mkdir(parents=True)
    (other / "torch" / "__init__.py").write_text(ANOTHER_TORCH)
    (other / "sitecustomize.py").write_text(SITECUSTOMIZE)
    monkeypatch.setenv("PYTHONPATH", str(other))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ran(*words: str, text: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *words]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, check=False)


STATE = """
import __main__, pickle, sys
class Here: pass
print(sys.argv, sys.path[0], __name__, __file__ if "__file__" in globals() else None, __spec__ and __spec__.name)
print(sorted(globals()), __main__.__dict__ is globals(), type(pickle.loads(pickle.dumps(Here()))) is Here)
"""
FAILS = "def f():\n    raise KeyError('in f')\ntry:\n    f()\nexcept KeyError:\n    1 / 0\n"
PROGRAMS = {
    "a script that raises": (["sub/script.py", "-x", "--lr", "1"], ""),
    "a module that is interrupted": (["-m", "sub.module", "-m", "y"], ""),
    "code that leaves": (["-c", STATE + "sys.exit(3)", "-c"], ""),
    "standard input with a mistake": (["-", "z"], "x = = 1"),
    "a folder": (["sub", "w"], ""),
    "nothing there": (["absent.py"], ""),
}


# `python -m rushlight.as_torch WORDS` for each, in a process of its own; rushlight is imported once for all of them.
ONE_AFTER_THE_OTHER = """
import json, os, sys
from rushlight._command import main
def run(words, text):
    with open("in", "w") as file: file.write(text)
    child = os.fork()
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return [open("out").read(), open("err").read(), code]
    for number, name in enumerate(("in", "out", "err")):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC * (number > 0)), number)
    main(words)
    raise SystemExit
ends = [run(*case) for case in json.load(open("cases.json"))]
json.dump(ends, open("ends.json", "w"))
"""


def test_a_program_sees_and_leaves_what_it_does_under_python(folder):
    sub = folder / "sub"
    sub.mkdir()
    (sub / "script.py").write_text(STATE + FAILS)
    (sub / "module.py").write_text(STATE + "raise KeyboardInterrupt")
    (sub / "__main__.py").write_text(STATE + "sys.exit('goes wrong')")
    (folder / "cases.json").write_text(json.dumps(list(PROGRAMS.values())))
    plain = []
    for words, text in PROGRAMS.values():
        answer = ran(*words, text=text)
        plain.append([answer.stdout, answer.stderr, answer.returncode])
    answer = ran("-c", ONE_AFTER_THE_OTHER)
    assert (answer.returncode, answer.stderr) == (0, "")
    aliased = json.loads(Path("ends.json").read_text())
    for name, theirs, ours in zip(PROGRAMS, plain, aliased, strict=True):
        assert ours == theirs, name
    assert [code for _, _, code in plain] == [1, -signal.SIGINT, 3, 1, 1, 2]  # so there was something to see


NAMES = """
import importlib, importlib.metadata, importlib.util, sys
import torch, torch.nn.functional as F, torch.optim.lr_scheduler, torch.nn.modules.conv, torch.utils.data.dataloader
from torch.utils.data import DataLoader
from torch.optim.adamw import AdamW
from torch.nn.modules.batchnorm import BatchNorm2d
from torch.fx import GraphModule, Tracer
from torch.onnx.errors import OnnxExporterError
import rushlight
from rushlight._outlines import Outline, outlined

assert torch is rushlight and F is rushlight.nn.functional and torch.nn is rushlight.nn
assert DataLoader is torch.utils.data.DataLoader and AdamW is torch.optim.AdamW and BatchNorm2d is torch.nn.BatchNorm2d
for mine, theirs in [(m, m.replace("rushlight", "torch", 1)) for m in list(sys.modules) if m.startswith("rushlight.")]:
    if not mine.startswith(("rushlight._", "rushlight.as_torch")):
        assert importlib.import_module(theirs) is sys.modules[mine], theirs
outlines = 0
for place, names in outlined().items():
    module = importlib.import_module(place)
    if isinstance(module, Outline):
        outlines += 1
        for name in names.keys() - {"-"}:
            getattr(module, name)
assert outlines > 100
assert importlib.import_module("torch.optim.adamw").AdamW is AdamW  # no second one by that

assert importlib.metadata.version("torch") == torch.__version__ and importlib.util.find_spec("torch") is not None
assert importlib.util.find_spec("torch._C") is None and importlib.util.find_spec("torch.nn.modules.linear") is not None
assert "as_torch" not in dir(torch) and not hasattr(torch, "_C") and not torch.backends.mps.is_available()
torch.backends.cudnn.benchmark = True

class Mine(Tracer): pass  # a base, an annotation, a question, a clause: none of them needs it
def f(graph: GraphModule | None) -> torch.futures.Future[int]: return isinstance(graph, GraphModule)
assert not f(1)
try: 1 / 0
except OnnxExporterError: raise
except ZeroDivisionError: pass

@torch.jit.script
@torch.fx.wrap
def g(x): return x + torch.jit.annotate(int, 1)
class Net(torch.jit.ScriptModule):
    size: torch.jit.Final[int] = 1
    @torch.jit.ignore(drop=True)
    @torch.jit.ignore
    @torch.jit.unused
    @torch.jit.export
    @torch.compiler.disable(recursive=False)
    @torch.compiler.disable
    def forward(self, x): return g(x), torch.jit.is_scripting(), torch.jit.is_tracing() and x
net = Net()
assert torch.jit.script(net) is net and [float(part) for part in net(torch.ones(()))] == [2, 0, 0]
assert float(torch.jit.trace(net.forward, torch.ones(()))(torch.ones(()))[2]) == 1  # here it is traced
assert not torch.onnx.is_in_onnx_export() and torch.compiler.compile is torch.compile
assert "MKL=OFF" in torch.__config__.show()

from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.utils import _pair
from torch.nn.common_types import _size_2_t
from torch.optim.lr_scheduler import _LRScheduler
from torch.nn.init import _calculate_fan_in_and_fan_out
from torch.utils.data._utils.collate import default_collate
import torch._dynamo
torch._dynamo.config.suppress_errors = True
assert isinstance(torch.nn.BatchNorm1d(2), _BatchNorm) and not isinstance(torch.nn.InstanceNorm1d(2), _BatchNorm)
assert issubclass(torch.optim.lr_scheduler.StepLR, _LRScheduler)
assert _pair(3) == (3, 3) and _pair([1, 2, 3]) == (1, 2, 3)
assert default_collate is torch.utils.data.default_collate

def said(statement):
    try: exec(statement, globals())
    except (AttributeError, ImportError, NotImplementedError) as e: return f"{type(e).__name__}: {e}"
    raise SystemExit(statement)
for statement in STATEMENTS: print(said(statement))
"""
SAID = {
    "Mine()": "NotImplementedError: torch.fx.Tracer is PyTorch's, and rushlight has only its name yet",
    "torch.profiler.profile(True)": "NotImplementedError: torch.profiler.profile is PyTorch's",
    "torch.multiprocessing.spawn(f)": "NotImplementedError: torch.multiprocessing.spawn is PyTorch's",
    "torch.jit.freeze(f)": "NotImplementedError: torch.jit.freeze is PyTorch's",
    "torch.fx.Graph or 1": "NotImplementedError: torch.fx.Graph is PyTorch's",
    "torch.profiler.ProfilerActivity.CPU": "AttributeError: no 'CPU': torch.profiler.ProfilerActivity is PyTorch's",
    "torch.reluu": "AttributeError: module 'rushlight' has no attribute 'reluu'; did you mean 'relu'?",
    "torch.fx.symbolic_trac": "AttributeError: module 'rushlight.fx' has no attribute 'symbolic_trac'; did you mean",
    "torch.nn.Conv9d": "AttributeError: module 'rushlight.nn' has no attribute 'Conv9d'; did you mean 'Conv2d'?",
    "torch._C": "AttributeError: module 'rushlight' has no attribute '_C'; it is private to PyTorch",
    "from torch import reluu": "ModuleNotFoundError: cannot import 'reluu' from 'rushlight'; did you mean 'relu'?",
    "from torch._C import _log_api_usage_once": "ModuleNotFoundError: No module named 'torch._C'",
    "import torch.not_there": "ModuleNotFoundError: No module named 'torch.not_there'",
}


def test_names_are_rushlights_and_what_is_missing_says_so(folder):
    (folder / "names.py").write_text(NAMES.replace("STATEMENTS", repr(list(SAID))))
    answer = ran(*ALIASED, "names.py")
    assert (answer.returncode, answer.stderr) == (0, "")
    for line, (statement, start) in zip(answer.stdout.splitlines(), SAID.items(), strict=True):
        assert line.startswith(start), statement


CHILDREN = """
import multiprocessing, subprocess, sys
import torch
from torch.utils.data import DataLoader, Dataset

class Squares(Dataset):
    def __len__(self): return 2
    def __getitem__(self, i):
        import torch as again
        return torch.tensor([i * i, again is sys.modules["rushlight"]])

def child(queue):
    import torch.nn
    queue.put((torch.nn.Linear.__module__, __name__))

if __name__ == "__main__":
    for start in ("fork", "spawn"):
        print([b.tolist() for b in DataLoader(Squares(), 2, num_workers=1, multiprocessing_context=start)])
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    print(queue.get(timeout=60))
    process.join()
    code = "import sys; print(sorted({'rushlight', 'numpy'} & set(sys.modules)), site_was_customized);"
    code += "print(any('_start' in p for p in sys.path)); import torch; print(torch.__name__)"
    subprocess.run([sys.executable, "-c", code], check=True)
"""


def test_child_processes_have_it_too_and_load_nothing_before_they_need_it(folder):
    (folder / "children.py").write_text(CHILDREN)
    answer = ran("-u", *ALIASED, "children.py")
    assert (answer.returncode, answer.stderr) == (0, "")
    samples = "[[[0, 1], [1, 1]]]"
    spawned = "('rushlight_nn.modules.linear', '__mp_main__')"
    assert answer.stdout.splitlines() == [samples, samples, spawned, "[] True", "False", "rushlight"]


def test_a_python_of_another_environment_is_left_alone(folder, monkeypatch):
    monkeypatch.setenv("RUSHLIGHT_AS_TORCH", "/another/prefix")
    start = Path(rushlight.__file__).with_name("_start")
    monkeypatch.setenv("PYTHONPATH", f"{start}{os.pathsep}{os.environ['PYTHONPATH']}")
    answer = ran("-c", "assert site_was_customized; import torch")
    assert answer.stderr == "the torch of the environment was loaded\n"


def test_another_torch_that_is_loaded_already_is_refused(folder):
    (folder / "installed" / "torch" / "__init__.py").write_text("")
    answer = ran("-c", "import torch; from rushlight.as_torch import install; install()")
    assert f"another one ({folder}/installed/torch/__init__.py) has been imported already" in answer.stderr
    assert answer.returncode == 1


@pytest.mark.mpirun
@pytest.mark.mpi_skip
def test_ranks_have_it(folder):
    (folder / "rank.py").write_text("import sys, torch\nprint(torch.__name__, sys.argv)\nraise ValueError('here')\n")
    ended = launched(1, ["-m", "rushlight.as_torch", "rank.py", "-n"], folder / "logs")
    assert (ended.code, ended.out) == (1, "[rank 0] rushlight ['rank.py', '-n']\n"), ended.err
    trace = f'Traceback (most recent call last):\n  File "{folder}/rank.py", line 3, in <module>\n'
    assert trace in ended.err


VERSIONS = [
    "2.13.0+rushlight", "2.13.0", "2.13", "2.13.0+cpu", "2.13.0.dev20260101", "2.13.0a0+git12ab", "2.13.0rc1", "2.13.1",
    "2.9", "1.10.0.post2", "3", "1!0.1", "2.13.0+10", "2.13.0+9",
]  # fmt: skip


def test_versions_compare_as_versions():
    for one, other in itertools.product(VERSIONS, repeat=2):
        for how in ("__lt__", "__le__", "__eq__", "__ne__", "__gt__", "__ge__"):
            expected = getattr(Version(one), how)(Version(other))
            assert getattr(TorchVersion(one), how)(other) == expected, (one, how, other)
    assert TorchVersion("2.13.0+cpu") > (1, 13) < TorchVersion("2.2")
    assert TorchVersion("2.9.1") < [2, 13]
    assert TorchVersion("what") == "what" > TorchVersion("else")
    assert rushlight.__version__ >= "2.0"
    assert rushlight.__version__.split("+")[0].count(".") == 2
