"""What a file is that has no ACPI tables in it: people give logs, sources and archives by mistake."""

from __future__ import annotations

import json
import re
from typing import Final

ASL: Final = "ACPI source (ASL): iasl compiles it"
TABLE_SOURCE: Final = "source of a table: iasl compiles it"
SOURCES: Final = (ASL, TABLE_SOURCE)
"""Kinds of text that have bytes in them as well, which may not be those of the source any more."""
_LOOK: Final = 4096
"""Bytes at the start that are looked at."""
_JSON_MAX: Final = 1 << 20

_MAGIC: Final = (
    (b"\x7fELF", "an ELF program or object"),
    (b"\x89PNG\r\n", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"%PDF-", "a PDF document"),
    (b"\x1f\x8b", "gzip: unpack it first (gunzip)"),
    (b"\xfd7zXZ\0", "xz: unpack it first (unxz)"),
    (b"BZh", "bzip2: unpack it first (bunzip2)"),
    (b"\x28\xb5\x2f\xfd", "zstd: unpack it first (unzstd)"),
    (b"PK\x03\x04", "a zip archive: unpack it first"),
    (b"070701", "a cpio archive, such as an initrd: unpack it first"),
    (b"\xd0\x0d\xfe\xed", "a flattened device tree (DTB): `qemu-sdei dt --dtb` and dtc read those"),
    (b"_SM_", "an SMBIOS entry point"),
    (b"_SM3_", "an SMBIOS entry point"),
    (b"QFI\xfb", "a qcow2 disk image"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"\xff\xfe", "UTF-16 text"),
    (b"\xfe\xff", "UTF-16 text"),
)
_AT: Final = (
    (257, b"ustar", "a tar archive: unpack it first"),
    (56, b"ARMd", "an arm64 kernel image"),
    (40, b"_FVH", "a UEFI firmware volume: the tables are in it, and of another form"),
)
_TEXTS: Final = (
    (r"\A#!", "a script"),
    (r"\A\s*/(dts-v1|plugin)/", "device-tree source: dtc compiles it, `qemu-sdei dt --dtb` reads the result"),
    (r"\A\s*<(\?xml|!DOCTYPE|html)", "XML or HTML"),
    (r"\bDefinitionBlock\s?\(", ASL),
    (r"^(\[[0-9A-Fa-f h]+\])?[ \t]*Signature : \"", TABLE_SOURCE),
    (r"^(<\d+>)?\[ *\d+\.\d{6}\]", "a kernel log"),
    (r"^[ \t]*#include\b|^.*\b(unsigned char|UINT8|uint8_t)\b.*[{;]", "C source"),
    (r"^[0-9a-fA-F]{4,8}:? ([0-9a-fA-F]{2,4} ){4}", "a hexadecimal dump that is not acpidump's"),
)  # fmt: skip
"""What text has in it, and what that makes it; the first that fits."""


def what(data: bytes) -> str:
    """What `data` is, for people, if it is plainly no ACPI table; "" if it may be one, damaged or not."""
    if not data:
        return "an empty file"
    if not any(data):
        return "nothing but zeros"
    if data.startswith(b"RSD PTR "):
        return ""
    for start, name in _MAGIC:
        if data.startswith(start):
            return name
    for at, mark, name in _AT:
        if data[at : at + len(mark)] == mark:
            return name
    if data[:2] == b"MZ" and b"PE\0\0" in data[:1024]:
        return "an EFI or Windows program"
    if is_text(data):
        return _text(data)
    head = data[:4]
    if len(data) > 8 and head.isascii() and not like_a_signature(head) and not _sound(data):
        return "binary data of a kind that is not known here"
    return ""


def is_text(data: bytes) -> bool:
    """Whether `data` is text. A table is not: each has a length below 16 MiB, so a 0 at offset 7."""
    head = data[:_LOOK]
    if len(data) <= 8 and like_a_signature(data[:4]):
        return False
    if any((byte < 0x20 and byte not in b"\t\n\r\f\x1b") or byte == 0x7F for byte in head):
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        # A character that the look ends in is no fault; other encodings have bytes above 0x7f here and there.
        return error.start >= len(head) - 3 or sum(byte > 0x7F for byte in head) * 8 < len(head)
    return True


def like_a_signature(head: bytes) -> bool:
    """Whether the four bytes are of the kind that tables begin with: capitals and digits ("ASF!" has one more)."""
    return re.fullmatch(rb"[A-Z_][A-Z0-9_]{2}[A-Z0-9_!]|RSD ", head) is not None


def _sound(data: bytes) -> bool:
    """Whether it is a whole table all the same, of whatever name."""
    size = int.from_bytes(data[4:8], "little")
    return 36 <= size <= len(data) and not sum(data[:size]) & 0xFF


def _text(data: bytes) -> str:
    head = data[:_LOOK].decode("utf-8", "replace")
    if head.lstrip()[:1] in ("{", "[") and _json(data):
        return "JSON"
    return next((name for pattern, name in _TEXTS if re.search(pattern, head, re.M)), "text without an acpidump in it")


def _json(data: bytes) -> bool:
    if len(data) > _JSON_MAX:
        return False
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True
