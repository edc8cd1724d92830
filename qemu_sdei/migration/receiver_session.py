"""One attempt of a guest to arrive from another host: what its source may ask for, and in which order.

What the guest is made of, and whether it can be had here, its `Host` knows (qemu_sdei/guest/receive.py). It runs
only after the source's `go`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from qemu_sdei import guest_identity, rundir
from qemu_sdei.backend.control.state_document import MAX_DOCUMENT
from qemu_sdei.errors import ProtocolError, SdeiError
from qemu_sdei.migration.arrival import arrived, check, first_heartbeat, take_over
from qemu_sdei.migration.options import COPY, LIVE, MigrationOptions
from qemu_sdei.migration.remote_link import (
    BUFFER,
    Link,
    LostPeerError,
    clean,
)
from qemu_sdei.migration.remote_ram import Verifier
from qemu_sdei.migration.source import Side, Source, execute

SOCKET: Final = "migration.sock"
_ARRIVE: Final = 50.0
AFTER: Final = 60.0
"""Seconds for which the source can ask what became of the guest."""
MAX_CONSOLE: Final = 32 << 20
_MAX_INPUT: Final = 1 << 20
_MAX_RESETS: Final = 1 << 16
_MAX_COUNT: Final = 1 << 40


@dataclass(frozen=True)
class File:
    """A file of the guest, to be received."""

    path: Path
    size: int
    sha256: str


class Host(Protocol):
    """What this host makes of a guest."""

    ram_fd: int
    ram_size: int
    window: range
    """Offsets of the frame window in RAM: QEMU does not see what the backend writes there."""

    def consider(self, offer: dict[str, Any]) -> dict[str, File]:
        """Check what is offered; return the files that are not here, by role. Raises `SdeiError`."""

    async def prepare(self, identity: str) -> Side:
        """Start QEMU and the backend, which wait for the guest. Raises `SdeiError`.

        `identity`: which guest it is; "": the source does not say, being of an older version.
        """

    def console(self, data: bytes) -> None:
        """What the guest has printed so far, part by part."""

    def history(self, resets: list[dict[str, Any]], count: int, typed: bytes) -> None:
        """The guest's newest resets, how many there were, and what was typed and not read."""

    async def abandon(self) -> None:
        """End whatever was started; wait for another guest."""


Report = Callable[[str, str], None]
"""Is told (state, what about it): arriving, failed, running."""


