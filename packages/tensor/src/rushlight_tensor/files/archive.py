"""Zip archives as PyTorch writes them: records that are stored as they are, each starting at a multiple of 64 bytes.

The reader trusts no number: every size and offset is checked against the file before anything is allocated, records
must not overlap, compressed ones are refused (PyTorch writes none, and they could expand without end), checksums are
compared.
"""

from __future__ import annotations

import os
import struct
import zlib
from typing import IO, Any, NamedTuple, NoReturn

import numpy as np

from rushlight_tensor.files.errors import FileFormatError

ALIGNMENT_BYTES = 64

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_END64_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQ2H2I4Q")
_UTF8_NAMES = 0x0800
_ENCRYPTED = 0x0001
_MAX16, _MAX32 = 0xFFFF, 0xFFFFFFFF
_PADDING_ID = b"FB"  # the extra field that PyTorch pads with


class _Record(NamedTuple):
    """Where a record lies: offset of its header, size, checksum; and whether its bytes are there as they are."""

    header: int
    size: int
    crc: int
    is_plain: bool = True


class ArchiveWriter:
    """Writes records to a file object, one after the other; `close` writes the directory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._at = file, 0
        self._directory: list[tuple[bytes, _Record]] = []

    def write(self, name: str, data: Any) -> None:
        """Append a record.

        Args:
            name: Its path in the archive.
            data: bytes, or a contiguous array of bytes.
        """
        view = memoryview(data).cast("B") if len(data) else memoryview(b"")
        encoded, size, crc = name.encode(), view.nbytes, zlib.crc32(view)
        extra = struct.pack("<2H2Q", 1, 16, size, size) if size >= _MAX32 else b""
        start = self._at + _LOCAL.size + len(encoded) + len(extra) + 4
        padding = -start % ALIGNMENT_BYTES
        extra += _PADDING_ID + struct.pack("<H", padding) + b"Z" * padding
        shown = min(size, _MAX32)
        self._directory.append((encoded, _Record(self._at, size, crc)))
        version = 45 if size >= _MAX32 else 20
        self._put(_LOCAL.pack(b"PK\3\4", version, _UTF8_NAMES, 0, 0, 0, crc, shown, shown, len(encoded), len(extra)))
        self._put(encoded + extra)
        self._put(view)

    def close(self) -> None:
        """Write the directory of records."""
        start = self._at
        for name, record in self._directory:
            large = [v for v in (record.size, record.size, record.header) if v >= _MAX32]
            extra = struct.pack(f"<2H{len(large)}Q", 1, 8 * len(large), *large) if large else b""
            size, header = min(record.size, _MAX32), min(record.header, _MAX32)
            version = 45 if large else 20
            fields = (version, version, _UTF8_NAMES, 0, 0, 0, record.crc, size, size, len(name), len(extra))
            self._put(_CENTRAL.pack(b"PK\1\2", *fields, 0, 0, 0, 0, header) + name + extra)
        n, size, end = len(self._directory), self._at - start, self._at
        self._put(_END64.pack(b"PK\6\6", _END64.size - 12, 45, 45, 0, 0, n, n, size, start))
        self._put(_END64_LOCATOR.pack(b"PK\6\7", 0, end, 1))
        few = min(n, _MAX16)
        self._put(_END.pack(b"PK\5\6", 0, 0, few, few, min(size, _MAX32), min(start, _MAX32), 0))

    def _put(self, data: Any) -> None:
        self._file.write(data)
        self._at += len(data)


class ArchiveReader:
    """The records of an archive.

    Args:
        file: Seekable, opened for reading.
        what: Its name in messages.
    Raises:
        FileFormatError: It is no archive of this kind, or is damaged.
    """

    def __init__(self, file: IO[bytes], what: str) -> None:
        self._file, self._what = file, what
        self.size = file.seek(0, os.SEEK_END)
        start, length, count = self._find_directory()
        self._records = self._read_directory(start, length, count)
        self._ends = self._check_layout(start)

    def __contains__(self, name: str) -> bool:
        return name in self._records

    def names(self) -> list[str]:
        """The names of all records."""
        return list(self._records)

    def check_plain(self) -> None:
        """Raise FileFormatError for a compressed or encrypted record."""
        for name, record in self._records.items():
            if not record.is_plain:
                self._fail(
                    f"record {name!r} is compressed or encrypted, which torch.save never does; "
                    "unpack the archive and store it without compression"
                )

    def record_size(self, name: str) -> int:
        """The size of a record in bytes.  Raises FileFormatError where there is none of that name."""
        if name not in self._records:
            self._fail(f"there is no record {name!r}")
        return self._records[name].size

    def read(self, name: str, into: np.ndarray[Any, Any] | None = None) -> Any:
        """The bytes of a record, checked against its checksum.

        Args:
            into: (size,) uint8, filled and returned instead of new bytes.
        """
        size = self.record_size(name)
        record = self._records[name]
        start = self._data_start(name, record)
        if into is None:
            data: Any = self._bytes(start, size)
        else:
            data = into
            self._file.seek(start)
            view, done = memoryview(into.data), 0
            while done < size:
                got = self._file.readinto(view[done:]) if hasattr(self._file, "readinto") else None
                if got is None:
                    view[done:] = self._bytes(start + done, size - done)
                    got = size - done
                if not got:
                    self._fail(f"it ends inside record {name!r}")
                done += got
        if zlib.crc32(data) != record.crc:
            self._fail(f"record {name!r} is damaged: its checksum does not match; copy or save the file again")
        return data

    def _fail(self, why: str) -> NoReturn:
        raise FileFormatError(f"{self._what}: {why}")

    def _bytes(self, start: int, length: int) -> bytes:
        if start < 0 or length < 0 or start + length > self.size:
            self._fail(f"it is truncated: {length} bytes expected at {start}, the file has {self.size}")
        self._file.seek(start)
        data = self._file.read(length)
        if len(data) != length:
            self._fail(f"it ends early: {length} bytes expected at {start}, got {len(data)}")
        return data

    def _find_directory(self) -> tuple[int, int, int]:
        """Start, length and number of entries of the directory."""
        tail_start = max(0, self.size - _END.size - _MAX16)
        tail = self._bytes(tail_start, self.size - tail_start)
        at = tail.rfind(b"PK\5\6")
        if at < 0 or at + _END.size > len(tail):
            self._fail("it is no zip archive, or is truncated: the directory at its end is missing; save it again")
        _, _, _, _, count, length, start, comment = _END.unpack_from(tail, at)
        end = tail_start + at
        if end + _END.size + comment != self.size:
            self._fail("it is damaged: bytes follow the end of the archive")
        if end >= _END64_LOCATOR.size:
            locator = self._bytes(end - _END64_LOCATOR.size, _END64_LOCATOR.size)
            signature, _, end64, _ = _END64_LOCATOR.unpack(locator)
            if signature == b"PK\6\7":
                found = _END64.unpack(self._bytes(end64, _END64.size))
                if found[0] != b"PK\6\6" or end64 + _END64.size > end:
                    self._fail("it is damaged: the 64-bit directory record is missing")
                count, length, start, end = *found[7:10], end64
        if start + length != end:
            self._fail(f"it is damaged: the directory covers {start} to {start + length}, it should end at {end}")
        return start, length, count

    def _read_directory(self, start: int, length: int, count: int) -> dict[str, _Record]:
        data = self._bytes(start, length)
        records: dict[str, _Record] = {}
        at = 0
        while at < length:
            if at + _CENTRAL.size > length:
                self._fail("it is damaged: the directory ends inside an entry")
            fields = _CENTRAL.unpack_from(data, at)
            signature, flags, method, crc, stored, size = fields[0], fields[3], fields[4], *fields[7:10]
            name_size, extra_size, comment_size, header = *fields[10:13], fields[16]
            name_at = at + _CENTRAL.size
            at = name_at + name_size + extra_size + comment_size
            if signature != b"PK\1\2" or at > length:
                self._fail("it is damaged: an entry of the directory is none")
            try:
                name = data[name_at : name_at + name_size].decode()
            except UnicodeDecodeError:
                self._fail("it is damaged: a record's name is not UTF-8")
            extra = data[name_at + name_size : name_at + name_size + extra_size]
            size, stored, header = self._widen(extra, size, stored, header)
            if name in records:
                self._fail(f"record {name!r} occurs twice")
            is_plain = method == 0 and stored == size and not flags & _ENCRYPTED
            records[name] = _Record(header, size if is_plain else stored, crc, is_plain)
        if len(records) != count:
            self._fail(f"it is damaged: the directory should have {count} entries, it has {len(records)}")
        return records

    def _widen(self, extra: bytes, *values: int) -> list[int]:
        """Values that do not fit into 32 bits, from the extra field."""
        if _MAX32 not in values:
            return list(values)
        at, wide = 0, b""
        while at + 4 <= len(extra):
            kind, size = struct.unpack_from("<2H", extra, at)
            if kind == 1:
                wide = extra[at + 4 : at + 4 + size]
            at += 4 + size
        out = []
        for value in values:
            if value == _MAX32:
                if len(wide) < 8:
                    self._fail("it is damaged: a 64-bit size is missing")
                value, wide = struct.unpack_from("<Q", wide)[0], wide[8:]
            out.append(value)
        return out

    def _check_layout(self, directory_start: int) -> dict[str, int]:
        """Where each record ends at the latest: they lie before the directory and share no byte."""
        ends: dict[str, int] = {}
        limit = directory_start
        for name, record in sorted(self._records.items(), key=lambda item: -item[1].header):
            if record.header + _LOCAL.size + len(name.encode()) + record.size > limit:
                self._fail(f"record {name!r} of {record.size} bytes overlaps what follows it, or the end of the file")
            ends[name], limit = limit, record.header
        return ends

    def _data_start(self, name: str, record: _Record) -> int:
        fields = _LOCAL.unpack(self._bytes(record.header, _LOCAL.size))
        name_size, extra_size = fields[9], fields[10]
        found = self._bytes(record.header + _LOCAL.size, name_size)
        if fields[0] != b"PK\3\4" or fields[3] != 0 or found != name.encode():
            self._fail(f"it is damaged: record {name!r} does not begin where the directory says")
        start = record.header + _LOCAL.size + name_size + extra_size
        if start + record.size > self._ends[name]:
            self._fail(f"record {name!r} overlaps the next one")
        return start
