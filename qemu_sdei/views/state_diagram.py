"""The state diagram of an SDEI event, drawn from the rows of `sdei/transitions.py`, with what a trace has visited."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Final

from qemu_sdei.sdei.transitions import STATE_NAMES, STATES, STEP, Action
from qemu_sdei.views.moments import Moment, word
from qemu_sdei.views.page_text import Markup, element

_PLACES: Final = {0: (100, 90), 1: (390, 90), 3: (680, 90), 4: (100, 290), 5: (390, 290), 7: (680, 290)}
"""Centres of the states' boxes: those in which a handler runs are below."""
_BOX: Final = (150, 56)
_SIZE: Final = (820, 390)
_APART: Final = 13
"""Half the distance of two arrows between the same boxes."""
_NUMBERS: Final = {name: number for number, name in STATE_NAMES.items()}
_MAX_ODD: Final = 50
_RESETS: Final = frozenset((Action.PE_RESET.name, "RESET"))

Edge = tuple[int, int, str]
"""(from, to, cause)."""


def _arrows() -> dict[tuple[int, int], list[str]]:
    """Every change of state by the table, and the actions that make it. PE_RESET leads to 0 from everywhere, and would
    hide the rest.
    """
    found: dict[tuple[int, int], list[str]] = {}
    for action in Action:
        if action == Action.PE_RESET:
            continue
        for state in STATES:
            new = STEP[action][state][1]
            if new != state:
                found.setdefault((state, new), []).append(action.name)
    return found


ARROWS: Final = _arrows()


@dataclass(frozen=True)
class _Path:
    line: str
    label: tuple[float, float]
    anchor: str


class Visits:
    """Counts the transitions of a trace, by event."""

    def __init__(self) -> None:
        self.by_event: dict[int, Counter[Edge]] = {}
        self.odd: Counter[str] = Counter()
        """Transitions that the table does not have, as text."""

    def add(self, moment: Moment) -> None:
        """Take the next record."""
        if moment.type != "transition" or moment.event is None:
            return
        names = word(moment.record, "from"), word(moment.record, "to")
        cause = word(moment.record, "cause")
        old, new = (_NUMBERS.get(name) for name in names)
        if old is not None and new is not None and self._is_known(old, new, cause):
            if moment.event in self.by_event or len(self.by_event) < 1000:
                self.by_event.setdefault(moment.event, Counter())[old, new, cause] += 1
        elif len(self.odd) < _MAX_ODD:
            self.odd[f"{names[0]} → {names[1]} by {cause}"] += 1

    @staticmethod
    def _is_known(old: int, new: int, cause: str) -> bool:
        if cause in _RESETS:
            return new == 0
        return cause in ARROWS.get((old, new), ())

    def total(self) -> Counter[Edge]:
        """Of all events."""
        total: Counter[Edge] = Counter()
        for counts in self.by_event.values():
            total.update(counts)
        return total

    def document(self) -> dict[str, dict[str, int]]:
        """For the page's script: by event, "from-to" and how often; and "from-reset" likewise."""
        return {f"{event:#x}": _by_arrow(counts) for event, counts in sorted(self.by_event.items())}


def _by_arrow(counts: Counter[Edge]) -> dict[str, int]:
    found: dict[str, int] = {}
    for (old, new, cause), count in counts.items():
        name = f"{old}-reset" if cause in _RESETS else f"{old}-{new}"
        found[name] = found.get(name, 0) + count
    return found


def diagram(visits: Visits) -> Markup:
    """The diagram as SVG; arrows and states that were visited have the class `visited`, and how often."""
    counts = _by_arrow(visits.total())
    parts = [element("title", "States of an SDEI event, and the transitions of this trace"), _heads()]
    parts += [_arrow(old, new, names, counts.get(f"{old}-{new}", 0)) for (old, new), names in ARROWS.items()]
    for state in STATES:
        entered = sum(count for name, count in counts.items() if name.endswith(f"-{state}"))
        left = sum(count for name, count in counts.items() if name.startswith(f"{state}-"))
        parts.append(_state(state, entered + left > 0, counts.get(f"{state}-reset", 0)))
    return element("svg", *parts, viewBox=f"0 0 {_SIZE[0]} {_SIZE[1]}", role="img", id="states", class_="states")


