"""Stock Linux hears of hardware errors by each notification that it takes: an external abort, an interrupt, polling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qemu_sdei.errors import NotDeliveredError
from qemu_sdei.guest.control_client import ControlClient
from qemu_sdei.guest.guest import Guest
from qemu_sdei.ras import Memory
from qemu_sdei.ras.block import block
from qemu_sdei.ras.entry import entry
from qemu_sdei.vm.options import GuestOptions
from tests.guest.guests import until, unused_page

pytestmark = [pytest.mark.guest, pytest.mark.usefixtures("linux", "runtime")]

SOURCES = """
[agdi]
interrupt = 208

[[source]]
name = "abort"
notify = "sea"

[[source]]
name = "line"
notify = "interrupt"
interrupt = 208

[[source]]
name = "slow"
notify = "polled"
poll = 100
"""
ZERO = '[[event]]\nnumber = 0\nname = "software"\nsignalable = true\n'
BUS_ERROR = 128 + 7
SPIN = "while :; do :; done"


def memory_error(page: int) -> bytes:
    section = Memory(physical_address=page, physical_address_mask=0xFFFF_FFFF_FFFF_F000)
    return block([entry(section, "recoverable")]).pack()


def taken_interrupts(guest: Guest) -> int:
    """How often the guest has taken interrupt 208."""
    (line,) = [line for line in guest.run("cat /proc/interrupts").output.splitlines() if " 208 " in line]
    return sum(int(word) for word in line.split("GICv3")[0].split()[1:])


def state(control: ControlClient, name: str) -> dict[str, Any]:
    (found,) = (each for each in control.ras_sources() if each["name"] == name)
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize("series", [pytest.param("6.1", marks=pytest.mark.slow), "6.12"])
def test_linux_takes_each_of_them(series: str, tmp_path: Path) -> None:
    (tmp_path / "events.toml").write_text(ZERO + SOURCES)
    with Guest(GuestOptions(series=series, ras=True, helper=True, smp=2, events=tmp_path / "events.toml")) as guest:
        guest.wait_shell()
        guest.run("dmesg -n 1")
        log = guest.run("dmesg | grep -e GHES -e HEST").output
        assert "enabled by APEI bit and WHEA _OSC" in log
        assert "Failed to map GSI" not in log
        with guest.client() as control:
            assert [(each["name"], each["reason"]) for each in control.ras_sources()] == [
                ("abort", None), ("line", None), ("slow", None),
            ]  # fmt: skip
            guest.run(f"({SPIN}) & echo $! >/tmp/pid")
            for number, name in enumerate(("line", "slow", "abort")):
                told = control.ras_report(name, memory_error(unused_page(number)), wait=True, timeout=20)
                assert told["outcome"] == "queued"
                until(f"{name}: read and acknowledged", lambda: state(control, name)["state"] == "free")  # noqa: B023
            log = guest.run("dmesg").output
            for number in range(3):
                assert f"Memory failure: {unused_page(number) >> 12:#x}" in log
            assert "Source: 1" in log, "the interrupt's"
            assert guest.run("kill -0 $(cat /tmp/pid)").status == 0, "APEI has claimed the abort"
            assert "abort" not in guest.run("dmesg | grep -i abort").output

            # A page of a process is bad: that one gets a SIGBUS, and not the one that the abort has hit.
            victim = guest.ras.victim()
            report = guest.ras.inject(
                Memory(), severity="recoverable", source="abort", pid=victim.pid, virtual=victim.virtual, timeout=30
            )
            assert report.state == "free"
            report.expect(sigbus=(victim.pid, 4), offline=True, timeout=60)
            assert guest.run("kill -0 $(cat /tmp/pid)").status == 0

            # An abort that no record explains: the process that it hits dies of it.
            guest.run(f"kill $(cat /tmp/pid); (sh -c 'echo $$ >/tmp/pid; {SPIN}'; echo $? >/tmp/status) & sleep 0.5")
            # Nothing else runs on vCPU 1: an abort takes whatever is at EL0 there, and that would be the shell.
            guest.run("taskset -p 1 $$; taskset -p 2 $(cat /tmp/pid)")
            assert guest.ras.external_abort(1, address=0x1234_5678).el == 0
            until("its end", lambda: guest.run("cat /tmp/status").output.split() == [str(BUS_ERROR)])

            guest.run("echo 0 >/sys/devices/system/cpu/cpu1/online")
            with pytest.raises(NotDeliveredError, match="source 'abort': vCPU 1 is off"):
                control.ras_report("abort", memory_error(0x4A10_0000), vcpu=1)
            assert state(control, "abort")["state"] == "free"
            with pytest.raises(NotDeliveredError, match="has not enabled interrupt 209"):
                control.interrupt(209)

            # What takes interrupt 208 here is the device of the error source; a kernel with AGDI has a driver for it.
            before = taken_interrupts(guest)
            found = guest.nmi()
            assert (found.by, found.intid) == ("agdi-interrupt", 208)
            until("the interrupt", lambda: taken_interrupts(guest) == before + 1)
            agdi = guest.run("hexdump -v -e '1/1 \"%02x\"' /sys/firmware/acpi/tables/AGDI").output.split()[-1]
            assert agdi[72:] == "0100000000000000d0000000", "mode 1: no event, GSIV 208"
        assert guest.poweroff().guest
