"""No kernel leaves the arrays that its prototype declares, whatever the numbers and whatever lies in the arrays."""

import contextlib

import pytest
from hypothesis import strategies as st

from rushlight_tensor.kernels.blas import load_private_blas
from rushlight_tensor.kernels.compile import c_library, find_compiler
from tests.hostile.cases import about_to_run, hostile
from tests.hostile.prototypes import draw_call, prototypes

pytestmark = pytest.mark.skipif(find_compiler() is None or not load_private_blas(), reason="no C compiler, or no BLAS")
PROTOTYPES = prototypes()


@hostile("prototypes", short=1500, share=0.4)
def test_kernels_stay_within_their_declarations(data):
    name = data.draw(st.sampled_from(sorted(PROTOTYPES)))
    file, arguments = PROTOTYPES[name]
    drawn = draw_call(data, arguments)
    if drawn is None:
        return
    given, guarded = drawn
    described = ", ".join(str(getattr(x, "shape", len(x) if isinstance(x, list) else x)) for x in given)
    about_to_run(f"{name}({described})")
    with contextlib.suppress(MemoryError):
        getattr(c_library(file), name)(*given)
    guarded.check()
