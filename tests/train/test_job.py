"""The training job as a user runs it: real ranks, real files, refused mistakes, sweeps that survive a failure."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rushlight_train import metrics

QUICK = ["model=mlp", "data.epochs=3"]


def train(folder, *words, timeout=120):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("OMPI_", "PMIX_"))}
    command = [sys.executable, "-m", "rushlight_train.main", *words]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=timeout)


def job_folders(folder):
    return sorted(p.parent for p in Path(folder).glob("outputs/**/resolved.yaml"))


def rows(job):
    with (job / "metrics.csv").open() as f:
        return list(csv.DictReader(f))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One job of three epochs on two ranks."""
    folder = tmp_path_factory.mktemp("whole")
    done = train(folder, *QUICK)
    assert done.returncode == 0, done.stderr
    return done, job_folders(folder)[0]


def test_a_job_leaves_metrics_curves_events_checkpoint_and_a_table(whole):
    done, job = whole
    assert "test accuracy" in done.stdout
    assert "curves.png" in done.stdout
    assert [int(r["epoch"]) for r in rows(job)] == [1, 2, 3]
    assert (job / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert list((job / "tensorboard").glob("events.out.tfevents.*"))
    assert json.loads((job / "summary.json").read_text())["ranks"] == 2
    assert len(list((job / "checkpoints").iterdir())) == 2
    assert float(rows(job)[-1]["test_accuracy"]) > 0.8


def test_ranks_agree_to_rounding(whole, tmp_path):
    _, job = whole
    done = train(tmp_path, *QUICK, "launch.ranks=1")
    assert done.returncode == 0, done.stderr
    for one, two in zip(rows(job_folders(tmp_path)[0]), rows(job), strict=True):
        for name in ("train_loss", "test_loss"):
            assert float(one[name]) == pytest.approx(float(two[name]), rel=2e-4)


def test_a_resumed_job_ends_where_the_whole_one_does(whole, tmp_path):
    _, job = whole
    checkpoints = sorted((job / "checkpoints").iterdir())
    done = train(tmp_path, *QUICK, f"resume_from={checkpoints[0]}")
    assert done.returncode == 0, done.stderr
    assert "drawn over" not in done.stderr  # the schedule is the same
    resumed = job_folders(tmp_path)[0]
    assert len(rows(resumed)) == 3
    for ours, wanted in zip(rows(resumed), rows(job), strict=True):
        assert (ours["train_loss"], ours["test_loss"]) == (wanted["train_loss"], wanted["test_loss"])


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["optim.lr=abc"], "optim.lr"),
        (["epochs=3"], "there is no key epochs; did you mean data.epochs?"),
        (["foo=3"], "`rushlight train --help` lists the groups and all keys"),
        (["+data.batchsize=5"], "there is no key data.batchsize; did you mean data.batch_size?"),
        (["model=null"], "model is null; choose one, such as model=mlp"),
        (["optim.lr"], "optim.lr has no value; say optim.lr=VALUE"),
        (["experiment=quik"], "Could not find 'experiment/quik'"),
        (["optim.lr=nan"], "optim.lr must be a finite number, got nan"),
        (["model=gpt"], "model GPT cannot learn data digits; try data=stdlib_text"),
        (["resume=true"], "no checkpoint of model CNN"),
        (["hydra.run.dir=/proc/none"], "'/proc/none'"),
    ],
)
def test_mistakes_are_refused_and_named(tmp_path, words, text):
    done = train(tmp_path, *words)
    assert done.returncode != 0
    assert text in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_a_sweep_tells_all_results_and_names_the_failed_trial(tmp_path):
    done = train(tmp_path, "--multirun", "model=mlp", "data.epochs=1", "optim.lr=1e-3,nan,3e-3")
    assert done.returncode == 2
    assert done.stdout.count("mlp") == 3
    assert "failed" in done.stdout
    assert "optim.lr=nan" in done.stderr
    assert "finite" in done.stderr
    assert len(list(tmp_path.glob("outputs/sweeps/**/summary.json"))) == 2


def test_a_diverging_job_fails_with_advice(tmp_path):
    done = train(tmp_path, "model=mlp", "optim=sgd", "optim.lr=1e30", "data.epochs=1")
    assert done.returncode != 0
    assert "a smaller optim.lr" in done.stderr.splitlines()[-1]


CONFIGS = Path(__file__).parents[2] / "configs"
CHOICES = sorted(f"{path.parent.name}={path.stem}" for path in CONFIGS.glob("*/*.yaml"))


