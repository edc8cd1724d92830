"""What a user gives as another host, or to be reached by: each mistake is said before anything is done."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from qemu_sdei.errors import LostGuestError, UsageError
from qemu_sdei.migration.backend_link import BackendLink
from qemu_sdei.migration.ram import extents
from qemu_sdei.migration.remote_address import Tls, listen_tcp, listen_unix, parse
from qemu_sdei.migration.remote_ssh import parse_ssh


@pytest.mark.parametrize("missing", range(3))
def test_tls_needs_all_of_its_files(missing: int) -> None:
    given = ["cert", "key", "ca"]
    assert Tls.of(None, None, None) is None
    made = Tls.of(*given)
    assert made is not None
    assert [Path(made.cert).name, Path(made.key).name, Path(made.ca).name] == given
    given[missing] = ""
    with pytest.raises(UsageError, match="all of --tls-cert, --tls-key and --tls-ca"):
        Tls.of(*given)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("tls://host:0", "a port is a number from 1 to 65535"),
        ("tls://host:4", "tls:// needs --tls-cert"),
        ("tcp://192.0.2.1:4", "does not go to 192.0.2.1 in clear"),
        ("tcp://127.0.0.1:4", "token"),
        ("http://host", "is not understood"),
    ],
)
def test_another_host_that_cannot_be(text: str, wrong: str) -> None:
    with pytest.raises(UsageError, match=wrong):
        parse(text)


@pytest.mark.parametrize("text", ["ssh://", "ssh://-oProxyCommand=x", "ssh://user@-host", "ssh://host/a b/c"])
def test_a_host_of_ssh_that_cannot_be(text: str) -> None:
    with pytest.raises(UsageError):
        parse_ssh(text)
    assert parse_ssh("ssh://me@[2001:db8::1]:22/guest")[0] == ["-p", "22", "--", "me@2001:db8::1"]


def test_where_nobody_can_listen(tmp_path: Path) -> None:
    async def accept(link: object) -> None:
        """Nobody comes."""

    with pytest.raises(UsageError, match="cannot be made"):
        asyncio.run(listen_unix(tmp_path / "none" / "socket", accept))
    with pytest.raises(UsageError, match="is not loopback"):
        asyncio.run(listen_tcp("192.0.2.1", 0, None, accept))


def test_tcp_has_no_tls() -> None:
    with pytest.raises(UsageError, match="write tls://"):
        parse("tcp://127.0.0.1:4", token="t", tls=Tls("cert", "key", "ca"))


def test_a_backend_that_hangs_up_or_answers_something_else_first(tmp_path: Path) -> None:
    """The answer of a request that was given up is passed over."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number in (0, 1):
            await reader.readline()
            writer.write(b'{"id": 99, "ok": true, "result": {}}\n')
            if number == 0:
                writer.write(b'{"id": 1, "ok": true, "result": {"name": "a"}}\n')
        await writer.drain()
        writer.close()

    async def ask() -> None:
        server = await asyncio.start_unix_server(serve, tmp_path / "socket")
        link = await BackendLink.open(tmp_path / "socket")
        assert await link.request("hello") == {"name": "a"}
        with pytest.raises(LostGuestError, match="went away during hello"):
            await link.request("hello")
        link.close()
        server.close()

    asyncio.run(ask())


def test_a_ram_file_that_cannot_be_looked_at() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        list(extents(1_000_000, 4096))
