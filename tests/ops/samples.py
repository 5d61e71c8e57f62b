"""All samples: those of the families' files `samples_*.py`, in one dict."""

from __future__ import annotations

import importlib
from pathlib import Path

from tests.ops.harness import Sample

SAMPLES: dict[str, list[Sample]] = {}

for path in sorted(Path(__file__).parent.glob("samples_*.py")):
    for name, samples in importlib.import_module(f"tests.ops.{path.stem}").SAMPLES.items():
        assert name not in SAMPLES, f"op {name!r} has samples in two files; {path.name} is the second"
        SAMPLES[name] = samples
