"""Each side of a migration between hosts against another that says what it must not: refused in one line, by both."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qemu_sdei import rundir
from qemu_sdei.errors import GuestError, SdeiError
from qemu_sdei.migration import destination_remote, receiver_session
from qemu_sdei.migration.failure_points import Left
from qemu_sdei.migration.options import COPY, LIVE
from qemu_sdei.migration.remote_address import Address, connect, listen_unix
from qemu_sdei.migration.remote_link import CONTROL, RAM, Link, RefusedError, greet
from tests.migration.fakes import Trip
from tests.migration.hosts import KERNEL, Pair, do, receiving, remote

Message = tuple[dict[str, Any], bytes]

OFFER: Message = ({"cmd": "offer", "name": "a"}, b"")
FILE: Message = ({"cmd": "file", "role": "kernel"}, KERNEL)
PREPARE: Message = ({"cmd": "prepare", "route": COPY, "multifd": 0}, b"")
DOCUMENT: Message = ({"cmd": "document"}, b"{}")
READY = [OFFER, FILE, PREPARE]
ARRIVED = [*READY, DOCUMENT, ({"cmd": "arrived"}, b"")]
RESTORED = [*ARRIVED, ({"cmd": "restore"}, b"")]
HISTORY: Message = ({"cmd": "history", "resets": [], "count": 0}, b"")


def reset(**change: object) -> dict[str, Any]:
    """An entry of the history of resets."""
    return {"guest": True, "reason": "guest-reset", "position": 7} | change


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ([PREPARE], "'prepare' is not what comes next here"),
        ([({"cmd": ["offer"]}, b"")], "is not what comes next here"),
        ([OFFER, OFFER], "'offer' is not what comes next here"),
        ([OFFER, PREPARE], "files are missing: kernel"),
        ([OFFER, ({"cmd": "file", "role": "initrd"}, KERNEL)], "file 'initrd' is not what was asked for"),
        ([OFFER, ({"cmd": "file", "role": "kernel"}, KERNEL + b"d")], "is not what was asked for"),
        ([OFFER, ({"cmd": "file", "role": "kernel"}, b"xyz")], "is not the one that was offered"),
        ([OFFER, FILE, ({"cmd": "prepare", "route": "postcopy", "multifd": 0}, b"")], "comes here by route"),
        ([OFFER, FILE, ({"cmd": "prepare", "route": COPY, "multifd": True}, b"")], "comes here by route"),
        (
            [OFFER, FILE, ({**PREPARE[0], "identity": "../x"}, b"")],
            "the guest's identity is not of the protocol's form",
        ),
        ([*READY, ({"cmd": "console"}, b"x" * 64), ({"cmd": "console"}, b"x" * 64)], "history has more than"),
        ([*READY, ({"cmd": "arrived"}, b"")], "'arrived' is not what comes next here"),
        ([*READY, ({"cmd": "go", "running": True}, b"")], "'go' is not what comes next here"),
        ([*ARRIVED, ({"cmd": "verify"}, b""), ({"cmd": "hashes"}, b"x")], "the hashes of RAM are not"),
        ([*RESTORED, ({"cmd": "history"}, b"")], "the history of resets is not"),
        ([*RESTORED, ({"cmd": "history", "resets": [1]}, b"")], "the history of resets is not"),
        ([*RESTORED, ({"cmd": "history", "resets": [reset(guest=1)]}, b"")], "the history of resets is not"),
        ([*RESTORED, ({"cmd": "history", "resets": [reset(reason="x" * 101)]}, b"")], "the history of resets is not"),
        ([*RESTORED, ({"cmd": "history", "resets": [reset(position=-1)]}, b"")], "the history of resets is not"),
        ([*RESTORED, ({"cmd": "history", "resets": [reset(more=1)]}, b"")], "the history of resets is not"),
        ([*RESTORED, ({"cmd": "history", "resets": [], "count": True}, b"")], "the history of resets is not"),
        ([*RESTORED, HISTORY, ({"cmd": "go"}, b"")], "go does not say whether the guest is to run"),
        ([*RESTORED, HISTORY, ({"cmd": "go", "running": 1}, b"")], "go does not say whether the guest is to run"),
    ],
)
def test_what_a_receiver_does_not_take(
    said: list[Message], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the guest runs then, and nothing of it is left."""
    monkeypatch.setattr(receiver_session, "MAX_CONSOLE", 100)
    pair = Pair(tmp_path, Trip(), shared=False)
    pair.source._migration = "completed"

    async def run() -> None:
        async with receiving(pair) as (place, path):
            link = await connect(Address("unix", str(path)))
            await greet(link, CONTROL, "", 10)
            for message, data in said[:-1]:
                await link.send(message, data)
                if message["cmd"] != "verify":
                    await link.answer()
            await link.send(*said[-1])
            with pytest.raises(RefusedError, match=words):
                await link.answer()
            assert not pair.there.running
            assert place.abandoned == 1

    do(pair, run)


@pytest.mark.parametrize(
    ("blocked", "said", "words"),
    [
        ("kernel", [OFFER, FILE], "the destination cannot write .*kernel: File exists"),
        (rundir.STATE, [*READY, DOCUMENT], "the destination cannot write the state document: Is a directory"),
    ],
)
def test_what_a_receiver_cannot_write(blocked: str, said: list[Message], words: str, tmp_path: Path) -> None:
    pair = Pair(tmp_path, Trip(), shared=False)
    (pair.there.path / blocked).mkdir()

    async def run() -> None:
        async with receiving(pair) as (_, path):
            link = await connect(Address("unix", str(path)))
            await greet(link, CONTROL, "", 10)
            for message, data in said[:-1]:
                await link.send(message, data)
                await link.answer()
            await link.send(*said[-1])
            with pytest.raises(RefusedError, match=words):
                await link.answer()

    do(pair, run)


