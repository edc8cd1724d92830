"""Sources for iasl, one or several in a text, as the tables that iasl makes of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from qemu_sdei.acpi.parse import Reading

_INCLUDE: Final = re.compile(rb"(?i)\binclude\b|\bincbin\b")
_BEGIN: Final = re.compile(r'^[ \t]*(?:\[[0-9A-Fa-f h]+\][ \t]*)?Signature : "|\bDefinitionBlock[ \t]?\(', re.M)
"""Where the source of one table begins."""
_MOST: Final = 64
"""Sources of one text: each is a run of iasl."""


def compiled(data: bytes) -> Reading | None:
    """The tables that iasl makes of their sources; None without iasl, or if a source would have it read other files."""
    from qemu_sdei.acpi.errors import TableError
    from qemu_sdei.acpi.formats.acpidump import Entry
    from qemu_sdei.acpi.iasl import Iasl, MissingToolError, Severity, ToolError
    from qemu_sdei.acpi.parse import Reading

    if _INCLUDE.search(data):
        return None
    try:
        iasl = Iasl()
    except MissingToolError:
        return None
    found = Reading()
    sources = _apart(data.decode("utf-8", "replace"))
    if len(sources) > _MOST:
        found.faults.append(TableError(f"sources of more than {_MOST} tables: give them in several files"))
    for number, source in enumerate(sources[:_MOST], 1):
        which = f", number {number} in the file" if len(sources) > 1 else ""
        try:
            result = iasl.compile(source)
        except ToolError as error:
            found.faults.append(TableError(f"source of a table{which}: {error}"))
            continue
        if result.data is None:
            problem = result.of(Severity.ERROR)[0]
            found.faults.append(TableError(f"source of a table that iasl does not compile{which}: {problem}"))
        else:
            found.entries.append(Entry(result.data))
    if found.entries:
        found.notes.append("source, compiled by iasl, which puts its own name and version into the header")
    return found


def _apart(text: str) -> list[str]:
    """The sources of the tables: comments in front of one may be at the end of the one before."""
    begins = [match.start() for match in _BEGIN.finditer(text)]
    # `Signature` has a line of its own; a DefinitionBlock may have something in front of it that belongs to it.
    begins[:1] = [0]
    return [text[start:end] for start, end in zip(begins, [*begins[1:], len(text)], strict=True)]
