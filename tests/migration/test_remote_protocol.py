"""The receiving side against sources that say anything: nothing of a guest is made before all was checked."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from qemu_sdei.errors import ProtocolError, SdeiError, UsageError
from qemu_sdei.migration import receiver, remote_ram
from qemu_sdei.migration.receiver import Reception
from qemu_sdei.migration.receiver_session import File
from qemu_sdei.migration.remote_address import Address, Tls, connect, is_loopback, joined, listen_tcp, parse, split
from qemu_sdei.migration.remote_link import CONTROL, OUTCOME, RAM, Link, LostPeerError, RefusedError, clean, greet
from qemu_sdei.migration.remote_ram import CHUNK, Verifier, hashes, verify
from qemu_sdei.migration.source import Side

TOKEN = "the right one"


class Place:
    """A host on which no guest can be started, and that notes what was asked of it."""

    ram_fd = -1
    ram_size = 0
    window = range(0)

    def __init__(self, directory: Path) -> None:
        self.file = File(directory / "file", 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
        self.asked: list[str] = []

    def consider(self, offer: dict[str, Any]) -> dict[str, File]:
        self.asked.append("consider")
        return {"kernel": self.file}

    async def prepare(self, identity: str) -> Side:
        self.asked.append("prepare")
        raise SdeiError("there is no QEMU here")

    def console(self, data: bytes) -> None:
        raise AssertionError

    def history(self, resets: list[dict[str, Any]], count: int, typed: bytes) -> None:
        raise AssertionError

    async def abandon(self) -> None:
        self.asked.append("abandon")


def against(
    source: Callable[[Address, Reception, Place], Awaitable[None]], directory: Path
) -> tuple[list[str], list[tuple[str, str]]]:
    """Run `source` against a reception; return what it asked of the host, and what was told."""
    place = Place(directory)
    told: list[tuple[str, str]] = []

    async def run() -> None:
        reception = Reception(place, TOKEN, lambda state, what: told.append((state, what)))
        server, port = await listen_tcp("127.0.0.1", 0, None, reception.accept)
        async with asyncio.timeout(20):
            await source(Address("tcp", "127.0.0.1", port, TOKEN), reception, place)
        server.close()
        await reception.close()
        assert not reception.arrived.done()

    asyncio.run(run())
    return place.asked, told


@pytest.mark.parametrize(
    ("hello", "words"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "a message is not JSON"),
        (b"\xff\xfe\n", "a message is not JSON"),
        (b"[" * 4000 + b"\n", "a message is not JSON"),
        (b"[]\n", "a message is not a JSON object"),
        (b'{"qemu-sdei": 2, "channel": "control", "token": ""}\n', "speaks protocol 1"),
        (b'{"qemu-sdei": 1, "channel": ["control"], "token": ""}\n', "speaks protocol 1"),
        (b'{"qemu-sdei": 1, "channel": "control", "token": 1}\n', "speaks protocol 1"),
        (b'{"qemu-sdei": 1, "channel": "control", "token": "\\ud800"}\n', "the token is wrong"),
        (b'{"qemu-sdei": 1, "channel": "control", "token": ""}\n', "the token is wrong"),
        (b'{"qemu-sdei": 1, "channel": "ram", "token": "the right one"}\n', "nothing is known of that guest"),
        (b'{"qemu-sdei": 1, "channel": "outcome", "token": ""}\n', "nothing is known of that guest"),
        (b'{"qemu-sdei": 1, "x": "' + b"x" * 5000 + b'"}\n', "more than 4 KiB"),
        (b"x" * (3 << 20), "more than 4 KiB"),
    ],
)
def test_strangers(hello: bytes, words: str, tmp_path: Path) -> None:
    async def source(address: Address, reception: Reception, place: Place) -> None:
        link = await connect(address)
        link.writer.write(hello)
        with pytest.raises((RefusedError, LostPeerError)) as refusal:
            await link.answer()
        assert words in str(refusal.value) or len(hello) > 1 << 20
        # The next one is served.
        link = await connect(address)
        assert (await greet(link, CONTROL, TOKEN, 10))["protocol"] == 1
        link.abort()

    asked, _ = against(source, tmp_path)
    assert set(asked) <= {"abandon"}


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([b'{"cmd": "go", "running": true}\n'], "'go' is not what comes next"),
        ([b'{"cmd": "prepare"}\n'], "'prepare' is not what comes next"),
        ([b'{"cmd": ["offer"]}\n'], "is not what comes next"),
        ([b'{"cmd": "\\u001b[31m"}\n'], "'[31m' is not what comes next"),
        ([b"{}\n"], "'None' is not what comes next"),
        ([b'{"cmd": "offer"}\n', b'{"cmd": "prepare"}\n'], "files are missing: kernel"),
        ([b'{"cmd": "offer"}\n', b'{"cmd": "file", "role": "initrd", "bytes": 3}\nabc'], "'initrd' is not what was"),
        ([b'{"cmd": "offer"}\n', b'{"cmd": "file", "role": {}, "bytes": 3}\nabc'], "is not what was asked for"),
        ([b'{"cmd": "offer"}\n', b'{"cmd": "file", "role": "kernel", "bytes": 4}\nabcd'], "is not what was asked for"),
        ([b'{"cmd": "offer"}\n', b'{"cmd": "file", "role": "kernel", "bytes": 3.0}\nabc'], "more behind it than"),
        (
            [b'{"cmd": "offer"}\n', b'{"cmd": "file", "role": "kernel", "bytes": 3}\nabd'],
            "not the one that was offered",
        ),
        ([b'{"cmd": "offer", "x": "' + b"x" * (1 << 19) + b'"}\n'], "more than 256 KiB"),
    ],
)
def test_sources(messages: list[bytes], words: str, tmp_path: Path) -> None:
    """Each ends the attempt, with a reason, and the next one is served."""

    async def source(address: Address, reception: Reception, place: Place) -> None:
        link = await connect(address)
        await greet(link, CONTROL, TOKEN, 10)
        for message in messages[:-1]:
            link.writer.write(message)
            await link.answer()
        link.writer.write(messages[-1])
        with pytest.raises(RefusedError) as refusal:
            await link.answer()
        assert words in str(refusal.value)
        link = await connect(address)
        await greet(link, CONTROL, TOKEN, 10)
        link.abort()

    asked, told = against(source, tmp_path)
    assert "prepare" not in asked
    assert "abandon" in asked
    assert words in told[-2][1] or words in told[-1][1] or any(words in what for _, what in told)


def test_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second source is refused while the first one is there, and what became of an attempt can be asked for."""
    monkeypatch.setattr(receiver, "_HELLO", 0.3)

    async def source(address: Address, reception: Reception, place: Place) -> None:
        first = await connect(address)
        await greet(first, CONTROL, TOKEN, 10)
        await first.ask("offer")
        with pytest.raises(RefusedError, match="another guest is arriving"):
            await greet(await connect(address), CONTROL, TOKEN, 10)
        secret = reception._sessions[0].secret
        ram = await connect(address)
        with pytest.raises(LostPeerError):  # there is no QEMU yet that it could lead to
            await greet(ram, RAM, secret, 10)
        await first.send({"cmd": "file", "role": "kernel"}, b"abc")
        await first.answer()
        with pytest.raises(RefusedError, match="there is no QEMU here"):
            await first.ask("prepare", route="live", multifd=0)
        assert (await greet(await connect(address), OUTCOME, secret, 10))["outcome"] == "ended"

    asked, told = against(source, tmp_path)
    assert asked == ["consider", "prepare", "abandon"]
    assert told[-1] == ("failed", "there is no QEMU here")
    assert (tmp_path / "file").read_bytes() == b"abc"


