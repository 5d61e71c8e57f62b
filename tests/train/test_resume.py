"""Resumed jobs: what the command does not name is the interrupted job's, what it names wins or is refused."""

import re

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from rushlight_train import checkpoint, resume, schema
from tests.train.test_job import job_folders, train


def resolved(job):
    return OmegaConf.load(job / "resolved.yaml")


def test_a_resumed_job_keeps_all_that_the_command_does_not_name(tmp_path):
    told = ["seed=3", "clip_norm=0.01", "checkpoint.keep=5", "data.workers=1", "data.epochs=2", "model.hidden=[16]"]
    first = train(tmp_path, "model=mlp", "launch.ranks=1", *told)
    assert first.returncode == 0, first.stderr
    (old,) = job_folders(tmp_path)
    words = ["launch.ranks=1", f"resume_from={old.relative_to(tmp_path)}", f"hydra.run.dir={tmp_path}/outputs/new"]
    done = train(tmp_path, *words, "data.epochs=3", "checkpoint.keep=4")
    assert done.returncode == 0, done.stderr
    was, now = resolved(old), resolved(tmp_path / "outputs/new")
    assert (was.data.epochs, was.checkpoint.keep) == (2, 5)
    assert (now.data.epochs, now.checkpoint.keep) == (3, 4)
    was.data.epochs, was.checkpoint.keep, was.resume_from = 3, 4, now.resume_from
    assert was == now
    said = done.stderr.splitlines()
    as_before = next(line for line in said if line.startswith("resume: as in outputs/"))
    for word in ("seed=3", "clip_norm=0.01", "data.workers=1", "model.hidden=[16]"):
        assert word in as_before
    assert "resume: checkpoint.keep is 4; it was 5" in said
    assert "resume: data.epochs is 3; it was 2" in said


@pytest.mark.parametrize(
    ("words", "seed", "epochs", "refused"),
    [
        (["model=mlp"], 3, 300, ""),  # chosen as before: it asks for none of its keys
        (["model=mlp", "seed=0"], 0, 300, ""),  # a default, but asked for
        (["experiment=quick"], 3, 3, ""),  # chosen now: what it sets was asked for
        (["checkpoint={every: 7}"], 3, 300, ""),
        (["launch.ranks=4"], 3, 300, ""),
        (["model=cnn"], 3, 300, "model.name was MLP and is CNN"),
        (["data=stdlib_text"], 3, 300, "data.name was digits and is stdlib_text"),
        (["optim.lr=1"], 3, 300, "optim.lr was 0.002 and is 1.0"),
        (["scheduler=constant"], 3, 300, "scheduler.name was cosine and is constant"),
    ],
)
def test_what_a_command_asks_of_a_resumed_job(tmp_path, monkeypatch, words, seed, epochs, refused):
    monkeypatch.chdir(tmp_path)
    schema.register()
    first = ["model=mlp", "model.hidden=[16]", "seed=3", "data.epochs=300", "launch.ranks=1"]
    with initialize_config_module("rushlight_train.configs", version_base="1.3"):
        old, new = (
            compose("config", list_, return_hydra_config=True) for list_ in (first, ["resume_from=old", *words])
        )
    for name, text in (("old/resolved.yaml", plain(old)), ("old/.hydra/hydra.yaml", {"hydra": old.hydra})):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(OmegaConf.create(text), tmp_path / name)
    (tmp_path / "old/checkpoints/step_1").mkdir(parents=True)
    (tmp_path / "old/checkpoints/step_1/job.json").write_text("{}")
    hydra, cfg = new.hydra, OmegaConf.masked_copy(new, [key for key in new if key != "hydra"])
    if refused:
        with pytest.raises(checkpoint.CheckpointError, match=re.escape(refused)):
            resume.resolve(cfg, hydra)
        return
    resume.resolve(cfg, hydra)
    assert (cfg.seed, cfg.data.epochs, cfg.model.name, cfg.model.hidden) == (seed, epochs, "MLP", [16])
    assert cfg.checkpoint.every == (7 if "checkpoint={every: 7}" in words else 1)
    assert cfg.launch.ranks == (4 if "launch.ranks=4" in words else 2)
    assert OmegaConf.get_type(cfg, "scheduler") is schema.SchedulerConfig


def plain(cfg):
    return {key: value for key, value in OmegaConf.to_container(cfg, resolve=False).items() if key != "hydra"}
