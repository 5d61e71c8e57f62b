"""No kernel leaves the arrays that its prototype declares, whatever the numbers and whatever lies in the arrays."""

import contextlib
import re

import pytest
from hypothesis import strategies as st

from rushlight_tensor.kernels.blas import load_private_blas
from rushlight_tensor.kernels.compile import SOURCES, c_library, compile_c, find_compiler
from tests.hostile.cases import about_to_run, hostile
from tests.hostile.prototypes import SANITIZED, Guarded, draw_call, prototypes

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


@pytest.mark.skipif(SANITIZED, reason="the sanitizer would end the process")
@pytest.mark.parametrize("place", [-1, 5])
def test_a_write_outside_is_seen(place):
    wrong = compile_c(f"EXPORT void wrong(LENGTH(n) float *x, long n) {{ x[{place}] = 1; }}\n").wrong
    guarded = Guarded(0)
    wrong(guarded.array("f4", 5, [0]), 5)
    with pytest.raises(AssertionError, match="wrote outside"):
        guarded.check()


def test_every_kernel_is_drawn():
    texts = [path.read_text() for path in SOURCES.glob("*.c")]
    exported = {name for text in texts for name in re.findall(r"^EXPORT \w+ (\w+)", text, re.MULTILINE)}
    assert exported == set(PROTOTYPES)
    assert len(exported) >= 40
