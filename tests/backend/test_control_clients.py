"""Clients of the control socket that do not behave: no harm to the backend, or to other clients."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qemu_sdei import locks
from qemu_sdei.backend.control import connections as module
from qemu_sdei.backend.control import handover_commands
from qemu_sdei.backend.loop import pending_injections
from qemu_sdei.sdei.constants import Function
from tests.backend.controlled import PRIVATE, SHARED, Backend, Peer
from tests.backend.simulated import serve
from tests.examples import examples
from tests.guest.guests import runtime_directory


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"hello",
        b"[]",
        b"null",
        b'"status"',
        b"{",
        b'{"cmd": }',
        b"\xff\xfe\x00\x00",
        b"\x00",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"1" * 5000,
        b'{"cmd": null}',
        b'{"cmd": ["hello"]}',
        b'{"cmd": "HELLO"}',
        b'{"cmd": "hello\\u0000"}',
        b'{"cmd": "__class__"}',
        b'{"id": 1}',
        b'{"id": {"a": 1}, "cmd": "nothing"}',
        b'{"id": NaN, "cmd": "inject", "event": NaN, "vcpu": Infinity}',
        b'{"id": 1, "cmd": "inject", "event": 0, "vcpu": 0, "wait": 1}',
        b'{"id": [Infinity], "cmd": "inject", "event": 1e999, "vcpu": 0, "wait": true}',
    ],
    ids=range(22),
)
def test_a_request_that_makes_no_sense_gets_one_usage_error(backend: Backend, line: bytes) -> None:
    peer = Peer(backend)
    peer.send(line + b"\n")
    (answer,) = peer.lines()
    assert answer["ok"] is False
    assert answer["error"]["kind"] == "usage"
    assert isinstance(answer["id"], int | None)
    assert peer.result(id=2, cmd="hello"), "and the next request is served"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["hello", "inject"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(
    messages=st.lists(
        st.fixed_dictionaries(
            {"cmd": st.sampled_from(["hello", "status", "inject", "why", "trace", "events", "shut"])},
            optional={
                "id": JSON,
                "event": st.sampled_from([0, PRIVATE, SHARED, 0x324]) | JSON,
                "vcpu": st.sampled_from([0, 1]) | JSON,
                "wait": st.booleans() | JSON,
                "limit": JSON,
            },
        ),
        max_size=6,
    )
)
@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_no_request_breaks_the_backend(
    tmp_path_factory: pytest.TempPathFactory, messages: list[dict[str, Any]]
) -> None:
    backend = Backend(tmp_path_factory.mktemp("b"))
    backend.boot()
    backend.enable(0)
    peer = Peer(backend)
    for message in messages:
        peer.send(json.dumps(message).encode() + b"\n")
        backend.kick()
    for line in peer.lines():
        assert "event" in line or line["ok"] is True or line["error"]["kind"] in ("usage", "state")
    assert Peer(backend).result(cmd="hello")["name"] == "tester"
    backend.control.close()


def test_requests_may_come_in_pieces_or_many_at_once(backend: Backend, peer: Peer) -> None:
    for byte in b'{"id": 1, "cmd": "hello"}':
        peer.send(bytes([byte]))
    assert peer.lines() == []
    peer.send(b"\n")
    assert [answer["id"] for answer in peer.lines()] == [1]
    peer.send(b"".join(b'{"id": %d, "cmd": "hello"}\n' % n for n in range(2000)))
    assert [answer["id"] for answer in peer.lines()] == list(range(2000))


def test_half_a_request_disturbs_nobody(backend: Backend, peer: Peer) -> None:
    half = Peer(backend)
    half.send(b'{"id": 1, "cmd": "shutdow')
    assert peer.result(cmd="hello")
    half.socket.close()
    assert peer.result(cmd="hello")
    assert not backend.server.descriptors.stopping


def test_a_request_without_end_is_hung_up_on(backend: Backend, peer: Peer) -> None:
    endless = Peer(backend)
    endless.send(b"x" * (module.MAX_LINE + 200_000))
    answers = endless.lines()
    assert endless.closed
    assert [answer["error"]["kind"] for answer in answers] in ([], ["usage"])  # a reset may overtake what was said last
    assert peer.result(cmd="hello")


def test_more_clients_than_there_is_room_for(backend: Backend) -> None:
    peers = [Peer(backend) for _ in range(module._MAX_CLIENTS)]
    for peer in peers:
        assert peer.result(cmd="hello")
    late = Peer(backend)
    assert late.lines() == []
    assert late.closed
    peers[0].socket.close()
    backend.turn()
    assert Peer(backend).result(cmd="hello"), "there is room again"
    assert peers[-1].result(cmd="hello")


def test_a_client_that_does_not_read_is_hung_up_on_and_holds_nobody_up(backend: Backend, peer: Peer) -> None:
    deaf = Peer(backend)
    deaf.send(b'{"cmd": "events"}\n')
    for _ in range(100_000):
        backend.call(0, 0xC300_0000)
        if not backend.server.log.listeners:
            break
    else:
        raise AssertionError("the backend keeps for ever what nobody reads")
    assert peer.result(cmd="hello")


def test_a_client_that_reads_late_gets_everything(backend: Backend) -> None:
    late = Peer(backend)
    late.send(b'{"cmd": "events"}\n')
    count = 5000  # more than a socket holds
    for _ in range(count):
        backend.call(0, 0xC300_0000)
    assert len(late.lines()) == 1 + count


def test_a_client_that_only_sends_is_hung_up_on(backend: Backend, peer: Peer) -> None:
    greedy = Peer(backend)
    for _ in range(200):
        backend.call(0, 0xC300_0000)
    request = b'{"cmd": "trace", "limit": 1000}\n' * 1000
    for _ in range(20):
        greedy.send(request)
        if greedy.closed:
            break
    assert greedy.closed
    assert peer.result(cmd="hello")


def test_those_who_ask_nothing_make_room(backend: Backend) -> None:
    """Half-open connections hold no place that somebody else wants."""
    silent = [Peer(backend) for _ in range(module._MAX_CLIENTS)]
    silent[3].send(b'{"cmd": "hel')
    assert silent[5].result(cmd="hello")
    for _ in range(2 * module._MAX_CLIENTS):
        assert Peer(backend).result(cmd="hello"), "those who have asked and gone make room too"
    assert silent[5].result(cmd="hello"), "who has asked stays"
    assert silent[0].lines() == []
    assert silent[0].closed


def test_one_client_cannot_have_everybody_wait_for_its_waits(backend: Backend, peer: Peer) -> None:
    backend.boot()
    backend.enable(PRIVATE)
    greedy = Peer(backend)
    wait = b'{"id": 7, "cmd": "inject", "event": %d, "vcpu": 0, "wait": true}\n' % PRIVATE
    greedy.send(wait * (pending_injections.MAX_WAITING + 5))
    refused = greedy.lines()
    assert [answer["error"]["message"] for answer in refused] == ["this client waits for 1024 injections already"] * 5
    backend.kick()
    backend.call(0, Function.EVENT_COMPLETE)
    assert len(greedy.lines()) == pending_injections.MAX_WAITING, "all the others merged, and are answered"
    assert peer.result(cmd="hello")
    greedy.send(wait)
    backend.kick()
    backend.call(0, Function.EVENT_COMPLETE)
    assert greedy.lines()[0]["ok"], "there is room again"


def test_another_user_is_refused_with_a_word_in_the_log(
    backend: Backend, peer: Peer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(locks, "peer_uid", lambda _: 4711)
    stranger = Peer(backend)
    stranger.send(b'{"cmd": "hello"}\n')
    assert stranger.lines() == []
    assert stranger.closed
    assert capfd.readouterr().err == "qemu-sdei backend: a process of user 4711 was refused at s\n"
    assert peer.result(cmd="hello")


STRANGER = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print(s.recv(100))"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be two users")
def test_a_real_other_user_is_refused_even_where_the_modes_would_let_him(
    peer: Peer, backend: Backend, capfd: pytest.CaptureFixture[str]
) -> None:
    assert backend.path.stat().st_mode & 0o777 == 0o600
    python = shutil.which("python3", path="/usr/bin:/bin")
    if python is None:
        pytest.skip("no Python that every user may run")
    with runtime_directory() as place:  # pytest's own directories are closed to others
        place.chmod(0o711)
        other = Backend(place)
        other.path.chmod(0o666)
        with subprocess.Popen(
            [python, "-I", "-c", STRANGER, str(other.path)], stdout=subprocess.PIPE, user=65534, group=65534
        ) as process:
            while process.poll() is None:
                other.turn()
                time.sleep(0.01)
            assert process.stdout is not None
            assert process.stdout.read() == b"b''\n"
        other.control.close()
    assert "a process of user 65534 was refused" in capfd.readouterr().err


def test_a_hostile_guest_cannot_touch_another(tmp_path: Path) -> None:
    """Whatever it writes into its window and whatever it calls: the state of the one beside it stays as it is."""
    (tmp_path / "good").mkdir()
    (tmp_path / "bad").mkdir()
    good, bad = Backend(tmp_path / "good"), Backend(tmp_path / "bad")
    good.boot()
    good.enable(0)
    good.enable(PRIVATE)
    good.server.trigger(PRIVATE, 0)
    journal = (tmp_path / "good" / "journal").read_bytes()
    before = good.server.firmware.snapshot(), bytes(good.guest.window.ram), good.server.status()["counts"]
    bad.boot()
    draw = random.Random(1)
    window = bad.guest.window
    words = [window.header, window.seq, window.kick, *window.frames]
    interesting = (0, 1, 2, 3, 0x1_0000_0000, (1 << 64) - 1, window.base, window.ram_base, *map(int, Function))
    for _ in range(20_000):
        view = draw.choice(words)
        view[draw.randrange(len(view))] = draw.choice((*interesting, draw.getrandbits(64)))
        if draw.random() < 0.2:
            pe = draw.randrange(2)
            with contextlib.suppress(ValueError):  # the simulated monitor's own count is overwritten too
                bad.guest.smc(pe, draw.choice(interesting), *(draw.choice(interesting) for _ in range(3)))
        serve(bad.server)
    assert bad.server.log.rejected > 0
    assert before == (good.server.firmware.snapshot(), bytes(good.guest.window.ram), good.server.status()["counts"])
    assert (tmp_path / "good" / "journal").read_bytes() == journal
    good.kick()
    assert good.call(0, Function.EVENT_COMPLETE)
    assert good.server.status()["counts"]["completed"] == 1
    for backend in (good, bad):
        backend.control.close()


def test_a_backend_that_ends_late_leaves_the_next_guest_its_socket() -> None:
    """Its run directory went before it, and another guest has the name."""
    with runtime_directory() as base:
        directory = base / "g"
        directory.mkdir()
        backend = Backend(directory)
        directory.rename(base / "removed")
        directory.mkdir()
        (directory / backend.path.name).touch()
        backend.control.close()
        assert (directory / backend.path.name).exists()
        assert not (base / "removed" / backend.path.name).exists()


def test_an_answer_with_trace_records_fits_into_a_line(backend: Backend) -> None:
    for _ in range(5000):
        backend.server.log.note("reject", 0, why="x" * 500)
    peer = Peer(backend)
    records = peer.ask(cmd="trace", limit=1_000_000)["result"]["records"]
    assert 100 < len(records) < 1024
    assert len(json.dumps(records)) < module.MAX_LINE


def test_requests_that_wait_for_a_guest_that_is_handed_over_are_counted(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each client, and of all: each may have a megabyte."""
    monkeypatch.setattr(handover_commands, "_MAX_DEFERRED", 4)
    monkeypatch.setattr(handover_commands, "_MAX_TOGETHER", 6)
    backend.server.pause()
    peers = [Peer(backend), Peer(backend)]
    for peer in peers:
        for n in range(5):
            peer.send(json.dumps({"id": n, "cmd": "inject", "event": PRIVATE, "vcpu": 0}).encode() + b"\n")
        refused = peer.lines()
        assert [answer["id"] for answer in refused] == ([4] if peer is peers[0] else [2, 3, 4])
        assert {answer["error"]["kind"] for answer in refused} == {"busy"}
