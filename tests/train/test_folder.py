"""The folder of a job is that job's alone: jobs of one second, jobs in a folder that is named, jobs that go on."""

import contextlib
import errno
import os
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from rushlight_train import folder as jobs
from rushlight_train import worker
from tests.train.test_job import job_folders, rows, train

TINY = ["model=mlp", "model.hidden=[8]", "data.epochs=1", "launch.ranks=1"]


def test_jobs_of_one_second_have_folders_of_their_own(tmp_path):
    made = "import sys; from rushlight_train.folder import claim; print(claim(sys.argv[1]))"
    name = str(tmp_path / "outputs" / "08-12-07")
    claims = [subprocess.Popen([sys.executable, "-c", made, name], stdout=subprocess.PIPE, text=True) for _ in range(6)]
    got = sorted(p.communicate(timeout=60)[0].strip() for p in claims)
    assert got == sorted([name, *(f"{name}-{i}" for i in range(2, 7))])


def test_a_default_folder_is_claimed_for_single_jobs_and_sweeps(tmp_path):
    stamp = "hydra.run.dir=${rushlight.new_folder:outputs/same}"
    for seed in (0, 1):
        done = train(tmp_path, *TINY, f"seed={seed}", stamp)
        assert done.returncode == 0, done.stderr
    assert [(job.name, OmegaConf.load(job / "resolved.yaml").seed) for job in job_folders(tmp_path)] == [
        ("same", 0),
        ("same-2", 1),
    ]
    assert rows(tmp_path / "outputs/same") != rows(tmp_path / "outputs/same-2")
    sweep = "hydra.sweep.dir=${rushlight.new_folder:outputs/same}"
    done = train(tmp_path, "--multirun", *TINY, "seed=2,3", sweep)
    assert done.returncode == 0, done.stderr
    assert [str(j.relative_to(tmp_path / "outputs")) for j in job_folders(tmp_path)][2:] == ["same-3/0", "same-3/1"]


def test_what_only_shows_makes_no_folder(tmp_path):
    for words in (["--help"], ["--cfg", "job"], ["--cfg", "hydra"]):
        assert train(tmp_path, *words).returncode == 0
    assert not (tmp_path / "outputs").exists()


def test_a_folder_with_checkpoints_is_refused_and_nothing_in_it_lost(tmp_path):
    here = "hydra.run.dir=here"
    first = train(tmp_path, *TINY, "data.epochs=3", here)
    assert first.returncode == 0, first.stderr
    job = tmp_path / "here"
    before = {p: p.read_bytes() for p in job.rglob("*") if p.is_file() and ".hydra" not in p.parts}
    older, newest = sorted((job / "checkpoints").iterdir())
    for words in ([], [f"resume_from={older}"]):
        done = train(tmp_path, *TINY, "seed=5", *words, here)
        assert done.returncode == 2
        assert "here holds the checkpoints of an earlier job, up to step_" in done.stderr
        assert {p: p.read_bytes() for p in before} == before
    done = train(tmp_path, "model=mlp", f"resume_from={newest}", "data.epochs=4", "launch.ranks=1", here)
    assert done.returncode == 0, done.stderr
    assert [int(r["epoch"]) for r in rows(job)] == [1, 2, 3, 4]


def test_a_folder_where_a_job_is_at_work_is_refused(tmp_path):
    job = tmp_path / "here"
    with jobs.held(job, None):
        done = train(tmp_path, *TINY, "hydra.run.dir=here")
        assert done.returncode == 2
        assert "here: another job is at work there; name another folder with hydra.run.dir" in done.stderr
        assert not (job / "resolved.yaml").exists()
    with jobs.held(job, None):  # it is let go
        pass


@pytest.mark.parametrize(("number", "goes_on"), [(errno.ENOLCK, True), (errno.EOPNOTSUPP, True), (errno.EIO, False)])
def test_a_file_system_without_locks_keeps_nobody_out(tmp_path, monkeypatch, number, goes_on):
    def no_lock(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(jobs.fcntl, "flock", no_lock)
    with (
        contextlib.nullcontext() if goes_on else pytest.raises(OSError, match="Input/output"),
        jobs.held(tmp_path, None),
    ):
        assert goes_on


@pytest.mark.parametrize(("began", "speed"), [(0, 400 / 7), (20, 50.0), (30, 400 / 7)])
def test_the_speed_of_a_resumed_job_is_its_own(began, speed):
    epochs = [(10, 100.0, 1.0), (20, 50.0, 5.0), (30, 50.0, 7.0)]
    table = [{"step": step, "per_second": rate, "seconds": s} for step, rate, s in epochs]
    assert worker._speed(table, began) == pytest.approx(speed)
