"""Hardware errors, firmware first: GHES by an SDEI event."""

from __future__ import annotations

import pytest

from qemu_sdei import Guest
from qemu_sdei.guest.ras import GuestRas
from qemu_sdei.ras import Memory, Pcie

pytestmark = [
    pytest.mark.sdei_needs("linux", "shell", config=("CONFIG_ACPI_APEI_GHES", "CONFIG_ARM_SDE_INTERFACE")),
    pytest.mark.sdei_options(smp=2),
]
PAGE = 0x4A00_0000


def test_corrected(guest: Guest, ras: GuestRas) -> None:
    """A corrected memory error is logged and acknowledged."""
    report = ras.inject(Memory(physical_address=PAGE), severity="corrected", timeout=30)
    report.expect(log="event severity: corrected", timeout=30)
    assert report.outcome == "completed"


@pytest.mark.sdei_needs(config="CONFIG_MEMORY_FAILURE")
def test_recoverable(guest: Guest, ras: GuestRas) -> None:
    """A recoverable error takes its page; its process gets SIGBUS."""
    victim = ras.victim()
    report = ras.inject(Memory(), severity="recoverable", pid=victim.pid, virtual=victim.virtual, timeout=30)
    report.expect(sigbus=(victim.pid, 4), offline=True, timeout=60)
    assert guest.run("echo alive").output == "alive\n"


def test_fatal(guest: Guest, ras: GuestRas) -> None:
    """A fatal error panics the kernel."""
    ras.inject(Memory(physical_address=PAGE), severity="fatal").expect(panic="Fatal hardware error", timeout=60)


@pytest.mark.sdei_needs(config="CONFIG_PCIEAER")
def test_pcie(guest: Guest, ras: GuestRas) -> None:
    """A corrected PCIe error is logged and acknowledged."""
    report = ras.inject(Pcie(port_type=4), severity="corrected", timeout=30)
    report.expect(log="section_type: PCIe error", timeout=30)
    assert report.outcome == "completed"


def test_storm(guest: Guest, ras: GuestRas) -> None:
    """Each of a hundred errors without pause is acknowledged."""
    for number in range(100):
        section = Memory(physical_address=PAGE + number * 4096)
        assert ras.inject(section, severity="corrected", observe=False, timeout=30).outcome == "completed"
    assert guest.run("echo alive").output == "alive\n"
