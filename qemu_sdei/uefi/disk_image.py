"""A disk image of format raw or qcow2, read by us: as much as it takes to find its partitions.

qcow2: QEMU's docs/interop/qcow2. What would take more than the file itself (a backing file, encryption, other
compression than deflate) is not known here, which is no error: QEMU reads it.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Final

from qemu_sdei.errors import UsageError

MAGIC: Final = b"QFI\xfb"
_HEADER: Final = struct.Struct(">4sIQIIQIIQ")
"""magic, version, backing file's offset and size, cluster bits, size, encryption, L1 entries, L1 offset."""
_FEATURES: Final = 72
_EXTENDED_L2: Final = 1 << 4
_EXTERNAL: Final = 1 << 2
_OFFSET: Final = 0x00FF_FFFF_FFFF_FE00
_COMPRESSED: Final = 1 << 62
_ZERO: Final = 1
_SECTOR: Final = 512


class DiskImage:
    """One image, open for reading. To be closed, or used as a context manager.

    Attributes:
        size: bytes of the disk.
    """

    def __init__(self, path: Path, *, qcow2: bool | None = None) -> None:
        """`qcow2`: whether it is of that format; None: as its first bytes say.

        Raises:
            UsageError: it cannot be read, or is a damaged qcow2 image.
        """
        self._path = path
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise UsageError(f"disk image {path} cannot be read: {error.strerror}") from None
        try:
            head = self._at(0, 512)
            self._l1: list[int] | None = None
            self._known = True
            if head[:4] == MAGIC if qcow2 is None else qcow2:
                self._read_header(head)
            else:
                self.size = self._file.seek(0, 2)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> DiskImage:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def read(self, offset: int, size: int) -> bytes | None:
        """The `size` bytes of the disk at `offset`, fewer at its end; None: not known here. Raises `UsageError`."""
        if self._l1 is None:
            return self._at(offset, size)
        found = bytearray()
        end = min(offset + size, self.size)
        while offset < end:
            inside = offset % self._cluster
            part = self._cluster_at(offset // self._cluster)
            if part is None:
                return None
            found += part[inside : inside + end - offset]
            offset += self._cluster - inside
        return bytes(found)

    def _at(self, offset: int, size: int) -> bytes:
        try:
            self._file.seek(offset)
            return self._file.read(size)
        except (OSError, OverflowError, ValueError) as error:
            raise UsageError(f"disk image {self._path} cannot be read: {error}") from None

    def _read_header(self, head: bytes) -> None:
        if len(head) < 104 or head[:4] != MAGIC:
            raise self._damaged("it has no header")
        _, version, backing, _, bits, self.size, crypt, entries, table = _HEADER.unpack_from(head)
        if version not in (2, 3) or not 9 <= bits <= 21 or entries > 1 << 20:
            raise self._damaged("its header cannot be")
        features = int.from_bytes(head[_FEATURES : _FEATURES + 8], "big") if version == 3 else 0
        self._cluster = 1 << bits
        self._bits = bits
        self._known = not (backing or crypt or features & (_EXTENDED_L2 | _EXTERNAL))
        # No more of it than the start of a disk takes, whatever it says.
        data = self._at(table, 8 * min(entries, 1 << 16))
        self._l1 = list(struct.unpack(f">{len(data) // 8}Q", data[: len(data) // 8 * 8]))

    def _cluster_at(self, number: int) -> bytes | None:
        """A cluster of the disk; None: not known here."""
        assert self._l1 is not None
        per_table = self._cluster // 8
        if not self._known or number // per_table >= len(self._l1):
            return None
        table = self._l1[number // per_table] & _OFFSET
        if table == 0:
            return bytes(self._cluster)
        data = self._at(table + 8 * (number % per_table), 8)
        if len(data) < 8:
            raise self._damaged("a table is behind its end")
        entry = int.from_bytes(data, "big")
        if entry & _COMPRESSED:
            return self._decompressed(entry)
        if entry & _ZERO or not entry & _OFFSET:
            return bytes(self._cluster)
        return self._at(entry & _OFFSET, self._cluster).ljust(self._cluster, b"\0")

    def _decompressed(self, entry: int) -> bytes | None:
        shift = 62 - (self._bits - 8)
        offset = entry & (1 << shift) - 1
        sectors = (entry & _COMPRESSED - 1) >> shift
        data = self._at(offset, (sectors + 1) * _SECTOR - offset % _SECTOR)
        try:
            return zlib.decompressobj(-15).decompress(data, self._cluster).ljust(self._cluster, b"\0")
        except zlib.error:
            return None

    def _damaged(self, why: str) -> UsageError:
        return UsageError(f"disk image {self._path} is a damaged qcow2 image: {why}")
