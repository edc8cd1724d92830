"""A connection to QEMU's machine protocol: commands, and the events that concern a guest's life.

QEMU listens at a socket in the run directory, so a connection that breaks is made again, by this owner or by another.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from qemu_sdei.errors import GuestError, LostGuestError, UnreachableError
from qemu_sdei.message_log import QMP
from qemu_sdei.vm.silence import SilentError, answer

if TYPE_CHECKING:
    from qemu.qmp import QMPClient

# Errors of ours say what went wrong; qemu.qmp's log lines about the same would only stand in the way.
logging.getLogger("qemu.qmp").addHandler(logging.NullHandler())
logging.getLogger("qemu.qmp").propagate = False

_HEARD: Final = frozenset(("SHUTDOWN", "RESET"))
_RETRY: Final = 0.1
_PATIENCE: Final = 2.0
"""Seconds for which a command waits for a connection to be made again; and, once a command was not answered, for the
answers to those that follow.
"""
_ANSWER: Final = 30.0
"""Seconds of silence after which a command is not waited for any more."""


class Machine(Protocol):
    """A QEMU that QMP commands reach."""

    async def execute(self, command: str, arguments: dict[str, Any]) -> Any:
        """Execute a command. Raises `GuestError`: it was refused, or QEMU cannot be reached."""


class Qmp:
    """Our end, for use in one event loop."""

    def __init__(self, path: Path, on_event: Callable[[str, dict[str, Any]], None]) -> None:
        """`on_event(name, data)` is called for SHUTDOWN and RESET."""
        self.pid: int | None = None
        """Process id of QEMU, once it is started."""
        self._path = path
        self._on_event = on_event
        self._client: QMPClient | None = None
        self._connected = asyncio.Event()
        self._why = "it did not answer yet"
        self._ended = False
        self._silent = False
        """The last command was not answered."""

    @property
    def _name(self) -> str:
        """Whose QEMU it is, for the debug log."""
        return self._path.parent.name

    @property
    def connected(self) -> bool:
        """QEMU has answered, and there is a connection."""
        return self._client is not None

    async def keep(self) -> None:
        """Connect, and again whenever the connection breaks; until this task is cancelled."""
        while True:
            if await self._connect():
                await self._broken()
            await asyncio.sleep(_RETRY)

    async def wait_connected(self) -> None:
        """Return when there is a connection."""
        await self._connected.wait()

    async def _connect(self) -> bool:
        # Imported only now: QEMU already starts meanwhile.
        from qemu.qmp import QMPClient, QMPError

        client = QMPClient("qemu-sdei")
        # By the filter of the listener that is there, which takes none: each listener keeps all events that it has
        # taken, for ever, and a guest can have QEMU send as many as it likes.
        client.events.event_filter = self._hear
        try:
            await client.connect(str(self._path))
        except (QMPError, OSError, EOFError) as error:
            cause = error.__cause__ if error.__cause__ is not None else error
            self._why = getattr(cause, "strerror", None) or str(cause)
            return False
        self._client = client
        self._connected.set()
        return True

    def _hear(self, event: Mapping[str, object]) -> bool:
        QMP.received(self._name, event)
        name, data = str(event["event"]), event.get("data")
        if name in _HEARD:
            self._on_event(name, dict(data) if isinstance(data, dict) else {})
        return False

    async def _broken(self) -> None:
        """Return when the connection is down, and what QEMU said before that was heard."""
        client = self._client
        assert client is not None
        try:
            with contextlib.suppress(Exception):
                # Returns, or raises, once the connection is down; all events before that were delivered.
                while client.runstate.name == "RUNNING":
                    await client.runstate_changed()
            self._why = "the connection broke"
            with contextlib.suppress(Exception):
                await client.disconnect()
        except asyncio.CancelledError:
            self._connected.clear()
            raise  # it is still connected: `close` hangs up, and the next client of QEMU's need not wait
        else:
            self._connected.clear()
            self._client = None
            if self._ended:
                self._connected.set()

    def pass_fd(self, fd: int) -> None:
        """Send a descriptor along with the next command (`getfd`, `add-fd`). Raises `LostGuestError`."""
        if self._client is None:
            raise LostGuestError(f"QMP cannot be given a descriptor: {self._why}")
        try:
            self._client.send_fd_scm(fd)
        except OSError as error:
            raise LostGuestError(f"QMP cannot be given a descriptor: {error.strerror}") from None

    async def drain(self) -> None:
        """QEMU has ended: return when the connection is down, and all that it said was heard."""
        self._ended = True
        while self.connected:
            await asyncio.sleep(_RETRY / 20)
        self._connected.set()  # nobody waits for another one

    async def close(self) -> None:
        """Hang up; QEMU waits for the next one. `keep` must have been cancelled."""
        client, self._client = self._client, None
        self._connected.clear()
        if client is not None:
            with contextlib.suppress(Exception):
                await client.disconnect()

    async def execute(self, command: str, arguments: dict[str, object]) -> object:
        """Execute a command.

        Raises `LostGuestError` when the connection broke, `UnreachableError` when there is none, or no answer comes (it
        may be carried out later), `GuestError` with QEMU's words when it refuses.
        """
        from qemu.qmp import ExecuteError, QMPError

        try:
            async with asyncio.timeout(_PATIENCE):
                await self.wait_connected()
        except TimeoutError:
            raise UnreachableError(
                f"QMP command {command}: QEMU cannot be reached at {self._path} ({self._why}); nothing was done"
            ) from None
        client = self._client
        if client is None:
            raise LostGuestError(f"QMP command {command}: QEMU is gone")
        QMP.sent(self._name, {"execute": command, "arguments": arguments} if arguments else {"execute": command})
        try:
            work = client.execute(command, arguments or None)
            result = await answer(work, lambda: self.pid, _PATIENCE if self._silent else _ANSWER)
            self._silent = False
            QMP.received(self._name, {"return": result})
            return result
        except SilentError as error:
            self._silent = True
            QMP.received(self._name, f"(no answer to {command}: {error})")
            raise UnreachableError(f"QMP command {command}: QEMU does not answer ({error})") from None
        except ExecuteError as error:
            self._silent = False
            QMP.received(self._name, {"error": {"class": error.error_class, "desc": str(error)}})
            raise GuestError(f"QMP command {command}: {error}") from None
        except (QMPError, OSError, EOFError) as error:
            QMP.received(self._name, f"(the connection broke during {command}: {error})")
            await self._hung_up(client)
            raise LostGuestError(f"QMP command {command}: QEMU went away ({error})") from None

    async def _hung_up(self, client: QMPClient) -> None:
        """Whoever tries again after the connection broke is to do so by another one."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                while self._client is client:
                    await asyncio.sleep(_RETRY / 20)
