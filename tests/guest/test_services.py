"""Which services a guest finds: what stock Linux says with and without TRNG; registers written before it runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from qemu_sdei.errors import GuestTimeoutError, UsageError
from qemu_sdei.guest import machine_control
from qemu_sdei.guest.guest import Guest
from qemu_sdei.rundir import find
from qemu_sdei.smccc.selection import BY_WORD
from qemu_sdei.vm.options import GuestOptions

pytestmark = pytest.mark.guest

NO_SEED = ("-machine", "dtb-randomness=off")
"""The kernel gets no seed from QEMU, which would be as good."""
STD = BY_WORD["std"].id
TRNG, SDEI = 1, 2
BY_FIRMWARE = "random: crng init done"


def _linux(runtime: Path, **options: object) -> Guest:
    return Guest(GuestOptions(name="services", smp=1, qemu_args=NO_SEED, **options))  # type: ignore[arg-type]


def _registers(guest: Guest, values: dict[int, list[int]] | None = None) -> dict[int, list[int]]:
    with guest.client() as client:
        return client.registers(0, values)


def test_linux_takes_its_random_numbers_from_the_firmware(runtime: Path) -> None:
    with _linux(runtime) as guest:
        guest.wait_shell()
        assert f"[    0.000000] {BY_FIRMWARE}" in guest.console
        assert any(record.get("function") == "TRNG_RND" for record in guest.trace(1000))


def test_registers_that_are_written_before_it_runs_are_what_it_finds(runtime: Path) -> None:
    with _linux(runtime, paused=True) as guest:
        assert _registers(guest)[STD] == [TRNG | SDEI]
        assert _registers(guest, {STD: [SDEI]})[STD] == [SDEI]
        with pytest.raises(UsageError, match="not supported"):
            _registers(guest, {STD: [1 << 5]})
        with pytest.raises(GuestTimeoutError, match="nobody resumed the paused guest"):
            guest.wait_resumed(0.1)
        assert guest.console == ""
        found = find("services")
        assert machine_control.resume(found.owner, found.identity) == machine_control.RUNNING
        guest.wait_resumed(20)
        guest.wait_shell()
        assert f"[    0.000000] {BY_FIRMWARE}" not in guest.console
        assert "sdei: SDEIv1.1" in guest.console
        with pytest.raises(UsageError, match="the guest has run already"):
            _registers(guest, {STD: [SDEI | TRNG]})
        assert _registers(guest, {STD: [SDEI]})[STD] == [SDEI]


def test_a_selection_goes_along_with_the_guest(runtime: Path) -> None:
    with _linux(runtime, selection=("std=sdei",)) as guest:
        guest.wait_shell()
        guest.migrate()
        assert _registers(guest)[STD] == [SDEI]
        guest.reset()
        guest.wait_shell()
        assert f"[    0.000000] {BY_FIRMWARE}" not in guest.console.rpartition("Booting Linux")[2]
