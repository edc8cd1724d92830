"""A CPU that comes back from a power-down, exchange by exchange; what the registers are then, tests/guest looks at."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from qemu_sdei.backend.control import state_document
from qemu_sdei.backend.firmware import power_down
from qemu_sdei.backend.firmware.power_down import Step
from qemu_sdei.backend.loop.server import Server
from qemu_sdei.monitor.layout import MAX_OPS, AnswerFlag, Kind, Op, SysReg, Word
from qemu_sdei.monitor.ops import encode
from qemu_sdei.services.psci import Function as Psci
from qemu_sdei.services.psci import Power
from tests.backend.handed_over import destination, taken
from tests.backend.simulated import ENTRY, SimulatedGuest, SimulatedWindow, records, serve

ON = 0x4100_0000
PC, X0 = 1, 3
"""Places in what `take` returns."""
LOOK, EOI = (Op.READ_SYSREG, SysReg.ICC_AP1R0_EL1), (Op.WRITE_SYSREG, SysReg.ICC_EOIR1_EL1)


class Machine:
    """Two CPUs, both on, whose exchanges the test goes through one by one."""

    def __init__(self, directory: Path) -> None:
        self.guest = SimulatedGuest(2, directory)
        self.server: Server = self.guest.server()
        for pe in (0, 1):
            self.guest.reset(pe)
        serve(self.server)
        for pe in (0, 1):
            self.guest.take(pe)
        self.start(1)
        serve(self.server)
        self.guest.take(1)

    def start(self, pe: int) -> None:
        """The other CPU has it started; its kick is posted, and not answered yet."""
        self.guest.smc(1 - pe, Psci.CPU_ON | 0x4000_0000, pe, ON, 7)
        serve(self.server)
        assert self.guest.take(1 - pe)[X0] == 0
        assert pe in self.guest.take_kicks()
        self.guest.post(pe, Kind.KICK)

    def off(self, pe: int) -> None:
        self.guest.smc(pe, Psci.CPU_OFF)
        serve(self.server)
        assert self.guest.take(pe)[0] & AnswerFlag.PARK

    def step(self, pe: int) -> list[int]:
        """One answer."""
        self.server.frame(pe, self.guest.window.seq[pe])
        return self.guest.take(pe)

    def ops(self, pe: int) -> list[tuple[int, int]]:
        """Code and argument of each operation of the answer."""
        frame = self.guest.window.frames[pe]
        count = frame[Word.FLAGS] >> 8 & 0xFF
        return [(frame[at] & 0xFF, frame[at + 1]) for at in range(Word.OPS, Word.OPS + 3 * count, 3)]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("active", [0, 1 << 26, 0xFFFF_0000])
def test_as_many_priorities_are_dropped_as_are_active(machine: Machine, active: int) -> None:
    machine.off(1)
    machine.start(1)
    assert machine.step(1)[0] & AnswerFlag.REPOST
    assert machine.ops(1)[0] == LOOK
    assert [code for code, _ in machine.ops(1)[1:]] == [Op.WRITE_PHYS] * 11
    machine.guest.window.frames[1][Word.OPS + 2] = active
    machine.guest.post(1, Kind.OPS)
    answer = machine.step(1)
    if active:
        last = [LOOK] if active.bit_count() < MAX_OPS else []
        assert machine.ops(1) == [EOI] * active.bit_count() + last
        machine.guest.post(1, Kind.OPS)
        answer = machine.step(1)
    assert not answer[0] & AnswerFlag.REPOST
    assert answer[PC : X0 + 1 : 2] == [ON, 7]
    assert (Op.WRITE_SYSREG, SysReg.SCTLR_EL1) in machine.ops(1)
    assert power_down.step_of(machine.guest.window.frames[1]) == Step.END


def test_the_trace_has_the_priorities_before_and_after(machine: Machine) -> None:
    machine.off(1)
    machine.start(1)
    machine.step(1)
    machine.guest.window.frames[1][Word.OPS + 2] = 1 << 26
    machine.guest.post(1, Kind.OPS)
    machine.step(1)
    assert machine.ops(1) == [EOI, LOOK]
    machine.guest.window.frames[1][Word.OPS + 5] = 0
    machine.guest.post(1, Kind.OPS)
    machine.step(1)
    told = [
        record for record in records(machine.server) if record["type"] == "priorities" and record["ap1r0"] != 5 << 24
    ]
    assert [(one["vcpu"], one["at"], one["ap1r0"], one["active"], one["then"]) for one in told] == [
        (1, "cpu-on", 1 << 26, [0xA0], "ended"),
        (1, "cpu-on", 0, [], None),
    ]


@pytest.mark.parametrize(("way", "step"), [*(("CPU_ON", n) for n in range(3)), *(("CPU_SUSPEND", n) for n in range(4))])
@pytest.mark.parametrize("answered", [False, True])
def test_it_comes_up_at_another_backend(machine: Machine, way: str, answered: bool, step: int, tmp_path: Path) -> None:
    """Its document is taken when any of its frames is posted, or answered."""
    guest = machine.guest
    if way == "CPU_ON":
        machine.off(1)
        machine.start(1)
    else:
        guest.smc(1, Psci.CPU_SUSPEND | 0x4000_0000, 1 << 16, ON, 7)

    for _ in range(step):
        assert machine.step(1)[0] & AnswerFlag.REPOST
        guest.window.execute(guest.window.frames[1], 1)
        guest.post(1, Kind.OPS)
    repost = False
    if answered:
        repost = bool(machine.step(1)[0] & AnswerFlag.REPOST)
        guest.window.execute(guest.window.frames[1], 1)
    state = taken(machine.server)
    (tmp_path / "there").mkdir()
    machine.server = destination(2, tmp_path / "there")
    guest.window = cast(SimulatedWindow, machine.server.window)
    state_document.restore(machine.server, state)
    if repost:
        guest.post(1, Kind.OPS)
    serve(machine.server)
    answer = guest.take(1)
    assert answer[PC : X0 + 1 : 2] == [ON, 7]
    assert machine.server.firmware.psci.power[1] is Power.ON


def test_cpu_0_that_comes_up_while_the_backend_is_replaced_boots_nothing(machine: Machine) -> None:
    """Its frames are of the kind that a boot's are."""
    machine.off(0)
    machine.start(0)
    machine.step(0)
    machine.guest.post(0, Kind.OPS)
    machine.server = machine.guest.server()
    assert machine.server.recover()
    serve(machine.server)
    answer = machine.guest.take(0)
    assert answer[PC : X0 + 1 : 2] == [ON, 7]
    assert answer[PC] != ENTRY.pc
    assert machine.server.firmware.machine.epoch == 1


@pytest.mark.parametrize("mark", [*Step, 0xC5, 1])
def test_forged_steps_harm_nobody_else(machine: Machine, mark: int) -> None:
    frame = machine.guest.window.frames[1]
    frame[Word.OPS] = Op.READ_SYSREG | mark << 8
    frame[Word.OPS + 2] = 0xFFFF_FFFF_FFFF_FFFF
    for _ in range(8):
        machine.guest.post(1, Kind.OPS)
        machine.step(1)
    machine.guest.smc(0, Psci.AFFINITY_INFO, 1, 0)
    assert machine.step(0)[X0] == 0


def test_what_each_level_needs_fits_into_its_frames(machine: Machine) -> None:
    frame = machine.guest.window.frames[0]
    for timers in (False, True):
        assert len(power_down.clear(1, timers)) + 1 <= MAX_OPS, "with SCTLR_EL1"
        encode(frame, power_down.clear(2, timers))
    assert len(power_down.own(frame, 0, 0)) + 3 <= MAX_OPS, "with SCTLR_EL1, SCTLR_EL2 and HCR_EL2"
    encode(frame, power_down.look(0))
    encode(frame, power_down.look(500))