class Session:
    """One attempt of a guest to arrive."""

    def __init__(self, host: Host, link: Link, report: Report) -> None:
        self.secret = secrets.token_hex(16)
        self.link = link
        self.outcome = ""
        """running or ended, once it is decided."""
        self.decided = asyncio.Event()
        self.side: Side | None = None
        self.over = asyncio.Event()
        """The source has said that it knows."""
        self._host = host
        self._report = report
        self._needed: dict[str, File] = {}
        self._state = "new"
        self._console = 0
        self._verifier: Verifier | None = None
        self.channels = 0
        self._go_ns: int | None = None
        self._commands: dict[str, tuple[tuple[str, ...], Callable[[dict[str, Any]], Awaitable[dict[str, Any] | None]]]]
        self._commands = {
            "offer": (("new",), self._offer),
            "file": (("offered",), self._file),
            "prepare": (("offered",), self._prepare),
            "alive": (("prepared", "checked"), self._alive),
            "console": (("prepared", "restored"), self._take_console),
            "document": (("prepared",), self._document),
            "arrived": (("checked",), self._arrived),
            "verify": (("arrived",), self._verify),
            "repair": (("arrived",), self._repair),
            "restore": (("arrived",), self._restore),
            "history": (("restored",), self._history),
            "go": (("complete",), self._go),
        }

    async def serve(self) -> None:
        """Do what the source asks for, to the end. Raises `SdeiError`: the guest does not run here."""
        while self._state != "running":
            message = await self.link.receive()
            states, command = self._commands.get(str(message.get("cmd")), ((), None))
            if command is None or self._state not in states:
                raise ProtocolError(f"{clean(message.get('cmd'))!r} is not what comes next here")
            answer = await command(message)
            if answer is not None:
                # What is decided is not undone by an answer that does not arrive.
                with contextlib.suppress(LostPeerError) if self.outcome else contextlib.nullcontext():
                    await self.link.send({"ok": True, **answer})

    def decide(self, outcome: str) -> None:
        """What became of the guest; the first one counts."""
        self.outcome = self.outcome or outcome
        self.decided.set()

    async def farewell(self) -> None:
        """After `serve`: wait until the source knows, or nobody asks any more."""
        with contextlib.suppress(SdeiError):
            if (await self.link.receive(AFTER)).get("cmd") == "bye":
                self.over.set()
                await self.link.send({"ok": True, "ran_ms": await self._ran_ms()})

    async def _ran_ms(self) -> float | None:
        """How long after `go` the guest was seen to run here; None: it was paused, or not seen."""
        if self._go_ns is None or self.side is None:
            return None
        first_ns = await first_heartbeat(self.side)
        return None if first_ns is None else (first_ns - self._go_ns) / 1e6

    async def _offer(self, message: dict[str, Any]) -> dict[str, Any]:
        name = message.get("name")
        self._report("arriving", clean(name if isinstance(name, str) else "?"))
        self._needed = await asyncio.to_thread(self._host.consider, message)
        self._state = "offered"
        return {"need": sorted(self._needed)}

    async def _file(self, message: dict[str, Any]) -> dict[str, Any]:
        role = message.get("role")
        wanted = self._needed.get(role) if isinstance(role, str) else None
        if wanted is None or message.get("bytes", 0) != wanted.size:
            raise ProtocolError(f"file {clean(role)!r} is not what was asked for")
        found = hashlib.sha256()
        try:
            fd = os.open(wanted.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:

                def take(part: bytes) -> None:
                    found.update(part)
                    file.write(part)

                await self.link.blob(message, wanted.size, take)
        except OSError as error:
            raise SdeiError(f"the destination cannot write {wanted.path}: {error.strerror}") from None
        if found.hexdigest() != wanted.sha256:
            raise ProtocolError(f"file {clean(role)!r} is not the one that was offered: did it change meanwhile?")
        del self._needed[str(role)]
        return {}

    async def _prepare(self, message: dict[str, Any]) -> dict[str, Any]:
        if self._needed:
            raise ProtocolError(f"files are missing: {', '.join(sorted(self._needed))}")
        route, multifd = message.get("route"), message.get("multifd")
        if route not in (COPY, LIVE) or type(multifd) is not int:
            raise ProtocolError(f"a guest comes here by route {COPY} or {LIVE}")
        options = MigrationOptions(route=route, multifd=multifd)
        begin = time.monotonic()
        identity = message.get("identity", "")
        if identity != "" and not guest_identity.is_one(identity):
            raise ProtocolError("the guest's identity is not of the protocol's form")
        self.side = await self._host.prepare(str(identity))
        await Source.capabilities(self.side, options)
        await execute(self.side, "migrate-incoming", uri=f"unix:{self.side.path / SOCKET}")
        self._verifier = Verifier(self._host.ram_fd, self._host.ram_size, self._host.window)
        self._state = "prepared"
        return {"name": self.side.name, "session": self.secret, "ms": 1000 * (time.monotonic() - begin)}

    async def _alive(self, message: dict[str, Any]) -> dict[str, Any]:
        return {}

    async def _take_console(self, message: dict[str, Any]) -> dict[str, Any]:
        data = await self.link.blob(message, BUFFER)
        self._console += len(data)
        if self._console > MAX_CONSOLE:
            raise ProtocolError(f"the console's history has more than {MAX_CONSOLE >> 20} MiB")
        self._host.console(data)
        return {}

    async def _arrived(self, message: dict[str, Any]) -> dict[str, Any]:
        assert self.side is not None
        await arrived(self.side, _ARRIVE)
        self._state = "arrived"
        return {}

    async def _verify(self, message: dict[str, Any]) -> None:
        assert self._verifier is not None
        await self._verifier.verify(self.link)

    async def _repair(self, message: dict[str, Any]) -> dict[str, Any]:
        assert self._verifier is not None
        return {"pages": await self._verifier.repair(self.link, message)}

    async def _document(self, message: dict[str, Any]) -> dict[str, Any]:
        assert self.side is not None
        data = await self.link.blob(message, MAX_DOCUMENT)
        try:
            fd = os.open(self.side.path / rundir.STATE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(data)
        except OSError as error:
            raise SdeiError(f"the destination cannot write the state document: {error.strerror}") from None
        await check(self.side)
        self._state = "checked"
        return {}

    async def _restore(self, message: dict[str, Any]) -> dict[str, Any]:
        assert self.side is not None
        begin = time.monotonic()
        await take_over(self.side)
        self._state = "restored"
        return {"ms": 1000 * (time.monotonic() - begin)}

    async def _history(self, message: dict[str, Any]) -> dict[str, Any]:
        resets = message.get("resets")
        typed = await self.link.blob(message, _MAX_INPUT)
        if not isinstance(resets, list) or len(resets) > _MAX_RESETS or not all(_reset(entry) for entry in resets):
            raise ProtocolError("the history of resets is not of the protocol's form")
        count = message.get("count", len(resets))  # an older source sends them all, as long as that can be
        if type(count) is not int or not 0 <= count < _MAX_COUNT:
            raise ProtocolError("the history of resets is not of the protocol's form")
        self._host.history(resets, count, typed)
        self._state = "complete"
        return {}

    async def _go(self, message: dict[str, Any]) -> dict[str, Any]:
        assert self.side is not None
        running = message.get("running")
        if not isinstance(running, bool):
            raise ProtocolError("go does not say whether the guest is to run")
        self.side.stays()
        if running:
            self._go_ns = time.perf_counter_ns()
            await execute(self.side, "cont")
        self._state = "running"
        self.decide("running")
        return {}


def _reset(entry: object) -> bool:
    """Whether it is an entry of `Guest.resets`."""
    if not isinstance(entry, dict) or not entry.keys() <= {"guest", "reason", "position"}:
        return False
    guest, reason, position = entry.get("guest"), entry.get("reason"), entry.get("position")
    words = isinstance(reason, str) and len(reason) <= 100
    return isinstance(guest, bool) and words and type(position) is int and 0 <= position < 1 << 40
