"""PyTorch's zip format (`.pt`, `.pth`) for tensors and plain containers, both ways, without running code from the file.

    <name>/data.pkl     the object, as a pickle whose tensors refer to storages      see `unpickler`
    <name>/data/<key>   the bytes of one storage; several tensors may be views of it
    <name>/byteorder    little
    <name>/version      3

Note [Storages]
    PyTorch saves the whole storage of a tensor.  Here tensors whose memory overlaps share one storage of just the bytes
    that they cover: aliases stay aliases, and a slice of a large buffer makes a small file.
"""

from __future__ import annotations

import os
import sys
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, NoReturn

import numpy as np
from numpy.lib.stride_tricks import as_strided

from rushlight_tensor.core import abstract, cuda, devices, dtypes
from rushlight_tensor.core.abstract import AbstractArray
from rushlight_tensor.core.dispatch import settle
from rushlight_tensor.core.size import Size
from rushlight_tensor.core.tensor import Tensor, wrap, wrap_as
from rushlight_tensor.files import without_data
from rushlight_tensor.files.archive import ArchiveReader, ArchiveWriter
from rushlight_tensor.files.atomic import atomic_write
from rushlight_tensor.files.errors import FileFormatError
from rushlight_tensor.files.pickler import Call, Named, Persistent, Pickler
from rushlight_tensor.files.unpickler import Function, Unpickler, hashable

PARAMETER: type[Tensor] | None = None
"""`nn.Parameter`; set by `rushlight_nn`, because this package does not import what is built on it."""

_FORMAT_VERSION = 3
_MAX_DIMENSIONS = 64  # NumPy's
_MAX_BYTES = 2**63 - 1
_STORAGES = {
    "float64": "DoubleStorage", "float32": "FloatStorage", "float16": "HalfStorage", "bfloat16": "BFloat16Storage",
    "int64": "LongStorage", "int32": "IntStorage", "int16": "ShortStorage", "int8": "CharStorage",
    "uint8": "ByteStorage", "bool": "BoolStorage",
    "complex64": "ComplexFloatStorage", "complex128": "ComplexDoubleStorage",
}  # fmt: skip
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


