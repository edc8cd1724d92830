"""Tables put together by hand, so that what reads them is tested against something that did not write them."""

from __future__ import annotations

import struct


def table(signature: bytes, body: bytes, revision: int = 1, oem_revision: int = 1) -> bytes:
    """A table with a header and a right checksum."""
    length = 36 + len(body)
    head = signature + struct.pack(
        "<IBB6s8sI4sI", length, revision, 0, b"OEMID ", b"TABLEID ", oem_revision, b"MADE", 1
    )
    data = bytearray(head + body)
    data[9] = -sum(data) & 0xFF
    return bytes(data)


SDEI = table(b"SDEI", b"")
AGDI = table(b"AGDI", struct.pack("<BB2xII", 0, 0, 0x4000_0001, 0))
SSDT = table(b"SSDT", b"\x08X000\x0c\x78\x56\x34\x12", revision=2)
"""Name (X000, 0x12345678)"""
