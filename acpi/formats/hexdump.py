"""Tables as plain hexadecimal digits: what `xxd -r -p` turns back, and what passes through a mail or a console."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_ROW: Final = 32


def write(tables: Sequence[bytes]) -> str:
    """The bytes of all tables one after another, each table on lines of its own."""
    return "".join(table[at : at + _ROW].hex() + "\n" for table in tables for at in range(0, len(table), _ROW))