class _StorageType:
    """A storage class in a file: what its elements are."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: dtypes.dtype) -> None:
        self.dtype = dtype


class _Storage:
    """The bytes of one storage, and where PyTorch had them."""

    __slots__ = ("bytes", "device", "dtype", "there")

    def __init__(self, data: np.ndarray[Any, Any], dtype: dtypes.dtype, device: devices.device) -> None:
        self.bytes, self.dtype, self.device = data, dtype, device
        self.there: Any = None  # the bytes on a CUDA device

    def cpu(self) -> _Storage:
        """Itself, for the host: what a `map_location` function may return."""
        return _Storage(self.bytes, self.dtype, devices.CPU)

    def cuda(self, device: Any = None) -> _Storage:
        """Itself, for a CUDA device: what a `map_location` function may return."""
        return _Storage(self.bytes, self.dtype, devices.device("cuda" if device is None else device))


# ------------------------------------------------------------------------------------------------------------- load


def load_pt(f: Any, map_location: Any = None) -> Any:
    """The object in a `.pt` file.

    Args:
        f: A path, or a seekable file object opened for reading bytes.
        map_location: Where tensors go: a device, a dict from saved to wanted devices, or PyTorch's function of storage
            and location.  `None`: where they were.
    Raises:
        FileFormatError: The file is damaged, of another format, or needs more than tensors and plain containers.
        RuntimeError: Tensors belong on a device that is not there.
    """
    with _opened(f) as (file, what):
        start = file.read(len(_LEGACY))
        if start == _LEGACY:
            raise FileFormatError(
                f"{what}: it has PyTorch's format from before version 1.6, which is one pickle; open it in PyTorch and "
                "save it again: torch.save(torch.load(path), path)"
            )
        archive = ArchiveReader(file, what)
        return _Loader(archive, what, map_location).load()


@contextmanager
def _opened(f: Any) -> Iterator[tuple[Any, str]]:
    if isinstance(f, (str, os.PathLike)):
        path = os.fspath(f)
        with open(path, "rb") as file:
            yield file, path
        return
    if not (hasattr(f, "read") and hasattr(f, "seek")):
        raise TypeError(f"load: expected a path or a seekable file object, got {type(f).__name__}")
    f.seek(0)
    yield f, getattr(f, "name", type(f).__name__)


class _Loader:
    """Reads one archive: `load` interprets the pickle, which asks for storages and tensors."""

    def __init__(self, archive: ArchiveReader, what: str, map_location: Any) -> None:
        self._archive, self._what, self._map_location = archive, what, map_location
        self._storages: dict[str, _Storage] = {}
        first = next(iter(archive.names()), "")
        self._prefix = first.partition("/")[0] + "/"
        if self._prefix + "data.pkl" not in archive:
            self._fail("there is no data.pkl in it: it is a zip archive, but none that torch.save wrote")
        if self._prefix + "constants.pkl" in archive:
            self._fail("it is a TorchScript archive, made by torch.jit.save; save model.state_dict() instead")
        archive.check_plain()

    def load(self) -> Any:
        """The object."""
        version = self._small("version").strip()
        if not version.isdigit() or not 1 <= int(version) <= 10:
            self._fail(f"its format version is {version!r}, versions 1 to 10 are known")
        if self._prefix + "byteorder" in self._archive:
            order = self._small("byteorder")
            if order != sys.byteorder.encode():
                self._fail(f"its byte order is {order!r}, this machine's is {sys.byteorder}; save it on one like this")
        data = self._archive.read(self._prefix + "data.pkl")
        size = self._archive.size
        value = Unpickler(data, self._names(), self._persistent, 2 * size, self._what).load()
        if isinstance(value, (Function, _StorageType, _Storage)):
            self._fail("it holds no tensors but a bare storage or function; save tensors")
        return value

    def _fail(self, why: str) -> NoReturn:
        raise FileFormatError(f"{self._what}: {why}")

    def _small(self, name: str) -> bytes:
        if self._archive.record_size(self._prefix + name) > 64:
            self._fail(f"its record {name!r} is longer than 64 bytes")
        return bytes(self._archive.read(self._prefix + name))

    def _names(self) -> dict[tuple[str, str], Any]:
        names: dict[tuple[str, str], Any] = {
            ("torch._utils", "_rebuild_tensor_v2"): Function(self._tensor),
            ("torch._utils", "_rebuild_tensor_v3"): Function(self._tensor_v3),
            ("torch._utils", "_rebuild_parameter"): Function(self._parameter),
            ("torch.storage", "UntypedStorage"): _StorageType(dtypes.uint8),
            **_PLAIN_NAMES,
        }
        for dtype, storage in _STORAGES.items():
            names["torch", storage] = _StorageType(getattr(dtypes, dtype))
        for d in dtypes.ALL:
            names["torch", d.name] = d
        return names

    def _persistent(self, pid: Any) -> _Storage:
        """A storage from `("storage", type, key, location, number of elements)`."""
        if type(pid) is not tuple or len(pid) != 5 or pid[0] != "storage":
            self._fail("it refers to something that is no storage")
        _, kind, key, location, count = pid
        if not (isinstance(kind, _StorageType) and type(key) is str and type(location) is str and type(count) is int):
            self._fail("it describes a storage wrongly")
        found = self._storages.get(key)
        if found is None:
            name = f"{self._prefix}data/{key}"
            size, wanted = self._archive.record_size(name), count * kind.dtype.itemsize
            if size != wanted:
                self._fail(f"storage {key!r} has {size} bytes, its description says {wanted}")
            data = self._archive.read(name, np.empty(size, np.uint8))
            if kind.dtype is dtypes.bool and (data > 1).any():
                self._fail(f"storage {key!r} of bools holds other values than 0 and 1")
            saved = _Storage(data, kind.dtype, self._saved_device(location))
            found = self._storages[key] = self._placed(saved, location)
        if found.dtype is not kind.dtype:
            self._fail(f"storage {key!r} is described as {kind.dtype} and as {found.dtype}")
        return found

    def _saved_device(self, location: str) -> devices.device:
        try:
            return devices.device(location)
        except RuntimeError:
            if self._map_location is None:
                self._fail(f"its tensors are on device {location!r}, unknown here; give map_location='cpu'")
            return devices.CPU

    def _placed(self, storage: _Storage, location: str) -> _Storage:
        """The storage with the device where it goes.  Raises RuntimeError, as PyTorch, where there is none."""
        where = self._map_location
        if isinstance(where, dict):
            where = where.get(location)
        elif callable(where):
            moved = where(storage, location)
            if moved is not None and not isinstance(moved, _Storage):
                raise TypeError(f"map_location: its result must be the storage or None, got {type(moved).__name__}")
            # The storage as it came is on the host, whatever its location says.
            where = None if moved is None else devices.CPU if moved is storage else moved.device
        if where is not None:
            storage.device = devices.device(where)
        if storage.device.type == "cuda" and not cuda.is_available():
            raise RuntimeError(
                "Attempting to deserialize object on a CUDA device but torch.cuda.is_available() is False. If you are "
                "running on a CPU-only machine, please use torch.load with map_location=torch.device('cpu') to map "
                "your storages to the CPU."
            )
        return storage

    def _tensor(
        self, storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any, metadata: Any = None
    ) -> Tensor:
        if not isinstance(storage, _Storage):
            self._fail("a tensor has no storage")
        array = self._view(storage, storage.dtype, offset, size, stride)
        for name, on in self._metadata(metadata).items():
            if on and name == "conj":
                array = array.conj()
            elif on:
                array = np.negative(array)
        return self._finished(array, storage, requires_grad, hooks)

    def _tensor_v3(
        self,
        storage: Any,
        offset: Any,
        size: Any,
        stride: Any,
        requires_grad: Any,
        hooks: Any,
        dtype: Any,
        metadata: Any = None,
    ) -> Tensor:
        if not isinstance(storage, _Storage) or not isinstance(dtype, dtypes.dtype) or self._metadata(metadata):
            self._fail("a tensor has no storage or no dtype")
        array = self._view(storage, dtype, offset, size, stride)
        return self._finished(array, storage, requires_grad, hooks)

    def _view(
        self, storage: _Storage, dtype: dtypes.dtype, offset: Any, size: Any, stride: Any
    ) -> np.ndarray[Any, Any]:
        """The array that offset, size and stride cut from a storage, all of them checked."""
        if not (_are_sizes(size) and _are_sizes(stride) and len(size) == len(stride) and _are_sizes((offset,))):
            self._fail(f"a tensor has offset {offset!r}, size {size!r} and stride {stride!r}, which are not sizes")
        count = 1
        for n in size:
            count *= n
        last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) if count else offset - 1
        itemsize = dtype.itemsize
        if (last + 1) * itemsize > storage.bytes.size:
            self._fail(
                f"a tensor of size {size!r}, stride {stride!r} and offset {offset} reaches beyond its storage of "
                f"{storage.bytes.size // itemsize} elements"
            )
        if len(size) > _MAX_DIMENSIONS or max(count, 1) * itemsize > _MAX_BYTES:
            self._fail(f"a tensor of size {size!r} has too many dimensions or elements")
        if storage.bytes.size % itemsize:
            self._fail(f"a storage of {storage.bytes.size} bytes is no array of {dtype}")
        flat = storage.bytes.view(dtype.np)
        if not count:
            return np.empty(size, dtype.np)
        return as_strided(flat[offset:], size, [s * itemsize for s in stride])

    def _metadata(self, metadata: Any) -> dict[str, bool]:
        if metadata is None:
            return {}
        if type(metadata) is not dict or not set(metadata) <= {"conj", "neg"}:
            self._fail(f"a tensor has unknown marks: {metadata!r:.100}")
        return metadata

    def _finished(self, array: Any, storage: _Storage, requires_grad: Any, hooks: Any) -> Tensor:
        if type(requires_grad) is not bool or hooks:
            self._fail("a tensor has hooks, which are code; save state_dict()")
        if requires_grad and array.dtype.kind in "biu":
            self._fail(f"a tensor of {array.dtype} is said to require grad")
        t = wrap(array if storage.device.type == "cpu" else self._on_device(array, storage))
        t._requires_grad = requires_grad
        return t

    def _on_device(self, array: np.ndarray[Any, Any], storage: _Storage) -> Any:
        """The view of a storage, which is moved once: tensors that shared memory do so again."""
        if storage.device.type == "meta":
            return AbstractArray(abstract.of(array))
        if not array.size or not np.may_share_memory(array, storage.bytes):
            return devices.place(array, storage.device)
        if storage.there is None:
            storage.there = devices.place(storage.bytes, storage.device)
        return cuda.view_of_bytes(storage.there, cuda.address(array) - cuda.address(storage.bytes), array)

    def _parameter(self, data: Any, requires_grad: Any, hooks: Any) -> Tensor:
        if not isinstance(data, Tensor) or type(requires_grad) is not bool or hooks:
            self._fail("a parameter has no tensor, or has hooks")
        if requires_grad and data._array.dtype.kind in "biu":
            self._fail(f"a parameter of {data._array.dtype} is said to require grad")
        parameter: Tensor = wrap_as(PARAMETER or Tensor, data._array)
        parameter._requires_grad = requires_grad
        return parameter


def _are_sizes(values: Any) -> bool:
    return isinstance(values, tuple) and all(type(n) is int and 0 <= n <= _MAX_BYTES for n in values)


def _size(values: Any) -> Size:
    if not _are_sizes(values):
        raise ValueError("torch.Size of something else than sizes")
    return Size(values)


def _ordered(pairs: Any = ()) -> OrderedDict[Any, Any]:
    if type(pairs) not in (tuple, list) or any(type(p) not in (tuple, list) or len(p) != 2 for p in pairs):
        raise ValueError("an OrderedDict of something else than pairs")
    return OrderedDict((hashable(k), v) for k, v in pairs)


def _counter(counts: Any = None) -> Counter[Any]:
    if counts is not None and (type(counts) is not dict or any(type(n) not in (int, float) for n in counts.values())):
        raise ValueError("a Counter of something else than counts")
    return Counter(counts)


def _set(items: Any = ()) -> set[Any]:
    if type(items) not in (list, tuple):
        raise ValueError("a set of something else than a list")
    return {hashable(item) for item in items}


def _complex(real: Any, imag: Any) -> complex:
    if type(real) is not float or type(imag) is not float:
        raise ValueError("a complex number of something else than floats")
    return complex(real, imag)


def _bytes(text: Any, encoding: Any) -> bytes:
    if type(text) is not str or encoding != "latin1":
        raise ValueError("bytes in an unknown encoding")
    return text.encode("latin1")


def _device(kind: Any, index: Any = None) -> devices.device:
    if type(kind) is not str or (index is not None and type(index) is not int):
        raise ValueError("a device that is none")
    try:
        return devices.device(kind, index)
    except RuntimeError as e:
        raise ValueError(str(e)) from None


_PLAIN_NAMES: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): Function(_ordered),
    ("collections", "Counter"): Function(_counter),
    ("torch", "Size"): Function(_size),
    ("torch", "device"): Function(_device),
    without_data.NAME: Function(without_data.rebuilt),
    ("_codecs", "encode"): Function(_bytes),
    ("__builtin__", "bytes"): Function(lambda: b""),
    **{(module, "set"): Function(_set) for module in ("__builtin__", "builtins")},
    **{(module, "complex"): Function(_complex) for module in ("__builtin__", "builtins")},
}


# ------------------------------------------------------------------------------------------------------------- save


def save_pt(obj: Any, f: Any) -> None:
    """Write an object to a file that `load_pt` and PyTorch's `torch.load(weights_only=True)` open.

    Args:
        obj: Tensors, numbers, strings, bytes, lists, tuples, dicts, sets, in any nesting.
        f: A path, replaced as a whole when everything is written; or a file object, written from its position.
    Raises:
        TypeError, ValueError: Something cannot be saved; the message names its place.
        OSError: The disk is full or not writable; the old file is untouched.
    """
    saver = _Saver(obj)
    if isinstance(f, (str, os.PathLike)):
        with atomic_write(f) as file:
            saver.write(file)
    elif hasattr(f, "write"):
        saver.write(f)
    else:
        raise TypeError(f"save: expected a path or a file object, got {type(f).__name__}")


class _Saver:
    """One object on its way into a file: which tensors there are; their storages; the pickle that refers to them."""

    def __init__(self, obj: Any) -> None:
        self._tensors: dict[int, int] = {}  # id of a tensor -> its number, by first appearance
        self._arrays: list[np.ndarray[Any, Any]] = []
        self._alive: list[Any] = []
        self._memories: dict[int, Any] = {}
        Pickler(self._collect).dump(obj)
        self._storages: list[np.ndarray[Any, Any]] = []
        self._place: dict[int, tuple[int, int]] = {}  # number of a tensor -> storage, offset in it
        for group in sorted(self._groups()):
            self._add_storage(group)
        self._pickle = Pickler(self._reduce).dump(obj)

    def write(self, file: IO[bytes]) -> None:
        """Write the archive."""
        archive = ArchiveWriter(file)
        archive.write("archive/data.pkl", self._pickle)
        archive.write("archive/byteorder", sys.byteorder.encode())
        for i, storage in enumerate(self._storages):
            archive.write(f"archive/data/{i}", storage)
        archive.write("archive/version", f"{_FORMAT_VERSION}\n".encode())
        archive.close()

    def _collect(self, value: Any, place: str) -> Any:
        """First pass: remember the arrays of all tensors."""
        if isinstance(value, Tensor):
            if type(settle(value)) is AbstractArray:
                return ()
            array = self._on_host(value._array)
            if any(s < 0 or s % array.itemsize for s in array.strides) or not array.flags.aligned:
                array = array.copy()  # strides that a file cannot express
            self._tensors[id(value)] = len(self._arrays)
            self._arrays.append(array)
            self._alive.append(value)
            return ()
        return _reduced(value, place)

    def _on_host(self, array: Any) -> np.ndarray[Any, Any]:
        """The array on the host, where views of one memory stay views of one memory."""
        if isinstance(array, np.ndarray):
            return array
        if any(s < 0 for s in array.strides) or not array.size:
            return cuda.to_host(array)
        owner, memory = cuda.bytes_behind(array)
        if id(owner) not in self._memories:
            self._memories[id(owner)] = cuda.to_host(memory)
        start = cuda.address(array) - cuda.address(owner)
        first = self._memories[id(owner)][start:][: array.itemsize].view(array.dtype)
        return as_strided(first, array.shape, array.strides)

    def _groups(self) -> list[list[int]]:
        """The numbers of tensors that share a storage, for each storage.  See Note [Storages]."""
        groups: list[list[int]] = [[i] for i, a in enumerate(self._arrays) if not a.size]
        reach = 0
        for start, end, i in sorted((*_span(a), i) for i, a in enumerate(self._arrays) if a.size):
            if start < reach:
                groups[-1].append(i)
            else:
                groups.append([i])
            reach = max(reach, end)
        return [sorted(group) for group in groups]

    def _add_storage(self, group: list[int]) -> None:
        spans = {i: _span(self._arrays[i]) for i in group}
        lowest = min(group, key=lambda i: spans[i])
        first, start = self._arrays[lowest], spans[lowest][0]
        for i in group:
            dtype = self._arrays[i].dtype
            if dtype != self._arrays[group[0]].dtype or (spans[i][0] - start) % dtype.itemsize:
                raise RuntimeError(
                    "Cannot save multiple tensors or storages that view the same data as different types: "
                    f"{self._arrays[group[0]].dtype} and {dtype} share memory; clone() one of them"
                )
            self._place[i] = len(self._storages), (spans[i][0] - start) // dtype.itemsize
        length = (max(end for _, end in spans.values()) - start) // first.itemsize if first.size else 0
        self._storages.append(as_strided(first, (length,), (first.itemsize,)).view(np.uint8))

    def _reduce(self, value: Any, place: str) -> Any:
        """Second pass: a tensor is a call that rebuilds it from its storage."""
        if not isinstance(value, Tensor):
            return _reduced(value, place)
        no_hooks: OrderedDict[str, Any] = OrderedDict()
        is_parameter = PARAMETER is not None and isinstance(value, PARAMETER)
        requires_grad = value._requires_grad and not is_parameter
        rebuilt = self._rebuilt(value, requires_grad, no_hooks)
        if is_parameter:
            return Call(Named("torch._utils", "_rebuild_parameter"), (rebuilt, value._requires_grad, no_hooks))
        return rebuilt

    def _rebuilt(self, value: Tensor, requires_grad: bool, no_hooks: Any) -> Call:
        if type(value._array) is AbstractArray:
            return without_data.call(value, requires_grad)
        number = self._tensors[id(value)]
        array, (key, offset) = self._arrays[number], self._place[number]
        dtype = dtypes.from_numpy(array.dtype)
        stride = tuple(s // array.itemsize for s in array.strides)
        where = str(devices.of(value._array))
        typed = dtype.name in _STORAGES
        kind = Named("torch", _STORAGES[dtype.name]) if typed else Named("torch.storage", "UntypedStorage")
        count = self._storages[key].size // (array.itemsize if typed else 1)
        storage = Persistent(("storage", kind, str(key), where, count))
        args = (storage, offset, tuple(array.shape), stride, requires_grad, no_hooks)
        if typed:
            return Call(Named("torch._utils", "_rebuild_tensor_v2"), args)
        return Call(Named("torch._utils", "_rebuild_tensor_v3"), (*args, Named("torch", dtype.name)))


def _reduced(value: Any, place: str) -> Any:
    if isinstance(value, Size):
        return Call(Named("torch", "Size"), (tuple(value),))
    if isinstance(value, dtypes.dtype):
        return Named("torch", value.name)
    if isinstance(value, devices.device):
        index = () if value.index is None else (value.index,)
        return Call(Named("torch", "device"), (value.type, *index))
    if isinstance(value, (np.generic, np.ndarray)):
        do = ".item()" if isinstance(value, np.generic) else "torch.from_numpy()"
        raise TypeError(f"cannot save state{place}: it is a NumPy {type(value).__name__}; convert it with {do}")
    return None


def _span(array: np.ndarray[Any, Any]) -> tuple[int, int]:
    """The addresses that an array covers."""
    start: int = array.__array_interface__["data"][0]
    reach = sum((n - 1) * s for n, s in zip(array.shape, array.strides, strict=True))
    return start, start + reach + array.itemsize
