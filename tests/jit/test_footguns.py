"""A compiled function is never silently wrong: the catalogue is right; with `fullgraph` right or refused by name."""

import numpy as np
import pytest

from rushlight_jit import TraceError, compile
from rushlight_tensor.core.tensor import Tensor
from rushlight_tensor.kernels import accelerator
from tests.jit.footguns import CATALOGUE

REFUSED = {
    # Python's own state is changed
    "appended_list", "argument_mutated", "global_written", "lazy_attribute", "running_counter", "printing",
    # it depends on more than can be compared
    "clock", "code_from_text", "environment", "identity_in_python", "iterator_consumed", "missing_global",
    "random_numbers",
    # a value decides
    "branch_on_value", "copies_of_values", "loop_on_value", "sizes_from_values", "swallowed_refusal",
    # what a graph does not hold: gradients and hooks of tensors outside, seeds, modes, aliases, objects
    "checkpointed_dropout", "data_attribute", "grad_modes", "gradient_of_aliased_results", "gradients_inside",
    "hooks_of_tensors", "objects_returned", "result_is_argument", "seeding_inside", "written_argument_with_gradient",
}  # fmt: skip
"""What one graph cannot stand for; by default these run as they are."""


def plain(x):
    """What a scenario yields, with nothing in it that a later step could change."""
    if isinstance(x, Tensor):
        return x.detach().numpy().copy()
    if isinstance(x, (list, tuple)):
        return [plain(v) for v in x]
    return x


def outcomes(scenario, wrap):
    return [plain(v) for v in scenario(wrap)]


def assert_same(got, want, where):
    assert type(got) is type(want), f"{where}: {got!r} is not {want!r}"
    if isinstance(want, np.ndarray):
        assert got.dtype == want.dtype, where
        np.testing.assert_allclose(got, want, rtol=2e-6, atol=1e-7, err_msg=where)
        np.testing.assert_array_equal(np.signbit(got), np.signbit(want), err_msg=where)
    elif isinstance(want, list):
        assert len(got) == len(want), where
        for i, (g, w) in enumerate(zip(got, want, strict=True)):
            assert_same(g, w, f"{where}[{i}]")
    else:
        assert got == want or got is want, f"{where}: {got!r} is not {want!r}"


@pytest.mark.parametrize("accelerated", [True, False])
@pytest.mark.parametrize("name", CATALOGUE)
def test_compiled_function_gives_what_the_function_gives(name, accelerated):
    scenario, before = CATALOGUE[name], accelerator.use(accelerated)
    try:
        assert_same(outcomes(scenario, compile), outcomes(scenario, lambda f: f), name)
    finally:
        accelerator.use(before)


@pytest.mark.parametrize("name", CATALOGUE)
def test_one_graph_is_right_or_refused_by_name(name):
    scenario = CATALOGUE[name]

    def one_graph(f):
        return compile(f, fullgraph=True)

    if name in REFUSED:
        with pytest.raises(TraceError, match=r"\.py:\d+: .*; \w"):  # the line, the thing, and what to do
            outcomes(scenario, one_graph)
    else:
        assert_same(outcomes(scenario, one_graph), outcomes(scenario, lambda f: f), name)


def test_catalogue_is_large_and_only_one_graph_is_ever_refused():
    print(f"{len(CATALOGUE)} footguns: all right by default, {len(REFUSED)} refused with fullgraph=True")
    assert len(CATALOGUE) >= 60
    assert set(CATALOGUE) > REFUSED
