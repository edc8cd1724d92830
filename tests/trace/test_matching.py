"""Sequences matched with each other: what is claimed to be the same is, and little is overlooked."""

from __future__ import annotations

import difflib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_sdei.trace import matching
from qemu_sdei.trace.matching import Match, match


def matched(first: list[int], second: list[int]) -> int:
    """How much is matched, after a look at whether it is a matching."""
    found = match(first, second)
    a = b = 0
    for one in found.matches:
        assert one.length > 0
        assert (one.a, one.b) == (max(a, one.a), max(b, one.b)), "in order, and nothing twice"
        assert first[one.a : one.a + one.length] == second[one.b : one.b + one.length]
        a, b = one.a + one.length, one.b + one.length
    assert (a, b) <= (len(first), len(second))
    return sum(one.length for one in found.matches)


def longest(first: list[int], second: list[int]) -> int:
    """Length of the longest common subsequence, by the book."""
    row = [0] * (len(second) + 1)
    for value in first:
        above = 0
        for n, other in enumerate(second, 1):
            above, row[n] = row[n], above + 1 if value == other else max(row[n], row[n - 1])
    return row[-1]


FEW = st.lists(st.integers(0, 3), max_size=40)


@given(FEW, FEW)
def test_little_sequences_are_matched_as_well_as_they_can_be(first: list[int], second: list[int]) -> None:
    assert matched(first, second) == longest(first, second)


@given(st.lists(st.integers(0, 20), max_size=300), st.lists(st.integers(0, 20), max_size=300), st.integers(2, 12))
def test_what_is_matched_is_the_same_however_hasty(first: list[int], second: list[int], near: int) -> None:
    before = matching._NEAR, matching._FAR, matching.WORK
    matching._NEAR, matching._FAR, matching.WORK = near, near, 100  # type: ignore[misc]
    try:
        assert matched(first, second) <= longest(first, second)
    finally:
        matching._NEAR, matching._FAR, matching.WORK = before  # type: ignore[misc]


BLOCKS = [[random.Random(n).randrange(3) for _ in range(20)] for n in range(9)]


@given(st.permutations(range(9)), st.permutations(range(9)), st.integers(2, 12))
def test_parts_that_are_somewhere_else_are_marks(first: list[int], second: list[int], near: int) -> None:
    """Few kinds of elements, and long rows of them that are there once: rows overlap."""
    a, b = ([value for n in order for value in BLOCKS[n]] for order in (first, second))
    before = matching._NEAR, matching._FAR
    matching._NEAR, matching._FAR = near, near  # type: ignore[misc]
    try:
        assert 20 <= matched(a, b) <= longest(a, b)
    finally:
        matching._NEAR, matching._FAR = before  # type: ignore[misc]


@given(st.lists(st.integers(0, 5), max_size=200))
def test_the_same_is_the_same(values: list[int]) -> None:
    assert match(values, values).matches == ([Match(0, 0, len(values))] if values else [])
    assert match(values, []).matches == []


def test_a_large_insertion_between_what_repeats_is_found_as_one() -> None:
    """Myers' algorithm alone would give up, and find a crumb of it here and there."""
    rng = random.Random(1)
    common = [rng.randrange(12) for _ in range(40_000)]
    inserted = [rng.randrange(12) for _ in range(9_000)]
    second = common[:15_000] + inserted + common[15_000:30_000] + [99] + common[30_001:]
    assert matched(common, second) >= len(common) - 40


@pytest.mark.parametrize("kinds", [2, 50, 30_000])
def test_many_calls_that_have_nothing_to_do_with_each_other_are_gone_through(kinds: int) -> None:
    rng = random.Random(kinds)
    first = [rng.randrange(kinds) for _ in range(10_000)]
    second = [rng.randrange(kinds) for _ in range(10_000)]
    assert matched(first, second) >= {2: 3_300, 50: 650, 30_000: 5}[kinds]


def test_more_of_the_same_is_only_that() -> None:
    first, second = [1, 2, 3] * 30_000, [1, 2, 3] * 33_000
    assert matched(first, second) == 90_000
    assert matched([7, *first, 8], [*second, 8]) == 90_001


def test_it_is_no_worse_than_the_standard_library_where_that_can_be_waited_for() -> None:
    rng = random.Random(5)
    first = [rng.randrange(300) for _ in range(1500)]
    second = [value for value in first if rng.random() > 0.05]
    for _ in range(60):
        second.insert(rng.randrange(len(second)), rng.randrange(300))
    theirs = sum(
        block.size for block in difflib.SequenceMatcher(None, first, second, autojunk=False).get_matching_blocks()
    )
    assert matched(first, second) >= theirs
