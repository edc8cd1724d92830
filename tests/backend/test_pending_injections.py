"""Who waits for an injection hears of it once, also if the guest moves meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qemu_sdei import jsonline
from qemu_sdei.backend.loop.pending_injections import MAX, PendingInjections
from qemu_sdei.errors import ProtocolError
from qemu_sdei.sdei.constants import Function
from tests.backend.controlled import PRIVATE, Backend, Peer


class Clock:
    """What an event log is to `PendingInjections`."""

    def __init__(self) -> None:
        self.now = 0
        self.listener: Any = None
        self.told: list[tuple[str, str, str]] = []

    def clock(self) -> int:
        return self.now

    def listen(self, listener: Any) -> None:
        self.listener = listener

    def unlisten(self, listener: Any) -> None:
        self.listener = None

    def note(self, name: str, pe: int | None, **details: Any) -> None:
        self.told.append((name, details["outcome"], details["why"]))

    def happens(self, kind: str, event: int, pe: int, **more: Any) -> None:
        self.now += 10
        if self.listener is not None:
            self.listener({"time_ns": self.now, "type": kind, "event": event, "pe": pe, **more})


def pair() -> tuple[Clock, PendingInjections]:
    clock = Clock()
    return clock, PendingInjections(clock)  # type: ignore[arg-type]


@pytest.mark.parametrize("entered", [False, True])
def test_moved(entered: bool) -> None:
    """Its clock runs on; who comes late finds the answer, and only once."""
    here, source = pair()
    source.add(0, 1, "client", lambda answer: None)
    if entered:
        here.happens("deliver", 0, 1)
    here.now = 100
    there, destination = pair()
    there.now = 1_000_000
    destination.restore(source.snapshot(), 2)
    (waiter,) = source.leave()
    assert here.listener is None
    if not entered:
        there.happens("deliver", 0, 1)
    there.happens("complete", 0, 1)
    assert there.listener is None, "nobody waits any more"
    heard: list[Any] = []
    assert destination.claim(waiter.ticket, "client", heard.append)
    assert heard[0]["result"]["complete_ns"] == (110 if entered else 120)
    assert heard[0]["result"]["entry_ns"] == (10 if entered else 110)
    assert not destination.claim(waiter.ticket, "client", heard.append)
    assert len(heard) == 1


def test_claimed_before_it_happens() -> None:
    _, source = pair()
    source.add(5, None, "client", lambda answer: None)
    there, destination = pair()
    destination.restore(source.snapshot(), 2)
    (waiter,) = source.leave()
    heard: list[Any] = []
    assert destination.claim(waiter.ticket, "client", heard.append)
    assert not destination.claim(waiter.ticket, "another", heard.append), "it is one client's"
    there.happens("transition", 5, 0, to=0, cause="RESET")
    assert heard == [jsonline.refusal("state", "event 0x5: the machine was reset before its handler started")]


def test_what_nobody_comes_for_is_bounded() -> None:
    there, destination = pair()
    entry = {"event": 0, "pe": 0, "waited_ns": 0, "entry_ns": None}
    for start in (0, MAX):
        destination._waiters += _restored([{"ticket": str(start + n), **entry} for n in range(MAX)])
    destination._listen()
    there.happens("deliver", 0, 0)
    there.happens("complete", 0, 0)
    assert len(destination._waiters) == MAX
    with pytest.raises(ProtocolError):
        destination.restore([{"ticket": str(n), **entry} for n in range(MAX + 1)], 1)


def _restored(state: list[dict[str, Any]]) -> Any:
    _, waiting = pair()
    waiting.restore(state, 1)
    return waiting.leave()


def test_by_the_socket(tmp_path: Path) -> None:
    """The client is told a ticket, not that nothing was done; another host gives it none."""
    backend = Backend(tmp_path)
    backend.boot()
    backend.enable(PRIVATE)
    assert backend.call(0, Function.PE_MASK)[3] == 1
    backend.server.guest.machine = {}
    waiting, owner = Peer(backend), Peer(backend)
    waiting.send(b'{"id": 7, "cmd": "inject", "event": 256, "vcpu": 0, "wait": true}\n')
    assert waiting.lines() == []
    assert owner.ask(id=1, cmd="freeze")["ok"]
    assert owner.ask(id=2, cmd="moved", name="b", control="/there")["ok"]
    first, second = waiting.lines()
    assert (first["id"], first["error"]["kind"], first["error"]["control"]) == (7, "waits", "/there")
    assert len(first["error"]["ticket"]) == 16
    assert "moved" in second
    assert owner.error(id=3, cmd="await", ticket="none") == (
        "state",
        "nothing is known of that injection here: its outcome is lost",
    )
    assert owner.error(id=4, cmd="await")[0] == "usage"


def test_the_trace_says_why_one_will_not_be_handled() -> None:
    log, injections = pair()
    injections.add(0, 1, "client", lambda answer: None)
    log.happens("transition", 0, 1, to=0, cause="PE_RESET")
    assert log.told == [("injection", "failed", "event 0x0: its CPU went off before its handler started")]
