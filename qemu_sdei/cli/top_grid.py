"""The grid of `top`: a row for each vCPU, a column for each event, a letter for the event's state there."""

from __future__ import annotations

from typing import Any, Final

from rich.cells import set_cell_size
from rich.text import Text

from qemu_sdei.cli.status_view import instance_of, per_second, where
from qemu_sdei.cli.status_view import state as state_of
from qemu_sdei.cli.top_choice import Choice
from qemu_sdei.printable import printable

Status = dict[str, Any]

STATES: Final = {
    "unregistered": (".", "dim"),
    "registered": ("r", "cyan"),
    "enabled": ("e", "green"),
    "running": ("R", "bold yellow"),
    "running, disabled": ("D", "bold magenta"),
    "running, unregister pending": ("U", "bold red"),
}
"""Letter and colour of each state: what the colour says, the letter says as well."""
PENDING: Final = "+"
ROUTED: Final = "@"
_LEGEND: Final = (
    ("r", "registered"),
    ("e", "enabled"),
    ("R", "running"),
    ("D", "R, disabled"),
    ("U", "R, unregistering"),
    (PENDING, "pending"),
    (ROUTED, "routed here"),
)
_POWER: Final = {"on": "green", "off": "dim", "pending": "yellow"}
_LEFT: Final = ((" vCPU", 6), ("power", 8), ("SDEI", 9), ("calls/s", 8), ("events/s", 9))
LEFT_WIDTH: Final = sum(width for _, width in _LEFT)
_CELL: Final = 6
_NAMED_CELL: Final = 10
_NAMES_FROM: Final = 100
"""Columns of a screen from which events have their names above them, and vCPUs where they were last."""
_AT: Final = 28


def fitted(text: object, width: int, style: str = "") -> Text:
    """`text` in exactly `width` columns, one of them free at its end."""
    return Text(set_cell_size(set_cell_size(printable(text), max(width - 1, 0)), width), style)


def legend(width: int) -> Text:
    """What the letters mean."""
    line = Text()
    styles = dict(STATES.values()) | {PENDING: "bold red", ROUTED: ""}
    for letter, words in _LEGEND:
        line.append(letter, styles[letter]).append(f" {words}  ", "dim")
    line.truncate(width)
    return line


class Grid:
    """One picture of the grid, for a screen of a certain width."""

    def __init__(self, status: Status, rates: Status | None, events: list[Status], width: int) -> None:
        self.status = status
        self._rates = rates
        self._events = events
        self._wide = width >= _NAMES_FROM
        self._at = _AT if self._wide else 0
        numbers = max((len(f"{event['event']:#x}") + 1 for event in events), default=0)
        self._cell = max(numbers, _NAMED_CELL if self._wide else _CELL)
        self.room = max((width - LEFT_WIDTH - self._at) // self._cell, 1)
        """How many events there is room for."""

    @property
    def has_shared(self) -> bool:
        """There is a row for shared events."""
        return any(one["pe"] is None for event in self._events for one in event["instances"])

    def head(self, choice: Choice) -> list[Text]:
        """The lines above it."""
        lines = [Text()]
        for title, width in _LEFT:
            lines[0].append(fitted(title, width, "bold"))
        if self._at:
            lines[0].append(fitted("last went on at", self._at, "bold"))
        shown = self._shown(choice)
        if self._wide:
            lines.append(Text(" " * (LEFT_WIDTH + self._at)))
        for place, event in shown:
            style = "bold reverse" if place == choice.event else "bold"
            lines[0].append(fitted(f"{event['event']:#x}", self._cell, style))
            if self._wide:
                lines[1].append(fitted(event["name"], self._cell, "dim"))
        return lines

    def _shown(self, choice: Choice) -> list[tuple[int, Status]]:
        first = choice.first_event
        return list(enumerate(self._events))[first : first + self.room]

    def row(self, vcpu: int, choice: Choice) -> Text:
        """A vCPU's."""
        pe = self.status["pes"][vcpu]
        chosen = vcpu == choice.vcpu
        line = Text()
        calls, delivered = ("", "")
        if self._rates is not None:
            calls, delivered = (per_second(self._rates[name][vcpu]) for name in ("calls", "delivered"))
        cells = (
            (f"{'>' if chosen else ' '}{pe['pe']}", "bold" if chosen else ""),
            (pe["power"], _POWER.get(pe["power"], "")),
            ("masked" if pe["masked"] else "unmasked", "yellow" if pe["masked"] and pe["power"] == "on" else ""),
            (calls, ""),
            (delivered, ""),
        )
        for (text, style), (_, width) in zip(cells, _LEFT, strict=True):
            line.append(fitted(text, width, style))
        if self._at:
            line.append(fitted(where(pe), self._at))
        for place, event in self._shown(choice):
            instance = instance_of(event, vcpu)
            here = chosen and place == choice.event
            line.append(self._of_vcpu(instance, vcpu, chosen=here))
        return line

    def shared_row(self, choice: Choice) -> Text:
        """That of shared events."""
        line = fitted(" shared", LEFT_WIDTH + self._at)
        for _, event in self._shown(choice):
            one = next((one for one in event["instances"] if one["pe"] is None), None)
            line.append(Text(" " * self._cell) if one is None else self._state(one, chosen=False))
        return line

    def _of_vcpu(self, instance: Status | None, vcpu: int, *, chosen: bool) -> Text:
        if instance is None or instance["pe"] is not None:
            return self._state(instance, chosen=chosen)
        if instance.get("running_on") == vcpu:
            return self._state(instance, chosen=chosen)
        mark = ROUTED if instance.get("routed_to") == vcpu and instance["registered"] else " "
        return self._cell_of(mark, "", chosen=chosen)

    def _state(self, instance: Status | None, *, chosen: bool) -> Text:
        letter, style = (" ", "") if instance is None else STATES.get(state_of(instance), ("?", ""))
        cell = self._cell_of(letter, style, chosen=chosen)
        if instance is not None and instance["pending"]:
            return Text.assemble(cell[:1], (PENDING, "bold red"), cell[2:])
        return cell

    def _cell_of(self, letter: str, style: str, *, chosen: bool) -> Text:
        marked = f"{style} reverse".strip() if chosen else style
        return Text.assemble((letter, marked), " " * (self._cell - 1))
