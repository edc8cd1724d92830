"""Reads a page as a browser would: which elements there are, and what a reader sees."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

from qemu_sdei.trace.meta import TraceMeta
from qemu_sdei.views.html_page import render
from qemu_sdei.views.page_data import RECORDS, PageData
from tests.views import sample


class Page(HTMLParser):
    """A page that was parsed.

    Attributes:
        elements: each start tag with its attributes, in order.
        text: what stands outside of scripts and style.
        scripts: what each `<script>` holds, by its type.
    """

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.whole = text
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str | None, list[str]] = {}
        self._parts: list[str] = []
        self._inside: str | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside = tag
            if tag == "script":
                self.scripts.setdefault(dict(attrs).get("type"), []).append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside is None:
            self._parts.append(data)
        elif self._inside == "script":
            kind = self.elements[-1][1].get("type")
            self.scripts[kind][-1] += data

    @property
    def text(self) -> str:
        return "".join(self._parts)

    @property
    def data(self) -> Any:
        """What the page's script is given."""
        (text,) = self.scripts["application/json"]
        return json.loads(text)

    def shape(self) -> list[tuple[str, tuple[str, ...]]]:
        """Elements with the names of their attributes: what foreign text must not change."""
        return [(tag, tuple(sorted(attributes))) for tag, attributes in self.elements]


def page(
    records: Any, console: str | None = None, *, meta: TraceMeta | None = None, limit: int = RECORDS, title: str = ""
) -> Page:
    """The page of these records."""
    return Page(render(PageData(meta or sample.meta(), records, limit), console, title=title))
