"""Checkpoints are whole or absent, and damage is noticed."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

import rushlight as torch
from rushlight_train import checkpoint


def write(folder, step=1, keep=2, data="digits"):
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    job = {"model": "MLP", "data": data, "rows": [{"step": step}]}
    path = checkpoint.write(folder, step, model.state_dict(), optimizer.state_dict(), job, keep)
    return path, model, optimizer


def test_what_is_written_is_read(tmp_path):
    path, model, optimizer = write(tmp_path / "checkpoints")
    state, opt, job = checkpoint.read(path)
    for name, t in model.state_dict().items():
        np.testing.assert_array_equal(t.numpy(), state[name].numpy())
    fresh = torch.optim.Adam(torch.nn.Linear(3, 2).parameters())
    fresh.load_state_dict(opt)
    for old, new in zip(optimizer.state_dict()["state"].values(), fresh.state_dict()["state"].values(), strict=True):
        np.testing.assert_array_equal(old["exp_avg"].numpy(), new["exp_avg"].numpy())
    assert (job["step"], job["model"]) == (1, "MLP")


def test_only_the_newest_are_kept(tmp_path):
    for step in (1, 2, 3, 4):
        write(tmp_path, step, keep=2)
    assert [p.name for p in checkpoint.every(tmp_path)] == ["step_00000003", "step_00000004"]


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors"])
def test_one_flipped_bit_is_found_and_the_file_named(tmp_path, name):
    path, _, _ = write(tmp_path)
    data = bytearray((path / name).read_bytes())
    for at in range(0, len(data), 37):
        data[at] ^= 1
        (path / name).write_bytes(data)
        with pytest.raises(checkpoint.CheckpointError, match=f"{name} is damaged"):
            checkpoint.read(path)
        data[at] ^= 1


def test_missing_files_and_broken_json_are_refused(tmp_path):
    path, _, _ = write(tmp_path)
    (path / "job.json").write_text("{")
    with pytest.raises(checkpoint.CheckpointError, match="not a whole checkpoint"):
        checkpoint.read(path)
    with pytest.raises(checkpoint.CheckpointError, match="no checkpoint there"):
        checkpoint.inside(tmp_path / "nowhere")
    with pytest.raises(checkpoint.CheckpointError, match="no checkpoint of model CNN"):
        checkpoint.newest(tmp_path, "CNN", "digits")


def test_a_failed_write_leaves_nothing_and_the_old_one_stays(tmp_path, monkeypatch):
    path, _, _ = write(tmp_path, step=1)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path, step=2)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    checkpoint.read(path)


def test_what_a_dead_process_was_writing_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    dead, living, far = (
        tmp_path / f".writing-{where}-{pid}"
        for where, pid in (
            (socket.gethostname(), ended.pid),
            (socket.gethostname(), os.getppid()),
            ("another-host", ended.pid),
        )
    )
    for folder in (dead, living, far):
        folder.mkdir()
        (folder / "model.safetensors").touch()
    write(tmp_path, step=1)
    assert not dead.exists()
    assert living.exists()
    assert far.exists()


def test_newest_is_found_by_model_and_data(tmp_path):
    write(tmp_path / "a" / "checkpoints", 1)
    path, _, _ = write(tmp_path / "b" / "checkpoints", 2)
    assert checkpoint.newest(tmp_path, "MLP", "digits") == path
    assert checkpoint.inside(tmp_path / "b") == path == checkpoint.inside(path)
    assert json.loads((path / "job.json").read_text())["step"] == 2


def test_newest_is_the_one_written_last_whatever_its_name_and_of_these_data(tmp_path):
    first, _, _ = write(tmp_path / "z" / "checkpoints", 9)
    path, _, _ = write(tmp_path / "a" / "checkpoints", 1)
    other, _, _ = write(tmp_path / "m" / "checkpoints", 5, data="text")
    for written, when in ((first, 1_000), (path, 2_000), (other, 3_000)):
        os.utime(written / "job.json", (when, when))
    assert checkpoint.newest(tmp_path, "MLP", "digits") == path
    assert checkpoint.newest(tmp_path, "MLP", "text") == other


def test_keys_of_the_optimizers_state_stay_what_they_were(tmp_path):
    path, _, optimizer = write(tmp_path / "checkpoints")
    _, state, _ = checkpoint.read(path)
    assert list(state["state"]) == list(optimizer.state_dict()["state"]) == [0, 1]
    assert state["param_groups"][0]["params"] == [0, 1]
