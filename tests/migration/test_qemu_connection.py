"""How the two QEMUs of one host are connected, and when all that was sent has been read."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from qemu_sdei.errors import GuestError, GuestTimeoutError
from qemu_sdei.migration import qemu_connection
from qemu_sdei.migration.options import COPY, TCP, UNIX, MigrationOptions
from qemu_sdei.migration.qemu_connection import Wire
from tests.migration.fakes import FakeSide, Trip


class Connected(FakeSide):
    """A QEMU that has got its end of a connection."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, Trip())
        self.end: socket.socket | None = None
        self.uris: list[str] = []
        self.addresses: list[dict[str, Any]] = []

    async def pass_fd(self, name: str, fd: int) -> None:
        self.end = socket.socket(fileno=socket.dup(fd))

    async def execute(self, command: str, arguments: dict[str, object]) -> object:
        if command == "migrate-incoming":
            self.uris.append(str(arguments["uri"]))
        if command == "query-migrate":
            return {"socket-address": self.addresses}
        return {}


@pytest.mark.parametrize("transport", [UNIX, TCP])
def test_what_is_on_its_way_is_waited_for(transport: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, there = Connected(tmp_path / "a"), Connected(tmp_path / "b")

    async def run() -> None:
        wire = Wire(source, there, MigrationOptions(COPY, transport=transport))
        await wire.listen()
        assert (wire.uri, there.uris) == ("fd:migration", ["fd:migration"])
        assert source.end is not None
        assert there.end is not None
        await wire.drained()
        source.end.send(b"a page")
        monkeypatch.setattr(qemu_connection, "_DRAIN", 0.05)
        with pytest.raises(GuestTimeoutError, match="did not read what was sent"):
            await wire.drained()
        monkeypatch.undo()
        assert there.end.recv(100) == b"a page"
        await wire.drained()
        wire.close()
        wire.close()  # whoever ends it for good does not ask
        source.end.close()
        assert there.end.recv(100) == b"", "the destination does not see that the source is gone"
        there.end.close()

    asyncio.run(run())


def test_a_stranger_does_not_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any user of this host can connect to a TCP port: who is not ourselves is sent away."""
    create, strangers = socket.create_connection, []

    def late(address: tuple[str, int]) -> socket.socket:
        strangers.append(create(address))
        return create(address)

    monkeypatch.setattr(socket, "create_connection", late)
    here, there = qemu_connection._tcp_pair()
    with here, there, strangers[0] as stranger:
        here.send(b"x")
        assert there.recv(1) == b"x"
        assert stranger.recv(1) == b""


@pytest.mark.parametrize("transport", [UNIX, TCP])
def test_many_connections_qemu_makes_itself(transport: str, tmp_path: Path) -> None:
    source, there = Connected(tmp_path / "a"), Connected(tmp_path / "b")
    there.addresses = [{"host": "127.0.0.1", "port": "4711"}]

    async def run() -> None:
        wire = Wire(source, there, MigrationOptions(COPY, transport=transport, multifd=2))
        await wire.listen()
        assert wire.uri == (f"unix:{there.path}/migration.sock" if transport == UNIX else "tcp:127.0.0.1:4711")
        there.addresses = []
        if transport == TCP:
            with pytest.raises(GuestError, match="at which TCP port"):
                await Wire(source, there, MigrationOptions(COPY, transport=transport, multifd=2)).listen()

    asyncio.run(run())
