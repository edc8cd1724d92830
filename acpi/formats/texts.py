"""Tables in text as people send it: dumps through mail, logs and PowerShell; xxd, hexdump, acpiview; C arrays; digits.

What these come to is bounded by a small multiple of the text, whatever the text is.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterator
from typing import Final

from acpi.errors import AcpiError

_GZIP: Final = b"\x1f\x8b"
_MAX_UNPACKED: Final = 64 << 20
_MAX_RATIO: Final = 64
"""Bytes of text for each byte of gzip; dumps of tables have some 10."""
_SMALL: Final = 1 << 20
_MAX_REPEATED: Final = 64 << 10
"""Bytes that a `*` in a hexdump may stand for."""
_LEAST: Final = 36
"""Bytes of the smallest table."""
_COUNT: Final = 16
"""Bytes of a row."""

_PREFIX: Final = re.compile(r"(?:[ \t]?>)*[ \t]?(?:<\d+>)?(?:\[ *\d+\.\d+\] ?)?")
"""What mail and kernel logs put in front of a line: `> `, `[    1.000001] `."""
_MARKED: Final = re.compile(rb"^[ \t]?[>\[<]", re.M)
_LINE: Final = re.compile(r"^[ \t]*(?:[0-9a-fA-F]{4,8}\b.*|\*[ \t]*)$", re.M)
_ROW: Final = re.compile(r"\s*([0-9a-fA-F]{4,8})(?: ?:\s|\s\s|(?<=[0-9a-fA-F]{6})\s)\s*(?=[0-9a-fA-F]{2})")
_COLUMN: Final = re.compile(r"((?:[0-9a-fA-F]{2}){1,8})(?=\s|$|\|)(?:[ \t]-)?[ \t]?")
_BRACES: Final = re.compile(r"\{([^{}]*)\}")
_C_BYTE: Final = re.compile(r"\b0[xX]([0-9a-fA-F]{1,2})\b")
_COMMENT: Final = re.compile(r"/\*.*?(?:\*/|\Z)|//[^\n]*", re.S)
"""One without an end takes the rest: looked for from each begin, that would take the square of the text's size."""
_SPACES: Final = b" \t\n\r\f\v"


def unpacked(data: bytes) -> bytes:
    """`data`, or what is in it if it is gzip.

    Raises:
        AcpiError: it is damaged, or unpacks to more than anybody sends.
    """
    if not data.startswith(_GZIP):
        return data
    most = min(_MAX_UNPACKED, max(_SMALL, _MAX_RATIO * len(data)))
    stream = zlib.decompressobj(wbits=31)
    try:
        out = stream.decompress(data, most + 1)
    except zlib.error:
        raise AcpiError("damaged gzip") from None
    if len(out) > most:
        raise AcpiError(f"gzip that unpacks to more than {most} bytes")
    if not stream.eof:
        raise AcpiError("gzip that is cut short")
    return out


def is_utf16(data: bytes) -> bool:
    """Whether `data` begins as UTF-16 text does."""
    return data[:2] in (b"\xff\xfe", b"\xfe\xff")


def plain(data: bytes) -> bytes:
    """A text without what surrounds its lines: UTF-16, hard spaces, marks of quotation, times of a log."""
    if is_utf16(data):
        data = data.decode("utf-16", "replace").encode()
    data = data.removeprefix(b"\xef\xbb\xbf").replace(b"\xc2\xa0", b" ")
    if _MARKED.search(data) is None:
        return data
    out = bytearray()
    # Line by line: a list of all would have many times the bytes of a text of short ones.
    for line in io.TextIOWrapper(io.BytesIO(data), "latin-1", newline=""):
        match = _PREFIX.match(line)
        start = match.end() if match is not None and match[0].strip() else 0
        out += line[start:].encode("latin-1")
    return bytes(out)


def binaries(text: bytes) -> list[bytes]:
    """What bytes a text shows that is no acpidump, in its order; [] if it shows none."""
    words = text.decode("latin-1")
    return list(_dumps(words)) or _digits(words) or list(_arrays(words))


def _digits(text: str) -> list[bytes]:
    """Digits and nothing else."""
    if not re.fullmatch(r"[0-9a-fA-F \t\n\r\f\v]*", text):
        return []
    digits = text.encode("latin-1").translate(None, _SPACES).decode("latin-1")
    return [bytes.fromhex(digits)] if len(digits) >= 2 * _LEAST and len(digits) % 2 == 0 else []


def _arrays(text: str) -> Iterator[bytes]:
    """Arrays of bytes in C."""
    if "0x" not in text and "0X" not in text:
        return
    for block in _BRACES.finditer(_COMMENT.sub("", text)):
        found = bytes(int(byte[1], 16) for byte in _C_BYTE.finditer(block[1]))
        if len(found) >= _LEAST:
            yield found


def _dumps(text: str) -> Iterator[bytes]:
    """Rows of offset and bytes, from offset 0 on: xxd, hexdump -C, od -A x -t x1, EDK2's acpiview."""
    data, row, repeat = bytearray(), b"", False
    for line in _LINE.finditer(text.replace("\r", "")):
        if line[0].strip() == "*":
            repeat = bool(data)
            continue
        found = _row(line[0])
        if found is None:
            continue
        offset, got = found
        if repeat and len(data) < offset <= len(data) + _MAX_REPEATED and not (offset - len(data)) % _COUNT:
            data += row * ((offset - len(data)) // len(row))
        repeat = False
        if offset == 0 and data:
            if len(data) >= _LEAST:
                yield bytes(data)
            data = bytearray()
        if offset == len(data):
            data += got
            row = got
    if len(data) >= _LEAST:
        yield bytes(data)


def _row(line: str) -> tuple[int, bytes] | None:
    start = _ROW.match(line)
    if start is None:
        return None
    # hexdump -C has a gap between its two halves, and its text between bars; others have a gap before their text.
    bars = line.find("|", start.end())
    end = len(line) if bars < 0 else bars
    at, digits = start.end(), ""
    while at < end and len(digits) < 2 * _COUNT and (column := _COLUMN.match(line, at, end)) is not None:
        digits += column[1]
        at = column.end() + (bars >= 0 and line[column.end() : column.end() + 1] == " ")
    return int(start[1], 16), bytes.fromhex(digits[: 2 * _COUNT])
