"""A disk with a GPT and an EFI system partition, made without root."""

from __future__ import annotations

import re
import struct
import subprocess
import uuid
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from qemu_sdei.host.debian import DebianCache
from qemu_sdei.host.unpack import extract

SECTOR: Final = 512
MIB: Final = 1 << 20
SYSTEM: Final = uuid.UUID("C12A7328-F81F-11D2-BA4B-00A0C93EC93B")
LINUX: Final = uuid.UUID("0FC63DAF-8483-4772-8E79-3D69D8477DE4")
"""Partition types: UEFI 2.10 table 5-7; Discoverable Partitions Specification."""
MTOOLS: Final = ("mformat", "mmd", "mcopy")
_ENTRY: Final = struct.Struct("<16s16sQQQ72s")


def write_gpt(path: Path, partitions: list[tuple[uuid.UUID, int]]) -> list[int]:
    """Make the disk `path` with partitions of these types and sizes in MiB. Returns their offsets in bytes.

    Raises:
        OSError: it cannot be written.
    """
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


def grub(cache: DebianCache, work: Path) -> Path:
    """Debian's GRUB for arm64, signed; unpacked into `work`.

    Raises:
        UsageError: its package cannot be had.
    """
    name = "grubaa64.efi.signed"
    pattern = re.compile(rf"\./usr/lib/grub/arm64-efi-signed/({re.escape(name)})")
    return extract(cache.package("grub-efi-arm64-signed"), pattern, work, last=name)[name].path


def fill_system_partition(image: Path, offset: int, megabytes: int, files: Mapping[str, Path]) -> None:
    """Make a FAT file system at an offset of an image, with these files in it: path there -> file here.

    Raises:
        OSError: mtools cannot be started.
        subprocess.SubprocessError: they fail.
    """
    where = f"{image}@@{offset}"

    def run(*command: str) -> None:
        subprocess.run(command, check=True, timeout=60, capture_output=True)

    run("mformat", "-i", where, "-F", "-T", str(megabytes * MIB // SECTOR), "-v", "EFI", "::")
    made = set()
    for path, file in files.items():
        for parent in reversed(Path(path).parents[:-1]):
            if parent not in made:
                made.add(parent)
                run("mmd", "-i", where, f"::{parent}")
        run("mcopy", "-i", where, str(file), f"::{path}")
