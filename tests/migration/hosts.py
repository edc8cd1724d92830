"""Two hosts, or two QEMUs of one, as far as a migration needs them: for tests without QEMU.

`Pair` is source and destination with their RAM, `Place` and `receiving` the receiver's own code around the destination,
`remote` the way there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from qemu_sdei import guest_identity, rundir
from qemu_sdei.errors import GuestError
from qemu_sdei.migration.destination_remote import RemoteDestination, RemoteResult
from qemu_sdei.migration.failure_points import Left
from qemu_sdei.migration.offer import Offer
from qemu_sdei.migration.options import MigrationOptions, no_report
from qemu_sdei.migration.receiver import Reception
from qemu_sdei.migration.receiver_session import File
from qemu_sdei.migration.remote_address import Address, listen_unix
from qemu_sdei.migration.sequence import Sequence
from qemu_sdei.migration.source import Side
from tests.migration.fakes import LIMIT, FakeBackend, FakeSide, Trip

ERROR = GuestError("it broke")
BASE = 0x4000_0000
SIZE = 1 << 20
PAGE = 4096
WINDOW = range(SIZE - 16 * PAGE, SIZE - 8 * PAGE)
KERNEL = b"abc"
KERNEL_SHA256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


class Pair:
    """Source and destination, with RAM of which a page and one of the window have not arrived."""

    def __init__(self, path: Path, trip: Trip, *, shared: bool) -> None:
        self.trip = trip
        for name in ("a", "b"):
            (path / name).mkdir()
        guest_identity.write(path / "a", "0" * 32)
        (path / "a" / rundir.CONSOLE_LOG).write_bytes(b"hello\n")
        self.source = FakeSide(path / "a", trip)
        self.there = FakeSide(path / "b", trip, running=False, who="there")
        self.source.other, self.there.other = lambda: self.there.running, lambda: self.source.running
        self.there.came_from = self.source
        self.backends = (FakeBackend(path / "a", trip), FakeBackend(path / "b", trip, who="there backend"))
        self.ram = [os.memfd_create(name) for name in ("a", "b")]
        for fd in self.ram:
            os.ftruncate(fd, SIZE)
        if shared:
            self.ram[1] = self.ram[0]
        for at in (0, WINDOW.start):
            os.pwrite(self.ram[0], b"x" * PAGE, at)

    def close(self) -> None:
        """Forget RAM."""
        for fd in set(self.ram):
            os.close(fd)

    @property
    def same(self) -> bool:
        """RAM is the same at both sides."""
        return os.pread(self.ram[0], SIZE, 0) == os.pread(self.ram[1], SIZE, 0)

    def check(self, what: Left) -> None:
        """The guest is where `what` says."""
        assert (self.source.running, self.there.running) == {
            Left.UNTOUCHED: (True, False),
            Left.SOURCE: (True, False),
            Left.DESTINATION: (False, True),
            Left.UNDECIDED: (False, False),
            Left.LOST: (False, self.there.running),
        }[what]


def do(pair: Pair, what: Callable[[], Awaitable[None]]) -> None:
    """Do `what` while both backends take connections."""

    async def inside() -> None:
        for backend in pair.backends:
            await backend.open()
        async with asyncio.timeout(LIMIT):
            await what()
        for backend in pair.backends:
            backend.close()

    try:
        asyncio.run(inside())
    finally:
        pair.close()


class Place:
    """A host on which QEMU and backend are fakes; a `receiver_session.Host`."""

    ram_size = SIZE
    window = WINDOW

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.ram_fd = pair.ram[1]
        self.kernel = File(pair.there.path / "kernel", len(KERNEL), KERNEL_SHA256)
        self.printed = b""
        self.typed = b""
        self.identity = ""
        self.abandoned = 0

    def consider(self, offer: dict[str, Any]) -> dict[str, File]:
        return {"kernel": self.kernel}

    async def prepare(self, identity: str) -> Side:
        self.identity = identity
        await self.pair.there.start(1)
        return self.pair.there

    def console(self, data: bytes) -> None:
        self.printed += data

    def history(self, resets: list[dict[str, Any]], count: int, typed: bytes) -> None:
        self.typed = typed

    async def abandon(self) -> None:
        self.abandoned += 1
        await self.pair.there.execute("quit", {})


@contextlib.asynccontextmanager
async def receiving(pair: Pair) -> AsyncIterator[tuple[Place, Path]]:
    """A host that waits for a guest, and the socket that leads there."""
    place = Place(pair)
    reception = Reception(place, "", lambda _state, _what: None)
    path = pair.there.path / "receive.sock"
    server = await listen_unix(path, reception.accept)
    try:
        yield place, path
    finally:
        server.close()
        await reception.close()


def remote(pair: Pair, path: Path, route: str) -> Sequence[RemoteResult]:
    options = MigrationOptions(route)
    kernel = pair.source.path / "kernel"
    kernel.write_bytes(KERNEL)
    offer = Offer({"name": "a", "files": {"kernel": {"size": len(KERNEL)}}}, {"kernel": kernel})
    destination = RemoteDestination(
        pair.source,
        Address("unix", str(path)),
        offer,
        options,
        no_report,
        pair.ram[0],
        SIZE,
        lambda: {"resets": [], "count": 0},
        lambda: b"typed",
        lambda where: (pair.source.path / rundir.HANDOVER).write_text(where),
    )
    return Sequence(pair.source, destination, options, no_report)
