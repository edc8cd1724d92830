"""Kernel images to test with: headers as Documentation/arch/arm64/booting.rst and zboot-header.S describe them."""

from __future__ import annotations

import struct

MIB = 1 << 20


def arm64_image(
    size: int = 3 * MIB,
    *,
    text_offset: int = 0,
    image_size: int | None = None,
    flags: int = 0xA,
    magic: bytes = b"ARMd",
) -> bytes:
    """An arm64 Image of `size` bytes; `image_size` is one MiB more unless given."""
    header = struct.pack(
        "<2I3Q24x4sI", 0xFA40_5A4D, 0x1400_0000, text_offset, size + MIB if image_size is None else image_size, flags,
        magic, 0x40,
    )  # fmt: skip
    body = b"kernel text " * (size // 12 + 1)
    return (header + body)[:size]


def zboot(
    payload: bytes, method: bytes, *, offset: int = 0x200, size: int | None = None, machine: int = 0xAA64
) -> bytes:
    """An EFI zboot kernel whose payload is compressed already."""
    header = bytearray(0x200)
    struct.pack_into(
        "<2sxx4sII8x32s", header, 0, b"MZ", b"zimg", offset, len(payload) if size is None else size, method
    )
    struct.pack_into("<I", header, 0x3C, 0x80)
    struct.pack_into("<4sH", header, 0x80, b"PE\0\0", machine)
    return bytes(header) + payload
