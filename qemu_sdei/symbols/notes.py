"""Build ids: which build of a program a file or a running kernel is.

The linker computes one over the program (`ld --build-id`), and puts it into an ELF note: type NT_GNU_BUILD_ID, name
"GNU" (elf.h). A running Linux shows its notes in /sys/kernel/notes, and since 6.0 its build id in VMCOREINFO.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Final

MAX_NOTES: Final = 1 << 16
"""Bytes of notes that are read. A kernel has some hundred."""
_NOTE: Final = struct.Struct("<3I")
_BUILD_ID: Final = 3
_MIN_ID, _MAX_ID = 8, 64
"""Bytes. SHA-1 has 20."""


def build_id(notes: bytes) -> str | None:
    """The build id among ELF notes, in hex digits; None: it is not among them, or these are no notes."""
    for name, kind, description in each(notes[:MAX_NOTES]):
        if name == b"GNU\0" and kind == _BUILD_ID and _MIN_ID <= len(description) <= _MAX_ID:
            return description.hex()
    return None


def is_notes(data: bytes) -> bool:
    """Whether `data` begins as ELF notes do: a copy of /sys/kernel/notes."""
    return 12 < len(data) <= MAX_NOTES and build_id(data) is not None


def vmcoreinfo(text: str) -> dict[str, str]:
    """The KEY=VALUE lines of VMCOREINFO (Linux: Documentation/admin-guide/kdump/vmcoreinfo.rst), such as OSRELEASE,
    BUILD-ID, KERNELOFFSET.
    """
    found = re.findall(r"^([A-Z][\w.()-]*)=(\S+)\s*$", text, re.M)
    return dict(found)


def each(data: bytes) -> Iterator[tuple[bytes, int, bytes]]:
    """Name with its NUL, type and description of each note, as far as they make sense. Both are padded to 4 bytes."""
    at = 0
    while at + _NOTE.size <= len(data):
        name_size, size, kind = _NOTE.unpack_from(data, at)
        begin = at + _NOTE.size
        body = begin + (name_size + 3 & ~3)
        if body + size > len(data):
            return
        yield data[begin : begin + name_size], kind, data[body : body + size]
        at = body + (size + 3 & ~3)
