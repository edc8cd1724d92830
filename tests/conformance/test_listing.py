"""Which scenarios there are, and which a filter selects."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qemu_sdei.conformance import listing
from qemu_sdei.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_shipped_list_is_whole() -> None:
    scenarios = listing.builtin()
    assert sorted(s.number for s in scenarios) == list(range(1, listing.LAST + 1))
    assert all(s.name and s.source and (s.group or s.elsewhere) for s in scenarios)
    assert len([s for s in scenarios if s.group]) == 90


def test_what_no_bare_metal_client_can_express_names_tests_that_are_there() -> None:
    """Nothing is counted as tested elsewhere that is not."""
    for scenario in listing.builtin():
        for path in re.findall(r"tests/[\w/.]+\w", scenario.elsewhere):
            assert (ROOT / path).exists(), (scenario.number, path)
        assert scenario.group or "tests/" in scenario.elsewhere, scenario.number


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("13", [13]),
        ("21,12-14,13", [21, 12, 13, 14]),
        ("mask,1", [31, 32, 33, 34, 35, 98, 1]),
        ("1-300,1", [s.number for s in listing.builtin()]),
        ("", [s.number for s in listing.builtin()]),
    ],
)
def test_filters(text: str, numbers: list[int]) -> None:
    assert [s.number for s in listing.select(listing.builtin(), text)] == numbers


@pytest.mark.parametrize("text", ["0", "nothing", "21-12", "999"])
def test_a_filter_that_selects_nothing(text: str) -> None:
    with pytest.raises(UsageError, match="no scenario is called"):
        listing.select(listing.builtin(), text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, r"scenarios\.h cannot be read .*: a scenario folder has a list there"),
        ("", r"has no scenario: write SCENARIO\(201, "),
        ('SCENARIO(7, own, x, "a", "b", 0)', "scenario 7: numbers of your own are 201 to 299"),
        ('SCENARIO(201, own, x, "a", "b", 0)\n' * 2, "scenario 201 is there twice"),
    ],
)
def test_bad_lists_of_a_users_own(tmp_path: Path, text: str | None, words: str) -> None:
    if text is not None:
        (tmp_path / "scenarios.h").write_text(text)
    with pytest.raises(UsageError, match=words):
        listing.extra(tmp_path)
