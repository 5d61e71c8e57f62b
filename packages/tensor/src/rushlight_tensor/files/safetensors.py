"""The safetensors format, both ways: a JSON header that says where each tensor lies, then their bytes.

Source: the format's description at https://github.com/huggingface/safetensors.  Every rule of it is checked before
anything is allocated: lengths against the file, no gap, no overlap, sizes against shapes.
"""

from __future__ import annotations

import json
import os
import struct
from typing import IO, Any, NoReturn

import numpy as np

from rushlight_tensor.core import cuda, devices, dtypes
from rushlight_tensor.core.dispatch import settle
from rushlight_tensor.core.tensor import Tensor, wrap
from rushlight_tensor.files.atomic import atomic_write
from rushlight_tensor.files.errors import FileFormatError

_NAMES = {  # in the order in which the reference library writes them
    "uint64": "U64", "int64": "I64", "float64": "F64", "complex64": "C64", "float32": "F32", "uint32": "U32",
    "int32": "I32", "bfloat16": "BF16", "float16": "F16", "uint16": "U16", "int16": "I16", "int8": "I8", "uint8": "U8",
    "bool": "BOOL",
}  # fmt: skip
_ORDER = list(_NAMES)
_DTYPES = {name: getattr(dtypes, dtype).np for dtype, name in _NAMES.items()}
_LENGTH = struct.Struct("<Q")
_MAX_HEADER_BYTES = 100_000_000
_FREE_BYTES = 24 << 20
_MAX_DIMENSIONS = 64


def save_file(tensors: dict[str, Tensor], filename: Any, metadata: dict[str, str] | None = None) -> None:
    """Write named tensors to a safetensors file, replaced as a whole when everything is written.

    Args:
        tensors: By name.  Tensors that share memory are written one by one.
        filename: The path.
        metadata: Strings to keep in the header.
    Raises:
        TypeError: A name or metadata is no string, a value no tensor, a dtype not in the format.
        OSError: The disk is full or not writable; an old file is untouched.
    """
    arrays = [(name, _array(name, tensor)) for name, tensor in tensors.items()]
    entries = sorted(arrays, key=lambda e: (_ORDER.index(dtypes.from_numpy(e[1].dtype).name), e[0]))
    header: dict[str, Any] = {}
    if metadata is not None:
        if any(type(k) is not str or type(v) is not str for k, v in metadata.items()):
            raise TypeError("save_file: metadata must be strings by strings; convert numbers with str()")
        header["__metadata__"] = metadata
    at = 0
    for name, array in entries:
        end = at + array.nbytes
        dtype = _NAMES[dtypes.from_numpy(array.dtype).name]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with atomic_write(filename) as file:
        file.write(_LENGTH.pack(len(text)) + text)
        for _, array in entries:
            if array.size:
                file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _array(name: Any, tensor: Any) -> np.ndarray[Any, Any]:
    if type(name) is not str or name == "__metadata__":
        raise TypeError(f"save_file: {name!r} is no name of a tensor; use a string")
    if not isinstance(tensor, Tensor):
        raise TypeError(f"save_file: {name!r} must be a Tensor, got {type(tensor).__name__}")
    array: np.ndarray[Any, Any] = cuda.to_host(settle(tensor))
    if dtypes.from_numpy(array.dtype).name not in _NAMES:
        raise TypeError(f"save_file: {name!r} has dtype {array.dtype}, which safetensors cannot hold; convert it first")
    return array


def load_file(filename: Any, device: Any = "cpu") -> dict[str, Tensor]:
    """The named tensors of a safetensors file.

    Args:
        filename: The path.
        device: Where they go.
    Raises:
        FileFormatError: The file is damaged, or breaks a rule of the format.
    """
    with open(filename, "rb") as file:
        reader = _Reader(file, os.fspath(filename))
        return {name: wrap(devices.place(array, device)) for name, array in reader.arrays()}


def read_metadata(filename: Any) -> dict[str, str]:
    """The strings that `save_file` was given as metadata.  Raises FileFormatError like `load_file`."""
    with open(filename, "rb") as file:
        return _Reader(file, os.fspath(filename)).metadata


