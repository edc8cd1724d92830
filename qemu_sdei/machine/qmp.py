"""A connection to QEMU's machine protocol: commands, and the events that concern a guest's life."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qemu_sdei.errors import GuestError, LostGuestError

if TYPE_CHECKING:
    from qemu.qmp import QMPClient

# Errors of ours say what went wrong; qemu.qmp's log lines about the same would only stand in the way.
logging.getLogger("qemu.qmp").addHandler(logging.NullHandler())
logging.getLogger("qemu.qmp").propagate = False


class Qmp:
    """Our end, for use in one event loop."""

    def __init__(self) -> None:
        self._client: QMPClient | None = None

    @property
    def connected(self) -> bool:
        """QEMU has answered."""
        return self._client is not None

    async def connect(
        self, end: socket.socket, on_event: Callable[[str, dict[str, Any]], None], tasks: list[asyncio.Task[None]]
    ) -> bool:
        """Shake hands over the socket `end`; False: QEMU went away. From then on `on_event(name, data)` is called for
        SHUTDOWN and RESET, by a task that is added to `tasks`.
        """
        # Imported only now: QEMU already starts meanwhile.
        from qemu.qmp import QMPClient, QMPError

        client = QMPClient("qemu-sdei")
        tasks.append(asyncio.create_task(self._watch(client, on_event)))
        try:
            await client.connect(end)
        except (QMPError, OSError, EOFError):
            return False
        self._client = client
        return True

    @staticmethod
    async def _watch(client: QMPClient, on_event: Callable[[str, dict[str, Any]], None]) -> None:
        with client.listener(("SHUTDOWN", "RESET")) as listener:
            async for event in listener:
                on_event(str(event["event"]), dict(event.get("data", {})))  # type: ignore[call-overload]

    async def drain(self) -> None:
        """Return when the connection is down, and what QEMU said before that was heard."""
        if self._client is None:
            return
        with contextlib.suppress(Exception):
            # Returns, or raises, once the connection is down; all events before that were delivered.
            while self._client.runstate.name == "RUNNING":
                await self._client.runstate_changed()
        with contextlib.suppress(Exception):
            await self._client.disconnect()
        await asyncio.sleep(0)

    async def execute(self, command: str, arguments: dict[str, object]) -> object:
        """Execute a command.

        Raises `LostGuestError` when QEMU is gone, `GuestError` with QEMU's words when it refuses.
        """
        from qemu.qmp import ExecuteError, QMPError

        if self._client is None:
            raise LostGuestError(f"QMP command {command}: QEMU is gone")
        try:
            return await self._client.execute(command, arguments or None)
        except ExecuteError as error:
            raise GuestError(f"QMP command {command}: {error}") from None
        except (QMPError, OSError, EOFError) as error:
            raise LostGuestError(f"QMP command {command}: QEMU went away ({error})") from None
