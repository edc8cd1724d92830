"""Distributions of durations: close to what sorting all values would give, and small."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_sdei.trace.histogram import PERCENTILES, Histogram, bucket_of, bucket_range, duration

VALUES = st.lists(st.integers(0, 1 << 50) | st.integers(0, 300), min_size=1, max_size=200)


@given(st.integers(0, (1 << 63) - 1))
def test_each_value_is_in_its_bucket_and_buckets_are_narrow(value: int) -> None:
    span = bucket_range(bucket_of(value))
    assert value in span
    assert bucket_range(bucket_of(value) + 1).start == span.stop
    assert span.stop - span.start <= max(value >> 6, 1)


@given(VALUES)
def test_percentiles_are_those_of_the_values_up_to_a_buckets_width(values: list[int]) -> None:
    figures = Histogram(values).figures()
    ordered = sorted(values)
    assert (figures["min"], figures["max"], figures["count"]) == (ordered[0], ordered[-1], len(ordered))
    for name, share in PERCENTILES.items():
        exact = ordered[max(math.ceil(share * len(ordered) - 1e-9), 1) - 1]
        assert exact <= figures[name] <= exact + exact // 64


@given(VALUES, VALUES)
def test_merged_is_as_if_counted_together(first: list[int], second: list[int]) -> None:
    merged = Histogram(first)
    merged.merge(Histogram(second))
    assert merged.document() == Histogram(first + second).document()


@given(VALUES, st.integers(2, 20))
def test_rows_have_each_value_once_and_no_holes(values: list[int], most: int) -> None:
    rows = Histogram(values).rows(most)
    assert 0 < len(rows) <= most
    assert sum(count for _, _, count in rows) == len(values)
    assert all(before[1] == after[0] for before, after in pairwise(rows))
    assert rows[0][0] <= min(values) < rows[0][1]
    assert rows[-1][0] <= max(values) < rows[-1][1]


@given(VALUES, st.integers(40, 120))
def test_a_picture_keeps_to_its_width(values: list[int], width: int) -> None:
    histogram = Histogram(values)
    assert all(len(line) <= width for line in histogram.lines(width))
    assert any("█" in line for line in histogram.lines(width))
    assert 0 < len(histogram.line(24)) <= 24


def test_nothing_has_no_percentiles() -> None:
    assert Histogram().figures() == {"count": 0}
    assert Histogram().rows() == []
    assert Histogram().lines() == []
    with pytest.raises(ValueError, match="without values"):
        Histogram().percentile(0.5)


def test_less_than_nothing_is_kept_as_it_is_where_it_is_the_smallest() -> None:
    figures = Histogram([-20, 100, 200]).figures()
    assert (figures["min"], figures["max"]) == (-20, 200)


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0 ns"),
        (16, "16 ns"),
        (1500, "1.5 µs"),
        (123_456, "123 µs"),
        (9_990_000, "9.99 ms"),
        (3e9, "3 s"),
        (-40, "-40 ns"),
    ],
)
def test_durations_as_people_write_them(ns: float, text: str) -> None:
    assert duration(ns) == text