def test_every_configuration_composes():
    """In one process: starting Hydra takes longer than composing."""
    code = (
        "import sys; from hydra import compose, initialize_config_module; from rushlight_train import schema\n"
        "schema.register()\n"
        "with initialize_config_module('rushlight_train.configs', version_base='1.3'):\n"
        "    for choice in sys.argv[1:]:\n"
        "        cfg = compose('config', overrides=[choice])\n"
        "        print(choice, cfg.model.name, cfg.data.epochs)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *CHOICES], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    printed = done.stdout.splitlines()
    assert [line.split()[0] for line in printed] == CHOICES
    assert "experiment=quick MLP 3" in printed


def test_resuming_with_another_value_is_refused_by_name(whole):
    _, job = whole
    folder = job.parents[2]
    before = job_folders(folder)
    done = train(folder, *QUICK, "resume=true", "optim.lr=0.5", "data.batch_size=7")
    assert done.returncode == 2
    said = done.stdout + done.stderr
    assert re.search(r"optim\.lr was [\d.e-]+ and is 0\.5", said)
    assert re.search(r"data\.batch_size was \d+ and is 7", said)
    assert "Leave these out" in said
    assert not any((job / "summary.json").exists() for job in set(job_folders(folder)) - set(before))


def test_resuming_goes_on_with_the_values_of_the_job(tmp_path):
    """What the command does not name is not set back to the defaults."""
    first = train(tmp_path, *QUICK[:1], "data.epochs=1", "launch.ranks=1", "optim.lr=0.0123")
    assert first.returncode == 0, first.stderr
    done = train(tmp_path, *QUICK[:1], "data.epochs=2", "launch.ranks=1", "resume=true")
    assert done.returncode == 0, done.stderr
    assert "lr: 0.0123" in (job_folders(tmp_path)[-1] / "resolved.yaml").read_text()
    again = train(tmp_path, *QUICK[:1], "data.epochs=2", "launch.ranks=1", "resume=true")
    assert again.returncode == 0, again.stderr
    assert re.search(r"nothing to train: \S+ is at the end of epoch 2; data\.epochs=3 goes on", again.stderr)


def test_another_length_draws_the_schedule_anew_and_says_so(whole, tmp_path):
    """Of the old schedule only the step stays: the first step already has the rate of the new one."""
    _, job = whole
    done = train(tmp_path, "data.epochs=4", "checkpoint.every=9", f"resume_from={job}")  # it knows its model itself
    assert done.returncode == 0, done.stderr
    told = re.search(
        r"cosine schedule is drawn over 4 epochs now, so the learning rate goes on at (\S+); it stood at (\S+)\n",
        done.stderr,
    )
    assert told is not None, done.stderr
    went_on, stood = map(float, told.groups())
    assert stood == pytest.approx(float(rows(job)[-1]["lr"]), rel=1e-2)
    assert went_on > 5 * stood
    assert "name: MLP" in (job_folders(tmp_path)[0] / "resolved.yaml").read_text()


def test_a_job_without_a_terminal_is_not_silent_within_an_epoch(monkeypatch, capfd):
    monkeypatch.delenv("RUSHLIGHT_TERMINAL_WIDTH", raising=False)
    clock = [0.0]
    monkeypatch.setattr(metrics.time, "perf_counter", lambda: clock[0])
    for visible in (True, False):
        with metrics.Bar(steps=30, done=0, units="images", visible=visible) as bar:
            for _ in range(30):
                clock[0] += 1.0
                bar.step(loss=0.5, accuracy=0.25, count=8)
        said = capfd.readouterr().err.splitlines()
        assert [line.split("  ")[0] for line in said] == (["step 10/30", "step 20/30", "step 30/30"] if visible else [])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_told_without_a_traceback(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.csv").symlink_to("/dev/full")
    done = train(tmp_path, *QUICK, "hydra.run.dir=run")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"DiskFull: {tmp_path}/run: No space left on device")
    assert "make room there" in last


def test_help_lists_what_can_be_chosen(tmp_path):
    done = train(tmp_path, "--help")
    assert done.returncode == 0, done.stderr
    assert "\noptim: adagrad, adam, adamw, rmsprop, sgd\n" in done.stdout
    assert "\nexperiment: quick\n" in done.stdout
    assert "batch_size: 64" in done.stdout
    assert "_schema" not in done.stdout
