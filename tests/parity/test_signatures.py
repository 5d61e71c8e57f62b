"""Every public function, method and layer takes PyTorch's arguments by their names; what is different stands here."""

from __future__ import annotations

import inspect

import pytest

import rushlight
from rushlight_tensor.core.op import Op

torch = pytest.importorskip("torch")

ELSEWHERE = {"self", "out", "layout", "pin_memory", "generator", "names"}  # of every function alike, or of none here
KNOWN = {
    # arguments for devices, formats and checks that are not here
    "torch.compile": {"name", "recompile_limit", "isolate_recompiles", "shapes_spec"},
    "torch.from_dlpack": {"device", "copy"},
    "torch.load": {"pickle_load_args"},
    "torch.save": {"pickle_module", "pickle_protocol", "_use_new_zipfile_serialization", "_disable_byteorder_record"},
    **{f"{space}.{name}": {"out_dtype"} for space in ("torch", "Tensor") for name in ("addmm", "baddbmm", "bmm", "mm")},
    "torch.isin": {"element", "test_element"},
    "torch.result_type": {"scalar", "scalar1", "scalar2", "scalar_tensor"},
    **{f"{space}.tensor_split": {"tensor_indices_or_sections"} for space in ("torch", "Tensor")},
    # a keyword of Python
    "Tensor.uniform_": {"from"},
}  # fmt: skip
SPACES = {
    "torch": (rushlight, torch),
    "F": (rushlight.nn.functional, torch.nn.functional),
    "Tensor": (rushlight.Tensor, torch.Tensor),
    "nn": (rushlight.nn, torch.nn),
    "init": (rushlight.nn.init, torch.nn.init),
    "optim": (rushlight.optim, torch.optim),
    "lr_scheduler": (rushlight.optim.lr_scheduler, torch.optim.lr_scheduler),
    "data": (rushlight.utils.data, torch.utils.data),
}


def accepted(fn):
    """The names that our function takes as keywords."""
    names = set(getattr(fn, "keywords", ()))
    base = inspect.unwrap(fn)
    if isinstance(base, Op):
        return names | {*base.keywords[: base.arity], *base.input_names, *base.attr_names}
    parameters = inspect.signature(base).parameters.values()
    return names | {p.name for p in parameters}, any(p.kind is p.VAR_KEYWORD for p in parameters)


def theirs(name, fn):
    """The signatures of PyTorch's: of its Python function, or of every overload."""
    if not isinstance(fn, (type(torch.add), type(torch.Tensor.add))):
        try:
            parameters = list(inspect.signature(fn).parameters.values())
        except (TypeError, ValueError):
            return []
        if any(p.kind is p.VAR_POSITIONAL for p in parameters):
            return []
        return [[p.name for p in parameters if p.kind is not p.VAR_KEYWORD]]
    found = []
    for schema in torch._C._jit_get_schemas_for_operator(f"aten::{name}"):
        written = any(a.kwarg_only and a.alias_info is not None for a in schema.arguments)  # the forms with out=
        inner = written or any("Dimname" in str(a.type) for a in schema.arguments) or "out" in schema.overload_name
        scripted = schema.overload_name in ("int", "float", "complex", "str", "bool", "t", "Scalar_Tensor") or any(
            a.name in ("a", "b", "l", "n", "i", "x", "t", "idx", "list", "tensors", "reverse") for a in schema.arguments
        )
        if not inner and not scripted:
            found.append(["input" if a.name == "self" else a.name for a in schema.arguments])
    return found


def pairs():
    for space, (ours, their) in SPACES.items():
        for name in sorted(vars(ours) if space != "Tensor" else dir(ours)):
            if name.startswith("_") or not hasattr(their, name):
                continue
            a, b = getattr(ours, name), getattr(their, name)
            if inspect.isclass(a):
                if space == "torch":
                    continue
                a, b = a.__init__, b.__init__
            if callable(a) and not inspect.ismodule(a) and not name.endswith("_"):
                yield pytest.param(name, a, b, f"{space}.{name}", id=f"{space}.{name}")


@pytest.mark.parametrize(("name", "ours", "their", "where"), list(pairs()))
def test_takes_pytorchs_arguments(name, ours, their, where):
    taken = accepted(ours)
    names, anything = taken if isinstance(taken, tuple) else (taken, False)
    if where.startswith("Tensor."):  # the tensor itself, whatever it is called
        names |= {"input"}
    wanted = {n for signature in theirs(name, their) for n in signature} - ELSEWHERE - KNOWN.get(where, set())
    missing = set() if anything else wanted - names
    assert missing == OPEN.get(where, set())


OPEN: dict[str, set[str]] = {}
"""What is missing and to be mended: an entry that no longer holds fails, too."""
