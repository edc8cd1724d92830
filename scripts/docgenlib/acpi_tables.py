"""The page about ACPI tables, from their classes and rules."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

from qemu_sdei.acpi.rules import RULES
from qemu_sdei.acpi.table import Table
from qemu_sdei.acpi.tables import KINDS
from scripts.docgenlib.page import ROOT, note


def acpi_tables() -> str:
    """The page about ACPI tables: those that there are and their rules, from the classes; the rest from the `.in`."""
    tables = ["| class | signature | what it covers | source |", "|---|---|---|---|"]
    tables += [f"| `{_dotted(kind)}` | `{name}` | {_covers(kind)} | {_source(kind)} |" for name, kind in KINDS.items()]
    checked: dict[Callable[..., None], list[str]] = {}
    for kind, check in RULES.items():
        checked.setdefault(check, []).append(kind.__name__.upper())
    rules = [
        f"| {', '.join(kinds)} | {_rules(check, 'Errors')} | {_rules(check, 'Warnings')} |"
        for check, kinds in checked.items()
    ]
    text = (ROOT / "docs/reference/acpi-tables.in").read_text()
    text = text.replace("@TABLES@", "\n".join(tables)).replace("@RULES@", "\n".join(rules))
    head = note("acpi/tables, acpi/rules and docs/reference/acpi-tables.in")
    return f"# ACPI tables\n\n{head}\n\n{text}"


def _dotted(kind: type[Table]) -> str:
    return f"{kind.__module__.removeprefix('qemu_sdei.acpi.tables.')}.{kind.__name__}"


def _covers(kind: type[Table]) -> str:
    """The first paragraph of what the class says of itself."""
    return " ".join((kind.__doc__ or "").partition("\n\n")[0].split()).rstrip(".")


def _source(kind: type[Table]) -> str:
    """Where the table is specified: what stands in brackets at the end of the module's first line."""
    found = re.search(r"\(([^()]*)\)\.?$", (sys.modules[kind.__module__].__doc__ or "").partition("\n")[0])
    return found[1] if found else ""


def _rules(check: Callable[..., None], what: str) -> str:
    """What the docstring of a check lists as "Errors: ...", or as "Warnings: ..."."""
    found = re.search(rf"^ *{what}: (.*?)\.\s*(?=^ *[A-Z]\w+: |\Z)", check.__doc__ or "", re.M | re.S)
    return " ".join(found[1].split()) if found else ""
