"""A CPU that was powered down is as after a reset: modes `deaf` and `registers` of the bench guest are the judges."""

from __future__ import annotations

import re

import pytest

from qemu_sdei.guest.guest import Guest
from qemu_sdei.vm.options import GuestOptions

pytestmark = pytest.mark.guest

LIMIT = 60.0
MACHINES = [
    pytest.param("cortex-a72", False, id="EL1"),
    pytest.param("max", True, id="EL2-max"),
    pytest.param("cortex-a72", True, id="EL2", marks=pytest.mark.slow),
    pytest.param("max", False, id="EL1-max", marks=pytest.mark.slow),
    pytest.param("cortex-a72,pmu=off", False, id="no-PMU", marks=pytest.mark.slow),
]


def options(mode: str, cpu: str, virtualization: bool) -> GuestOptions:
    """The guest."""
    words = f"mode={mode}"
    return GuestOptions(kernel="builtin:bench", append=words, cpu=cpu, memory="128M", virtualization=virtualization)


@pytest.mark.parametrize(("cpu", "virtualization"), MACHINES)
def test_off_or_suspended_inside_an_interrupts_handler(cpu: str, virtualization: bool) -> None:
    """Of a PPI, of an SGI, nested, and inside an event's handler over them: it takes interrupts when it is back."""
    with Guest(options("deaf", cpu, virtualization)) as guest:
        assert guest.wait_off(LIMIT).guest
        assert re.search(r"^deaf: ok", guest.console, re.MULTILINE), guest.console


@pytest.mark.parametrize(("cpu", "virtualization"), MACHINES)
def test_each_register(cpu: str, virtualization: bool) -> None:
    """After CPU_ON, a suspend and a reset of the machine; what is to wake a suspended CPU is kept."""
    with Guest(options("registers", cpu, virtualization)) as guest:
        assert guest.wait_off(LIMIT).guest
        assert re.search(r"^registers: ok", guest.console, re.MULTILINE), guest.console
        assert [reset["guest"] for reset in guest.resets] == [True]
