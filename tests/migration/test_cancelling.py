"""A migration is cancelled. The judge of what QEMU does is `tests/guest/test_migration_given_up.py`; here it is a QEMU
that loses the word, which the real one does when it comes within some microseconds on a busy host.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from qemu_sdei.errors import GuestError, LostGuestError
from qemu_sdei.migration.cancelling import cancel


class Qemu:
    """Has stopped the vCPUs, and waits for a word that it has missed."""

    def __init__(self, wakes: bool) -> None:
        self.status = "active"
        self.wakes = wakes
        self.heard: list[str] = []

    async def execute(self, command: str, arguments: dict[str, Any]) -> Any:
        self.heard.append(command)
        if command == "migrate_cancel":
            self.status = "cancelling"
        elif command == "migrate-continue":
            if arguments["state"] != self.status:
                raise GuestError("Migration not in expected state")
            self.status = "cancelled" if self.wakes else self.status
        else:
            assert command == "query-migrate"
            return {"status": self.status}
        return {}


def test_a_word_that_was_lost_is_said_again() -> None:
    qemu = Qemu(wakes=True)
    assert asyncio.run(cancel(qemu, 60))
    assert qemu.status == "cancelled"
    assert qemu.heard.count("migrate-continue") == 1


def test_one_that_hangs_is_not_said_to_go_on() -> None:
    assert not asyncio.run(cancel(Qemu(wakes=False), 0.1))


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_one_that_is_over_is_left_alone(status: str) -> None:
    class Over(Qemu):
        async def execute(self, command: str, arguments: dict[str, Any]) -> Any:
            self.heard.append(command)
            if command == "migrate_cancel":
                raise GuestError("nothing to cancel")
            return {"status": status}

    qemu = Over(wakes=True)
    assert asyncio.run(cancel(qemu, 60))
    assert "migrate-continue" not in qemu.heard


def test_a_qemu_that_is_gone() -> None:
    class Gone(Qemu):
        async def execute(self, command: str, arguments: dict[str, Any]) -> Any:
            raise LostGuestError("QMP is gone")

    with pytest.raises(LostGuestError):
        asyncio.run(cancel(Gone(wakes=True), 60))
