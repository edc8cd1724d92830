"""The control socket's client against backends that answer, refuse, hang, talk nonsense or are just being restarted."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qemu_sdei.errors import (
    BusyError,
    GuestTimeoutError,
    LostGuestError,
    NotDeliveredError,
    ProtocolError,
    SdeiError,
    UsageError,
)
from qemu_sdei.guest.control_client import ControlClient
from qemu_sdei.guest.control_connection import MAX_LINE
from qemu_sdei.monitor.layout import MAX_CPUS
from tests.backend.simulated import SimulatedGuest

Answer = Callable[[dict[str, Any]], bytes | None]


class Backend:
    """Answers each request line with what `answer` gives; None hangs up. It greets each client by itself."""

    def __init__(self, path: Path, answer: Answer, identity: str = "") -> None:
        self.answer = answer
        self.identity = identity
        self.requests: list[dict[str, Any]] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        greeted = False
        with connection, connection.makefile("rb") as lines:
            for line in lines:
                request = json.loads(line)
                if not greeted:
                    greeted = True
                    assert request["cmd"] == "hello"
                    connection.sendall(result(request, protocol=1, identity=self.identity))
                    continue
                self.requests.append(request)
                answer = self.answer(request)
                if answer is None:
                    # makefile holds the socket open: say goodbye by hand.
                    connection.shutdown(socket.SHUT_RDWR)
                    return
                try:
                    connection.sendall(answer)
                except OSError:
                    return

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def result(request: dict[str, Any], **values: Any) -> bytes:
    return json.dumps({"id": request["id"], "ok": True, "result": values}).encode() + b"\n"


def error(request: dict[str, Any], kind: str, message: str) -> bytes:
    return json.dumps({"id": request["id"], "ok": False, "error": {"kind": kind, "message": message}}).encode() + b"\n"


@pytest.fixture
def path(runtime: Path) -> Path:
    return runtime / "control.sock"


@pytest.fixture
def start(path: Path) -> Iterator[Callable[[Answer], Backend]]:
    backends: list[Backend] = []

    def make(answer: Answer) -> Backend:
        backends.append(Backend(path, answer))
        return backends[-1]

    yield make
    for backend in backends:
        backend.close()


def test_a_request_and_its_answer(path: Path, start: Callable[[Answer], Backend]) -> None:
    backend = start(lambda r: result(r, protocol=1, name="guest"))
    with ControlClient(path) as client:
        assert client.hello()["name"] == "guest"
        assert client.status()["name"] == "guest"
    assert [request["cmd"] for request in backend.requests] == ["hello", "status"]


@pytest.mark.parametrize(
    ("kind", "error_type"),
    [
        ("usage", UsageError),
        ("state", NotDeliveredError),
        ("busy", BusyError),
        ("internal", SdeiError),
        ("new", SdeiError),
    ],
)
def test_a_refusal_carries_the_reason(
    path: Path, start: Callable[[Answer], Backend], kind: str, error_type: type[Exception]
) -> None:
    start(lambda r: error(r, kind, "event 0 is masked"))
    with ControlClient(path) as client, pytest.raises(error_type, match="event 0 is masked"):
        client.inject(0, 1)


def test_an_injection(path: Path, start: Callable[[Answer], Backend]) -> None:
    backend = start(lambda r: result(r, outcome="completed", reason=None, entry_ns=5, complete_ns=9))
    with ControlClient(path) as client:
        injection = client.inject(0x100, 1, wait=True)
    assert (injection.outcome, injection.entry_ns, injection.complete_ns) == ("completed", 5, 9)
    assert {key: backend.requests[0][key] for key in ("cmd", "event", "vcpu", "wait")} == {
        "cmd": "inject", "event": 0x100, "vcpu": 1, "wait": True,
    }  # fmt: skip


def test_a_handler_that_does_not_complete_is_told_with_the_reason(
    path: Path, start: Callable[[Answer], Backend]
) -> None:
    start(lambda r: b"" if r["cmd"] == "inject" else result(r, reason="PE 1 is masked"))
    with ControlClient(path) as client:
        with pytest.raises(NotDeliveredError, match=r"event 0x100 on vCPU 1 .* within 0.2 s: PE 1 is masked"):
            client.inject(0x100, 1, wait=True, timeout=0.2)


def test_a_backend_that_comes_back_is_waited_for(path: Path, start: Callable[[Answer], Backend]) -> None:
    timer = threading.Timer(0.3, lambda: start(lambda r: result(r, protocol=1)))
    timer.start()
    with ControlClient(path) as client:
        assert client.hello()["protocol"] == 1
    timer.join()


def test_a_question_is_asked_again_when_the_backend_was_restarted(
    path: Path, start: Callable[[Answer], Backend]
) -> None:
    answers: list[Answer] = [lambda r: None, lambda r: result(r, name="again")]
    start(lambda r: answers.pop(0)(r))
    with ControlClient(path) as client:
        assert client.status()["name"] == "again"


def test_an_injection_is_not_done_twice(path: Path, start: Callable[[Answer], Backend]) -> None:
    backend = start(lambda r: None)
    with ControlClient(path) as client, pytest.raises(LostGuestError, match="whether it was carried out is not known"):
        client.inject(0, 0)
    assert len(backend.requests) == 1


def test_a_guest_that_is_gone_is_told_at_once(path: Path) -> None:
    with ControlClient(path.parent / "gone" / "control.sock") as client:
        with pytest.raises(LostGuestError, match="the guest is gone"):
            client.status()


def test_a_backend_that_is_not_there_is_told_in_time(path: Path) -> None:
    with ControlClient(path, connect_timeout=0.2) as client:
        with pytest.raises(LostGuestError, match=r"does not answer at .* tried for 0.2 s"):
            client.status()


def test_a_backend_that_hangs_is_told_in_time(path: Path, start: Callable[[Answer], Backend]) -> None:
    start(lambda r: b"")
    with ControlClient(path, timeout=0.2) as client, pytest.raises(GuestTimeoutError, match="did not answer status"):
        client.status()


@pytest.mark.parametrize(
    "answer",
    [
        b"hello\n",
        b"[]\n",
        b"null\n",
        b"\xff\n",
        b"[" * 100_000 + b"\n",
        b'{"id": 2}\n',
        b'{"id": 2, "ok": true}\n',
        b'{"id": 2, "ok": true, "result": 5}\n',
        b'{"id": 2, "ok": false, "error": "x"}\n',
        b"x" * (3 << 20),
    ],
)
def test_nonsense_is_a_protocol_error(path: Path, start: Callable[[Answer], Backend], answer: bytes) -> None:
    start(lambda r: answer)
    with ControlClient(path) as client, pytest.raises(ProtocolError):
        client.status()


def test_another_protocol_is_told(path: Path, start: Callable[[Answer], Backend]) -> None:
    start(lambda r: result(r, protocol=2))
    with ControlClient(path) as client, pytest.raises(SdeiError, match="speaks protocol 2"):
        client.hello()


def test_late_answers_and_events_are_passed_over(path: Path, start: Callable[[Answer], Backend]) -> None:
    start(lambda r: b'{"event": {"type": "reset"}}\n{"id": 0, "ok": true, "result": {}}\n' + result(r, name="right"))
    with ControlClient(path) as client:
        assert client.status()["name"] == "right"


def test_events_come_until_the_backend_hangs_up(path: Path, start: Callable[[Answer], Backend]) -> None:
    def answer(request: dict[str, Any]) -> bytes | None:
        return result(request) + b'{"event": {"type": "deliver"}}\n{"event": {"type": "complete"}}\n'

    start(answer)
    with ControlClient(path) as client:
        events = client.events(timeout=0.3)
        assert [event["type"] for event in events] == ["deliver", "complete"]


def test_a_backend_that_was_replaced_between_two_requests_is_asked_anew(
    path: Path, start: Callable[[Answer], Backend]
) -> None:
    """Nothing was under way when it went, so there is nothing that is not known."""
    backend = start(lambda r: None if r["cmd"] == "bye" else result(r))
    with ControlClient(path) as client:
        client.status()
        assert client._connection._socket is not None
        client._connection._socket.sendall(b'{"cmd": "bye"}\n')
        assert client._connection._socket.recv(1, socket.MSG_PEEK) == b""
        assert client.inject(0, 0).outcome == "queued"
    assert [request["cmd"] for request in backend.requests] == ["status", "bye", "inject"]


ONE, OTHER = "1" * 32, "2" * 32
GONE = "has ended; another guest of that name runs now"


def test_a_client_is_bound_to_the_guest_and_not_to_the_path(path: Path) -> None:
    """Also one that was connected, and finds the next guest where it connects again."""
    first = Backend(path, lambda r: None if r["cmd"] == "bye" else result(r), ONE)
    with ControlClient(path) as bound, ControlClient(path, identity=ONE) as known:
        bound.status()
        assert bound.identity == ONE
        with pytest.raises(LostGuestError):
            bound.request("bye")
        first.close()
        path.unlink()
        second = Backend(path, result, OTHER)
        for client in (bound, known):
            for _ in range(2):
                with pytest.raises(LostGuestError, match=GONE):
                    client.inject(0, 0)
        second.close()
    assert [request["cmd"] for request in first.requests] == ["status", "bye"]
    assert second.requests == []


@pytest.mark.parametrize("identity", ["", "nonsense", "3" * 31, 5, None])
def test_a_backend_of_an_older_version_does_not_say_who_it_is(path: Path, identity: Any) -> None:
    backend = Backend(path, result, identity)
    with ControlClient(path) as client:
        client.status()
        client.close()
        client.status()
    with ControlClient(path, identity=ONE) as client, pytest.raises(LostGuestError, match=GONE):
        client.status()
    backend.close()


def test_a_client_that_follows_its_guest_does_not_take_another_one_for_it(path: Path) -> None:
    there = path.with_name("there.sock")

    def moved(request: dict[str, Any]) -> bytes:
        answer = {"kind": "moved", "message": "it has moved", "control": str(there)}
        return json.dumps({"id": request["id"], "ok": False, "error": answer}).encode() + b"\n"

    backend, destination = Backend(path, moved, ONE), Backend(there, result, OTHER)
    with ControlClient(path) as client, pytest.raises(LostGuestError, match=GONE):
        client.inject(0, 0)
    destination.identity = ONE
    with ControlClient(path) as client:
        assert client.inject(0, 0).outcome == "queued"
    assert [request["cmd"] for request in destination.requests] == ["inject"]
    backend.close()
    destination.close()


def test_who_did_not_say_which_guest_it_is_is_asked_nothing(path: Path) -> None:
    """Its answer to the greeting was nonsense: the next request greets anew."""
    said: list[dict[str, Any]] = []

    def serve(listener: socket.socket) -> None:
        for answer in (b"nonsense\n", None):
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as lines:
                for line in lines:
                    said.append(json.loads(line))
                    connection.sendall(answer or result(said[-1], identity=ONE))

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        server = threading.Thread(target=serve, args=(listener,), daemon=True)
        server.start()
        with ControlClient(path, identity=ONE, timeout=5) as client:
            with pytest.raises(ProtocolError):
                client.inject(0, 0)
            assert client.inject(0, 0).outcome == "queued"
        server.join(10)
    assert [request["cmd"] for request in said] == ["hello", "hello", "inject"]


def test_the_status_of_as_many_vcpus_as_there_can_be(
    path: Path, start: Callable[[Answer], Backend], tmp_path: Path
) -> None:
    """Longer than a request may be."""
    guest = SimulatedGuest(MAX_CPUS, tmp_path)
    found = guest.server().status()
    found["events"] += [{**event, "event": event["event"] + 0x1000} for event in found["events"]]
    start(lambda r: result(r, **found))
    with ControlClient(path) as client:
        assert len(client.status()["pes"]) == MAX_CPUS
    assert len(json.dumps(found)) > MAX_LINE
