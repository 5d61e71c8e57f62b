"""Start of a child process: `torch` is rushlight here, too; then the `sitecustomize` that this one hides.

See Note [Child processes] in `_alias.py`.
"""

import os
import sys
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader

_here = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [entry for entry in sys.path if entry != _here]


def _load(spec: ModuleSpec) -> None:
    """What `import` does once it has found a module; `importlib.util` would cost more than all the rest of this."""
    assert spec.loader is not None
    module = sys.modules[spec.name] = type(sys)(spec.name)
    module.__spec__, module.__loader__, module.__file__ = spec, spec.loader, spec.origin
    spec.loader.exec_module(module)


if os.environ.get("RUSHLIGHT_AS_TORCH") == sys.prefix:
    # By its path: under its name, rushlight itself would be imported by every child, whether it needs `torch` or not.
    _path = os.path.join(os.path.dirname(_here), "_alias.py")
    _load(ModuleSpec("rushlight._alias", SourceFileLoader("rushlight._alias", _path), origin=_path))
    sys.modules["rushlight._alias"].enter()

_hidden = PathFinder.find_spec(__name__, sys.path)
if _hidden is not None and _hidden.loader is not None:
    _load(_hidden)
