"""qcow2 images of given bytes, for the tests."""

from __future__ import annotations

import struct
import zlib

from scripts.disklib.layout import SECTOR


def qcow2_of(data: bytes, *, compressed: bool = False, bits: int = 16) -> bytes:
    """A qcow2 image (version 2) with these bytes, 2 GiB at most; clusters of zeroes are not there."""
    size = 1 << bits
    per_table = size // 8
    clusters = -(-len(data) // size)
    tables = -(-clusters // per_table)
    l1, l2 = [0] * max(tables, 1), [[0] * per_table for _ in range(tables)]
    at = (4 + tables) * size  # behind header, L1, the table of reference counts and its one block
    body = bytearray()
    for number in range(clusters):
        part = data[number * size : (number + 1) * size].ljust(size, b"\0")
        if not any(part):
            continue
        if compressed:
            packer = zlib.compressobj(9, zlib.DEFLATED, -12)
            packed = packer.compress(part) + packer.flush()
            start = at + len(body)
            sectors = (start % SECTOR + len(packed) - 1) // SECTOR
            entry = 1 << 62 | sectors << 62 - (bits - 8) | start
            body += packed
        else:
            body += bytes(-len(body) % size)
            entry = at + len(body) | 1 << 63
            body += part
        l2[number // per_table][number % per_table] = entry
    for number in range(tables):
        l1[number] = (4 + number) * size | 1 << 63
    header = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 2, 0, 0, bits, len(data), 0, len(l1), size, 2 * size, 1, 0, 0)
    used = 4 + tables + -(-len(body) // size)
    counts = struct.pack(f">{used}H", *[1] * used)[:size]
    parts = [
        header,
        struct.pack(f">{len(l1)}Q", *l1),
        struct.pack(">Q", 3 * size),
        counts,
        *(struct.pack(f">{per_table}Q", *table) for table in l2),
    ]
    return b"".join(part.ljust(size, b"\0") for part in parts) + bytes(body)
