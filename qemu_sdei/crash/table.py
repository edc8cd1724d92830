"""A crash matrix as a table for people: of its JSON, so that one from a file looks as one that has just been run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from qemu_sdei.crash.cells import Capture
from qemu_sdei.crash.verdict import Result
from qemu_sdei.explain.words import numbers
from qemu_sdei.guest.kdump_stages import Stage

Document = Mapping[str, Any]
STYLES: Final = {
    Result.DUMPED: "green",
    Result.FEWER: "yellow",
    Result.WEDGED: "red",
    Result.UNEXPLAINED: "bold red",
    Result.FAILED: "bold red",
    Result.MISSING: "dim",
}
"""Colours of rich."""
UNSTEADY: Final = "unsteady: "
"""Before a cell that disagrees with itself."""


@dataclass(frozen=True)
class Shown:
    """A cell as it is shown."""

    text: str
    result: Result
    notes: tuple[int, ...] = ()
    """Numbers of what is said below the table."""


@dataclass(frozen=True)
class Table:
    """Rows of firmware, for each kernel and capture kernel; a column for each ending, with "-" for what was not run."""

    columns: tuple[str, ...]
    rows: tuple[tuple[tuple[str, ...], tuple[Shown, ...]], ...]
    notes: tuple[str, ...]
    """What did not come, and why: each thing once."""


def table(document: Document) -> Table:
    """The table of a matrix."""
    endings = [str(each["name"]) for each in document["endings"]]
    notes: list[str] = []
    rows: dict[tuple[str, ...], dict[str, Shown]] = {}
    for cell in document["cells"]:
        key = (str(cell["kernel"]), str(cell["capture"]), str(cell["firmware"]))
        rows.setdefault(key, {})[str(cell["ending"])] = _shown(cell, document, notes)
    none = Shown("-", Result.MISSING)
    whole = tuple((key, tuple(row.get(name, none) for name in endings)) for key, row in rows.items())
    return Table(("kernel", "capture", "firmware", *endings), whole, tuple(notes))


def _shown(cell: Document, document: Document, notes: list[str]) -> Shown:
    result = Result(cell["result"])
    lines = _lost(cell["lost"])
    if cell["reason"] is not None and (result in (Result.UNEXPLAINED, Result.FAILED) or not lines):
        lines.insert(0, str(cell["reason"]))
    numbers = tuple(_number(line, notes) for line in dict.fromkeys(lines))
    marks = "".join(f" [{number}]" for number in numbers)
    return Shown(("" if cell["agrees"] else UNSTEADY) + _words(cell, document, result) + marks, result, numbers)


def _words(cell: Document, document: Document, result: Result) -> str:
    """What a cell has come to, in a few words."""
    if result is Result.WEDGED:
        return f"hangs after {cell['stage']}"
    if result is Result.UNEXPLAINED:
        return f"no vmcore, after {cell['stage']}"
    if result not in (Result.DUMPED, Result.FEWER):
        return str(result.value)
    words = ["dump"]
    if result is Result.FEWER:
        words.append(f"{len(cell['vcpus'])} of {document['vcpus']} CPUs" if cell["vcpus"] else "CPUs missing")
    elif cell["capture"] == Capture.SMP.value:
        words.append("all CPUs")
    if cell["stage"] != Stage.OFF.value:
        words.append(f"nothing after {cell['stage']}")
    return f"{', '.join(words)}, {cell['seconds']:.1f} s"


def _number(line: str, notes: list[str]) -> int:
    if line not in notes:
        notes.append(line)
    return notes.index(line) + 1


def _lost(cpus: Sequence[Document]) -> list[str]:
    """Lines about CPUs that did not come back: one for all of which the same is to be said."""
    alike: dict[str, list[int]] = {}
    for cpu in cpus:
        clause = f" ({cpu['clause']})" if cpu["clause"] else ""
        call = f"; last call: {cpu['last_call']}, {cpu['answered']}" if cpu["last_call"] else ""
        alike.setdefault(f"{cpu['why']}{clause}{call}", []).append(cpu["vcpu"])
    lines = []
    for words, vcpus in alike.items():
        named = len(vcpus) == 1 and words.startswith(f"vCPU {vcpus[0]} ")
        who = "" if named else f"vCPU{'s' if len(vcpus) > 1 else ''} {numbers(vcpus)}: "
        lines.append(who + words)
    return lines


def summary(document: Document) -> str:
    """The last line: how many of each."""
    counts = ", ".join(f"{count} {name}" for name, count in document["counts"].items() if count)
    cells = len(document["cells"])
    unsteady = document["unsteady"]
    many = "" if cells == 1 else "s"
    line = f"{cells} cell{many} in {document['seconds']:.0f} s: {counts}"
    rounds = max((len(cell["rounds"]) for cell in document["cells"]), default=1)
    if rounds > 1:
        line += f"; {rounds} rounds each, {unsteady} disagree with themselves"
    return line


def markdown(document: Document) -> list[str]:
    """The table as lines of Markdown."""
    found = table(document)

    def row(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    out = [row(found.columns), "|" + "---|" * len(found.columns)]
    out += [row([*key, *(cell.text for cell in cells)]) for key, cells in found.rows]
    out += ["", *(f"- [{number}] {note}" for number, note in enumerate(found.notes, 1))]
    return out
