"""Planted faults quote the code: a quote that occurs no more, or twice, plants nothing or too much."""

from pathlib import Path

from tests.mutants.planted import PLANTED

ROOT = Path(__file__).parents[2]


def test_every_quote_occurs_once():
    texts = {fault.file: (ROOT / fault.file).read_text() for fault in PLANTED}
    assert [f"{f.file}: {f.text}" for f in PLANTED if texts[f.file].count(f.text) != 1] == []
    assert all(f.planted != f.text for f in PLANTED)
