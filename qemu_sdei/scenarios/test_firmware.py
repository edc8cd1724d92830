"""Firmware that is not as it should be: the kernel survives it, or says what is wrong."""

from __future__ import annotations

import pytest

from qemu_sdei import Guest
from qemu_sdei.guest.guest_firmware import GuestFirmware

pytestmark = [pytest.mark.sdei_needs("linux", "shell"), pytest.mark.sdei_options(smp=2)]
OFF_AND_ON = "cd /sys/devices/system/cpu/cpu1; echo 0 >online && echo 1 >online"


@pytest.mark.sdei_options(firmware="slow")
def test_slow(guest: Guest) -> None:
    """Calls take milliseconds: it boots, CPUs go and come."""
    assert guest.run(OFF_AND_ON, 60).status == 0


def test_cpu_on_is_denied(guest: Guest, firmware: GuestFirmware) -> None:
    """CPU_ON is denied once: the CPU stays off until the next."""
    firmware.on("CPU_ON").nth(1).returns("DENIED")
    assert guest.run(OFF_AND_ON, 60).status != 0
    assert guest.run("echo 1 >/sys/devices/system/cpu/cpu1/online", 60).status == 0


@pytest.mark.sdei_needs("client", config="CONFIG_ARM_SDE_INTERFACE")
@pytest.mark.sdei_options(firmware="lost-kick")
def test_a_kick_is_lost(guest: Guest) -> None:
    """Each event whose kick is lost comes at its CPU's next call."""
    client = guest.sdei_client([0], verbose=0)
    for number in range(1, 5):
        guest.inject(0, 1)
        client.unmask(1)
        assert client.count(event=0, cpu=1) == number
    assert sum(rule["acted"] for rule in guest.firmware.status()["rules"]) == 4


@pytest.mark.sdei_options(sdei_version="2.0")
@pytest.mark.sdei_needs(config="CONFIG_ARM_SDE_INTERFACE")
def test_another_version(guest: Guest) -> None:
    """A version of SDEI that it does not know: it boots on."""
    log = guest.run("dmesg").output
    assert "sdei: SDEIv2.0" in log or "Conflicting SDEI firmware version" in log


@pytest.mark.sdei_options(sdei=False)
def test_without_sdei(guest: Guest) -> None:
    """No SDEI at all: it boots, and complains of nothing."""
    assert "sdei:" not in guest.run("dmesg").output
