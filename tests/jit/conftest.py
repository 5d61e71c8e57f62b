"""Every pass is looked at in every test of this folder."""

import pytest

from rushlight_jit import passes, verify


@pytest.fixture(autouse=True)
def _verified_passes(monkeypatch):
    monkeypatch.setattr(passes, "VERIFY", verify.after)
