"""Disk images of the tests: a GPT with an EFI system partition, and qcow2 images of given bytes."""

from __future__ import annotations

import struct
import uuid
import zlib
from pathlib import Path

SECTOR = 512
MIB = 1 << 20
SYSTEM = uuid.UUID("C12A7328-F81F-11D2-BA4B-00A0C93EC93B")
LINUX = uuid.UUID("0FC63DAF-8483-4772-8E79-3D69D8477DE4")
_ENTRY = struct.Struct("<16s16sQQQ72s")


def write_gpt(path: Path, partitions: list[tuple[uuid.UUID, int]]) -> list[int]:
    """Make the disk `path` with partitions of these types and sizes in MiB. Returns their offsets in bytes."""
    end = 1 + sum(size for _, size in partitions) + 1
    sectors = end * MIB // SECTOR
    entries = bytearray()
    offsets = []
    at = MIB
    for number, (kind, size) in enumerate(partitions, 1):
        first, last = at // SECTOR, (at + size * MIB) // SECTOR - 1
        entries += _ENTRY.pack(kind.bytes_le, uuid.UUID(int=number).bytes_le, first, last, 0, b"")
        offsets.append(at)
        at += size * MIB
    entries = entries.ljust(128 * 128, b"\0")

    def header(mine: int, other: int, table: int) -> bytes:
        def pack(crc: int) -> bytes:
            return struct.pack(
                "<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, crc, 0, mine, other, 34, sectors - 34,
                uuid.UUID(int=99).bytes_le, table, 128, 128, zlib.crc32(entries),
            )  # fmt: skip

        return pack(zlib.crc32(pack(0))).ljust(SECTOR, b"\0")

    protective = struct.pack("<446x BBBBBBBB II 48x H", 0, 0, 2, 0, 0xEE, 255, 255, 255, 1, sectors - 1, 0xAA55)
    with path.open("wb") as file:
        file.write(protective + header(1, sectors - 1, 2) + entries)
        file.truncate(sectors * SECTOR)
        file.seek((sectors - 33) * SECTOR)
        file.write(entries + header(sectors - 1, 1, sectors - 33))
    return offsets


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
