"""Where a CPU may be sent: entry points of PSCI, targets, the address of COMPLETE_AND_RESUME; and CPUs that are silent
after they were started.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from qemu_sdei.backend.control import state_document
from qemu_sdei.monitor.layout import AnswerFlag, Word
from qemu_sdei.sdei.constants import DENIED, Function
from qemu_sdei.services.psci import Code, Power
from qemu_sdei.services.psci import Function as Psci
from tests.backend.simulated import ENTRY, serve
from tests.backend.test_suspend import HANDLER, PC, POWER_DOWN, WIDE, X0, Cpus

M64 = 0xFFFF_FFFF_FFFF_FFFF
RAM = range(0x4000_0000, 0x4800_0000)
BAD = [
    *(0xFFFF_8000_0800_0000, 0x0900_0000, 0x1000, 0, 0x4100_0002, RAM.start - 4, RAM.stop, 1 << 52, M64 & ~3),
]
"""A virtual address, a device, flash, a misaligned one, RAM's neighbours, beyond all address spaces."""


@pytest.fixture
def cpus(tmp_path: Path) -> Cpus:
    return Cpus(tmp_path, RAM)


def signed(x0: int) -> int:
    """A return code as it is meant."""
    return x0 - (1 << 64) if x0 >> 63 else x0


@pytest.mark.parametrize("entry", BAD)
def test_a_cpu_starts_in_ram_only(cpus: Cpus, entry: int) -> None:
    """CPU_ON, and both ways to lose one's context (DEN0022 5.1.2, 5.1.4, 5.1.19); nothing has happened afterwards."""
    cpus(1, Psci.CPU_OFF)
    assert signed(cpus(0, Psci.CPU_ON | WIDE, 1, entry, 0)[X0]) == Code.INVALID_ADDRESS
    assert cpus.guest.take_kicks() == []
    assert cpus(0, Psci.AFFINITY_INFO | WIDE, 1, 0)[X0] == Power.OFF
    for call in ((Psci.CPU_SUSPEND | WIDE, POWER_DOWN, entry, 0), (Psci.SYSTEM_SUSPEND | WIDE, entry, 0)):
        answer = cpus(0, *call)
        assert signed(answer[X0]) == Code.INVALID_ADDRESS
        assert not answer[0] & AnswerFlag.WFI


def test_the_edges_of_ram_are_ram(cpus: Cpus) -> None:
    """The first and the last instruction of it; a 32-bit call's upper half means nothing."""
    for entry in (RAM.start, RAM.stop - 4):
        cpus(1, Psci.CPU_OFF)
        assert cpus(0, Psci.CPU_ON, 0xFFFF_FFFF_0000_0001, 0xFFFF_FFFF_0000_0000 | entry, 7)[X0] == Code.SUCCESS
        assert cpus.wake(1)[PC] == entry


@pytest.mark.parametrize("target", [0x8000_0001, 0x0100_0001, 1 << 40 | 1, 1 << 63 | 1])
def test_reserved_bits_of_a_target(cpus: Cpus, target: int) -> None:
    """DEN0022 5.1.4: they are zero. MPIDR_EL1 as it is read has bit 31 set."""
    cpus(1, Psci.CPU_OFF)
    assert signed(cpus(0, Psci.CPU_ON | WIDE, target, RAM.start, 0)[X0]) == Code.INVALID_PARAMETERS
    assert signed(cpus(0, Psci.AFFINITY_INFO | WIDE, target, 0)[X0]) == Code.INVALID_PARAMETERS


@pytest.mark.parametrize("address", [0x1000, 0x0900_0000, RAM.stop, 0xFFFF_0000_0000_0000])
def test_a_handler_resumes_in_ram_while_the_mmu_is_off(cpus: Cpus, address: int) -> None:
    """DENIED, and the handler continues. With the MMU on an address is the guest's affair (DEN0054 5.1.7)."""
    cpus.handler(0)
    frame = cpus.guest.window.frames[0]
    frame[Word.SCTLR_EL1] = 0x30D0_0800
    assert signed(cpus(0, Function.EVENT_COMPLETE_AND_RESUME, address)[X0]) == DENIED
    assert cpus(0, Function.EVENT_STATUS, 0)[X0] == 7
    frame[Word.SCTLR_EL1] = 0x30D0_0801
    assert cpus(0, Function.EVENT_COMPLETE_AND_RESUME, address)[PC] == address


@pytest.mark.parametrize("mmu", [0, 1])
@pytest.mark.parametrize("address", [0, 2, HANDLER + 2, 1 << 52, 0xFFEF_FFFF_FFFF_FFFC])
def test_a_handler_never_resumes_at_what_is_no_address(cpus: Cpus, address: int, mmu: int) -> None:
    cpus.handler(0)
    cpus.guest.window.frames[0][Word.SCTLR_EL1] = 0x30D0_0800 | mmu
    assert signed(cpus(0, Function.EVENT_COMPLETE_AND_RESUME, address)[X0]) == DENIED


def silent(cpus: Cpus) -> list[int | None]:
    """What `status` says of each CPU."""
    return [pe["not_heard_of_since"] for pe in cpus.server.status()["pes"]]


def test_a_cpu_that_was_started_and_does_not_call(cpus: Cpus) -> None:
    """It is told until it calls; a CPU that is off, or on its way, is not silent."""
    assert silent(cpus) == [None, None]
    cpus(1, Psci.CPU_OFF)
    assert cpus(0, Psci.CPU_ON, 1, 0x4200_0000, 0)[X0] == 0
    assert silent(cpus) == [None, None]
    cpus.wake(1)
    assert silent(cpus) == [None, 0x4200_0000]
    cpus(0, Psci.PSCI_VERSION)
    assert silent(cpus) == [None, 0x4200_0000], "the call of another CPU"
    cpus(1, Psci.PSCI_VERSION)
    assert silent(cpus) == [None, None]


def test_the_boot_cpu_too(cpus: Cpus) -> None:
    """A kernel that hangs before its first call."""
    cpus.guest.reset(0)
    serve(cpus.server)
    assert silent(cpus)[0] == ENTRY.pc
    cpus.guest.take(0)
    cpus(0, 0x8400_0063)
    assert silent(cpus)[0] is None, "a call that nobody serves is one as well"


def test_a_silent_cpu_is_silent_elsewhere(cpus: Cpus, tmp_path: Path) -> None:
    """The state document tells."""
    cpus(1, Psci.CPU_OFF)
    cpus(0, Psci.CPU_ON, 1, 0x4200_0000, 0)
    cpus.wake(1)
    cpus.server.guest.machine = {"nr_cpus": 2}
    counters = state_document.take(cpus.server)["counters"]
    assert counters["silent"] == [[1, 0x4200_0000]]
    (tmp_path / "again").mkdir()
    again = Cpus(tmp_path / "again")
    again.server.guest.calls.clear()
    again.server.guest.calls.update({int(f): list(c) for f, c in counters["calls"].items()})
    again.server.guest.starts.restore(counters["silent"])
    assert silent(again) == [None, 0x4200_0000]
    again(1, Psci.PSCI_VERSION)
    assert silent(again) == [None, None]
