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
