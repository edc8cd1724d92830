"""Errors on the crash path: one that is reported while a capture kernel runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from qemu_sdei.guest.guest import Guest
from qemu_sdei.guest.kdump_stages import Reached, Stage
from qemu_sdei.guest.kdump_watch import Listener
from qemu_sdei.ras import Memory
from qemu_sdei.ras.block import block
from qemu_sdei.ras.entry import entry
from qemu_sdei.vm.options import GuestOptions
from qemu_sdei.vmcore.dump import Dump
from tests.guest.guests import until

pytestmark = [pytest.mark.guest, pytest.mark.usefixtures("linux", "runtime"), pytest.mark.timeout(240)]


@pytest.mark.slow
@pytest.mark.parametrize("series", ["6.1", "6.12"])
def test_an_error_while_the_capture_kernel_runs(series: str, tmp_path: Path) -> None:
    """It has registered the event of the HEST itself, so it hears of the error, and the vmcore comes all the same."""
    options = GuestOptions(
        series=series, smp=3, ras=True, kdump=True, kdump_timeout=400, vmcore=tmp_path / "core", boot_timeout=120
    )
    outcomes: list[str] = []
    error = block([entry(Memory(physical_address=0x4A00_0000), "corrected")]).pack()
    with Guest(options) as guest:
        guest.wait_shell()

        def report(reached: Reached) -> None:
            if reached.stage is Stage.SDEI:
                with guest.client() as client:
                    outcomes.append(client.ras_report("ghes", error, wait=True, timeout=60)["outcome"])
                    until("it is acknowledged", lambda: [each["state"] for each in client.ras_sources()] == ["free"])

        guest.write("taskset 2 sh -c 'echo c >/proc/sysrq-trigger'\r")
        core = guest.wait_vmcore(120, listener=Listener(stage=report))
    assert outcomes == ["completed"]
    crash = Dump.read(core.path).crash
    assert crash is not None
    assert crash.cpu == 1
