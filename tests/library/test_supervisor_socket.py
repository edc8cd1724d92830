"""The owner socket: requests of other processes, good and bad."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qemu_sdei import guest_identity, locks
from qemu_sdei.errors import GuestError, GuestTimeoutError, LostGuestError, SdeiError, UsageError
from qemu_sdei.guest import supervisor_client
from qemu_sdei.guest import supervisor_socket as owner_module
from qemu_sdei.guest.supervisor_client import ask
from qemu_sdei.guest.supervisor_socket import MAX_LINE, Command, Progress, SupervisorSocket
from qemu_sdei.message_log import QMP
from qemu_sdei.migration import backend_link
from qemu_sdei.migration.backend_link import BackendLink
from qemu_sdei.migration.options import Hold, MigrationOptions
from tests.guest.guests import runtime_directory


class Owner:
    """An owner that answers requests in a thread, and notes which of them were cancelled."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cancelled = threading.Event()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        commands: dict[str, Command] = {
            "echo": self._echo,
            "talk": self._talk,
            "refuse": self._refuse,
            "fail": self._fail,
            "wait": self._wait,
        }
        self.socket = SupervisorSocket(commands)
        self.run(self.socket.open(path))

    def run(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    async def _echo(self, request: dict[str, Any], progress: Progress) -> dict[str, Any]:
        progress({"step": 1})
        return {"said": request["word"]}

    async def _talk(self, request: dict[str, Any], progress: Progress) -> dict[str, Any]:
        QMP.sent("a", {"execute": "migrate"})
        await asyncio.to_thread(QMP.received, "a", {"error": {"desc": "no\x1b"}})
        await asyncio.sleep(0)
        return {}

    async def _refuse(self, request: dict[str, Any], progress: Progress) -> dict[str, Any]:
        raise UsageError("not so")

    async def _fail(self, request: dict[str, Any], progress: Progress) -> dict[str, Any]:
        raise SdeiError("it broke")

    async def _wait(self, request: dict[str, Any], progress: Progress) -> dict[str, Any]:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return {}

    def end(self) -> None:
        self.run(self.socket.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()


@pytest.fixture
def owner() -> Iterator[Owner]:
    with runtime_directory() as path:
        owner = Owner(path / "owner.sock")
        try:
            yield owner
        finally:
            owner.end()


def test_request(owner: Owner) -> None:
    steps: list[dict[str, Any]] = []
    assert ask(owner.path, "echo", {"word": "x"}, steps.append) == {"said": "x"}
    assert steps == [{"step": 1}]
    assert owner.path.stat().st_mode & 0o777 == 0o600


def test_errors(owner: Owner) -> None:
    with pytest.raises(UsageError, match="not so"):
        ask(owner.path, "refuse", {}, print)
    with pytest.raises(GuestError, match="it broke"):
        ask(owner.path, "fail", {}, print)
    with pytest.raises(UsageError, match="there are echo, fail, refuse, talk, wait"):
        ask(owner.path, "other", {}, print)
    with pytest.raises(UsageError, match="not run by qemu-sdei"):
        ask(owner.path.with_name("nobody.sock"), "echo", {}, print)


def test_messages_are_sent_on_to_who_asks(owner: Owner) -> None:
    """What this process and QEMU say to each other, from whichever thread, before the result; to nobody else."""
    told = {}
    for wanted in (True, False):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(owner.path))
            connection.settimeout(10)
            connection.sendall(json.dumps({"cmd": "talk", "messages": wanted}).encode() + b"\n")
            told[wanted] = [json.loads(line) for line in connection.makefile("rb")]
    assert told[False] == [{"ok": True, "result": {}}]
    *messages, last = told[True]
    assert last == {"ok": True, "result": {}}
    assert [each["message"]["text"] for each in messages] == [
        'a -> {"execute": "migrate"}',
        'a <- {"error": {"desc": "no\\u001b"}}',
    ]
    assert {each["message"]["logger"] for each in messages} == {"qemu_sdei.qmp"}


@pytest.mark.parametrize("line", [b"\n", b"no json\n", b"[1]\n", b'{"cmd": [1]}\n', b"[" * 5000 + b"\n", b"\xff\n"])
def test_nonsense_gets_an_error(owner: Owner, line: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(owner.path))
        connection.settimeout(10)
        connection.sendall(line)
        answer = json.loads(connection.makefile("rb").readline())
        assert answer["ok"] is False
        assert answer["error"]["kind"] == "usage"
    assert ask(owner.path, "echo", {"word": 1}, print) == {"said": 1}


def test_too_long_is_hung_up_on(owner: Owner) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(owner.path))
        connection.settimeout(10)
        connection.sendall(b"x" * (2 * MAX_LINE))
        try:
            answer = json.loads(connection.makefile("rb").readline())
            assert "at most" in answer["error"]["message"]
        except ConnectionResetError:
            pass
    assert ask(owner.path, "echo", {"word": 1}, print) == {"said": 1}


def test_client_that_hangs_up_cancels(owner: Owner) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(owner.path))
        connection.sendall(b'{"cmd": "wait"}\n')
    assert owner.cancelled.wait(10)


