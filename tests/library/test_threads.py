"""One `Guest` used from two threads: each gets its answer, or is refused in words."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from qemu_sdei.errors import UsageError
from qemu_sdei.guest.control_client import ControlClient
from qemu_sdei.guest.guest_backend import GuestBackend
from qemu_sdei.guest.record import GuestRecord
from qemu_sdei.vm.options import GuestOptions
from tests.library.test_guest_console import Played

LIMIT = 20.0


class Client:
    """A connection that notices when two threads use it at once."""

    def __init__(self, entered: threading.Event, leave: threading.Event) -> None:
        self.entered, self.leave = entered, leave
        self.users = 0
        self.identity = ""

    def request(self, command: str, *, again: bool) -> dict[str, Any]:
        assert (command, again) == ("status", True)
        self.users += 1
        assert self.users == 1
        self.entered.set()
        assert self.leave.wait(LIMIT)
        self.users -= 1
        return {"name": "first"}

    def trace(self, limit: int) -> list[dict[str, Any]]:
        assert self.users == 0
        return []


class Other:
    """The connection that the second thread gets."""

    closed = False

    def __enter__(self) -> Other:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True

    def trace(self, limit: int) -> list[dict[str, Any]]:
        return [{"type": "call"}]


class Backend(GuestBackend):
    def __init__(self, client: Client) -> None:
        record = GuestRecord(GuestOptions())
        record.placement = cast(
            Any, SimpleNamespace(client=client, supervisor=SimpleNamespace(power_off=None), directory=None)
        )
        super().__init__(record)
        self.other = Other()

    def client(self) -> ControlClient:
        return cast(ControlClient, self.other)


def in_thread(what: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    found: list[object] = []

    def run() -> None:
        try:
            found.append(what())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, found


def test_while_one_waits_for_the_firmware_another_asks_by_its_own_connection() -> None:
    entered, leave = threading.Event(), threading.Event()
    guest = Backend(Client(entered, leave))
    thread, found = in_thread(guest.status)
    assert entered.wait(LIMIT)
    assert guest.trace() == [{"type": "call"}]
    assert guest.other.closed
    leave.set()
    thread.join(LIMIT)
    assert found == [{"name": "first"}]
    assert guest.trace() == []  # by the one that is kept


class Waits(Played):
    """Says when somebody waits for its shell."""

    def __init__(self, *answers: str) -> None:
        super().__init__(*answers)
        self.entered = threading.Event()

    def wait_shell(self, timeout: float = LIMIT) -> None:
        self.entered.set()
        super().wait_shell(timeout)


def test_the_shell_takes_one_command_at_a_time() -> None:
    guest = Waits("{begin}up\n{end}", "{begin}down\n{end}")
    thread, found = in_thread(lambda: guest.run("first"))
    assert guest.entered.wait(LIMIT)
    with pytest.raises(UsageError, match=r"another thread runs a command .* or use Guest\.exec") as error:
        guest.run("second")
    assert "\n" not in str(error.value)
    guest.print(guest.shell)
    thread.join(LIMIT)
    assert str(found[0]) == "CommandResult(status=0, output='up')"
    assert guest.run("second").output == "down"
