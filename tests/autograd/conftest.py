"""`text`: a test runs twice, on the accelerator's C, where there is a compiler, and on its Python twins."""

import pytest

import rushlight
from rushlight_tensor.kernels import accelerator


@pytest.fixture(params=["as loaded", "python"])
def text(request):
    rushlight.ones(1) + 1  # loads the accelerator
    accelerator.use(request.param != "python")
    yield
    accelerator.use(True)
