"""A guest without SDEI migrates, also at hold points that are a vCPU's; what is of SDEI says that there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from qemu_sdei import rundir
from qemu_sdei.backend.control.kvm_regs import BY_ID, REGISTERS
from qemu_sdei.errors import UsageError
from qemu_sdei.guest.control_client import ControlClient
from qemu_sdei.guest.guest import Guest
from qemu_sdei.migration.options import Hold
from qemu_sdei.vm.options import GuestOptions
from tests.guest.guests import check_nothing_left

pytestmark = pytest.mark.guest


@pytest.mark.timeout(60)
def test_registers_and_hold_points(runtime: Path) -> None:
    options = GuestOptions(
        kernel="builtin:bench", append="mode=call function=0x84000000 stay=1", memory="64M", sdei=False, name="a"
    )
    with Guest(options) as guest:
        guest.expect("x0=0x10001")
        with ControlClient(rundir.find("a").control) as client:
            assert not BY_ID.keys() & client.registers(0).keys(), "those of the services' selection are left"
            with pytest.raises(UsageError, match="no SDEI"):
                client.registers(0, {REGISTERS[-1].id: [1]})
        with pytest.raises(UsageError, match="no SDEI"):
            guest.migrate("b", hold=Hold("running"))
        assert guest.migrate("b", hold=Hold("off", vcpu=1)).destination == "b"
        assert guest.status()["pes"][1]["power"] == "off"
    check_nothing_left(runtime)
