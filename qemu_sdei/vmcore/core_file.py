"""An ELF core file of a kernel: its notes, and the memory that it has, by physical address.

What Linux gives as /proc/vmcore (fs/proc/vmcore.c). It is of a guest that crashed, or of anybody: each number in it may
be a lie.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import Final

from qemu_sdei import paths, untrusted_files
from qemu_sdei.errors import UsageError
from qemu_sdei.symbols import notes as elf_notes

MAX_SEGMENTS: Final = 4096
MAX_NOTES: Final = 2 << 20
"""Bytes of all notes: a CPU's registers are 400."""
_MAX_FILE: Final = 1 << 52
_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT: Final = struct.Struct("<IIQQQQQQ")
_CORE, _AARCH64 = 4, 183
_LOAD, _NOTES = 1, 4


@dataclass(frozen=True)
class Segment:
    """Memory that the file has: `size` bytes from the physical address `start` on."""

    start: int
    size: int
    offset: int
    """In the file."""


@dataclass(frozen=True)
class Note:
    """A note of the ELF format."""

    name: str
    kind: int
    data: bytes


class Core:
    """An open core file; a context manager. Raises `UsageError` for what is none."""

    def __init__(self, path: str | Path) -> None:
        self.path = paths.absolute(path)
        self._file = untrusted_files.opened(paths.resolved(path), _MAX_FILE)
        try:
            self.size = os.fstat(self._file.fileno()).st_size
            """Bytes of the file."""
            notes, self.segments = _layout(self.path, self._file)
            self.needed = max((part.offset + part.size for part in (*notes, *self.segments)), default=0)
            """Bytes that the file has if it is whole."""
            if (size := sum(part.size for part in notes)) > MAX_NOTES:
                raise UsageError(f"{self.path} is a damaged core file: it has {size} bytes of notes")
            self.notes = [note for part in notes for note in self._notes(part)]
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Core:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def whole(self) -> bool:
        """Nothing of it is cut off."""
        return self.size >= self.needed

    def read(self, start: int, size: int) -> bytes:
        """`size` bytes of memory from the physical address `start` on. Raises `UsageError`: the file has them not."""
        for segment in self.segments:
            if segment.start <= start and start + size <= segment.start + segment.size:
                return self._at(segment.offset + start - segment.start, size)
        raise UsageError(f"{self.path} has no memory at {start:#x} ({size} bytes)")

    def _at(self, offset: int, size: int) -> bytes:
        try:
            self._file.seek(offset)
            data = self._file.read(size)
        except (OSError, ValueError, OverflowError) as error:
            raise UsageError(f"{self.path} cannot be read: {getattr(error, 'strerror', error)}") from None
        if len(data) < size:
            raise UsageError(f"{self.path} is cut short: it has {self.size} of {self.needed} bytes")
        return data

    def _notes(self, part: Segment) -> list[Note]:
        data = self._at(part.offset, part.size)
        found: list[Note] = []
        for name, kind, description in elf_notes.each(data):
            if not name:
                break  # Linux pads with zeroes
            found.append(Note(name.rstrip(b"\0").decode("ascii", "replace"), kind, description))
        return found


def _layout(path: Path, file: BufferedReader) -> tuple[list[Segment], list[Segment]]:
    """Where notes and memory are. Raises `UsageError`."""
    try:
        head = file.read(_HEADER.size)
        if head[:4] != b"\x7fELF":
            raise UsageError(f"{path} is not a vmcore: {_what(head)}")
        if len(head) < _HEADER.size:
            raise UsageError(f"{path} is cut short: it has {len(head)} bytes")
        ident, kind, machine, _, _, table, _, _, _, row, rows, *_ = _HEADER.unpack(head)
        if ident[4:6] != b"\2\1" or kind != _CORE or machine != _AARCH64:
            raise UsageError(f"{path} is not a vmcore of arm64: an ELF file of type {kind} for machine {machine}")
        if row != _SEGMENT.size or not 0 < rows <= MAX_SEGMENTS:
            raise UsageError(f"{path} is a damaged core file: it has {rows} segments of {row} bytes")
        file.seek(table)
        data = file.read(row * rows)
    except (OSError, ValueError, OverflowError) as error:
        raise UsageError(f"{path} cannot be read: {getattr(error, 'strerror', error)}") from None
    if len(data) < row * rows:
        raise UsageError(f"{path} is cut short, in its headers")
    notes: list[Segment] = []
    memory: list[Segment] = []
    for kind, _, offset, _, physical, size, _, _ in _SEGMENT.iter_unpack(data):
        if offset + size > _MAX_FILE or physical + size > 1 << 64:
            raise UsageError(f"{path} is a damaged core file: a segment of {size} bytes at {offset}")
        if kind in (_NOTES, _LOAD):
            (notes if kind == _NOTES else memory).append(Segment(physical, size, offset))
    if not notes:
        raise UsageError(f"{path} is a core file without notes: no kernel's")
    return notes, memory


def _what(head: bytes) -> str:
    if head.startswith((b"KDUMP   ", b"DISKDUMP", b"makedumpfile")):
        return "a dump compressed by makedumpfile, which only crash and drgn read"
    return "an empty file" if not head else "no ELF file; was it copied to its end?" if not any(head) else "no ELF file"