class _Reader:
    """A checked header: `metadata`, and the `arrays` it describes."""

    def __init__(self, file: IO[bytes], what: str) -> None:
        self._file, self._what = file, what
        self._size = file.seek(0, os.SEEK_END)
        header = self._header()
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict) or any(type(v) is not str for v in metadata.values()):
            self._fail("its __metadata__ is not a table of strings")
        self.metadata: dict[str, str] = metadata
        self._entries = sorted((self._entry(name, e) for name, e in header.items()), key=lambda e: (e[3], e[4]))
        at = 0
        for name, _, _, start, end in self._entries:
            if start != at:
                self._fail(f"tensor {name!r} starts at byte {start}, the one before it ends at {at}")
            at = end
        if at != self._size - self._data_start:
            self._fail(f"its tensors have {at} bytes, the file holds {self._size - self._data_start}; it is truncated")

    def arrays(self) -> Any:
        """Name and array of each tensor, read one after the other."""
        self._file.seek(self._data_start)
        for name, dtype, shape, start, end in self._entries:
            data = np.empty(end - start, np.uint8)
            if self._file.readinto(data.data) != data.size:  # type: ignore[attr-defined]
                self._fail(f"it ends inside tensor {name!r}")
            if dtype.kind == "b" and (data > 1).any():
                self._fail(f"tensor {name!r} of bools holds other values than 0 and 1")
            yield name, data.view(dtype).reshape(shape)

    def _fail(self, why: str) -> NoReturn:
        raise FileFormatError(f"{self._what}: {why}")

    def _header(self) -> dict[str, Any]:
        self._file.seek(0)
        prefix = self._file.read(_LENGTH.size)
        length = _LENGTH.unpack(prefix)[0] if len(prefix) == _LENGTH.size else -1
        if not 0 < length <= min(_MAX_HEADER_BYTES, self._size - _LENGTH.size):
            self._fail(f"it is no safetensors file or is truncated: {self._size} bytes, header of {length} bytes")
        self._data_start = _LENGTH.size + length
        text = self._file.read(length)
        if 64 * (text.count(b"{") + text.count(b"[")) + 8 * text.count(b",") > 2 * self._size + _FREE_BYTES:
            self._fail("its header describes far more than a file of its size can hold")
        try:
            header = json.loads(text.decode(), object_pairs_hook=self._table, parse_constant=self._constant)
        except FileFormatError:
            raise
        except (ValueError, RecursionError) as e:
            self._fail(f"its header is no JSON: {e}")
        if not text.startswith(b"{") or not isinstance(header, dict):
            self._fail("its header is no JSON table")
        return header

    def _table(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) != len(pairs):
            self._fail("a name occurs twice in its header")
        return table

    def _constant(self, name: str) -> NoReturn:
        self._fail(f"its header holds {name}")

    def _entry(self, name: str, entry: Any) -> tuple[str, np.dtype[Any], tuple[int, ...], int, int]:
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            self._fail(f"tensor {name!r} needs dtype, shape and data_offsets")
        dtype = _DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
        if dtype is None:
            self._fail(f"tensor {name!r} has the unknown dtype {entry['dtype']!r:.50}; known are {', '.join(_DTYPES)}")
        shape, offsets = entry["shape"], entry["data_offsets"]
        for values in (shape, offsets):
            if not isinstance(values, list) or not all(type(n) is int and 0 <= n < 2**63 for n in values):
                self._fail(f"tensor {name!r} has a shape or offsets that are not sizes")
        if len(offsets) != 2 or offsets[0] > offsets[1] or len(shape) > _MAX_DIMENSIONS:
            self._fail(f"tensor {name!r} has offsets {offsets!r:.50} and {len(shape)} dimensions")
        size = dtype.itemsize
        for n in shape:
            size *= n
        if size != offsets[1] - offsets[0]:
            got = offsets[1] - offsets[0]
            self._fail(f"tensor {name!r} of shape {shape!r:.80} needs {size} bytes, its offsets say {got}")
        return name, dtype, tuple(shape), offsets[0], offsets[1]
