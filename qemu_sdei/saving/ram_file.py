"""A guest's RAM in a file of its own: only the pages that have something in them.

QEMU reads each page of a stream into RAM, those of zeroes too, and what of shared memory is looked at takes room from
then on. So a guest whose RAM is beside the stream comes back sooner, and in less memory.

The file: MAGIC, the number of extents and the size of RAM (`_HEAD`), for each extent its offset in RAM and its length,
all of them bytes, and then what is in them, one after the other.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from qemu_sdei import untrusted_files
from qemu_sdei.errors import UsageError
from qemu_sdei.host.lost_pages import PAGE
from qemu_sdei.migration.ram import extents

MAGIC: Final = b"qsdeiRAM"
_HEAD: Final = struct.Struct("<8sQQ")
_EXTENT: Final = struct.Struct("<QQ")
_CHUNK: Final = 1 << 20
_ZEROES: Final = bytes(_CHUNK)


def limit(ram_size: int) -> int:
    """Bytes that the file of RAM of `ram_size` bytes can have."""
    return _HEAD.size + ram_size + ram_size // PAGE * _EXTENT.size


def write(path: Path, fd: int, size: int) -> None:
    """Write the RAM of a guest that is paused, `size` bytes of the file `fd`. Raises `OSError`."""
    found = list(_joined(_written(fd, size)))
    with path.open("xb") as file:
        file.write(_HEAD.pack(MAGIC, len(found), size))
        file.writelines(_EXTENT.pack(start, end - start) for start, end in found)
        for start, end in found:
            for at in range(start, end, _CHUNK):
                file.write(os.pread(fd, min(_CHUNK, end - at), at))


def _written(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """(start, end) of what is not zero, page by page or in larger pieces."""
    for start, end in extents(fd, size):
        for at in range(start & -PAGE, end, _CHUNK):
            data = os.pread(fd, min(_CHUNK, end - at), at)
            if data == _ZEROES[: len(data)]:
                continue
            for page in range(0, len(data), PAGE):
                if data[page : page + PAGE] != _ZEROES[: min(PAGE, len(data) - page)]:
                    yield at + page, min(at + page + PAGE, size)


def _joined(pages: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    begin = last = 0
    for start, end in pages:
        if end <= last:
            continue  # a page that holds the ends of two extents, on a file system of small blocks
        if start != last:
            if last:
                yield begin, last
            begin = start
        last = end
    if last:
        yield begin, last


def load(path: Path, fd: int, size: int, digest: str) -> None:
    """Fill the file `fd`, which is `size` bytes of zeroes, with the RAM of the file `path`.

    `digest`: SHA-256 that the file is to have, in hex digits. Raises `UsageError`: it has another one, or is no such
    file; what is in `fd` must not be used then.
    """
    damaged = UsageError(f"{path} is damaged, or of another saved guest")
    sums = hashlib.sha256()
    with untrusted_files.opened(path, limit(size)) as file:

        def take(count: int) -> bytes:
            data = file.read(count)
            if len(data) != count:
                raise damaged
            sums.update(data)
            return data

        try:
            magic, count, ram_size = _HEAD.unpack(take(_HEAD.size))
            if magic != MAGIC or ram_size != size or count > size // PAGE:
                raise damaged
            last = 0
            for start, length in list(_EXTENT.iter_unpack(take(count * _EXTENT.size))):
                if start < last or not 0 < length <= size - start:
                    raise damaged
                last = start + length
                for at in range(start, last, _CHUNK):
                    os.pwrite(fd, take(min(_CHUNK, last - at)), at)
            if file.read(1) or sums.hexdigest() != digest:
                raise damaged
        except OSError as error:
            raise UsageError(f"{path} cannot be loaded: {error.strerror}") from None
