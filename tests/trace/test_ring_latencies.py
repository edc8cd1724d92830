"""Latencies read along with a ring: each completed event once, however often somebody looks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from qemu_sdei.errors import SdeiError
from qemu_sdei.monitor.layout import Kind, Word
from qemu_sdei.sdei.constants import Function
from qemu_sdei.trace import ring_latencies
from qemu_sdei.trace.meta import TraceMeta
from qemu_sdei.trace.ring import Ring
from qemu_sdei.trace.ring_latencies import RingLatencies
from qemu_sdei.trace.slots import CAUSES, At, Outcome, Type

ENABLED, RUNNING = 3, 7


class Backend:
    """Writes what a backend would write of events that are injected and handled."""

    def __init__(self, path: Path, slots: int = 256) -> None:
        self.now = 1_000_000_000
        self.path = path
        self.ring = Ring(path, self.clock, slots)
        self.ring.describe(TraceMeta(vcpus=2, slots=slots).document())

    def clock(self) -> int:
        return self.now

    def frame(self, kind: Kind, function: int = 0, *, handler: bool) -> None:
        words = [0] * (At.ANSWER + 1 - At.DATA)
        words[0] = kind
        words[Word.FUNCTION - Word.KIND] = function
        words[Word.COUNTER - Word.KIND] = (self.now - 2000) // 16
        words[Word.PC - Word.KIND] = 0x1000
        words[At.OUTCOME - At.DATA] = 0x2000 if handler else 0x3000
        self.ring.keep(Type.STAMPED if kind == Kind.KICK else Type.FRAME, 1, *words)

    def transition(self, event: int, old: int, cause: str) -> None:
        self.ring.keep(Type.TRANSITION, 1, event << 32 | CAUSES.index(cause) + 1 << 24 | old << 16)

    def enter(self, event: int = 0) -> None:
        self.ring.keep(Type.TRIGGER, 1, event, Outcome.PENDING)
        self.now += 50_000
        self.frame(Kind.KICK, handler=True)
        self.now += 5_000
        self.transition(event, ENABLED, "DISPATCH")
        self.ring.commit()

    def inject(self, event: int = 0, count: int = 1, between: Callable[[], None] = lambda: None) -> None:
        for _ in range(count):
            self.enter(event)
            between()
            self.now += 20_000
            self.frame(Kind.SMC, Function.EVENT_COMPLETE, handler=False)
            self.transition(event, RUNNING, "COMPLETE")
            self.now += 1_000_000
            self.ring.commit()


def reading(backend: Backend, event: int = 0) -> RingLatencies:
    return RingLatencies(backend.path, lambda life: life.event == event, backend.clock)


def test_what_was_before_does_not_count_and_each_is_found_once(tmp_path: Path) -> None:
    backend = Backend(tmp_path / "ring")
    backend.inject(count=3)
    latencies = reading(backend)
    for _ in range(4):
        backend.inject(count=10)
        backend.inject(event=0x100)
        latencies.read()
    latencies.finish(40)
    latencies.close()
    assert latencies.found.outcomes == {"completed": 40}
    assert latencies.missed == 0
    figures = latencies.found.document()["stages"]
    assert figures["entry"]["max"] == 55.0
    assert abs(figures["to_el3"]["max"] - 48) <= figures["to_el3"]["max_error_us"] + 0.016
    assert figures["in_guest"]["max"] == pytest.approx(25, abs=0.1)


def test_what_was_before_tells_of_the_clocks(tmp_path: Path) -> None:
    backend = Backend(tmp_path / "ring")
    backend.inject(count=30)
    latencies = reading(backend)
    backend.inject()
    latencies.finish(1)
    assert latencies.found.outcomes == {"completed": 1}
    assert latencies.found.document()["stages"]["to_el3"]["max_error_us"] < 20


def test_in_lots_it_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring_latencies, "_AT_ONCE", 5)  # amid the records of an event
    backend = Backend(tmp_path / "ring")
    latencies = reading(backend)
    for _ in range(30):
        backend.inject(count=1, between=latencies.read)
    latencies.finish(30)
    assert latencies.found.outcomes == {"completed": 30}


def test_what_could_not_be_read_in_time_is_missing_and_said(tmp_path: Path) -> None:
    backend = Backend(tmp_path / "ring")
    latencies = reading(backend)
    backend.enter()
    latencies.read()
    backend.inject(count=200)  # a thousand records: the ring has room for 256
    latencies.finish(200)
    assert latencies.missed == 1000 - 255
    assert latencies.found.outcomes == {"completed": 51, "unknown": 1}
    backend.inject(count=5)
    latencies.finish(56)
    assert latencies.found.outcomes["completed"] == 56


def test_without_a_ring_there_is_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(SdeiError):
        RingLatencies(tmp_path / "ring", lambda _: True)
