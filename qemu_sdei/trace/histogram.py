"""Distributions of durations: log-linear buckets, which keep the relative error small from nanoseconds to hours in a
few hundred numbers, and can be added up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

PERCENTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
_BITS: Final = 6
"""Each power of two has 64 buckets: a value is known to 1.6 %."""
_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"
_MAX_VALUE: Final = (1 << 63) - 1


def bucket_of(value: int) -> int:
    """The number of the bucket that a value of 0 or more is in."""
    exponent = max(value.bit_length() - _BITS - 1, 0)
    return (exponent << _BITS) + (value >> exponent)


def bucket_range(bucket: int) -> range:
    """The values that are in a bucket."""
    exponent = max((bucket >> _BITS) - 1, 0)
    first = (bucket - (exponent << _BITS)) << exponent
    return range(first, first + (1 << exponent))


class Histogram:
    """Counts of values (nanoseconds).

    Attributes:
        count: how many values.
        total: their sum.
        low, high: the smallest and the largest of them as they were; None: there are none.
        buckets: how many are in each bucket that is not empty.
    """

    def __init__(self, values: Iterable[int] = ()) -> None:
        self.count = 0
        self.total = 0
        self.low: int | None = None
        self.high: int | None = None
        self.buckets: dict[int, int] = {}
        for value in values:
            self.add(value)

    def add(self, value: int, count: int = 1) -> None:
        """Count a value `count` times. Less than 0, which an error of a clock can be, is in the bucket of 0."""
        bucket = bucket_of(min(max(value, 0), _MAX_VALUE))
        self.buckets[bucket] = self.buckets.get(bucket, 0) + count
        self.count += count
        self.total += value * count
        self.low = value if self.low is None else min(self.low, value)
        self.high = value if self.high is None else max(self.high, value)

    def merge(self, other: Histogram) -> None:
        """Have what `other` has as well."""
        for bucket, count in other.buckets.items():
            self.buckets[bucket] = self.buckets.get(bucket, 0) + count
        self.count += other.count
        self.total += other.total
        if other.low is not None and other.high is not None:
            self.low = other.low if self.low is None else min(self.low, other.low)
            self.high = other.high if self.high is None else max(self.high, other.high)

    def percentile(self, share: float) -> int:
        """The value that `share` (0 to 1) of all values do not exceed: the end of its bucket, at most 1.6 % too much.
        Raises `ValueError`: there are no values.
        """
        if self.low is None or self.high is None:
            raise ValueError("a histogram without values has no percentiles")
        wanted = max(math.ceil(share * self.count - 1e-9), 1)
        seen = 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen >= wanted:
                return min(max(bucket_range(bucket)[-1], self.low), self.high)
        return self.high

    def figures(self) -> dict[str, int]:
        """Count, min, p50, p90, p99, p99.9, max and mean; the last seven only of values."""
        if self.low is None or self.high is None:
            return {"count": 0}
        shares = {name: self.percentile(share) for name, share in PERCENTILES.items()}
        return {
            "count": self.count,
            "min": self.low,
            **shares,
            "max": self.high,
            "mean": round(self.total / self.count),
        }

    def document(self) -> dict[str, Any]:
        """For JSON: `buckets` is a list of [first value, first value of the next bucket, count]."""
        spans = ((bucket_range(bucket), self.buckets[bucket]) for bucket in sorted(self.buckets))
        return {**self.figures(), "buckets": [[span.start, span.stop, count] for span, count in spans]}

    def rows(self, most: int = 16) -> list[tuple[int, int, int]]:
        """(first value, first value of the next row, count): at most `most` rows, without a hole between the first and
        the last: each as wide as the others on a logarithmic scale, a power of two or a half, a quarter, ... of it.
        """
        if not self.buckets:
            return []
        step = 1
        while not (rows := self._rows_of(step, most)):
            step *= 2
        return rows

    def _rows_of(self, step: int, most: int) -> list[tuple[int, int, int]]:
        """Rows of `step` buckets each; []: they would be more than `most`."""
        first, last = min(self.buckets) // step, max(self.buckets) // step
        if last - first + 1 > most:
            return []
        counts = [0] * (last - first + 1)
        for bucket, count in self.buckets.items():
            counts[bucket // step - first] += count
        return [
            (bucket_range((first + n) * step).start, bucket_range((first + n + 1) * step).start, count)
            for n, count in enumerate(counts)
        ]

    def lines(self, width: int = 72, rows: int = 12) -> list[str]:
        """A picture for a terminal: a line for each row, with a bar of block characters; at most `width` columns."""
        shown = self.rows(rows)
        most = max((count for _, _, count in shown), default=0)
        digits = len(str(most))
        room = max(width - 2 * 9 - digits - 6, 8)
        return [
            f"{duration(first):>9} ..{duration(end):>9}  {count:>{digits}} {_bar(count / most, room)}".rstrip()
            for first, end, count in shown
        ]

    def line(self, width: int = 24) -> str:
        """A picture in one line: a column for each row, by its height."""
        shown = self.rows(width)
        most = max((count for _, _, count in shown), default=0)
        levels = " ▁▂▃▄▅▆▇█"
        return "".join(levels[math.ceil(count / most * 8)] for _, _, count in shown)


def _bar(share: float, width: int) -> str:
    eighths = math.ceil(share * width * 8)
    return "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")


def duration(nanoseconds: float) -> str:
    """A duration as people write it: three digits and a unit."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if abs(nanoseconds) >= size:
            number = nanoseconds / size
            return f"{number:.0f} {unit}" if abs(number) >= 100 else f"{number:.3g} {unit}"
    return f"{nanoseconds:.0f} ns"


def in_microseconds(figures: Mapping[str, int]) -> dict[str, float]:
    """Figures of a histogram in microseconds, but for the count."""
    return {name: value if name == "count" else value / 1000 for name, value in figures.items()}
