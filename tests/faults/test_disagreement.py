"""Ranks that call different collectives are told both operations and both lines, and the job ends."""

from pathlib import Path

import pytest

from tests.launch.job import launched

pytestmark = [pytest.mark.mpirun, pytest.mark.mpi_skip]

PROGRAM = Path(__file__).parent / "disagreement.py"
KINDS = {
    "operation": "broadcast(float32[4], src=0)",
    "shape": "all_reduce(float32[5], SUM)",
    "dtype": "all_reduce(int32[4], SUM)",
    "reduction": "all_reduce(float32[4], MAX)",
    "order": "barrier()",
    "extra": "all_reduce(float32[4], SUM)",
}


def _lines_with(text):
    return [n for n, line in enumerate(PROGRAM.read_text().splitlines(), 1) if text in line]


@pytest.mark.parametrize("odd", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_both_operations_and_both_lines_are_named(kind, odd, tmp_path):
    ended = launched(3, [PROGRAM, kind, str(odd)], tmp_path / "logs")
    assert ended.code == 1
    last = ended.err[ended.err.rindex("Traceback") :]
    assert "ranks disagree on collective" in last, ended.err
    named = {line.strip().split(": ", 1)[0]: line for line in last.splitlines() if line.startswith("  rank ")}
    assert KINDS[kind] in named[f"rank {odd}"]
    assert any(f"disagreement.py:{n}" in named[f"rank {odd}"] for n in _lines_with("the odd one"))
    other = next(line for rank, line in named.items() if rank != f"rank {odd}")
    assert any(
        f"disagreement.py:{n}" in other for n in (_lines_with("the others")[0], _lines_with("the others")[0] + 1)
    )


def test_rank_that_skips_a_collective_and_leaves_is_named(tmp_path):
    ended = launched(3, [PROGRAM, "skip", "1"], tmp_path / "logs")
    assert ended.code == 1
    assert "waits in vain in all_reduce(float32[4], SUM) at" in ended.err
    assert "rank 1 has left" in ended.err


def test_ranks_that_wait_for_one_another_are_named(tmp_path):
    ended = launched(3, [PROGRAM, "group", "1"], tmp_path / "logs")
    assert ended.code == 1
    last = ended.err[ended.err.rindex("Traceback") :]
    assert "ranks wait for one another in different collectives, for ever:" in last
    assert "in recv(float32[4], src=2, tag=0)" in last
    assert "in all_reduce(float32[4], SUM)" in last
