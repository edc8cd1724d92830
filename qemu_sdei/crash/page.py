"""A crash matrix as one self-contained page: no network, no script. All text passes through `views/page_text.py`."""

from __future__ import annotations

import base64
import hashlib
from typing import Final

from qemu_sdei.crash.table import Document, Shown, summary, table
from qemu_sdei.crash.verdict import Result
from qemu_sdei.views.page_text import Markup, element, join, safe

_COLOURS: Final = {
    Result.DUMPED: "good",
    Result.FEWER: "some",
    Result.WEDGED: "bad",
    Result.UNEXPLAINED: "bad",
    Result.FAILED: "bad",
    Result.MISSING: "none",
}
_STYLE: Final = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }
body { max-width: 75rem; margin: 1.5rem auto; padding: 0 1rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { border: 1px solid #8886; padding: .3rem .55rem; text-align: left; vertical-align: top; }
.good { background: #2a92; } .some { background: #da02; } .bad { background: #d332; } .none { opacity: .6; }
.facts { color: #777; } li:target { outline: 2px solid #d90; }
"""


def render(document: Document) -> str:
    """The page that shows a matrix (`Matrix.document`)."""
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    title = "Crash matrix"
    kernels = ", ".join(str(kernel["release"] or kernel["name"]) for kernel in document["kernels"])
    facts = (
        f"qemu-sdei {document['program']}, QEMU {document['qemu']}, {document['date']}; {document['vcpus']} vCPUs, "
        f"{document['memory']}; Linux {kernels}"
    )
    found = table(document)
    head = element(
        "head",
        element("meta", charset="utf-8"),
        Markup('<meta name="viewport" content="width=device-width">'),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{safe(policy)}">'),
        element("title", title),
        Markup(f"<style>{_STYLE}</style>"),
    )
    columns = element("tr", *(element("th", column, scope="col") for column in found.columns))
    rows = [
        element("tr", *(element("th", name, scope="row") for name in key), *(_cell(cell) for cell in cells))
        for key, cells in found.rows
    ]
    notes = [element("li", note, id=f"note-{number}") for number, note in enumerate(found.notes, 1)]
    body = element(
        "body",
        element("h1", title),
        element("p", facts, class_="facts"),
        element("p", summary(document)),
        element("div", element("table", element("thead", columns), element("tbody", *rows)), class_="scroll"),
        element("h2", "What did not come"),
        element("ol", *notes) if notes else element("p", "Everything came."),
        element("h2", "Endings: what a stopped CPU does"),
        _pairs([(each["name"], each["sentence"]) for each in document["endings"]]),
        element("h2", "Firmware profiles"),
        _pairs([(each["name"], each["summary"]) for each in document["firmware"]]),
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _cell(cell: Shown) -> Markup:
    words = cell.text.partition(" [")[0]
    links = [element("a", f"[{number}]", href=f"#note-{number}") for number in cell.notes]
    return element("td", words, *(join([" ", link]) for link in links), class_=_COLOURS[cell.result])


def _pairs(pairs: list[tuple[str, str]]) -> Markup:
    rows = [element("tr", element("th", name, scope="row"), element("td", words)) for name, words in pairs]
    return element("div", element("table", element("tbody", *rows)), class_="scroll")
