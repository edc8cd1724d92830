"""The kernel finds its firmware."""

from __future__ import annotations

import pytest

from qemu_sdei import Guest

pytestmark = pytest.mark.sdei_needs("linux", "shell")


@pytest.mark.sdei_options(boot="dt", smp=2)
@pytest.mark.sdei_needs(config="CONFIG_ARM_SDE_INTERFACE")
def test_device_tree(guest: Guest) -> None:
    """Boots by device tree; finds PSCI and SDEI; all CPUs are up."""
    log = guest.run("dmesg").output
    assert "psci: PSCIv1.1 detected in firmware" in log
    assert "sdei: SDEIv1.1" in log
    assert guest.run("nproc").output.strip() == "2"


@pytest.mark.sdei_options(ras=True, smp=2)
@pytest.mark.sdei_needs(config=("CONFIG_ACPI", "CONFIG_ACPI_APEI_GHES", "CONFIG_ARM_SDE_INTERFACE"))
def test_acpi(guest: Guest) -> None:
    """Boots by ACPI; firmware-first errors; the HEST's event."""
    log = guest.run("dmesg").output
    assert "sdei: SDEIv1.1" in log
    assert "APEI firmware first mode is enabled" in log
    assert "ACPI Error" not in log
    registered = [e["name"] for e in guest.status()["events"] if any(i["registered"] for i in e["instances"])]
    assert "ghes" in registered


def test_the_kernel_warns_of_nothing(guest: Guest) -> None:
    """Boots without a warning, an Oops or an RCU stall."""
    log = guest.run("dmesg").output
    for trouble in ("WARNING: ", "Oops", "BUG: ", "rcu: INFO: ", "Unable to handle kernel"):
        assert trouble not in log
