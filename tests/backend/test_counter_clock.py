"""The host's real time at a value of the guest's counter: from calls that come late, over stops, and by PTP."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from qemu_sdei.backend.loop.counter_clock import FEW, JUMP_NS, CounterClock
from qemu_sdei.backend.loop.server import Server
from qemu_sdei.monitor.layout import Kind, Word
from qemu_sdei.services.kvm import Function
from tests.backend.simulated import serve
from tests.backend.simulated_hypervisor import HypervisorGuest

HZ = 62_500_000
TICK = 16
SECOND = 1_000_000_000
EPOCH = 1_700_000_000_000_000_000


class Host:
    """Its clocks, and a guest's counter that can stand still."""

    def __init__(self) -> None:
        self.now = 5_000_000_000
        self.stopped = 1_234_567_008
        """The counter is behind by so much."""
        self.real = EPOCH
        self.clock = CounterClock(lambda: self.now, lambda: self.real + self.now)

    def call(self, late: int) -> int:
        """A call that takes `late` ns to come. Returns how far the answer is off."""
        came = self.now
        counter = (came - self.stopped) // TICK
        self.now += late
        return self.clock.wall(counter, HZ) - self.real - came

    def stop(self, ns: int) -> None:
        self.now += ns
        self.stopped += ns


def test_the_best_call_counts() -> None:
    host = Host()
    assert abs(host.call(90_000) - 90_000) <= TICK
    for late in (40_000, 1_000_000, 70_000, 15_000_000):
        assert abs(host.call(late) - min(late, 40_000, 90_000)) <= TICK


def test_it_keeps_the_best() -> None:
    host = Host()
    host.call(3_000)
    chance = random.Random(1)
    for _ in range(500):
        host.now += chance.randrange(10 * SECOND)
        assert host.call(chance.randrange(3_000, 900_000)) <= 3_000 + TICK


@pytest.mark.parametrize("stop", [JUMP_NS + 100_000, SECOND // 2, 10 * SECOND, 3600 * SECOND])
def test_after_a_stop_all_begins_anew(stop: int) -> None:
    host = Host()
    host.call(2_000)
    host.stop(stop)
    assert abs(host.call(60_000) - 60_000) <= TICK
    assert abs(host.call(5_000) - 5_000) <= TICK


def test_a_stop_that_is_not_noticed_at_once_is_so_after_a_few_calls() -> None:
    host = Host()
    host.call(2_000)
    host.stop(JUMP_NS // 2)
    for _ in range(FEW - 1):
        assert host.call(4_000) < -JUMP_NS // 3
    assert abs(host.call(9_000) - 4_000) <= TICK


def test_whoever_knows_of_a_stop_says_so() -> None:
    host = Host()
    host.call(2_000)
    host.stop(JUMP_NS // 2)
    host.clock.forget()
    assert abs(host.call(2_000) - 2_000) <= TICK


def test_a_host_whose_time_is_set_is_followed_at_once() -> None:
    host = Host()
    host.call(2_000)
    host.real -= 86_400 * SECOND
    assert abs(host.call(2_000) - 2_000) <= TICK


def _booted(tmp_path: Path) -> tuple[HypervisorGuest, Server]:
    guest = HypervisorGuest(1, tmp_path)
    guest.id_registers = {"CNTFRQ_EL0": HZ}
    server = guest.server()
    guest.reset(0)
    serve(server)
    guest.take(0)
    return guest, server


def _ptp(guest: HypervisorGuest, server: Server) -> tuple[int, int]:
    """Wall and counter of a call."""
    guest.smc(0, Function.PTP, 0)
    serve(server)
    x = guest.take(0)[3:7]
    return x[0] << 32 | x[1], x[2] << 32 | x[3]


def test_a_call_gives_the_counter_with_which_it_came(tmp_path: Path) -> None:
    guest, server = _booted(tmp_path)
    first, second = _ptp(guest, server), _ptp(guest, server)
    assert second[1] == guest.counter
    assert second[1] - first[1] == 1000


def test_what_was_given_is_given_again_after_the_backend_was_killed(tmp_path: Path) -> None:
    guest, server = _booted(tmp_path)
    guest.smc(0, Function.PTP, 1)
    frame = guest.window.frames[0]
    before = frame.tolist()
    serve(server)
    given = guest.take(0)
    for index, word in enumerate(before):
        frame[index] = word
    other = guest.server()
    other.recover()
    serve(other)
    assert guest.take(0)[3:7] == given[3:7]


@pytest.mark.parametrize("counter", [0, 1, (1 << 64) - 1])
def test_a_counter_that_cannot_be_does_no_harm(tmp_path: Path, counter: int) -> None:
    """A guest without stage 2 may write into its frame."""
    guest, server = _booted(tmp_path)
    _ptp(guest, server)
    frame = guest.window.frames[0]
    guest.smc(0, Function.PTP, 0)
    frame[Word.COUNTER] = counter
    serve(server)
    assert all(word < 1 << 32 or word == (1 << 64) - 1 for word in guest.take(0)[3:7])
    assert frame[Word.KIND] == Kind.SMC
