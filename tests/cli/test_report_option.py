"""`--report` of commands that run guests: one page of all of them, also when the command went wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qemu_sdei.cli.report_option import RunReport
from qemu_sdei.errors import GuestError, UsageError
from qemu_sdei.guest.kept import Kept
from tests.views import sample
from tests.views.pages import Page


def runs(kept: Kept | None, length: int, console: str) -> None:
    """Play a guest: it leaves a trace and a console."""
    assert kept is not None
    lines = (sample.meta().document(), *sample.trace(length))
    kept.trace.write_text("".join(json.dumps(line) + "\n" for line in lines))
    kept.console.write_text(console)


def ends(page: Path, error: BaseException) -> None:
    """Play a command that ends by an error."""
    with RunReport(str(page), "x") as report:
        runs(report.next_guest(), 60, "last words\n")
        raise error


def test_guests_one_after_the_other_are_one_trace(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    with RunReport(str(page), "All of <them>") as report:
        runs(report.next_guest(), 100, "first guest\n")
        runs(report.next_guest(), 60, "second guest\n")
    found = Page(page.read_text())
    assert "All of <them>" in found.text
    assert "first guest" in found.text
    assert "second guest" in found.text
    both = len(list(sample.trace(100))) + len(list(sample.trace(60)))
    assert found.data["total"] == both
    assert all(step > 0 for step in found.data["records"]["n"])


def test_a_command_that_went_wrong_has_its_page_and_its_own_error(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    with pytest.raises(GuestError, match="went wrong"):
        ends(page, GuestError("it went wrong"))
    assert "last words" in Page(page.read_text()).text


def test_a_guest_that_never_came_up(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    with RunReport(str(page), "x") as report:
        report.next_guest()
    found = Page(page.read_text())
    assert "The trace of guest 1 cannot be read" in found.text
    assert "The trace has no records." in found.text


def test_where_nothing_ran_a_page_of_before_stays(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("of before")

    def fails() -> None:
        with RunReport(str(page), "x") as report:
            report.next_guest()
            raise UsageError("no such QEMU")

    with pytest.raises(UsageError, match="no such QEMU"):
        fails()
    assert page.read_text() == "of before"


def test_who_interrupts_does_not_wait_for_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    with pytest.raises(KeyboardInterrupt):
        ends(page, KeyboardInterrupt())
    assert not page.exists()


def test_without_a_page_nothing_is_kept() -> None:
    with RunReport(None, "x") as report:
        assert report.next_guest() is None


@pytest.mark.parametrize("name", [".", "no/such/page.html"])
def test_a_page_that_cannot_be_written_is_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="--report"):
        RunReport(name, "x")
