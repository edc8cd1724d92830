"""Compares, and repairs, guest RAM on two hosts while both sides are paused: hashes go over, then what differs.

RAM is taken in chunks; a chunk without data, or of zeroes only, has the hash `_ZERO`. Both sides hash at once.

    source                              destination
    verify                       --->   hashes its own RAM
    hashes                       --->   compares
                                 <---   one bit for each chunk: differs
    each chunk that differs      --->   compares page by page, repairs
                                 <---   how many pages
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from qemu_sdei.errors import ProtocolError
from qemu_sdei.host.lost_pages import PAGE
from qemu_sdei.migration.ram import extents
from qemu_sdei.migration.remote_link import Link

CHUNK: Final = 1 << 16
HASH: Final = 16
"""Bytes of SHA-256 that are compared: nobody makes the two differ on purpose, both sides have the guest already."""
LIMIT: Final = 600.0
"""Seconds to wait until the other side has hashed its RAM."""
_ZERO: Final = bytes(HASH)
_ZEROES: Final = bytes(CHUNK)
_READ: Final = 1 << 20
_MAX_WORKERS: Final = 4
_BATCH: Final = 64
"""Chunks that are sent at once."""


def chunks(size: int) -> int:
    """How many chunks RAM of `size` bytes has."""
    return -(-size // CHUNK)


def hashes(fd: int, size: int) -> bytes:
    """The hashes of all chunks, one after the other, of a RAM file that nobody writes to meanwhile."""
    found = bytearray(HASH * chunks(size))
    workers = min(os.cpu_count() or 1, _MAX_WORKERS)
    with ThreadPoolExecutor(workers) as pool:  # the guest stands still, so its cores are free
        for at, part in pool.map(lambda piece: _hashes(fd, *piece), _pieces(fd, size)):
            index = at // CHUNK * HASH
            found[index : index + len(part)] = part
    return bytes(found)


def _pieces(fd: int, size: int) -> list[tuple[int, int]]:
    """Offset and length of what is allocated, on chunk boundaries, in parts of at most `_READ` bytes."""
    pieces: list[tuple[int, int]] = []
    at = 0
    for start, end in extents(fd, size):
        first, at = max(start // CHUNK * CHUNK, at), max(min(-(-end // CHUNK) * CHUNK, size), at)
        pieces += [(piece, min(_READ, at - piece)) for piece in range(first, at, _READ)]
    return pieces


def _hashes(fd: int, at: int, size: int) -> tuple[int, bytes]:
    data = os.pread(fd, size, at)
    found = []
    for offset in range(0, len(data), CHUNK):
        chunk = data[offset : offset + CHUNK]
        zero = chunk == _ZEROES[: len(chunk)]
        found.append(_ZERO if zero else hashlib.sha256(chunk).digest()[:HASH])
    return at, b"".join(found)


async def verify(link: Link, fd: int, size: int) -> int:
    """The source's side. Returns how many pages had not arrived, and were repaired there.

    Raises:
        SdeiError: it could not be found out.
    """
    await link.send({"cmd": "verify"})
    mine = await asyncio.to_thread(hashes, fd, size)
    await link.send({"cmd": "hashes"}, mine)
    answer = await link.answer(LIMIT)
    differing = await link.blob(answer, -(-chunks(size) // 8))
    wanted = [index for index in range(chunks(size)) if index // 8 < len(differing) and _bit(differing, index)]
    pages = 0
    for first in range(0, len(wanted), _BATCH):
        some = wanted[first : first + _BATCH]
        data = b"".join([os.pread(fd, min(CHUNK, size - index * CHUNK), index * CHUNK) for index in some])
        await link.send({"cmd": "repair", "chunks": some}, data)
        repaired = (await link.answer()).get("pages")
        if type(repaired) is not int or not 0 <= repaired <= len(data) // PAGE:
            raise ProtocolError("an answer is not of the protocol's form")
        pages += repaired
    return pages


class Verifier:
    """The destination's side, for one guest."""

    def __init__(self, fd: int, size: int, apart: range) -> None:
        """Pages at offsets in `apart` are repaired, and not counted."""
        self._fd, self._size, self._apart = fd, size, apart

    async def verify(self, link: Link) -> None:
        """After `verify` has come: say which chunks differ. Raises `SdeiError`."""
        own = asyncio.ensure_future(asyncio.to_thread(hashes, self._fd, self._size))
        try:
            message = await link.receive(LIMIT)
            theirs = await link.blob(message, HASH * chunks(self._size))
        finally:
            mine = await asyncio.shield(own)  # the descriptor must stay until it is done
        if message.get("cmd") != "hashes" or len(theirs) != len(mine):
            raise ProtocolError("the hashes of RAM are not of the protocol's form")
        differing = bytearray(-(-chunks(self._size) // 8))
        for index in range(chunks(self._size)):
            part = slice(index * HASH, (index + 1) * HASH)
            if mine[part] != theirs[part]:
                differing[index // 8] |= 1 << index % 8
        await link.send({"ok": True}, differing if any(differing) else b"")

    async def repair(self, link: Link, message: dict[str, Any]) -> int:
        """Take chunks that differ. Returns the pages that did. Raises `SdeiError`."""
        some = message.get("chunks")
        limit = chunks(self._size)
        if (
            not isinstance(some, list)
            or len(some) > _BATCH
            or any(type(n) is not int or not 0 <= n < limit for n in some)
        ):
            raise ProtocolError("the chunks of RAM are not of the protocol's form")
        sizes = [min(CHUNK, self._size - index * CHUNK) for index in some]
        data = await link.blob(message, sum(sizes))
        if len(data) != sum(sizes):
            raise ProtocolError("the chunks of RAM are not of the protocol's form")
        pages = at = 0
        for index, size in zip(some, sizes, strict=True):
            old = os.pread(self._fd, size, index * CHUNK)
            for offset in range(0, size, PAGE):
                page = data[at + offset : at + offset + PAGE]
                if page != old[offset : offset + PAGE]:
                    os.pwrite(self._fd, page, index * CHUNK + offset)
                    pages += index * CHUNK + offset not in self._apart
            at += size
        return pages


def _bit(bits: bytes, index: int) -> bool:
    return bool(bits[index // 8] >> index % 8 & 1)
