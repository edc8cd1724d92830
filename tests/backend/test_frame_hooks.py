"""Heartbeats of a guest: who is interrupted for one, and who is left alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qemu_sdei.monitor.layout import AnswerFlag, Kind, Word
from tests.backend.controlled import Backend, Peer
from tests.backend.simulated import SimulatedGuest


@pytest.mark.parametrize(("waiting", "kicked"), [((), [0]), ((1,), [0]), ((0,), []), ((0, 1), [])])
def test_who_sleeps_is_not_woken(waiting: tuple[int, ...], kicked: list[int], tmp_path: Path) -> None:
    """A CPU in CPU_SUSPEND or SYSTEM_SUSPEND would come up; CPU 0 by any kick."""
    guest = SimulatedGuest(2, tmp_path)
    server = guest.server()
    for pe in waiting:
        guest.window.frames[pe][Word.FLAGS] = int(AnswerFlag.WFI)
    before = list(guest.window.kick)
    server.hooks.ask_for_heartbeat()
    assert [pe for pe in range(2) if guest.window.kick[pe] != before[pe]] == kicked


@pytest.mark.parametrize("every", [0, -1, 1001, 1.5, True, "1", None])
def test_how_often_is_checked(every: object, tmp_path: Path) -> None:
    """A client must not have a guest interrupted without pause."""
    backend = Backend(tmp_path)
    backend.boot()
    assert Peer(backend).ask(cmd="signs", every_ms=every)["error"]["kind"] == "usage"
    assert not backend.server.hooks.wanted


def test_they_end_with_who_asked(tmp_path: Path) -> None:
    """A client that has hung up leaves no guest that is interrupted all the time."""
    backend = Backend(tmp_path)
    backend.boot()
    peer = Peer(backend)
    peer.send(json.dumps({"id": 1, "cmd": "signs", "every_ms": 1}).encode() + b"\n")
    assert backend.server.hooks.wanted
    assert backend.guest.take_kicks() == [0]
    backend.guest.post(0, Kind.KICK)
    backend.server.answer_as_wanted(0, backend.guest.window.seq[0])
    assert [line["result"]["sign_ns"] for line in peer.lines()] == [backend.server.hooks.heartbeat_ns]
    peer.socket.close()
    backend.turn()
    assert not backend.server.hooks.wanted
