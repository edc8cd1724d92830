"""What is asked of QEMU and backend where a guest arrives, and what is said when it does not."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from qemu_sdei import rundir
from qemu_sdei.errors import GuestError, LostGuestError, SdeiError
from qemu_sdei.migration.arrival import arrived, fetch, fetched, first_heartbeat, take_over
from tests.migration.fakes import FakeBackend, FakeSide, Trip


def side(path: Path, **said: dict[str, Any] | Exception) -> FakeSide:
    """A QEMU that answers each command the same all along."""
    found = FakeSide(path, Trip())
    for command, answer in said.items():

        def do(answer: dict[str, Any] | Exception = answer, **_: object) -> dict[str, Any]:
            if isinstance(answer, Exception):
                raise answer
            return answer

        setattr(found, f"_{command}", do)
    return found


@pytest.mark.parametrize(
    ("status", "state", "postcopy"),
    [("completed", "paused", False), ("completed", "paused", True), ("postcopy-active", "paused", True)],
)
def test_a_guest_has_arrived(status: str, state: str, postcopy: bool, tmp_path: Path) -> None:
    there = side(tmp_path, query_migrate={"status": status}, query_status={"status": state})
    asyncio.run(arrived(there, postcopy=postcopy))


@pytest.mark.parametrize(
    ("status", "state", "limit"),
    [
        ("failed", "inmigrate", 60.0),
        ("active", "inmigrate", 0.02),
        ("completed", "inmigrate", 0.02),
        ("postcopy-active", "paused", 0.02),
    ],
)
def test_a_guest_has_not(status: str, state: str, limit: float, tmp_path: Path) -> None:
    there = side(tmp_path, query_migrate={"status": status}, query_status={"status": state})
    with pytest.raises(GuestError, match=f"^it is not taken: {status}, {state}$"):
        asyncio.run(arrived(there, limit, refusal="it is not taken"))


@pytest.mark.parametrize(("last", "said"), [("no such device", "no such device"), ("", "QEMU has ended")])
def test_its_last_words_say_why(last: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = side(tmp_path, query_migrate=LostGuestError("QEMU has ended"))

    async def last_words() -> str:
        return last

    monkeypatch.setattr(there, "last_words", last_words)
    with pytest.raises(GuestError, match=f"did not take the guest: {said}$"):
        asyncio.run(arrived(there))


@pytest.mark.parametrize(("status", "there"), [("completed", True), ("postcopy-active", False), ("failed", False)])
def test_whether_all_ram_was_fetched(status: str, there: bool, tmp_path: Path) -> None:
    assert asyncio.run(fetched(side(tmp_path, query_migrate={"status": status}), 0.02)) is there


def test_each_page_of_a_window_is_fetched(tmp_path: Path) -> None:
    there = FakeSide(tmp_path, Trip())
    asyncio.run(fetch(there, range(0x4000_0000, 0x4000_3000)))
    assert there.heard == ["human-monitor-command"] * 3


def test_the_document_is_gone_whether_it_was_taken_or_not(tmp_path: Path) -> None:
    trip = Trip("backend restore", GuestError("it is of another guest"))
    backend = FakeBackend(tmp_path, trip)
    there = FakeSide(tmp_path, trip)

    async def run() -> None:
        await backend.open()
        (tmp_path / rundir.STATE).write_text("{}")
        with pytest.raises(SdeiError, match="it is of another guest"):
            await take_over(there)
        assert not (tmp_path / rundir.STATE).exists()
        await take_over(there)  # the next one; without a document there is nothing to remove
        backend.close()

    asyncio.run(run())


def test_no_backend_no_heartbeat(tmp_path: Path) -> None:
    assert asyncio.run(first_heartbeat(FakeSide(tmp_path, Trip()))) is None
