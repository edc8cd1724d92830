"""Compares, and repairs, guest RAM on both sides of a migration while both are paused.

For files and memfds that both lie on this host. Pages that neither has ever written are holes, and not looked at.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from qemu_sdei.errors import ProtocolError
from qemu_sdei.host.lost_pages import PAGE

_CHUNK: Final = 1 << 20
_MAX_WORKERS: Final = 4


def extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """(start, end) of what is allocated of a RAM file of `size` bytes, in bytes and in order."""
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
            end = os.lseek(fd, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        yield min(start, size), min(end, size)
        at = end


def _union(size: int, *fds: int) -> Iterator[tuple[int, int]]:
    """What is allocated in any of the files, in order and without overlap, on page boundaries."""
    at = 0
    for start, end in sorted(extent for fd in fds for extent in extents(fd, size)):
        start, end = max(start & -PAGE, at), min((end + PAGE - 1) & -PAGE, size)
        if start < end:
            yield start, end
            at = end


def compare(source: int, destination: int, size: int, *, repair: bool = True, apart: range = range(0)) -> list[int]:
    """Offsets of the pages that differ between two RAM files of `size` bytes; with `repair` they are made equal to the
    source's. The descriptors must be of regular files or memfds that nobody writes to meanwhile. Pages at offsets that
    are in `apart` are repaired, but not told of.
    """
    chunks = [
        (at, min(_CHUNK, end - at))
        for start, end in _union(size, source, destination)
        for at in range(start, end, _CHUNK)
    ]
    # The guest stands still, so its cores are free; reading lets go of Python's lock.
    workers = min(os.cpu_count() or 1, _MAX_WORKERS)
    with ThreadPoolExecutor(workers) as pool:
        parts = pool.map(lambda n: _compare(source, destination, chunks[n::workers], repair), range(workers))
        return sorted(page for part in parts for page in part if page not in apart)


def _compare(source: int, destination: int, chunks: list[tuple[int, int]], repair: bool) -> list[int]:
    differing: list[int] = []
    # Reads, not mappings: a mapping costs a page fault for each page, which is five times as much.
    left, right = bytearray(_CHUNK), bytearray(_CHUNK)
    for chunk, size in chunks:
        if size != len(left):
            left, right = bytearray(size), bytearray(size)
        _read(source, left, chunk)
        _read(destination, right, chunk)
        if left == right:
            continue
        for page in range(0, size, PAGE):
            good = left[page : page + PAGE]
            if good != right[page : page + PAGE]:
                differing.append(chunk + page)
                if repair:
                    os.pwrite(destination, good, chunk + page)
    return differing


def _read(fd: int, into: bytearray, at: int) -> None:
    if os.preadv(fd, [into], at) != len(into):
        raise ProtocolError(f"a RAM file is shorter than {at + len(into)} bytes")
