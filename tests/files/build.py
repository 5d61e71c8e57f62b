"""Objects to save, files to break: what the tests of files share."""

from __future__ import annotations

import io
import random
import struct
from collections import Counter, OrderedDict

import ml_dtypes
import numpy as np

from rushlight_tensor.core import dtypes
from rushlight_tensor.core.devices import device
from rushlight_tensor.core.size import Size
from rushlight_tensor.core.tensor import Tensor, wrap
from rushlight_tensor.files import save
from rushlight_tensor.files.archive import ArchiveWriter
from rushlight_tensor.files.pickler import Call, Named, Persistent, Pickler

NUMPY_DTYPES = [d.np for d in dtypes.ALL]
REBUILD = Named("torch._utils", "_rebuild_tensor_v2")
FLOATS = Named("torch", "FloatStorage")


def array_of(dtype, shape, seed=0):
    """An array of random bits of a dtype (0 and 1 for bool)."""
    dtype = np.dtype(dtype)
    n = int(np.prod(shape, dtype=np.int64))
    raw = np.random.default_rng(seed).integers(0, 2 if dtype.kind == "b" else 256, n * dtype.itemsize, np.uint8)
    return raw.view(dtype).reshape(shape)


def state(seed=0):
    """Something of everything that a file may hold."""
    base = wrap(array_of(np.float32, (4, 6), seed))
    weights = OrderedDict(weight=base, bias=wrap(array_of(ml_dtypes.bfloat16, 5, seed)))
    weights._metadata = OrderedDict({"": {"version": 1}})
    return {
        "weights": weights,
        "alias": base,
        "row": wrap(base._array[1]),
        "column": wrap(base._array.T[2:]),
        "dtypes": {d.name: wrap(array_of(d, (2, 3), seed)) for d in NUMPY_DTYPES},
        "empty": wrap(np.zeros((0, 3), np.int64)),
        "scalar": wrap(np.asarray(np.float64(2.5))),
        "expanded": wrap(np.broadcast_to(np.float32([1.5]), (3, 1))),
        "optimizer": {"state": {0: {"step": 3}}, "param_groups": [{"params": [0, 1], "betas": (0.9, 0.99)}]},
        "plain": [None, True, False, 0, 255, 256, -1, 2**31, -(2**40), 2**80, 1.5, float("inf"), 1 - 2j, "ü", b"\xff"],
        "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
        "set": {1, "a", (2, 3)},
        "counter": Counter("abca"),
        "size": Size((2, 3)),
        "dtype": dtypes.bfloat16,
        "device": device("cpu"),
        (1, "key"): "tuples are keys",
    }


def same(a, b):
    """Whether two objects are equal, bit by bit and type by type."""
    if isinstance(a, Tensor):
        x, y = a._array, b._array if isinstance(b, Tensor) else None
        return (
            type(a) is type(b)
            and x.dtype == y.dtype
            and x.shape == y.shape
            and x.tobytes() == y.tobytes()
            and a._requires_grad == b._requires_grad
        )
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        attributes = getattr(a, "_metadata", None) == getattr(b, "_metadata", None)
        return attributes and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return struct.pack("d", a) == struct.pack("d", b)
    return a == b


def saved(obj):
    """The bytes of the file."""
    file = io.BytesIO()
    save(obj, file)
    return file.getvalue()


def archive(pickle, storages=(), version=b"3\n", byteorder=b"little", extra=()):
    """An archive around any pickle."""
    file = io.BytesIO()
    writer = ArchiveWriter(file)
    writer.write("archive/data.pkl", pickle)
    if byteorder is not None:
        writer.write("archive/byteorder", byteorder)
    for key, data in dict(storages).items():
        writer.write(f"archive/data/{key}", data)
    if version is not None:
        writer.write("archive/version", version)
    for name, data in extra:
        writer.write(name, data)
    writer.close()
    return file.getvalue()


def pickled(value):
    """A pickle in which `Named`, `Call` and `Persistent` are written as they are."""
    return Pickler(lambda v, place: None).dump(value)


def storage(key="0", count=4, kind=FLOATS, where="cpu"):
    """A reference to a storage."""
    return Persistent(("storage", kind, key, where, count))


def tensor_file(*args, data=b"\0" * 16, **changes):
    """A file of one tensor, described by the arguments of the function that rebuilds it."""
    given = {"storage": storage(), "offset": 0, "size": (4,), "stride": (1,), "grad": False, "hooks": OrderedDict()}
    given.update(changes)
    return archive(pickled(Call(REBUILD, (*given.values(), *args))), {"0": data})


def mutations(data, count, seed=0):
    """Damaged copies of a file: flipped bits, changed numbers, lost, doubled and foreign pieces."""
    rng = random.Random(seed)
    numbers = [struct.pack(f, v) for f in ("<I", "<Q", "<H") for v in (0, 1, 0x7F, 0xFFFF, 0x7FFF)]
    numbers += [b"\xff" * 4, b"\xff" * 8, b"\0\0\0\x80", b"\0" * 7 + b"\x80"]
    for _ in range(count):
        broken = bytearray(data)
        for _ in range(rng.choice((1, 1, 1, 2, 5))):
            at, length = rng.randrange(len(broken)), rng.randrange(1, 64)
            kind = rng.randrange(8)
            if kind == 0:
                broken[at] ^= 1 << rng.randrange(8)
            elif kind == 1:
                broken[at] = rng.randrange(256)
            elif kind == 2:
                del broken[at:]
            elif kind == 3:
                del broken[at : at + length]
            elif kind == 4:
                broken[at:at] = broken[at : at + length]
            elif kind == 5:
                broken[at:at] = rng.randbytes(length)
            elif kind == 6:
                number = rng.choice(numbers)
                broken[at : at + len(number)] = number
            else:
                broken[at : at + length] = bytes(min(length, len(broken) - at))
            if not broken:
                break
        yield bytes(broken)