def test_who_gives_up_is_told_what_became_of_it(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C: the exception that ends the command says it, whether it was in time or not."""

    class Ended(BaseException):
        pass

    def end(step: dict[str, Any]) -> None:
        raise Ended

    def interrupted(lines: Any, progress: Any) -> Any:
        monkeypatch.undo()
        raise Ended

    with pytest.raises(Ended) as late:
        ask(owner.path, "echo", {"word": "x"}, end)
    assert late.value.__notes__ == ["too late to give up, echo is done"]
    monkeypatch.setattr(supervisor_client, "_outcome", interrupted)
    with pytest.raises(Ended) as early:
        ask(owner.path, "wait", {}, end)
    assert owner.cancelled.wait(10)
    assert early.value.__notes__ == [f"given up; guest {owner.path.parent.name!r} goes on"]


def test_owner_that_ends(owner: Owner) -> None:
    """The client is told; the socket is gone."""
    timer = threading.Timer(0.2, lambda: owner.run(owner.socket.close()))
    timer.start()
    with pytest.raises(LostGuestError, match="went away"):
        ask(owner.path, "wait", {}, print, patience=10)
    timer.join()
    assert not owner.path.exists()


@contextlib.contextmanager
def full_queue(path: Path) -> Iterator[socket.socket]:
    """A socket that listens at `path` and has no room for another client."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(str(path))
        yield listener


def test_an_owner_that_takes_no_clients_is_not_taken_for_none(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that is stopped, or busy, once many have asked it."""
    monkeypatch.setattr(supervisor_client, "_CONNECT", 0.3)
    with full_queue(runtime / "owner.sock"), pytest.raises(GuestTimeoutError, match=r"took no client within 0\.3 s"):
        ask(runtime / "owner.sock", "migrate", {}, print)


def test_a_stopped_owner_that_has_no_room_for_clients_is_named(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_client, "_STOPPED", 0.1)
    code = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2); print(flush=True); input()"
    with full_queue(runtime / "owner.sock"):
        words = [sys.executable, "-c", code, str(runtime / "lock")]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
            try:
                assert owner.stdout is not None
                owner.stdout.readline()
                owner.send_signal(signal.SIGSTOP)
                os.waitid(os.P_PID, owner.pid, os.WSTOPPED)
                with pytest.raises(GuestTimeoutError, match=f"its supervisor, process {owner.pid}, is stopped"):
                    ask(runtime / "owner.sock", "migrate", {}, print)
            finally:
                owner.kill()


def test_a_backend_that_takes_no_clients_has_not_gone_away(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_link, "_CONNECT", 0.3)
    with full_queue(runtime / "control.sock"), pytest.raises(LostGuestError, match=r"does not answer at .*: in time"):
        asyncio.run(BackendLink.open(runtime / "control.sock"))


def test_a_client_waits_for_room_in_the_queue(runtime: Path) -> None:
    async def opened() -> None:
        waiting = asyncio.create_task(BackendLink.open(runtime / "control.sock"))
        await asyncio.sleep(0)
        listener.accept()[0].close()
        await waiting

    with full_queue(runtime / "control.sock") as listener:
        asyncio.run(opened())


def test_options_from_another_process() -> None:
    options = MigrationOptions(route="copy", verify=False, hold=Hold("running", 0x100, 1, 2.0), timeout=5)
    assert MigrationOptions.from_json(json.loads(json.dumps(options.to_json()))) == options
    assert MigrationOptions.from_json({}) == MigrationOptions()
    damaged: tuple[Any, ...] = (
        None,
        [],
        {"other": 1},
        {"route": 1},
        {"route": "train"},
        {"verify": 1},
        {"timeout": True},
        {"timeout": 0},
        {"hold": 5},
        {"hold": {"state": "dancing"}},
        {"hold": {"event": 0}},
        {"hold": {"state": "running", "vcpu": "x"}},
    )
    for damage in damaged:
        with pytest.raises(UsageError):
            MigrationOptions.from_json(damage)


def answers(path: Path, data: bytes = b"") -> bytes:
    """All that a client hears that says `data` and no more."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(path))
        heard = b""
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):  # hung up on before it had said all
            connection.sendall(data)
            while part := connection.recv(4096):
                heard += part
        return heard


def test_another_user_is_refused(
    owner: Owner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(locks, "peer_uid", lambda _: 4711)
    assert answers(owner.path) == b""
    assert "a process of user 4711 was refused" in caplog.text
    monkeypatch.setattr(locks, "peer_uid", lambda _: 0)
    assert ask(owner.path, "echo", {"word": 1}, print) == {"said": 1}, "root may"


def test_who_says_nothing_is_hung_up_on_and_holds_nobody_up(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner_module, "_FIRST_WORD", 0.3)
    for half in (b"", b'{"cmd": "ec'):
        assert b"nothing was asked within 0.3 s" in answers(owner.path, half)
    assert ask(owner.path, "echo", {"word": 1}, print) == {"said": 1}


def test_more_clients_than_there_is_room_for(owner: Owner) -> None:
    with contextlib.ExitStack() as crowd:
        for _ in range(owner_module._MAX_CLIENTS):
            connection = crowd.enter_context(socket.socket(socket.AF_UNIX))
            connection.connect(str(owner.path))
            connection.sendall(b'{"cmd": "wait"}\n')
        assert b"more than" in answers(owner.path)
    for _ in range(200):
        if b'"ok": true' in answers(owner.path, b'{"cmd": "echo", "word": 1}\n') and owner.cancelled.wait(10):
            break
    assert ask(owner.path, "echo", {"word": 1}, print) == {"said": 1}


def test_a_request_that_means_another_guest_is_refused() -> None:
    with runtime_directory() as path:
        guest_identity.write(path)
        owner = Owner(path / "owner.sock")
        try:
            for meant in ("", guest_identity.read(path)):
                assert ask(owner.path, "echo", {"word": 1}, print, identity=meant) == {"said": 1}
            with pytest.raises(GuestError, match="has ended; another guest of that name runs now"):
                ask(owner.path, "wait", {}, print, identity="0" * 32)
            assert not owner.cancelled.is_set(), "it was not even begun"
        finally:
            owner.end()
