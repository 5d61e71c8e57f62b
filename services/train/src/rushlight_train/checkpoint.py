"""Checkpoints: everything a job needs to go on, in a folder that is either whole or not there.

    checkpoints/step_00000120/
        model.safetensors       parameters and buffers
        optimizer.safetensors   tensors of the optimizer's state
        job.json                the rest, and the SHA-256 of the files beside it

A folder is written under another name, flushed to the disk, and renamed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rushlight_tensor import Tensor
from rushlight_tensor.files.safetensors import load_file, save_file


class CheckpointError(RuntimeError):
    """A checkpoint that is missing, damaged or of another job; the message names the file."""


def write(
    folder: Path, step: int, model: dict[str, Tensor], optimizer: dict[str, Any], job: dict[str, Any], keep: int
) -> Path:
    """Write the checkpoint of a step and remove all but the newest `keep`; returns its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    target, workplace = folder / f"step_{step:08d}", folder / f"{_WRITING}{os.getpid()}"
    _remove_abandoned(folder)
    workplace.mkdir()
    try:
        tensors: dict[str, Tensor] = {}
        rest = _take_tensors(optimizer, "", tensors)
        save_file(model, workplace / "model.safetensors")
        save_file(tensors, workplace / "optimizer.safetensors")
        hashes = {p.name: _sha256(p) for p in sorted(workplace.iterdir())}
        (workplace / "job.json").write_text(
            json.dumps({**job, "step": step, "optimizer": rest, "sha256": hashes}, indent=1)
        )
        for path in (*workplace.iterdir(), workplace):
            _flush(path)
        shutil.rmtree(target, ignore_errors=True)
        workplace.rename(target)
        _flush(folder)
    finally:
        shutil.rmtree(workplace, ignore_errors=True)
    for old in list(every(folder))[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


_WRITING = f".writing-{socket.gethostname()}-"  # and the process; the folder may be shared among hosts


def _remove_abandoned(folder: Path) -> None:
    """Remove what processes of this host, which are no more, were writing when they ended."""
    for left in folder.glob(f"{_WRITING}*"):
        pid = left.name.removeprefix(_WRITING)
        if pid.isdigit() and (int(pid) == os.getpid() or not _runs(int(pid))):
            shutil.rmtree(left, ignore_errors=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        pass
    return True


def every(folder: Path) -> Iterator[Path]:
    """The whole checkpoints in a folder, oldest first."""
    return (p for p in sorted(folder.glob("step_*")) if (p / "job.json").exists())


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    """Model state, optimizer state and the rest.

    Raises CheckpointError where a file is missing or not what was written.
    """
    try:
        job = json.loads((path / "job.json").read_text())
        for name, digest in job["sha256"].items():
            if _sha256(path / name) != digest:
                raise CheckpointError(
                    f"{path / name} is damaged: its SHA-256 is not the one in job.json; use an older checkpoint"
                )
        model, tensors = load_file(path / "model.safetensors"), load_file(path / "optimizer.safetensors")
        return model, _put_tensors(job.pop("optimizer"), tensors), job
    except (OSError, ValueError, KeyError) as e:
        raise CheckpointError(f"{path} is not a whole checkpoint: {e}; use an older one") from e


def newest(outputs: Path, model: str, data: str) -> Path:
    """The newest checkpoint under a folder of jobs, of one with this model and these data."""
    found = sorted(outputs.glob("**/checkpoints/step_*/job.json"), key=lambda p: p.stat().st_mtime)
    for path in reversed(found):
        try:
            job = json.loads(path.read_text())
        except ValueError:
            continue
        if job.get("model") == model and job.get("data") == data:
            return path.parent
    raise CheckpointError(
        f"resume=true: no checkpoint of model {model} on data {data} under {outputs}; train it first, "
        "or give resume_from=FOLDER"
    )


def inside(folder: Path) -> Path:
    """The checkpoint that `resume_from` names: the folder itself, or the newest one in a job's folder."""
    if (folder / "job.json").exists():
        return folder
    found = list(every(folder / "checkpoints"))
    if not found:
        raise CheckpointError(f"resume_from={folder}: no checkpoint there; give a job's folder or a checkpoint in it")
    return found[-1]


def is_full(error: OSError) -> bool:
    """Whether it is the disk, or a quota, that has no room."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def no_room(error: OSError, folder: Path) -> str:
    """What to say of a full disk: what, where, do."""
    where = f" ({error.filename})" if error.filename else ""
    return (
        f"{folder}: {error.strerror}{where}; make room there, or name another folder with hydra.run.dir, or keep fewer "
        "checkpoints with checkpoint.keep"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _take_tensors(tree: Any, at: str, tensors: dict[str, Tensor]) -> Any:
    """`tree` without its tensors, which go into the dict under their place; keys that are not strings are marked."""
    if isinstance(tree, Tensor):
        tensors[at] = tree
        return {"tensor": at}
    if isinstance(tree, dict):
        return {"items": [[k, _take_tensors(v, f"{at}/{k}", tensors)] for k, v in tree.items()]}
    if isinstance(tree, (list, tuple)):
        return {"list": [_take_tensors(v, f"{at}/{i}", tensors) for i, v in enumerate(tree)]}
    return tree


def _put_tensors(tree: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(tree, dict):
        return tree
    ((kind, value),) = tree.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "list":
        return [_put_tensors(v, tensors) for v in value]
    return {k: _put_tensors(v, tensors) for k, v in value}
