"""The fields of a record as a reader sees them who opens it: names and values.

What is in them may be a guest's: it is made safe where it is put into a page (page_text.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from qemu_sdei.views.moments import Record
from qemu_sdei.views.page_text import hexadecimal

_COLUMNS: Final = frozenset(
    (
        *("n", "type", "vcpu", "time_ns", "at_ns", "at_error_ns", "counter", "answered"),
        *("pc", "pc_symbol", "next_pc", "next_pc_symbol"),
    )
)
"""What is shown by itself."""
_DECIMAL: Final = frozenset(("el", "count", "epoch", "pid", "kernels", "ticket", "call", "intid", "result"))
_MAX_ITEMS: Final = 32
_MAX_WORDS: Final = 300
"""Characters of a value."""


def fields_of(record: Record) -> list[tuple[str, str]]:
    """All that a record has beside when and where, as names and values to be shown."""
    rest = [(key, value) for key, value in record.items() if key not in _COLUMNS and value is not None]
    if record.get("args"):
        rest = [(key, value) for key, value in rest if key != "x"]  # the same again
    return [(key, shown(value, key)) for key, value in rest[:_MAX_ITEMS]]


def shown(value: Any, key: str = "") -> str:
    """A field's value: integers in hexadecimal, but for what people count."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        decimal = key in _DECIMAL or key.endswith("_ns")
        return str(value) if decimal and abs(value) < 1 << 64 else hexadecimal(value)
    if isinstance(value, Mapping):
        return " ".join(f"{name}={shown(inner)}" for name, inner in list(value.items())[:_MAX_ITEMS])[:_MAX_WORDS]
    if isinstance(value, (list, tuple)):
        return " ".join(shown(inner) for inner in value[:_MAX_ITEMS])[:_MAX_WORDS]
    return str(value)[:_MAX_WORDS]
