"""Records in whatever form people have them: bytes, hexadecimal text, base64, JSON."""

from __future__ import annotations

import base64
import contextlib
import re
from collections.abc import Iterator
from typing import Any, Final

from qemu_sdei import bounded
from qemu_sdei.errors import CperError
from qemu_sdei.ras.block import MAX_SIZE, Block, parse_blocks
from qemu_sdei.ras.kinds import KINDS, Kinds
from qemu_sdei.ras.libcper import from_json
from qemu_sdei.ras.record import SIGNATURE, Record, parse_records

MAX_INPUT: Final = 16 * MAX_SIZE
"""Bytes of what is read; text takes more of them than what it says."""
_HEX: Final = re.compile(rb"(?:0x)?[0-9a-fA-F\s]+")
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/\s]+={0,2}\s*")


def records(data: bytes, kinds: Kinds = KINDS) -> list[Record | Block]:
    """All records and status blocks in `data`.

    Args:
        data: bytes of records or of status blocks, one behind the other; the same in hexadecimal or in base64; JSON
            of one, or of a list.
        kinds: of sections.

    Raises:
        CperError: there are none, or one is damaged.
    """
    if len(data) > MAX_INPUT:
        raise CperError(f"{len(data)} bytes are too many: {MAX_INPUT} is most")
    stripped = data.strip()
    if not stripped:
        raise CperError("there is nothing in it")
    if stripped[:1] in (b"{", b"["):
        return _json(stripped, kinds)
    errors: list[CperError] = []
    for form in _forms(data, stripped):
        try:
            return _parsed(form, kinds)
        except CperError as error:
            errors.append(error)
    if len(errors) == 1 and data.isascii() and not stripped.startswith(SIGNATURE):
        raise CperError("it is no record and no status block, neither as bytes nor in hexadecimal, base64 or JSON")
    raise errors[0]


def _forms(data: bytes, stripped: bytes) -> Iterator[bytes]:
    """What the bytes can be, the likeliest first."""
    digits = b"".join(stripped.removeprefix(b"0x").split())
    if _HEX.fullmatch(stripped) and len(digits) % 2 == 0:
        yield bytes.fromhex(digits.decode("ascii"))
    elif _BASE64.fullmatch(stripped):
        with contextlib.suppress(ValueError):
            yield base64.b64decode(b"".join(stripped.split()), validate=True)
    yield data


def _parsed(data: bytes, kinds: Kinds) -> list[Record | Block]:
    if data.startswith(SIGNATURE):
        return list(parse_records(data, kinds))
    return list(parse_blocks(data, kinds))


def _json(text: bytes, kinds: Kinds) -> list[Record | Block]:
    try:
        document: Any = bounded.loads(text)
    except (ValueError, UnicodeDecodeError) as error:
        raise CperError(f"it is not JSON: {error}") from None
    if not isinstance(document, list):
        return [from_json(document, kinds)]
    found: list[Record | Block] = []
    total = 0
    for number, each in enumerate(document):
        try:
            found.append(from_json(each, kinds))
        except CperError as error:
            raise error.below(f"[{number}]") from None
        total += len(found[-1].pack())
        if total > MAX_INPUT:
            raise CperError(f"they have more than {MAX_INPUT} bytes", field=f"[{number}]")
    if not found:
        raise CperError("there is nothing in it")
    return found
