"""Spans of time in words, as people say them: "340 µs", "2.5 s", "3 min 12 s", "1 d 4 h"."""

from __future__ import annotations

from typing import Final

_SECOND: Final = 1_000_000_000
_UNITS: Final = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def duration(ns: float) -> str:
    """A span of `ns` nanoseconds, in the two largest units that it has; one that is negative counts as none."""
    ns = max(ns, 0)
    if ns < 999_500:
        return f"{ns / 1000:.0f} µs"
    if ns < 0.9995 * _SECOND:
        return f"{ns / 1_000_000:.0f} ms"
    if ns < 9.95 * _SECOND:
        return f"{ns / _SECOND:.1f} s"
    seconds = round(ns / _SECOND)
    for number, (name, size) in enumerate(_UNITS):
        if seconds >= size:
            first, rest = divmod(seconds, size)
            if number + 1 == len(_UNITS):
                return f"{first} {name}"
            less, unit = _UNITS[number + 1]
            second = rest // unit
            return f"{first} {name} {second} {less}" if second else f"{first} {name}"
    return "0 s"


def ago(ns: float) -> str:
    """The same of something past: "3 s ago", "just now"."""
    return "just now" if ns < _SECOND / 10 else f"{duration(ns)} ago"