def _heads() -> Markup:
    marks = []
    for name in ("plain", "visited"):
        tip = element("path", d="M0 0 10 5 0 10z", class_=f"head {name}")
        shape = {"viewBox": "0 0 10 10", "refX": "9", "refY": "5", "markerWidth": "7", "markerHeight": "7"}
        marks.append(element("marker", tip, id=f"head-{name}", orient="auto", **shape))
    return element("defs", *marks)


def _state(state: int, visited: bool, resets: int) -> Markup:
    x, y = _PLACES[state]
    width, height = _BOX
    name = STATE_NAMES[state]
    first, _, second = name.partition(", ")
    lines = [element("text", f"{state}  {first}", x=x, y=y + (-4 if second else 5), text_anchor="middle")]
    if second:
        lines.append(element("text", second, x=x, y=y + 15, text_anchor="middle", class_="second"))
    note = f"reset {resets} ×" if resets else ""
    below = y + height / 2 + 15 if y > 200 else y - height / 2 - 7
    return element(
        "g",
        element("rect", x=x - width / 2, y=y - height / 2, width=width, height=height, rx=8),
        *lines,
        element("text", note, x=x - width / 2 + 2, y=below, text_anchor="start", class_="reset", data_reset=state),
        class_="state visited" if visited else "state",
        data_state=state,
    )


def _arrow(old: int, new: int, names: list[str], count: int) -> Markup:
    path = _path(old, new)
    label = ", ".join(names)
    x, y = path.label
    return element(
        "g",
        element("title", f"{STATE_NAMES[old]} → {STATE_NAMES[new]} by {label}"),
        element("path", d=path.line, fill="none"),
        element("text", element("tspan", label), element("tspan", f" ×{count}" if count else "", class_="count"),
                x=f"{x:.0f}", y=f"{y:.0f}", text_anchor=path.anchor),
        class_="arrow visited" if count else "arrow",
        data_arrow=f"{old}-{new}",
    )  # fmt: skip


def _path(old: int, new: int) -> _Path:
    """A line between the boxes' edges; an arc where another box lies between, beside the other one if there are two."""
    (x1, y1), (x2, y2) = _PLACES[old], _PLACES[new]
    half_x, half_y = _BOX[0] / 2, _BOX[1] / 2
    if y1 == y2 and abs(x1 - x2) > 400:
        above = y1 < 200
        edge = y1 - half_y if above else y1 + half_y
        far = edge - 62 if above else edge + 62
        line = f"M{x1} {edge}C{x1} {far} {x2} {far} {x2} {edge}"
        return _Path(line, ((x1 + x2) / 2, edge - 51 if above else edge + 60), "middle")
    both = (new, old) in ARROWS
    way = math.hypot(x2 - x1, y2 - y1)
    # To the right of the way, as seen by who goes it.
    shift = _APART if both else 0
    dx, dy = -(y2 - y1) / way * shift, (x2 - x1) / way * shift
    if y1 == y2:
        side = half_x if x2 > x1 else -half_x
        start, end = (x1 + side, y1 + dy), (x2 - side, y2 + dy)
        above = dy < 0 or not both
        return _Path(_line(start, end), ((start[0] + end[0]) / 2, y1 + dy + (-6 if above else 16)), "middle")
    side = half_y if y2 > y1 else -half_y
    start, end = (x1 + dx, y1 + side), (x2 + dx, y2 - side)
    right = dx > 0 or not both
    return _Path(
        _line(start, end), (x1 + dx + (8 if right else -8), (start[1] + end[1]) / 2 + 4), "start" if right else "end"
    )


def _line(start: tuple[float, float], end: tuple[float, float]) -> str:
    return f"M{start[0]:.0f} {start[1]:.0f}L{end[0]:.0f} {end[1]:.0f}"
