"""A list that workers share."""

import sys
from pathlib import Path

import pytest

from rushlight_data import DataLoader, PackedList


def test_it_is_a_list():
    items = ["a", ("b", 2), {"c": [3]}, None]
    packed = PackedList(iter(items))
    assert list(packed) == items
    assert [packed[-1], packed[1:3], len(packed)] == [None, items[1:3], 4]
    assert ("b", 2) in packed
    for index in (4, -5):
        with pytest.raises(IndexError, match="list of 4 items"):
            packed[index]
    assert list(PackedList([])) == []


def test_items_are_copies():
    packed = PackedList([[1]])
    packed[0].append(2)
    assert packed[0] == [1]


@pytest.mark.parametrize("start", [None, "spawn"])
def test_workers_read_it(start):
    packed = PackedList([f"text {i}" for i in range(5000)])
    loader = DataLoader(packed, 100, num_workers=1, multiprocessing_context=start)
    assert [text for batch in loader for text in batch] == list(packed)


class Reader:
    """Reads everything, then tells how much memory this process has written to."""

    def __init__(self, texts):
        self.texts = texts

    def __len__(self):
        return 2

    def __getitem__(self, index):
        for text in self.texts:
            assert text
        fields = dict(line.split(":") for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
        return int(fields["Private_Dirty"].split()[0]) * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_reading_in_a_worker_copies_no_memory():
    texts = [f"{i:0100d}" for i in range(100_000)]  # 15 MB of objects
    plain = max(DataLoader(Reader(texts), None, num_workers=1))
    packed = max(DataLoader(Reader(PackedList(texts)), None, num_workers=1))
    assert plain - packed > 10e6
