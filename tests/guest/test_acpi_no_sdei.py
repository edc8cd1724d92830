"""An ACPI boot with firmware that has no SDEI: nothing announces it, and everything else is there."""

from __future__ import annotations

import pytest

from qemu_sdei.errors import UsageError
from qemu_sdei.guest.guest import Guest
from qemu_sdei.vm.options import GuestOptions
from tests.guest.acpi_guest import digests, emitted, seen_by_linux
from tests.guest.guests import plain

pytestmark = [pytest.mark.guest, pytest.mark.usefixtures("linux", "runtime")]


@pytest.mark.parametrize("reboot", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_acpi_without_sdei(reboot: bool) -> None:
    with Guest(GuestOptions(series="6.12", boot="acpi", sdei=False, smp=2)) as guest:
        log = guest.run("dmesg -n 1; dmesg").output
        assert "psci: probing for conduit method from ACPI." in log
        assert "sdei" not in log.replace("qemu-sdei", "").lower()
        tables = emitted(guest)
        assert {"FACP", "DSDT", "APIC", "GTDT", "SPCR"} <= tables.keys()
        assert not {"SDEI", "HEST", "AGDI"} & tables.keys()
        assert seen_by_linux(guest) == digests(tables)
        online = "/sys/devices/system/cpu/cpu1/online"
        assert plain(guest.run(f"echo 0 >{online} && echo 1 >{online} && nproc").output) == "2\n"
        assert guest.status()["events"] == []
        with pytest.raises(UsageError, match="without --no-sdei"):
            guest.inject(0, 0)
        if reboot:
            guest.write("reboot\r")
            guest.expect("reboot: Restarting system", 60)
            assert plain(guest.run("nproc").output) == "2\n"
        assert guest.poweroff().guest
