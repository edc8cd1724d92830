"""A user's own ACPI tables, and errors of a boot that was before the first one: checked, and as text for `BootConfig`.

They travel in the guest's configuration, so that a reset has them wherever the guest is then. It may come from a
stranger: whoever reads it checks as whoever wrote it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Final

from qemu_sdei.acpi.table import HEADER_SIZE, checksum
from qemu_sdei.errors import CperError, UsageError

MAX_TABLES: Final = 64 << 10
"""Bytes of all tables of a user's together."""
MAX_ERRORS: Final = 48 << 10
"""Bytes of all errors of the boot before the first."""
MANY: Final = frozenset(("SSDT", "PSDT", "UEFI"))
"""Tables of which there may be several."""
_ROOT: Final = frozenset(("RSDT", "XSDT", "DSDT", "FACS", "FACP"))
"""Tables by which the others are found: QEMU's, and changed by us."""


def check_table(data: bytes) -> str:
    """The signature of a table that a guest can be given. Raises UsageError: it is none, with the reason."""
    signature = data[:4].decode("ascii", "replace")
    if not _is_signature(signature):
        raise UsageError("it does not begin with the signature of an ACPI table")
    if signature == "RSD " or signature in _ROOT:
        raise UsageError(f"{signature.strip()} is a table of the machine's own: no other can take its place")
    if len(data) < HEADER_SIZE:
        raise UsageError(f"{signature} has {len(data)} bytes: a table has {HEADER_SIZE} at least")
    length = int.from_bytes(data[4:8], "little")
    if length != len(data):
        raise UsageError(
            f"{signature} names a length of {length} bytes and has {len(data)}: it is cut, or more than one"
        )
    if checksum(data):
        raise UsageError(f"{signature} has a wrong checksum: it is damaged, or was changed by hand")
    return signature


def _is_signature(text: str) -> bool:
    return len(text) == 4 and text.isascii() and text.replace(" ", "").replace("_", "").isalnum() and text[0] != " "


def packed(tables: Iterable[bytes]) -> tuple[str, ...]:
    """As text. Raises UsageError: they are too many bytes."""
    found = tuple(tables)
    total = sum(map(len, found))
    if total > MAX_TABLES:
        raise UsageError(f"{total} bytes of ACPI tables are too many: {MAX_TABLES} are possible")
    return tuple(base64.b64encode(data).decode("ascii") for data in found)


def unpacked(texts: Iterable[str]) -> tuple[bytes, ...]:
    """The tables of `packed`, checked. Raises UsageError."""
    tables = tuple(_bytes(text) for text in texts)
    for data in tables:
        check_table(data)
    packed(tables)
    return tables


def check_errors(data: bytes) -> None:
    """Whether these bytes are status blocks as a BERT's region has them. Raises UsageError."""
    from qemu_sdei.ras.block import parse_blocks

    if len(data) > MAX_ERRORS:
        raise UsageError(f"{len(data)} bytes of boot errors are too many: {MAX_ERRORS} are possible")
    try:
        blocks = parse_blocks(data)
    except CperError as error:
        raise UsageError(f"the boot errors are damaged: {error}") from None
    if not all(block.entries for block in blocks):
        raise UsageError("a boot error has no entry: a kernel takes it for the end")


def unpacked_errors(text: str) -> bytes:
    """The bytes of a BERT's region, checked. Raises UsageError."""
    data = _bytes(text)
    if data:
        check_errors(data)
    return data


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise UsageError("what is to be added to the ACPI tables is not base64") from None
