"""The parts of a page that need no script: figures, tables, and the state diagram."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

from qemu_sdei.sdei.transitions import STATE_NAMES
from qemu_sdei.trace.histogram import duration
from qemu_sdei.trace.latency import COLUMNS, STAGES
from qemu_sdei.trace.latency import table as latency_table
from qemu_sdei.views.latencies import picture
from qemu_sdei.views.page_data import PageData
from qemu_sdei.views.page_text import Markup, element, join, safe, table
from qemu_sdei.views.refused import Refusal, state_grid
from qemu_sdei.views.state_diagram import diagram

_SHOWN: Final = ("to_el3", "decision", "handler")
"""Stages that have a picture; the others have figures."""
_ROWS: Final = 200
_LETTERS: Final = {
    "unregistered": "·",
    "registered": "R",
    "enabled": "E",
    "running": "H",
    "running, disabled": "h",
    "running, unregister pending": "u",
}
_CONSOLE_LINES: Final = 20_000
_CONSOLE_BYTES: Final = 2 << 20
_ESCAPES: Final = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b\n]*(?:\x07|\x1b\\)?|\x1b[()][A-Z0-9]|\x1b[=>78]"
)
"""What a guest tells a terminal, such as colours: it is no text."""
_OURS: Final = "\x1eqemu-sdei:"
"""Begins a line of the shell in our initramfs that is for this program (`guest/shell.py`)."""


def figures(data: PageData) -> Markup:
    """The line of figures below the title."""
    handlers = sum(counts.delivered for counts in data.occurrences.events.values())
    pairs = [
        ("records", f"{data.total:,}".replace(",", " ")),
        ("over", duration(data.last_at)),
        ("vCPUs", data.meta.vcpus),
        ("client", f"EL{data.meta.client_el}"),
        ("deliveries", handlers),
        ("refusals", data.refusals.total),
    ]
    if data.meta.program:
        pairs.append(("written by", f"qemu-sdei {data.meta.program}"))
    parts = [element("div", element("dt", name), element("dd", value)) for name, value in pairs]
    return element("dl", *parts, class_="figures")


def notices(data: PageData, more: Sequence[str]) -> Markup:
    """What a reader must know before believing the rest."""
    lines = list(more)
    if not data.total:
        lines.append("The trace has no records.")
    shown = len(data.newest)
    if shown < data.total:
        lines.append(
            f"Timeline and list have the newest {shown} of {data.total} records; "
            "counts, latencies and refusals are of all."
        )
    for why, count in data.occurrences.missing.most_common(10):
        lines.append(f"Records are missing: {count}" + (f" ({why})." if why else "."))
    if not lines:
        return Markup("")
    return element("ul", *(element("li", line) for line in lines), class_="notices")


def _results(results: Counter[str]) -> Markup:
    return join(element("span", f"{name} {count}", class_="tag") for name, count in results.most_common(12))


def counts(data: PageData) -> Markup:
    """Calls by function, events by what became of them, vCPUs, records by type."""
    found = data.occurrences
    calls = [
        (element("code", name), results.total(), _results(results))
        for name, results in sorted(found.functions.items(), key=lambda pair: -pair[1].total())[:_ROWS]
    ]
    events = [
        (
            element("code", data.event_name(event)),
            *(of.triggers[by] or "" for by in ("signal", "host", "interrupt", "merged", "refused")),
            of.delivered,
            of.completed,
            _results(of.waited),
        )
        for event, of in sorted(found.events.items())[:_ROWS]
    ]
    lanes = [
        (vcpu, lane.calls, lane.entries, len(lane.handlers), duration(lane.in_handlers))
        for vcpu, lane in sorted(
            (pair for pair in data.lanes.lanes.items() if pair[0] is not None), key=lambda p: p[0] or 0
        )
    ]
    types = [(element("code", name), count) for name, count in found.types.most_common(_ROWS)]
    parts = [
        table(
            ("event", "signals", "by host", "interrupts", "merged", "refused", "delivered", "completed", "waited for"),
            events,
            numbers=frozenset(range(1, 8)),
            caption="Events",
        ),
        table(("call", "count", "results"), calls, numbers=frozenset((1,)), caption="Calls"),
        table(
            ("vCPU", "calls", "entries to EL3", "handlers", "time in handlers"),
            lanes,
            numbers=frozenset(range(5)),
            caption="vCPUs",
        ),
        table(("record", "count"), types, numbers=frozenset((1,)), caption="Records"),
    ]
    return element("div", *parts, class_="tables")


def latencies(data: PageData) -> Markup:
    """Histograms of the stages that follow one another, and percentiles of all, for all events and for each."""
    found, whole = data.latencies, data.latencies.all()
    pictures = [
        element(
            "figure", element("figcaption", f"{STAGES[name][0]}: {STAGES[name][1]}"), picture(name, whole.stages[name])
        )
        for name in _SHOWN
        if name in whole.stages
    ]
    if not whole.stages:
        return element("p", "No event was triggered, delivered and completed in this trace.", class_="nothing")
    rows = [("all", *row) for row in latency_table(whole.document())]
    if len(found.by_event) > 1:
        for event, distributions in sorted(found.by_event.items()):
            name = data.event_name(event)
            rows += [(name, *row) for row in latency_table(distributions.document())]
    note = (
        "± is how far a value may be off (median). A stage between two entries to EL3 is measured by the guest's "
        "counter, one that the host begins or ends by the host's clock; what mixes both carries the error of the "
        "conversion."
    )
    left = whole.disturbed
    if left:
        note += " Left out: " + ", ".join(f"{count} with a {what} meanwhile" for what, count in left.items()) + "."
    return join(
        (
            element("div", *pictures, class_="pictures"),
            table(("event", *COLUMNS), rows[:_ROWS], numbers=frozenset(range(2, 8)), caption="Percentiles"),
            element("p", note, class_="note"),
        )
    )


def states(data: PageData) -> Markup:
    """The state diagram, a choice of event, and the states at the end of the trace."""
    choices = [element("option", "all events", value="")]
    choices += [
        element("option", data.event_name(event), value=f"{event:#x}") for event in sorted(data.visits.by_event)[:_ROWS]
    ]
    parts = [
        element(
            "p", element("label", "Transitions of ", element("select", *choices, id="arrows-of")), class_="script-only"
        ),
        element("div", diagram(data.visits), class_="scroll", tabindex="0", role="region", aria_label="State diagram"),
        element(
            "p",
            "Coloured: what this trace visited, and how often. PE_RESET and a reset of the machine lead from every "
            "state to 0.",
            class_="note",
        ),
    ]
    if data.visits.odd:
        rows = list(data.visits.odd.most_common())
        parts.append(table(("transition", "count"), rows, numbers=frozenset((1,)), caption="Not in the state table"))
    grid = state_grid(data.refusals.states)
    if grid:
        vcpus = sorted({vcpu for row in grid.values() for vcpu in row if vcpu is not None})[:64]
        rows_ = [
            (
                element("code", data.event_name(event)),
                _letter(row.get(None)),
                *(_letter(row.get(vcpu)) for vcpu in vcpus),
            )
            for event, row in list(grid.items())[:_ROWS]
        ]
        parts.append(table(("event", "shared", *map(str, vcpus)), rows_, caption="States at the end, by vCPU"))
        legend = "; ".join(f"{letter} {name}" for name, letter in _LETTERS.items())
        parts.append(element("p", legend, class_="note"))
    return join(parts)


def _letter(state: str | None) -> Markup:
    if state is None:
        return Markup("")
    number = next((number for number, name in STATE_NAMES.items() if name == state), "odd")
    return element("abbr", _LETTERS.get(state, "?"), title=state, class_=f"in-state-{number}")


def refusals(data: PageData) -> Markup:
    """What was refused, why, and by which clause."""
    groups = data.refusals.groups
    if not groups:
        return element("p", "Nothing was refused.", class_="nothing")
    whole = table(
        ("count", "what", "event", "answer", "why", "clause", "vCPUs", "last"),
        [_refusal(data, group) for group in groups[:_ROWS]],
        numbers=frozenset((0,)),
        caption="What was refused, why, by which clause",
    )
    left = data.refusals.left_out + sum(group.count for group in groups[_ROWS:])
    return join((whole, element("p", f"{left} more are not listed.", class_="note") if left else ""))


def _refusal(data: PageData, group: Refusal) -> tuple[object, ...]:
    last = element("button", f"{group.last_at / 1e9:.6f} s", type="button", class_="jump", data_n=group.last)
    return (
        group.count,
        element("code", group.what),
        "" if group.event is None else element("code", data.event_name(group.event)),
        element("code", group.answer),
        element("div", group.why, class_="prose"),
        element("div", group.clause, class_="prose"),
        _ranges(group.vcpus),
        last,
    )


def _ranges(numbers: set[int]) -> str:
    """Numbers as people write many: 0-3, 7."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in found)


def console(text: str | None) -> Markup:
    """The guest's console: its newest lines, without what it tells a terminal."""
    if not text:
        return element("p", "There is no console with this trace (--console FILE).", class_="nothing")
    cut = len(text) > _CONSOLE_BYTES
    lines = _ESCAPES.sub("", text[-_CONSOLE_BYTES:]).replace("\r\n", "\n").split("\n")
    cut = cut or len(lines) > _CONSOLE_LINES
    lines = [line.rstrip("\r").rpartition("\r")[2].expandtabs() for line in lines[-_CONSOLE_LINES:]]
    lines = [line for line in lines if not line.startswith(_OURS)]
    note = element("p", f"Only the newest {len(lines)} lines.", class_="note") if cut else None
    whole = "\n".join(safe(line) for line in lines)
    pre = element("pre", Markup(whole), id="console", tabindex="0", role="region", aria_label="Guest console")
    return join((note or "", pre))
