"""Files made to do harm, each by name: what no reader may fall for."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import subprocess
import zipfile
from collections import OrderedDict

import numpy as np

from rushlight_tensor.files.archive import ArchiveWriter
from rushlight_tensor.files.pickler import Call, Named
from rushlight_tensor.files.pt import _LEGACY
from tests.files.build import REBUILD, archive, pickled, saved, state, storage, tensor_file

_BASE = saved({"w": state()["alias"]})


class _Payload:
    """Pickles to a call of `function(*args)`: the classic attack."""

    def __init__(self, function, *args):
        self._call = function, args

    def __reduce__(self):
        return self._call


PAYLOADS = {
    f"payload: {function.__name__} protocol {protocol}": archive(pickle.dumps(_Payload(function, *args), protocol))
    for protocol in (0, 1, 2, 3, 4, 5)
    for function, args in (
        (os.system, ("touch /tmp/rushlight-was-attacked",)),
        (eval, ("__import__('os').abort()",)),
        (exec, ("raise SystemExit",)),
        (subprocess.Popen, (["true"],)),
        (os.putenv, ("RUSHLIGHT_WAS_ATTACKED", "1")),
        (__import__, ("antigravity",)),
        (open, ("/tmp/rushlight-was-attacked", "w")),
    )
}


def _end(data, **changes):
    """The archive with other numbers in its last record."""
    names = ("disk", "start_disk", "here", "count", "length", "start", "comment")
    at = len(data) - 22
    values = dict(zip(names, struct.unpack("<4H2IH", data[at + 4 :]), strict=True)) | changes
    plain = data[: at - 20 - 56]  # without the 64-bit records, which would win
    return plain + b"PK\5\6" + struct.pack("<4H2IH", *values.values())


def _entry(data, field, value, number=0):
    """The archive with another number in an entry of its directory."""
    at = -1
    for _ in range(number + 1):
        at = data.index(b"PK\1\2", at + 1)
    offset, format = {
        "flags": (8, "<H"), "method": (10, "<H"), "crc": (16, "<I"), "stored": (20, "<I"), "size": (24, "<I"),
        "name": (28, "<H"), "extra": (30, "<H"), "header": (42, "<I"),
    }[field]  # fmt: skip
    return data[: at + offset] + struct.pack(format, value) + data[at + offset + struct.calcsize(format) :]


def _both(data, value):
    return _entry(_entry(data, "size", value), "stored", value)


def _compressed(n):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("archive/data.pkl", pickled([]))
        z.writestr("archive/version", "3\n")
        z.writestr("archive/data/0", bytes(n))
    return file.getvalue()


def _duplicate():
    file = io.BytesIO()
    writer = ArchiveWriter(file)
    for data in (pickled([1]), pickled([2])):
        writer.write("archive/data.pkl", data)
    writer.write("archive/version", b"3\n")
    writer.close()
    return file.getvalue()


def _many_names(n):
    file = io.BytesIO()
    writer = ArchiveWriter(file)
    writer.write("archive/data.pkl", b"\x80\x02")
    for i in range(n):
        writer.write(f"archive/x{i}", b"")
    writer.write("archive/version", b"3\n")
    writer.close()
    return file.getvalue()


def _raw(body):
    return archive(b"\x80\x02" + body)


def _called(module, name, *args):
    return archive(pickled(Call(Named(module, name), args)), {"0": b"\0" * 16})


PT = {
    "empty file": b"",
    "one byte": b"P",
    "text": b"hello, I am a model" * 100,
    "format before 1.6": _LEGACY + b"\x80\x02M\xe9\x03.",
    "tar": b"model/tensors".ljust(257, b"\0") + b"ustar\x0000" + b"\0" * 1000,
    "end record only": b"PK\5\6" + b"\0" * 18,
    "end cut off": _BASE[:-1],
    "half": _BASE[: len(_BASE) // 2],
    "bytes after the end": _BASE + b"\0",
    "bytes before the start": b"\0" * 64 + _BASE,
    "count too large": _end(_BASE, count=0xFFFF),
    "count zero": _end(_BASE, count=0),
    "directory beyond the file": _end(_BASE, start=0xFFFFFFF0),
    "directory too long": _end(_BASE, length=0xFFFFFFFF),
    "directory empty": _end(_BASE, length=0),
    "comment beyond the file": _end(_BASE, comment=1000),
    "64-bit record elsewhere": _BASE[:-34] + struct.pack("<Q", 2**64 - 1) + _BASE[-26:],
    "size 2**32-1 without 64-bit size": _both(_BASE, 0xFFFFFFFF),
    "size larger than the file": _both(_BASE, 0x7FFFFFFF),
    "size zero": _both(_BASE, 0),
    "header beyond the file": _entry(_BASE, "header", 0x7FFFFFFF),
    "header on another record": _entry(_BASE, "header", 64, 1),
    "two records in one place": _entry(_BASE, "header", 0, 1),
    "encrypted": _entry(_BASE, "flags", 1),
    "unknown compression": _entry(_BASE, "method", 99),
    "wrong checksum": _entry(_BASE, "crc", 0),
    "name too long": _entry(_BASE, "name", 0xFFFF),
    "extra too long": _entry(_BASE, "extra", 0xFFFF),
    "name not UTF-8": _BASE.replace(b"byteorder", b"byteord\xff\xff"),
    "compressed": _compressed(100),
    "compressed bomb": _compressed(100_000_000),
    "duplicate name": _duplicate(),
    "100,000 names": _many_names(100_000),
    "no pickle": archive(b"").replace(b"data.pkl", b"data.pkx"),
    "no version": archive(pickled(1), version=None),
    "version is no number": archive(pickled(1), version=b"three"),
    "version from the future": archive(pickled(1), version=b"99"),
    "version endless": archive(pickled(1), version=b"3" * 100_000),
    "big-endian": archive(pickled(1), byteorder=b"big"),
    "TorchScript": archive(pickled(1), extra=[("archive/constants.pkl", pickled(()))]),
    "pickle empty": archive(b""),
    "pickle without end": _raw(b"]"),
    "pickle stops with nothing": _raw(b"."),
    "pickle stops with two": _raw(b"NN."),
    "pickle stops in a mark": _raw(b"(N."),
    "pickle protocol 5": archive(b"\x80\x05N."),
    "pickle of text opcodes": archive(b"(lp0\nI1\na."),
    "stack empty": _raw(b"a."),
    "stack empty below a mark": _raw(b"N(\x85."),
    "no mark": _raw(b"t."),
    "memo never filled": _raw(b"h\5."),
    "memo with a gap": _raw(b"]r\xff\xff\xff\xff."),
    "string longer than the file": _raw(b"X\xff\xff\xff\x7fabc."),
    "string not UTF-8": _raw(b"X\2\0\0\0\xff\xfe."),
    "integer cut off": _raw(b"\x8a\xff\1."),
    "name without end": _raw(b"c" + b"a" * 100_000),
    "append to a number": _raw(b"K\1K\1a."),
    "key without value": _raw(b"}(K\1u."),
    "key is a list": _raw(b"}]Ns."),
    "key is a deep tuple": _raw(b"})" + b"\x85" * 100_000 + b"Ns."),
    "apply a number": _raw(b"K\1)R."),
    "apply a dtype": _raw(b"ctorch\nfloat32\n)R."),
    "apply to no tuple": _raw(b"ccollections\nOrderedDict\n]R."),
    "function as the result": _raw(b"ccollections\nOrderedDict\n."),
    "attributes of a list": _raw(b"]}X\1\0\0\0aNsb."),
    "attributes that are methods": _raw(b"ccollections\nOrderedDict\n)R}X\5\0\0\0itemsNsb."),
    "metadata that is none": _raw(b"ccollections\nOrderedDict\n)R}X\t\0\0\0_metadataK\1sb."),
    "new object opcode": _raw(b"ccollections\nOrderedDict\n)\x81."),
    "inst opcode": _raw(b"(ios\nsystem\n."),
    "extension opcode": _raw(b"\x82\1."),
    "half a million lists": _raw(b"]" * 500_000 + b"."),
    "half a million marks": _raw(b"(" * 500_000 + b"."),
    "half a million nested tuples": _raw(b")" + b"\x85" * 500_000 + b"."),
    "OrderedDict of no pairs": _called("collections", "OrderedDict", [1, 2]),
    "Counter of strings": _called("collections", "Counter", "aaaa"),
    "set of lists": _called("builtins", "set", [[1]]),
    "complex of strings": _called("builtins", "complex", "1", "2"),
    "bytes in another encoding": _called("_codecs", "encode", "abc", "rot13"),
    "Size of strings": _called("torch", "Size", ("a",)),
    "device of nowhere": _called("torch", "device", "moon"),
    "numpy scalar": archive(pickle.dumps(np.float64(1), 2)),
    "numpy array": archive(pickle.dumps(np.zeros(3), 2)),
    "module": _called("torch.nn.modules.linear", "Linear"),
    "torch.load in torch.load": _called("torch.storage", "_load_from_bytes", "abc"),
    "storage that is not there": archive(pickled(storage("7"))),
    "storage above the folder": archive(pickled(storage("../../../../etc/passwd"))),
    "storage of another size": tensor_file(storage=storage(count=5)),
    "storage of 2**62 elements": tensor_file(storage=storage(count=2**62)),
    "storage of negative size": tensor_file(storage=storage(count=-4)),
    "storage of no type": tensor_file(storage=storage(kind="FloatStorage")),
    "storage on no device": tensor_file(storage=storage(where="moon:0")),
    "storage under two types": archive(
        pickled([storage(), storage(kind=Named("torch", "IntStorage"))]), {"0": b"\0" * 16}
    ),
    "storage by a number": archive(pickled(Call(REBUILD, (3, 0, (4,), (1,), False, OrderedDict())))),
    "bare storage": archive(pickled(storage()), {"0": b"\0" * 16}),
    "bools of seven": tensor_file(storage=storage(kind=Named("torch", "BoolStorage"), count=16), data=b"\7" * 16),
    "size negative": tensor_file(size=(-4,)),
    "size too large": tensor_file(size=(5,)),
    "size overflows": tensor_file(size=(2**40, 2**40), stride=(0, 0)),
    "size of 65 dimensions": tensor_file(size=(1,) * 65, stride=(1,) * 65),
    "size of strings": tensor_file(size=("4",)),
    "size of another length than stride": tensor_file(size=(2, 2), stride=(1,)),
    "stride negative": tensor_file(stride=(-1,)),
    "stride too large": tensor_file(stride=(2**62,)),
    "offset negative": tensor_file(offset=-1),
    "offset too large": tensor_file(offset=1),
    "offset of 2**63": tensor_file(offset=2**63),
    "gradient of integers": tensor_file(storage=storage(kind=Named("torch", "IntStorage")), grad=True),
    "hooks": tensor_file(hooks=OrderedDict(a=1)),
    "unknown marks": tensor_file({"quantum": True}),
    "parameter of a number": _called("torch._utils", "_rebuild_parameter", 3, True, OrderedDict()),
    "too many arguments": _called("torch._utils", "_rebuild_tensor_v2", *range(12)),
}
PT |= PAYLOADS


def _tensors(header, data=b"\0" * 16, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def _one(**changes):
    return {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], **changes}}


def _two(first, second):
    entry = {"dtype": "F32", "shape": [2]}
    return {"a": {**entry, "data_offsets": first}, "b": {**entry, "data_offsets": second}}


SAFETENSORS = {
    "empty file": b"",
    "seven bytes": b"\0" * 7,
    "header of 2**64-1": _tensors(_one(), length=2**64 - 1),
    "header longer than the file": _tensors(_one(), length=1000),
    "header of zero": _tensors(_one(), length=0),
    "header no JSON": _tensors(b"{" * 20),
    "header a list": _tensors([]),
    "header after a space": _tensors(b" " + json.dumps(_one()).encode()),
    "header not UTF-8": _tensors(b'{"\xff\xfe": 1}'),
    "header nested without end": _tensors(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "header of many tables": _tensors(b'{"a":[' + b"{}," * 2_000_000 + b"{}]}"),
    "NaN": _tensors(b'{"a": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 16]}}'),
    "infinity": _tensors(b'{"a": {"dtype": "F32", "shape": [Infinity], "data_offsets": [0, 16]}}'),
    "float size": _tensors(_one(shape=[4.0])),
    "bool size": _tensors(_one(shape=[True])),
    "negative size": _tensors(_one(shape=[-4])),
    "size overflow": _tensors(_one(shape=[2**62, 2**62])),
    "size 2**64": _tensors(_one(shape=[2**64])),
    "many dimensions": _tensors(_one(shape=[4] + [1] * 100)),
    "endless integer": _tensors(b'{"a": {"dtype": "F32", "shape": [' + b"9" * 100_000 + b"]}}"),
    "size and offsets differ": _tensors(_one(shape=[3])),
    "begin after end": _tensors(_one(data_offsets=[16, 0])),
    "negative offset": _tensors(_one(data_offsets=[-16, 0])),
    "one offset": _tensors(_one(data_offsets=[16])),
    "overlap": _tensors(_two([0, 8], [4, 12])),
    "gap": _tensors(_two([0, 8], [12, 20]), b"\0" * 20),
    "same place twice": _tensors(_two([0, 8], [0, 8]), b"\0" * 8),
    "bytes left over": _tensors(_one(), b"\0" * 17),
    "bytes missing": _tensors(_one(), b"\0" * 15),
    "starts late": _tensors(_one(data_offsets=[4, 20]), b"\0" * 20),
    "unknown dtype": _tensors(_one(dtype="F31")),
    "dtype a list": _tensors(_one(dtype=["F32"])),
    "unknown field": _tensors(_one(evil=1)),
    "field missing": _tensors({"a": {"dtype": "F32", "shape": [4]}}),
    "entry a number": _tensors({"a": 1}),
    "duplicate name": _tensors(b'{"a": 1, "a": 2}'),
    "metadata of numbers": _tensors({"__metadata__": {"a": 1}}, b""),
    "metadata a list": _tensors({"__metadata__": []}, b""),
    "bools of seven": _tensors({"a": {"dtype": "BOOL", "shape": [4], "data_offsets": [0, 4]}}, b"\7" * 4),
    "zip archive": _BASE,
}
