"""How long the stages of each event's deliveries took (`trace/latency.py`), and a picture of it."""

from __future__ import annotations

from typing import Final

from qemu_sdei.trace.histogram import Histogram, duration
from qemu_sdei.trace.latency import STAGES, Distributions, EventLife, LifeBook
from qemu_sdei.trace.meta import TraceMeta
from qemu_sdei.views.moments import Moment
from qemu_sdei.views.page_text import Markup, element

_MAX_EVENTS: Final = 64
_BARS: Final = 40
_WIDTH: Final = 480
_HEIGHT: Final = 132
_FOOT: Final = 22
"""Height below the bars, for the axis."""
_HEAD: Final = 26
"""Height above them, for the percentiles."""


class Latencies:
    """Follows the events of a trace."""

    def __init__(self, meta: TraceMeta) -> None:
        self._book = LifeBook(meta)
        self.by_event: dict[int, Distributions] = {}
        self._others = Distributions()
        """Of events that are too many to be told apart."""

    def add(self, moment: Moment) -> None:
        """Take the next record."""
        if moment.event is None and moment.type in ("trigger", "transition"):
            return
        for life in self._book.feed(moment.record):
            self._count(life)

    def finish(self) -> None:
        """The trace has ended: what is open stays so."""
        for life in self._book.open():
            self._count(life)

    def _count(self, life: EventLife) -> None:
        found = self.by_event.get(life.event)
        if found is None:
            known = len(self.by_event) < _MAX_EVENTS
            found = self.by_event.setdefault(life.event, Distributions()) if known else self._others
        found.add(life)

    def all(self) -> Distributions:
        """Of all events together."""
        whole = Distributions()
        for one in (*self.by_event.values(), self._others):
            for ours, its in ((whole.stages, one.stages), (whole.errors, one.errors)):
                for name, histogram in its.items():
                    ours.setdefault(name, Histogram()).merge(histogram)
            for name, clocks in one.clocks.items():
                whole.clocks.setdefault(name, set()).update(clocks)
            whole.outcomes.update(one.outcomes)
            whole.disturbed.update(one.disturbed)
            whole.merged += one.merged
            whole.nested += one.nested
        return whole


def picture(name: str, histogram: Histogram) -> Markup:
    """A histogram of one stage as SVG: the axis is logarithmic, lines are at p50 and p99."""
    rows = histogram.rows(_BARS)
    most = max((count for _, _, count in rows), default=0)
    title, _ = STAGES[name]
    parts = [element("title", f"{title}: {histogram.count} values")]
    if not rows or not most:
        return element("svg", *parts, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", class_="histogram")
    step = _WIDTH / len(rows)
    room = _HEIGHT - _FOOT - _HEAD
    for at, (first, end, count) in enumerate(rows):
        height = max(2.0, room * count / most) if count else 0.0
        label = element("title", f"{duration(first)} to {duration(end)}: {count}")
        box = {"x": f"{at * step + 0.5:.1f}", "width": f"{max(step - 1, 1):.1f}"}
        parts.append(
            element("rect", label, y=f"{_HEIGHT - _FOOT - height:.1f}", height=f"{height:.1f}", class_="bar", **box)
        )
    for share, text in ((0.5, "p50"), (0.99, "p99")):
        value = histogram.percentile(share)
        at = next((n for n, (_, end, _) in enumerate(rows) if value < end), len(rows) - 1)
        x = f"{(at + 0.5) * step:.1f}"
        anchor = "start" if at < len(rows) * 3 / 4 else "end"
        parts.append(element("line", x1=x, x2=x, y1="4", y2=str(_HEIGHT - _FOOT), class_="quantile"))
        y = "10" if text == "p50" else "21"
        shift = 3 if anchor == "start" else -3
        x = f"{(at + 0.5) * step + shift:.1f}"
        parts.append(element("text", f"{text} {duration(value)}", x=x, y=y, text_anchor=anchor, class_="quantile"))
    base = str(_HEIGHT - _FOOT)
    parts.append(element("line", x1="0", x2=str(_WIDTH), y1=base, y2=base, class_="axis"))
    for share, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        at = min(int(len(rows) * share), len(rows) - 1)
        edge = rows[at][1] if share == 1.0 else rows[at][0]
        x = f"{at * step if share != 1.0 else _WIDTH:.1f}"
        parts.append(element("text", duration(edge), x=x, y=str(_HEIGHT - 6), text_anchor=anchor))
    return element("svg", *parts, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", class_="histogram")
