"""Timestamps of error records: eight bytes, each BCD but the flags (UEFI 2.10 table N.2, "Timestamp")."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Final

from qemu_sdei.errors import CperError

SIZE: Final = 8
PRECISE: Final = 3
"""Offset of the byte whose bit 0 says that it is the time of the error, and not of its being collected."""
_ORDER: Final = (7, 6, 5, 4, 2, 1, 0)
"""Offsets of century, year, month, day, hours, minutes, seconds."""
_TOPS: Final = (99, 99, 12, 31, 24, 60, 59)
_TEXT: Final = re.compile(r"(\d\d)(\d\d)-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:\+00:00|Z)?")


def text(data: bytes) -> str:
    """Such as "2026-11-30T12:00:00+00:00"; "" if these eight bytes are no time."""
    parts = []
    for offset, top in zip(_ORDER, _TOPS, strict=True):
        high, low = data[offset] >> 4, data[offset] & 15
        if high > 9 or low > 9 or high * 10 + low > top:
            return ""
        parts.append(f"{high}{low}")
    century, year, month, day, hours, minutes, seconds = parts
    return f"{century}{year}-{month}-{day}T{hours}:{minutes}:{seconds}+00:00"


def precise(data: bytes) -> bool:
    """Whether it is the time of the error itself."""
    return bool(data[PRECISE] & 1)


def packed(given: Any, *, is_precise: bool = False) -> bytes:
    """The eight bytes of a `datetime` (without a zone: UTC), or of text as `text` gives it. Raises `CperError`."""
    if isinstance(given, datetime):
        moment = given.astimezone(UTC) if given.tzinfo else given
        given = f"{moment.year:04}-{moment:%m-%dT%H:%M:%S}"
    found = _TEXT.fullmatch(given) if isinstance(given, str) else None
    if found is None:
        raise CperError(f"{str(given)[:60]!r} is no time such as 2026-11-30T12:00:00+00:00")
    out = bytearray(SIZE)
    for offset, part in zip(_ORDER, found.groups(), strict=True):
        out[offset] = int(part, 16)
    out[PRECISE] = is_precise
    if not text(bytes(out)):
        raise CperError(f"there is no such time as {given}")
    return bytes(out)
