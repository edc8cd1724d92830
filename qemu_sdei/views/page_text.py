"""The one way for text into a page: whoever wrote it (a guest, a file, a peer), it is shown and never obeyed.

HTML is only made by `element`: a child or an attribute's value that is no `Markup` passes through `safe`. Data for the
page's own script pass through `json_block`, into a `<script type="application/json">`, which browsers do not run.
"""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final

from qemu_sdei.printable import LIMIT, printable

EXACT: Final = (1 << 53) - 1
"""The largest integer that is one in JavaScript too."""
_MAX_DEPTH: Final = 16
_NAME: Final = re.compile(r"[a-z][a-zA-Z0-9-]*")
_VOID: Final = frozenset(("br", "input", "line", "meta", "path", "rect"))
_IN_SCRIPT: Final = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\x7f": "\\u007f"}
_IN_SCRIPT_PATTERN: Final = re.compile("[<>&\x7f]")


class Markup(str):
    """Text that is HTML already. Only this module makes it of what it has not been given as such."""

    __slots__ = ()


def safe(foreign: object, limit: int | None = LIMIT) -> Markup:
    """`foreign` as HTML that shows it and nothing else. No control, bidirectional or invisible character is left
    (`printable`), nor one that means something in HTML, in or outside of an attribute.
    """
    if isinstance(foreign, Markup):
        return foreign
    return Markup(html.escape(printable(foreign, limit)))


def element(name: str, *children: object, **attributes: object) -> Markup:
    """An HTML or SVG element. `class_`, `data_x` become `class`, `data-x`; an attribute that is None or False is left
    out, one that is True has no value. Raises `ValueError`: a name that is none.
    """
    parts = [f"<{_checked(name)}"]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = _checked(key.rstrip("_").replace("_", "-"))
        parts.append(f" {key}" if value is True else f' {key}="{safe(value)}"')
    parts.append(">")
    if name not in _VOID or children:
        parts += [safe(child) for child in children if child is not None]
        parts.append(f"</{name}>")
    elif name in ("line", "path", "rect"):  # SVG: what is not closed would take in what follows
        parts.append(f"</{name}>")
    return Markup("".join(parts))


def join(parts: Any) -> Markup:
    """Parts, one after the other."""
    return Markup("".join(safe(part) for part in parts))


def table(columns: tuple[str, ...], rows: Any, *, numbers: frozenset[int] = frozenset(), caption: str = "") -> Markup:
    """A table that may be wider than its place, where it can be scrolled. `numbers`: columns on the right edge."""
    head = [
        element("th", column, scope="col", class_="number" if at in numbers else None)
        for at, column in enumerate(columns)
    ]
    body = [
        element("tr", *(element("td", cell, class_="number" if at in numbers else None) for at, cell in enumerate(row)))
        for row in rows
    ]
    whole = element(
        "table",
        element("caption", caption) if caption else None,
        element("thead", element("tr", *head)),
        element("tbody", *body),
    )
    return element("div", whole, class_="scroll", tabindex="0", role="region", aria_label=caption or ", ".join(columns))


def json_text(value: object) -> str:
    """`value` as JSON that may stand in a `<script>`: strings as `printable` shows them, integers that JavaScript would
    round as hexadecimal strings, numbers that JSON does not have as null, what is nested deeper than 16 as "...".
    """
    text = json.dumps(_plain(value, 0), ensure_ascii=True, separators=(",", ":"))
    return _IN_SCRIPT_PATTERN.sub(lambda match: _IN_SCRIPT[match[0]], text)


def json_block(name: str, value: object) -> Markup:
    """A block of data that the page's script finds by the id `name`."""
    return Markup(f'<script type="application/json" id="{_checked(name)}">{json_text(value)}</script>')


def _plain(value: object, depth: int) -> object:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if -EXACT <= value <= EXACT else hexadecimal(value)
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if depth >= _MAX_DEPTH:
        return "..."
    if isinstance(value, Mapping):
        return {printable(key): _plain(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner, depth + 1) for inner in value]
    return printable(value)


def hexadecimal(value: int) -> str:
    """An integer as the rest of the program writes addresses and register values; of a huge one the begin."""
    text = f"{value:#x}" if abs(value) < 1 << 256 else f"{value >> max(value.bit_length() - 64, 0):#x}..."
    return text


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of an element or an attribute")
    return name
