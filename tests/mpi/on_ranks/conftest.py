"""The tests here run on every rank of an mpirun, with `--with-mpi`; in a plain run pytest-mpi skips them."""

import pytest

import rushlight_distributed as dist


@pytest.fixture(autouse=True)
def world():
    """The world of all ranks, kept from test to test."""
    if not dist.is_initialized():
        dist.init_process_group("mpi")