def test_many_strangers(tmp_path: Path) -> None:
    """Those that say nothing take no more than their number, and go."""

    async def source(address: Address, reception: Reception, place: Place) -> None:
        silent = [await connect(address) for _ in range(40)]
        with pytest.raises(LostPeerError):
            await silent[-1].receive()
        silent[0].abort()
        await asyncio.sleep(0)
        while reception._strangers >= receiver._STRANGERS:
            await asyncio.sleep(0.01)
        await greet(await connect(address), CONTROL, TOKEN, 10)
        for link in silent:
            link.abort()

    against(source, tmp_path)


async def _pair() -> tuple[Link, Link]:
    """Two ends of a connection."""
    import socket

    ends = socket.socketpair()
    links = [Link(*await asyncio.open_unix_connection(sock=end, limit=1 << 20)) for end in ends]
    return links[0], links[1]


def test_ram_is_compared_and_repaired() -> None:
    """Holes, zeroes, a last chunk that is not whole, pages apart: all is as at the source, and counted."""
    size = 70 * CHUNK + 8192
    one, other = (os.memfd_create("ram") for _ in range(2))
    data = os.urandom(3 * CHUNK)
    for fd in (one, other):
        os.ftruncate(fd, size)
        os.pwrite(fd, data, 5 * CHUNK - 4096)
        os.pwrite(fd, b"last", size - 4096)
    os.pwrite(other, bytes(CHUNK), 20 * CHUNK)  # zeroes for a hole: the same
    differing = [5 * CHUNK, 5 * CHUNK + 8192, 30 * CHUNK, 60 * CHUNK, size - 4096]
    for offset in differing[:2]:
        os.pwrite(one, b"newer", offset)
    os.pwrite(one, b"only here", differing[2])
    os.pwrite(other, b"only there", differing[3])
    os.pwrite(one, b"newer", differing[4])
    os.pwrite(other, b"window", 40 * CHUNK)

    async def run() -> int:
        source, destination = await _pair()
        verifier = Verifier(other, size, range(40 * CHUNK, 41 * CHUNK))

        async def serve() -> None:
            assert (await destination.receive())["cmd"] == "verify"
            await verifier.verify(destination)
            while True:
                message = await destination.receive()
                await destination.send({"ok": True, "pages": await verifier.repair(destination, message)})

        task = asyncio.ensure_future(serve())
        pages = await verify(source, one, size)
        again = await asyncio.to_thread(hashes, other, size)
        assert again == hashes(one, size)
        task.cancel()
        return pages

    assert asyncio.run(run()) == len(differing)
    assert os.pread(one, size, 0) == os.pread(other, size, 0)
    os.close(one)
    os.close(other)


