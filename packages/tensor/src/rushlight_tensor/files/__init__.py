"""Files of tensors: PyTorch's `.pt` and safetensors, both ways.  Nothing in a file is ever run."""

from __future__ import annotations

from typing import Any

from rushlight_tensor.files.errors import FileFormatError as FileFormatError
from rushlight_tensor.files.pt import load_pt, save_pt
from rushlight_tensor.files.safetensors import load_file as load_file
from rushlight_tensor.files.safetensors import read_metadata as read_metadata
from rushlight_tensor.files.safetensors import save_file as save_file


def save(obj: Any, f: Any) -> None:
    """Save tensors and plain containers in PyTorch's `.pt` format; `torch.load` opens the file.

    Args:
        obj: Tensors, parameters, numbers, strings, lists, tuples, dicts, sets, in any nesting; a `state_dict()`.
        f: A path, replaced as a whole when everything is written; or a file object opened for writing bytes.
    Raises:
        TypeError, ValueError: Something cannot be saved; the message names its place in `obj`.
        OSError: The disk is full or not writable; an old file is untouched.
    """
    save_pt(obj, f)


def load(
    f: Any, map_location: Any = None, pickle_module: Any = None, *, weights_only: Any = True, mmap: Any = None
) -> Any:
    """Load a `.pt` file, ours or PyTorch's, without running code from it.

    Args:
        f: A path, or a seekable file object opened for reading bytes.
        map_location: Where tensors go: a device, a dict from saved to wanted devices, or a function of storage and
            location.
        pickle_module: Only None: pickle is not used.
        weights_only: Only True (or None): tensors and plain containers.
        mmap: Accepted for PyTorch's signature; storages are always read.
    Raises:
        FileFormatError: The file is damaged, of another format, or needs more than tensors and plain containers.
        ValueError: `weights_only=False` or a `pickle_module`.
    """
    if weights_only is not None and not weights_only:
        raise ValueError(
            "load: weights_only=False would run code from the file, only True is possible; build the model and "
            "call load_state_dict()"
        )
    if pickle_module is not None:
        raise ValueError(f"load: files are read without pickle, got {pickle_module!r}")
    return load_pt(f, map_location)
