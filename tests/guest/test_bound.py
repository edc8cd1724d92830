"""Bound interrupts on real QEMU: `mode=bound` of the bench guest is the judge (guest/bench/bound.c)."""

from __future__ import annotations

import re

import pytest

from qemu_sdei.guest.guest import Guest
from qemu_sdei.vm.options import GuestOptions
from tests.guest.guests import storm_ended
from tests.guest.test_kill import Killer

pytestmark = pytest.mark.guest


def options(smp: int, count: int, virtualization: bool = False) -> GuestOptions:
    """The guest."""
    words = f"mode=bound smp={smp} count={count}"
    return GuestOptions(kernel="builtin:bench", append=words, smp=smp, memory="128M", virtualization=virtualization)


def judge(console: str, smp: int, count: int) -> None:
    """One handler for each expiry, on each CPU, in each of three registrations."""
    result = re.search(r"^bound: ok timers=(\d+) alarms=(\d+)$", console.replace("\r", ""), re.MULTILINE)
    assert result, console
    assert int(result[1]) == 3 * smp * count
    assert int(result[2]) == 60 * (smp + 2) + 1


@pytest.mark.parametrize(("smp", "virtualization"), [(1, False), (4, False), (2, True)], ids=["UP", "SMP", "EL2"])
def test_timers_of_all_cpus_and_an_spi(smp: int, virtualization: bool) -> None:
    with Guest(options(smp, 100, virtualization)) as guest:
        assert storm_ended(guest).guest
        judge(guest.console, smp, 100)


@pytest.mark.timeout(300)
def test_killed_while_interrupts_come_and_go() -> None:
    """Nothing is lost, done twice or left the firmware's when the backend is killed at any moment."""
    with Guest(options(2, 2000)) as guest:
        killer = Killer(guest, 7)
        while killer.kills < 10 and killer.kill():
            pass
        assert storm_ended(guest).guest
        judge(guest.console, 2, 2000)
        assert killer.kills > 3
