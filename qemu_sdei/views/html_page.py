"""A trace as one self-contained page: no network, no foreign script, and readable without any.

The page's own files are in `data/page/`. The script is what it is by a hash (Content-Security-Policy), so that nothing
that a guest writes could be run even if it came into the page as HTML; and all foreign text passes through `page_text`.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final

from qemu_sdei.trace.meta import TraceMeta
from qemu_sdei.views import page_sections
from qemu_sdei.views.page_data import RECORDS, PageData
from qemu_sdei.views.page_text import Markup, json_block, safe

FOLDER: Final = Path(__file__).parent.parent / "data" / "page"
SCRIPTS: Final = (
    "records.js",
    "theme.js",
    "timeline.js",
    "drawing.js",
    "pointer.js",
    "list.js",
    "states.js",
    "main.js",
)
"""In this order they are one script."""
_PLACE: Final = re.compile(r"\{\{([a-z]+)\}\}")


def render(data: PageData, console: str | None = None, *, title: str = "", notes: Sequence[str] = ()) -> str:
    """The page that says `data`.

    Args:
        data: what was read of a trace.
        console: what the guest's console has shown.
        title: begins the page; none: the guest's name.
        notes: what else a reader must know.
    """
    style, script = _file("page.css"), _script()
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    parts = {
        "policy": policy,
        "title": title or f"Trace of guest {data.meta.guest or '?'}",
        "style": Markup(style),
        "figures": page_sections.figures(data),
        "notices": page_sections.notices(data, notes),
        "counts": page_sections.counts(data),
        "latencies": page_sections.latencies(data),
        "states": page_sections.states(data),
        "refusals": page_sections.refusals(data),
        "console": page_sections.console(console),
        "data": json_block("trace", data.document()),
        "script": Markup(script),
    }
    return _filled(parts)


def write_page(
    path: Path,
    meta: TraceMeta,
    records: Iterable[object],
    console: str | None = None,
    *,
    title: str = "",
    notes: Sequence[str] = (),
    limit: int = RECORDS,
) -> None:
    """Write a page of a trace to the file `path`, as a whole or not at all; one that is there is replaced.

    Args:
        path: the page.
        meta: what the trace says of its guest.
        records: decoded records (docs/reference/trace.md), in order; whatever they are, a page comes of it.
        console, title, notes: as for `render`.
        limit: the newest so many records are listed and drawn; counts are of all.

    Raises:
        OSError: the file cannot be written.
    """
    text = render(PageData(meta, records, limit), console, title=title, notes=notes)
    part = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _filled(parts: Mapping[str, object]) -> str:
    """The page's skeleton with its places filled, all at once: what is put in is not looked at again."""
    return _PLACE.sub(lambda place: safe(parts[place[1]], None), _file("page.html"))


@cache
def _file(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


@cache
def _script() -> str:
    whole = "\n".join(_file(name) for name in SCRIPTS)
    return f'"use strict";\n(() => {{\n{whole}\n}})();\n'


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
