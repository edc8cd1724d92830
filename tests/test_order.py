"""The order of tests that two processes share."""

from __future__ import annotations

import pytest

from tests.order import shared


def order(tests: str, processes: int = 2) -> list[str]:
    """Of tests as "f1": file f; those of files with capital letters are long."""
    return shared(tests.split(), processes, is_long=lambda test: test[0].isupper(), file=lambda test: test[0])


def test_each_process_begins_with_long_ones_and_ends_with_short_ones() -> None:
    found = order("a1 a2 B1 B2 C1 C2 d1 d2 d3 d4")
    assert found == ["B1", "B2", "a1", "a2", "d1", "C1", "C2", "d2", "d3", "d4"]


def test_a_file_of_long_ones_is_not_cut() -> None:
    assert order("B1 B2 B3 B4 B5 C1 d1 d2 d3 d4")[:5] == ["B1", "B2", "B3", "B4", "B5"]
    assert order("A1 B1 B2 B3 C1 C2 d1 d2 d3 d4") == ["A1", "B1", "B2", "B3", "d1", "C1", "C2", "d2", "d3", "d4"]


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
@pytest.mark.parametrize("tests", ["", "a1 a2 a3", "A1 A2 A3 b1", "A1 b1 C1 d1 E1 f1 G1"])
def test_none_is_left_out(tests: str, processes: int) -> None:
    assert sorted(order(tests, processes)) == sorted(tests.split())
