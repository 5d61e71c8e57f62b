"""pytest-mpi takes the name of this folder for its mark `mpi`: what it skips here for that alone is given back."""

import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    if config.getoption("--with-mpi") or config.getoption("--only-mpi"):
        return
    for item in items:
        if item.get_closest_marker("mpi") is None:
            item.own_markers = [m for m in item.own_markers if "--with-mpi" not in m.kwargs.get("reason", "")]
