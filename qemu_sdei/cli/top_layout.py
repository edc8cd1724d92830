"""What `top` shows: the lines of its screen, from what is known of the guest, for any size. It touches no terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any, Final, Protocol

from rich.cells import cell_len
from rich.text import Text

from qemu_sdei.cli.event_lines import Line
from qemu_sdei.cli.status_view import handlers, instance_of, per_second, since, state, where
from qemu_sdei.cli.top_choice import HELP, Choice, shown_events
from qemu_sdei.cli.top_grid import Grid, fitted, legend
from qemu_sdei.durations import duration
from qemu_sdei.printable import printable
from qemu_sdei.trace.histogram import duration as three_digits
from qemu_sdei.vm.cpu_registers import level

Status = dict[str, Any]

_KEYS: Final = "arrows choose  i inject  p pause  a all events  ? help  q quit"
_LOG_LEAST: Final = 4
_TALL: Final = 40
"""Lines of a screen from which the latencies are a picture of several lines."""
_TITLE: Final = "bold reverse"


class Measured(Protocol):
    """Durations, as a distribution (`trace.histogram.Histogram`)."""

    def figures(self) -> dict[str, int]:
        """count, p50, p99, max, ... in nanoseconds."""

    def line(self, width: int = 24) -> str:
        """A picture in one line."""

    def lines(self, width: int = 72, rows: int = 12) -> list[str]:
        """A picture of several lines."""


@dataclass
class View:
    """What is known of the guest.

    Attributes:
        status: as `Overview.look` gives it.
        rates: as `overview.rates` gives it; None: there was one look only.
        log: what has happened, the newest last.
        latency: title and distribution of each stage that was measured, and how far a value may be off (ns, in the
            middle); the first one gets the picture.
        clock: time of day.
        message: what is to be said; `trouble`: what is wrong with the guest.
    """

    status: Status
    rates: Status | None = None
    log: Sequence[Line] = ()
    latency: Sequence[tuple[str, Measured, int]] = ()
    clock: str = ""
    message: str = ""
    trouble: str = ""


def screen(view: View, choice: Choice, width: int, height: int) -> list[Text]:
    """Exactly `height` lines, none longer than `width` columns. `choice` is scrolled to what is chosen."""
    if choice.help:
        return _fill([_title(view, width), *_help(width)], [Text(" any key: back", "dim")], width, height)
    top = [Text(), _counts(view)]
    bottom = [_footer(view)]
    events = shown_events(view.status, choice.everything)
    grid = Grid(view.status, view.rates, events, width)
    rest = height - len(top) - len(bottom)
    head = grid.head(choice)[: 2 if height >= 30 else 1]
    details = _details(view, choice, events, width) if rest >= len(head) + 8 else []
    keys = [legend(width)] if rest >= len(head) + 9 else []
    latency = _latency(view, width, height)
    if rest < len(head) + len(details) + len(keys) + len(latency) + _LOG_LEAST + 2:
        latency = []
    room = rest - len(head) - len(details) - len(keys) - len(latency)
    vcpus, shared = len(view.status["pes"]), int(grid.has_shared)
    rows = max(min(vcpus, room - shared - min(_LOG_LEAST, max(room // 3, 1))), 1)
    choice.scroll(vcpus, rows, len(events), grid.room)
    head = grid.head(choice)[: len(head)]  # scrolled now
    body = [*head, *(grid.row(n, choice) for n in range(choice.first_vcpu, min(choice.first_vcpu + rows, vcpus)))]
    if shared:
        body.append(grid.shared_row(choice))
    more = f"  vCPUs {choice.first_vcpu}-{choice.first_vcpu + rows - 1}/{vcpus}" if rows < vcpus else ""
    if grid.room < len(events):
        last = min(choice.first_event + grid.room, len(events))
        more += f"  events {choice.first_event + 1}-{last}/{len(events)}"
    top[0] = _title(view, width, more)
    details = _details(view, choice, events, width) if details else []
    body += [*keys, *details, *latency]
    log = rest - len(body)
    if log > 0:
        body += _log(view.log, log)
    return _fill([*top, *body], bottom, width, height)


def whole(view: View, width: int) -> list[Text]:
    """All of it, for paper: no line is left out because a screen is small, and nothing is chosen."""
    events = shown_events(view.status, everything=False)
    grid = Grid(view.status, view.rates, events, width)
    lines = [_title(view, width), _counts(view), Text()]
    for first in range(0, max(len(events), 1), grid.room):
        choice = Choice(vcpu=-1, event=-1, first_event=first)
        lines += grid.head(choice)
        lines += [grid.row(n, choice) for n in range(len(view.status["pes"]))]
        if grid.has_shared:
            lines.append(grid.shared_row(choice))
        lines.append(Text())
    lines += [legend(width), *_waits(view.status)]
    if latency := _latency(view, width, _TALL):
        lines += [Text(), *latency]
    if view.log:
        lines += [Text(), *_log(view.log, 20)]
    for line in lines:
        line.rstrip()
    return lines


def _fill(lines: list[Text], bottom: list[Text], width: int, height: int) -> list[Text]:
    lines = lines[: max(height - len(bottom), 0)]
    lines += [Text()] * (height - len(bottom) - len(lines))
    lines = [*lines, *bottom][:height]
    for line in lines:
        line.truncate(width)
    return lines


def _title(view: View, width: int, more: str = "") -> Text:
    status = view.status
    host = status.get("host") or {}
    name = printable(status.get("name"), 40)
    words = [f" {name}"]
    if host.get("qemu_up_ns") is not None:
        words.append(f"up {duration(host['qemu_up_ns'])}")
    words.append(f"boot {status['epoch']}" + (f", kernel {status['kernels']}" if status.get("kernels", 0) > 1 else ""))
    line = Text("  ".join(words), _TITLE)
    runs = host.get("vcpus")
    if runs is not None:
        text = printable(runs, 20)
        line.append(
            f"  {text if runs == 'running' else text.upper()}", _TITLE if runs == "running" else f"{_TITLE} yellow"
        )
    line.append(more, _TITLE)
    end = Text(f"  {view.clock} ", _TITLE)
    gap = width - line.cell_len - end.cell_len
    return Text.assemble(line, (" " * gap, _TITLE), end) if gap >= 0 else line.append(" " * width, _TITLE)


def _counts(view: View) -> Text:
    counts, rates = view.status.get("counts", {}), view.rates
    calls = delivered = ""
    if rates is not None:
        calls = f" ({per_second(sum(rates['calls']))}/s)"
        delivered = f" ({per_second(sum(rates['delivered']) + rates['shared_delivered'])}/s)"
    parts = [
        f"calls {short(counts.get('calls', 0))}{calls}",
        f"delivered {short(counts.get('delivered', 0))}{delivered}",
    ]
    parts += [f"{name} {short(counts.get(name, 0))}" for name in ("merged", "dropped", "rejected")]
    return Text(" " + "  ".join(parts))


def short(number: int) -> str:
    """A count in at most six characters."""
    if number < 100_000:
        return str(number)
    for unit, size in (("G", 10**9), ("M", 10**6)):
        if number >= size:
            return f"{number / size:.1f}{unit}" if number < 1000 * size else f"{number // size}{unit}"
    return f"{number // 1000}k"


def _footer(view: View) -> Text:
    if view.trouble:
        return Text(f" {printable(view.trouble)}", "bold red")
    return Text(f" {printable(view.message)}", "bold") if view.message else Text(f" {_KEYS}", "dim")


def _help(width: int) -> list[Text]:
    """What the keys do, and what the columns mean."""
    lines = [Text()]
    for keys, what in HELP:
        first, *rest = wrap(what, max(width - 15, 20))
        lines.append(Text.assemble(fitted(f" {keys}", 14, "bold"), first))
        lines += [Text(" " * 14 + line) for line in rest]
    lines += [Text(), Text(" In the grid, an event's state on a vCPU (colours say the same as letters):"), Text()]
    lines += [legend(width), Text()]
    words = (
        "R, disabled: its handler runs, and it will not be delivered again until it is enabled.",
        "R, unregistering: it was unregistered while its handler runs; it ends when the handler completes.",
        "calls/s, events/s: calls that the vCPU made, handlers of private events that it entered.",
        "Shared events have a row of their own; R in a vCPU's row: their handler runs there.",
        "last went on at: where the vCPU left the firmware when it was there last.",
    )
    return [*lines, *(Text(f" {line}") for line in words for line in wrap(line, max(width - 2, 20)))]


def _details(view: View, choice: Choice, events: list[Status], width: int) -> list[Text]:
    """The vCPU and the event that are chosen, two lines each."""
    choice.fit(len(view.status["pes"]), len(events))
    lines = _of_vcpu(view, choice.vcpu)
    if not events:
        return [*lines, Text(" there are no events", "dim"), Text()]
    event = events[choice.event]
    instance = instance_of(event, choice.vcpu)
    if instance is None:
        return [*lines, Text(), Text()]
    how_long = since(view.status, instance.get("since_ns"))
    words = f"event {event['event']:#x} ({event['name']}), {event['type']}, {event['priority']}: {state(instance)}"
    words += f" for {how_long}" if how_long else ""
    if instance["pending"]:
        more = Text(printable(f"   pending: {instance.get('waits') or 'it is on its way'}"), "red")
    else:
        counts = instance.get("triggers", {})
        names = ("accepted", "delivered", "merged", "dropped")
        more = Text("   triggers: " + ", ".join(f"{short(counts.get(name, 0))} {name}" for name in names))
    return [*lines, Text(f" {printable(words)}"), more]


def _of_vcpu(view: View, vcpu: int) -> list[Text]:
    pe = view.status["pes"][vcpu]
    how_long = since(view.status, pe.get("power_since_ns"))
    words = f"vCPU {pe['pe']}: {pe['power']}" + (f" for {how_long}" if how_long else "")
    if running := handlers(view.status, pe):
        words += f"; handler of {running}"
    last = ""
    if pe.get("not_heard_of_since") is not None:
        last = f"started at {pe['not_heard_of_since']:#x}, and has made no call since"
    elif pe.get("pc") is not None:
        last = f"last call {pe['last_call']}; " if pe["last_call"] else ""
        last += f"left EL3 for {level(pe['pstate'])} at {where(pe)}"
    return [Text(f" {printable(words)}"), Text(f"   {printable(last)}")]


def _waits(status: Status) -> list[Text]:
    """Why each event that is pending is not delivered."""
    return [
        Text(printable(f" pending: {instance['waits'] or 'it is on its way'}"), "red")
        for event in status["events"]
        for instance in event["instances"]
        if instance["pending"] and "waits" in instance
    ]


def _latency(view: View, width: int, height: int) -> list[Text]:
    if not view.latency:
        return []
    if height < _TALL:
        title, measured, error = view.latency[0]
        words = f" {title}: {_figures(measured, error)}"
        return [Text(f"{words} {measured.line(max(width - len(words) - 2, 8))}")]
    size = max(cell_len(title) for title, _, _ in view.latency)
    lines = [Text(f" {title:<{size}}  {_figures(measured, error)}") for title, measured, error in view.latency]
    title, measured, _ = view.latency[0]
    picture = measured.lines(min(width - 2, 100), 8 if height < 50 else 12)
    return [*lines, Text(f" {title}:", "bold"), *(Text(f"  {line}") for line in picture)]


def _figures(measured: Measured, error: int) -> str:
    found = measured.figures()
    if not found.get("count"):
        return "none yet"
    parts = [f"{name} {three_digits(found[name])}" for name in ("p50", "p99", "max") if name in found]
    off = f" ±{three_digits(error)}" if error >= 500 else ""
    return f"{', '.join(parts)}{off} of {short(found['count'])}"


def _log(log: Sequence[Line], room: int) -> list[Text]:
    lines = []
    for line in log[-room:]:
        text = Text.assemble((f" {line.clock[:12]} ", "dim"))
        text.append(f"{line.vcpu} {line.event}".strip() or "guest", "bold").append(f": {line.what}")
        lines.append(text)
    return lines or [Text(" nothing has happened yet", "dim")]