def test_a_receiver_whose_qemu_takes_no_connection(tmp_path: Path) -> None:
    """Whoever sends RAM hears why it does not get there."""
    pair = Pair(tmp_path, Trip(), shared=False)

    async def run() -> None:
        async with receiving(pair) as (_, path):
            control = await connect(Address("unix", str(path)))
            await greet(control, CONTROL, "", 10)
            session = ""
            for message, data in READY:
                await control.send(message, data)
                session = str((await control.answer()).get("session"))
            (pair.there.path / receiver_session.SOCKET).unlink()
            with pytest.raises(RefusedError, match="QEMU takes no connection: No such file"):
                await greet(await connect(Address("unix", str(path))), RAM, session, 10)

    do(pair, run)


def answering(change: Callable[[str, dict[str, Any]], dict[str, Any] | None]) -> Callable[[Link], Any]:
    """A receiver that answers as one does, but for what `change` makes of it; None: it hangs up."""
    answers: dict[str, dict[str, Any]] = {
        "hello": {"protocol": 1},
        "offer": {"need": ["kernel"]},
        "prepare": {"name": "b", "session": "s", "ms": 1},
    }

    async def accept(link: Link) -> None:
        try:
            while True:
                message = await link.receive()
                await link.blob(message, 1 << 20)
                command = str(message.get("cmd", "hello"))
                answer = change(command, {"ok": True, **answers.get(command, {})})
                if answer is None or message.get("channel") == RAM:
                    link.abort()
                    return
                await link.send(answer)
        except SdeiError:
            link.abort()

    return accept


@pytest.mark.parametrize(
    ("at", "answer", "words"),
    [
        ("hello", None, "the other side has hung up"),
        ("hello", {"ok": False, "error": "no \x1b[31mroom"}, r"^no \[31mroom$"),
        ("offer", {"ok": True}, "the answer to the offer is not of the protocol's form"),
        ("offer", {"ok": True, "need": ["/etc/shadow"]}, "the answer to the offer is not of the protocol's form"),
        ("offer", {"ok": True, "need": [[]]}, "the answer to the offer is not of the protocol's form"),
        ("offer", {"ok": 1}, "an answer is not of the protocol's form"),
        ("prepare", {"ok": True, "name": "", "session": "s"}, "an answer is not of the protocol's form"),
        ("prepare", {"ok": True, "name": "b", "session": 1}, "an answer is not of the protocol's form"),
        ("document", None, "the other side has hung up"),
    ],
)
def test_what_a_source_does_not_take(at: str, answer: dict[str, Any] | None, words: str, tmp_path: Path) -> None:
    pair = Pair(tmp_path, Trip(), shared=False)

    async def run() -> None:
        path = tmp_path / "receiver"
        server = await listen_unix(
            path, answering(lambda command, whole: json.loads(json.dumps(answer)) if command == at else whole)
        )
        with pytest.raises(SdeiError, match=words):
            await remote(pair, path, COPY).run()
        pair.check(Left.SOURCE)
        server.close()

    do(pair, run)


def test_why_ram_did_not_get_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """QEMU only knows that its connection broke; the other side's reason stands behind what it says."""
    pair = Pair(tmp_path, Trip(), shared=False)
    monkeypatch.setattr(destination_remote, "_ALIVE", 0.02)

    asked: list[str] = []

    def note(command: str, whole: dict[str, Any]) -> dict[str, Any]:
        asked.append(command)
        return whole

    async def fail(uri: str) -> dict[str, Any]:
        reader, _writer = await asyncio.open_unix_connection(uri.removeprefix("unix:"))
        await reader.read()
        while "alive" not in asked:
            await asyncio.sleep(0.01)
        raise GuestError("QEMU's migration has failed")

    pair.source._migrate = fail  # type: ignore[method-assign]

    async def run() -> None:
        path = tmp_path / "receiver"
        server = await listen_unix(path, answering(note))
        with pytest.raises(GuestError, match=r"^QEMU's migration has failed: the other side has hung up$"):
            await remote(pair, path, LIVE).run()
        pair.check(Left.SOURCE)
        server.close()

    do(pair, run)


@pytest.mark.parametrize(("content", "words"), [(None, "No such file"), (b"a", "it has become shorter")])
def test_a_file_that_has_changed(content: bytes | None, words: str, tmp_path: Path) -> None:
    pair = Pair(tmp_path, Trip(), shared=False)

    async def run() -> None:
        async with receiving(pair) as (_, path):
            sequence = remote(pair, path, COPY)
            kernel = pair.source.path / "kernel"
            kernel.unlink() if content is None else kernel.write_bytes(content)
            with pytest.raises(GuestError, match=f"kernel cannot be read: {words}"):
                await sequence.run()
            pair.check(Left.UNTOUCHED)
            assert not pair.there.running

    do(pair, run)


def test_nobody_is_there(tmp_path: Path) -> None:
    pair = Pair(tmp_path, Trip(), shared=False)

    async def run() -> None:
        with pytest.raises(GuestError, match="cannot be reached: No such file"):
            await remote(pair, tmp_path / "nowhere", COPY).run()
        pair.check(Left.UNTOUCHED)

    do(pair, run)
