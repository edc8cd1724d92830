"""Latencies of events: how the durations of many are distributed, and what of them can be relied on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from qemu_sdei.trace.event_lives import STAGES, EventLife, LifeBook, stages
from qemu_sdei.trace.histogram import Histogram, duration, in_microseconds

__all__ = ["COLUMNS", "STAGES", "Distributions", "EventLife", "LifeBook", "duration", "stages", "summarise", "table"]


class Distributions:
    """How the durations of many lives are distributed.

    Attributes:
        stages: a histogram for each stage that was measured.
        errors: of each, a histogram of how far its values may be off.
        clocks: by which clocks each was measured.
        outcomes: how many lives had which.
        merged: triggers that were merged into others.
        disturbed: how many lives something came into that is no latency: they are in no histogram.
    """

    def __init__(self, lives: Iterable[EventLife] = ()) -> None:
        self.stages: dict[str, Histogram] = {}
        self.errors: dict[str, Histogram] = {}
        self.clocks: dict[str, set[str]] = {}
        self.outcomes: Counter[str] = Counter()
        self.merged = 0
        self.nested = 0
        self.disturbed: Counter[str] = Counter()
        for life in lives:
            self.add(life)

    def add(self, life: EventLife) -> None:
        """Count one."""
        self.outcomes[life.outcome] += 1
        self.merged += life.merged
        self.nested += bool(life.nested)
        self.disturbed.update(life.disturbed)
        if life.disturbed:
            return
        for name in STAGES:
            stage = life.stage(name)
            if stage is not None:
                self.stages.setdefault(name, Histogram()).add(stage.ns)
                self.errors.setdefault(name, Histogram()).add(stage.error_ns)
                self.clocks.setdefault(name, set()).add(stage.clock)

    def document(self, *, buckets: bool = False) -> dict[str, Any]:
        """For JSON, in microseconds; with `buckets` each stage has its histogram, in nanoseconds."""
        found = {}
        for name in STAGES:
            if name not in self.stages:
                continue
            error = self.errors[name]
            found[name] = {
                **in_microseconds(self.stages[name].figures()),
                "clocks": sorted(self.clocks[name]),
                "error_us": error.percentile(0.5) / 1000,
                "max_error_us": (error.high or 0) / 1000,
            }
            if buckets:
                found[name]["histogram"] = self.stages[name].document()["buckets"]
        return {
            "lives": self.outcomes.total(),
            "outcomes": dict(sorted(self.outcomes.items())),
            "merged": self.merged,
            "nested": self.nested,
            "disturbed": dict(sorted(self.disturbed.items())),
            "stages": found,
        }


def summarise(lives: Iterable[EventLife], *, buckets: bool = False) -> dict[str, Any]:
    """What `lives` come to: counts of outcomes, and of each stage count, min, p50, p90, p99, p99.9, max and mean in
    microseconds, by which clocks it was measured, and how far a value may be off (median and largest).
    """
    return Distributions(lives).document(buckets=buckets)


COLUMNS: Final = ("latency", "p50", "p90", "p99", "p99.9", "max", "±")


def table(summary: Mapping[str, Any]) -> list[list[str]]:
    """The stages of `summarise` as rows of COLUMNS, for people."""
    rows = []
    for name, figures in summary["stages"].items():
        cells = [duration(figures[column] * 1000) for column in COLUMNS[1:-1]]
        rows.append([STAGES[name][0], *cells, duration(figures["error_us"] * 1000)])
    return rows
