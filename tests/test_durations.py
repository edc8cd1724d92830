"""Spans of time in words."""

from __future__ import annotations

import pytest

from qemu_sdei.durations import ago, duration


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-3, "0 µs"), (0, "0 µs"), (0.000_012, "12 µs"), (0.000_999_9, "1 ms"), (0.034, "34 ms"), (0.9999, "1.0 s"),
        (2.54, "2.5 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1 min"), (192, "3 min 12 s"), (3600, "1 h"),
        (3659, "1 h"), (3660, "1 h 1 min"), (86_400 * 1.5, "1 d 12 h"), (86_400 * 400, "400 d"),
    ],
)  # fmt: skip
def test_duration(seconds: float, words: str) -> None:
    assert duration(seconds * 1e9) == words


def test_ago() -> None:
    assert ago(3_000_000_000) == "3.0 s ago"
    assert ago(50_000_000) == "just now"
