"""The loop itself: how it sleeps and wakes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from qemu_sdei.backend.loop.server import Server
from qemu_sdei.monitor.layout import Header
from qemu_sdei.sdei.constants import Function
from tests.backend.simulated import BELL, SimulatedGuest


class Loop:
    """A backend in a thread of its own, and a guest whose doorbell is a pipe."""

    def __init__(self, directory: Path) -> None:
        self.guest = SimulatedGuest(1, directory)
        self.server: Server = self.guest.server()
        self.server.descriptors.unwatch(BELL)
        self._read, self.write = os.pipe()
        self.server.descriptors.watch(self._read, self._rung)
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()

    def _rung(self, events: int) -> None:
        os.read(self._read, 4096)
        self.server.rung(events)

    def ring(self) -> None:
        os.write(self.write, b"x")

    def until_asleep(self) -> None:
        self.until(lambda: self.guest.window.header[Header.POLL] == 0)

    def until(self, condition: object) -> None:
        deadline = time.monotonic() + 30
        while not condition():  # type: ignore[operator]
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def close(self) -> None:
        self.server.descriptors.stop()
        self.ring()
        self.thread.join(30)
        assert not self.thread.is_alive()
        os.close(self._read)
        os.close(self.write)


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    loop = Loop(tmp_path)
    yield loop
    loop.close()


def test_a_ring_that_was_lost_before_qemu_accepted_us_does_no_harm(loop: Loop) -> None:
    """QEMU drops what the guest rings while nobody is connected; that we are connected is not yet that it accepted."""
    loop.until_asleep()
    loop.guest.reset(0)
    loop.until(lambda: not loop.guest.waiting(0))


def test_a_call_is_answered_before_what_else_has_woken_the_loop(loop: Loop) -> None:
    """A request may take long; a vCPU does not wait for it. Also one that pauses the guest finds it answered."""
    loop.until_asleep()
    loop.guest.reset(0)
    loop.ring()
    loop.until(lambda: not loop.guest.waiting(0))
    loop.guest.take(0)
    waited: list[bool] = []
    read, write = os.pipe()

    def request(events: int) -> None:
        waited.append(loop.guest.waiting(0))
        os.read(read, 1)

    loop.until_asleep()
    loop.server.descriptors.watch(read, request)
    for n in range(1, 20):
        loop.until_asleep()
        loop.guest.smc(0, Function.PE_MASK)
        os.write(write, b"x")
        loop.until(lambda wanted=n: len(waited) == wanted)
        loop.guest.take(0)
    assert not any(waited)
    loop.server.descriptors.unwatch(read)
    os.close(read)
    os.close(write)


def test_a_loop_that_others_want_the_core_of_goes_to_sleep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kick is on its way, and each yield lasts a slice of the host's scheduler: hundreds of them would be seconds."""
    yields: list[int] = []

    def slow() -> None:
        yields.append(1)
        time.sleep(0.002)

    monkeypatch.setattr(os, "sched_yield", slow)
    loop = Loop(tmp_path)
    try:
        for _ in range(5):
            loop.until_asleep()
            yields.clear()
            loop.server.kicks.on_the_way[0] = 1
            loop.ring()
            loop.until(lambda: yields)
            loop.until_asleep()
            assert len(yields) < 5
    finally:
        loop.close()


def test_a_ring_wakes_the_loop(loop: Loop) -> None:
    loop.until_asleep()
    loop.guest.reset(0)
    loop.ring()
    loop.until(lambda: not loop.guest.waiting(0))
    for _ in range(50):
        loop.until_asleep()
        loop.guest.smc(0, Function.VERSION)
        loop.ring()
        loop.until(lambda: not loop.guest.waiting(0))
        assert loop.guest.take(0)[3] >> 48 == 1