@pytest.mark.parametrize("some", [None, [-1], [1], [True], ["0"], [0] * 65, list(range(10**4))])
def test_repair_refuses(some: object) -> None:
    fd = os.memfd_create("ram")
    os.ftruncate(fd, CHUNK)

    async def run() -> None:
        source, destination = await _pair()
        source.writer.write(b"x" * CHUNK)
        with pytest.raises(ProtocolError):
            await Verifier(fd, CHUNK, range(0)).repair(destination, {"chunks": some, "bytes": CHUNK})

    asyncio.run(run())
    assert not any(os.pread(fd, CHUNK, 0))
    assert os.fstat(fd).st_size == CHUNK
    os.close(fd)
    assert remote_ram.chunks(CHUNK + 1) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lab2", "is not understood"),
        ("http://lab2:1", "is not understood"),
        ("tls://lab2", "write HOST:PORT"),
        ("tls://lab2:99999", "write HOST:PORT"),
        ("tls://lab2:0", "a port is a number"),
        ("tls://lab2:1", "needs --tls-cert"),
        ("tcp://lab2:1", "does not go to lab2 in clear"),
        ("tcp://localhost.evil.example:1", "in clear"),
        ("tcp://127.0.0.1:1", "needs the --token"),
        ("unix:" + "x" * 120, "too long"),
    ],
)
def test_addresses_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse(text)


def test_addresses() -> None:
    assert parse("tcp://[::1]:70", token="t") == Address("tcp", "::1", 70, "t")
    assert parse("unix:///tmp/x").host == parse("unix:/tmp/x").host == "/tmp/x"
    tls = Tls("c", "k", "a")
    address = parse("tls://lab2.example:4", tls=tls)
    assert Address.from_json(json.loads(json.dumps(address.to_json()))) == address
    assert split("[fe80::1%eth0]:5") == ("fe80::1%eth0", 5)
    assert joined("::1", 5) == "[::1]:5"
    assert [is_loopback(host) for host in ("127.3.2.1", "::1", "localhost", "0.0.0.0", "::", "lab2")] == [True] * 3 + [
        False
    ] * 3
    for bad in (None, {}, {"kind": 1}, {"kind": "unix", "port": "1"}, {"kind": "tls", "tls": {"cert": "x"}}):
        with pytest.raises(UsageError):
            Address.from_json(bad)
    assert clean("a\x1b[31m\n b" + "x" * 5000).startswith("a [31m bxxx")
    assert len(clean("x" * 5000)) < 1100


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "lab2", "localhost.evil.example"])
def test_nothing_listens_beyond_loopback_in_clear(host: str) -> None:
    async def accept(link: Link) -> None:
        raise AssertionError

    with pytest.raises(UsageError, match="is not loopback: give --tls-cert"):
        asyncio.run(listen_tcp(host, 0, None, accept))
