"""Stock Linux under hardware errors: docs/reference/linux-ras.md is what comes."""

from __future__ import annotations

from pathlib import Path

from tests.guest import linux_ras


def test_the_page_is_printed_from_the_table() -> None:
    page = Path(linux_ras.__file__).parents[2] / "docs" / "reference" / "linux-ras.md"
    assert page.read_text() == linux_ras.page(), "python -m tests.guest.linux_ras page >docs/reference/linux-ras.md"


def test_the_table_has_all_cases() -> None:
    for series in ("6.1", "6.12"):
        assert list(linux_ras.table(series)) == list(linux_ras.cases())
