"""CPUs that go and come, sleep, NMI, crash dumps."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from qemu_sdei import Guest, Kdump
from qemu_sdei.errors import NotDeliveredError
from qemu_sdei.pytest_plugin.observed import Events
from qemu_sdei.vmcore.dump import Dump

pytestmark = [pytest.mark.sdei_needs("linux", "shell"), pytest.mark.sdei_options(smp=2)]


@pytest.mark.sdei_needs(config="CONFIG_HOTPLUG_CPU")
def test_hotplug(guest: Guest, events: Events) -> None:
    """A CPU goes off by CPU_OFF and on by CPU_ON, ten times."""
    for _ in range(10):
        assert guest.run("cd /sys/devices/system/cpu/cpu1; echo 0 >online && echo 1 >online", 60).status == 0
    assert guest.run("nproc").output.strip() == "2"
    assert events.expect(type="call", function="CPU_ON")["result"] == 0


def test_reboot(guest: Guest) -> None:
    """Reboot resets the machine by PSCI; the next boot comes up."""
    guest.write("reboot -f\r")
    guest.expect("reboot: Restarting system", 60)
    guest.wait_shell()
    status = guest.status()
    assert (status["epoch"], len(guest.resets)) == (2, 1)


def test_power_off(guest: Guest) -> None:
    """Poweroff ends the machine by PSCI."""
    assert guest.poweroff().guest


@pytest.mark.sdei_needs(config="CONFIG_SUSPEND")
def test_suspend_to_idle(guest: Guest) -> None:
    """Sleeps (s2idle) and wakes by its clock."""
    if guest.run("ls /sys/class/rtc/rtc0/wakealarm").status != 0:
        pytest.skip("the guest has no clock that wakes it")
    guest.run("echo +2 >/sys/class/rtc/rtc0/wakealarm; echo freeze >/sys/power/state", 60)
    assert guest.run("echo awake").output == "awake\n"


@pytest.mark.sdei_options(ras=True)
def test_nmi(guest: Guest) -> None:
    """An NMI from outside (AGDI, or event 0) is taken."""
    try:
        guest.nmi()
    except NotDeliveredError as error:
        pytest.skip(": ".join(line.strip() for line in str(error).splitlines()[:2]))
    guest.expect_panic(60)


@pytest.mark.sdei_needs(config=("CONFIG_KEXEC", "CONFIG_CRASH_DUMP"))
def test_crash_dump(guest: Guest, crash: Callable[..., Kdump]) -> None:
    """A panic leaves a vmcore that names the CPU."""
    core = crash("taskset 2 sh -c 'echo c >/proc/sysrq-trigger'", timeout=120)
    found = Dump.read(core.path).crash
    assert found is not None
    assert found.cpu == 1
    assert "sysrq" in found.message


@pytest.mark.sdei_needs("client", config=("CONFIG_KEXEC", "CONFIG_CRASH_DUMP"))
def test_crash_dump_from_a_handler(guest: Guest, crash: Callable[..., Kdump]) -> None:
    """A panic inside an event's handler leaves a vmcore too."""
    guest.sdei_client([0], verbose=0).panic()
    guest.inject(0, 1)
    found = Dump.read(crash("", timeout=120).path).crash
    assert found is not None
    assert found.cpu == 1
