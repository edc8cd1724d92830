"""CPU_SUSPEND and SYSTEM_SUSPEND (DEN0022 5.1.2, 5.1.19), and what of them concerns SDEI (DEN0054 6.5)."""

from __future__ import annotations

from pathlib import Path

import pytest

from qemu_sdei.backend.loop.server import Server
from qemu_sdei.monitor.layout import AnswerFlag, Kind, Op, SysReg, Word
from qemu_sdei.sdei.constants import Function
from qemu_sdei.sdei.pstate import PAN, SCTLR_SPAN
from qemu_sdei.services.psci import Code
from qemu_sdei.services.psci import Function as Psci
from tests.backend.simulated import EL1H, SimulatedGuest, serve

WIDE = 0x4000_0000
POWER_DOWN = 1 << 16
HANDLER = 0x4300_0000
BACK = 0x4500_0000
M64 = 0xFFFF_FFFF_FFFF_FFFF
PC, PSTATE, X0 = 1, 2, 3
"""Places in what `take` returns."""


class Cpus:
    """Two CPUs that are on; event 0 registered, enabled and unmasked on both."""

    def __init__(self, directory: Path, ram: range | None = None) -> None:
        self.guest = SimulatedGuest(2, directory)
        self.guest.ram = ram
        self.guest.id_registers["ID_AA64MMFR1_EL1"] = 1 << 20  # PAN
        self.server: Server = self.guest.server()
        for pe in (0, 1):
            self.guest.reset(pe)
        serve(self.server)
        for pe in (0, 1):
            self.guest.take(pe)
        assert self(0, Psci.CPU_ON, 1, 0x4100_0000, 0)[X0] == 0
        self.wake(1)
        for pe in (0, 1):
            for call in ((Function.EVENT_REGISTER, 0, HANDLER, 0xA0 + pe, 0, 0), (Function.EVENT_ENABLE, 0)):
                assert self(pe, *call)[X0] == 0
            assert self(pe, Function.PE_UNMASK)[X0] == 0

    def __call__(self, pe: int, function: int, *arguments: int) -> list[int]:
        """A call: flags, PC, PSTATE, X0..X17 of the answer."""
        self.guest.smc(pe, function, *arguments)
        serve(self.server)
        return self.guest.take(pe)

    def wake(self, pe: int) -> list[int]:
        """The CPU takes the kick that it was sent."""
        assert pe in self.guest.take_kicks()
        self.guest.post(pe, Kind.KICK)
        serve(self.server)
        return self.guest.take(pe)

    def handler(self, pe: int) -> None:
        """Have the handler of event 0 run."""
        answer = self(pe, Function.EVENT_SIGNAL, 0, pe)
        assert answer[PC] == HANDLER


@pytest.fixture
def cpus(tmp_path: Path) -> Cpus:
    return Cpus(tmp_path)


def comes_up(cpus: Cpus, pe: int, answer: list[int], context: int) -> None:
    """The answers are: wait for an interrupt, then start at BACK as after CPU_ON."""
    assert cpus.guest.window.slept == [pe]
    assert not answer[0] & AnswerFlag.WFI
    assert answer[0] & AnswerFlag.ALL
    assert not answer[0] & AnswerFlag.PARK
    assert answer[PC : X0 + 1] == [BACK, EL1H, context]
    assert not any(answer[X0 + 1 :])
    frame = cpus.guest.window.frames[pe]
    assert not any(frame[word] for word in range(Word.X0 + 1, Word.X30 + 1))
    ops = [frame[at : at + 3].tolist() for at in range(Word.OPS, Word.OPS + 3 * (answer[0] >> 8 & 0xFF), 3)]
    (sctlr,) = (value for code, argument, value in ops if (code, argument) == (Op.WRITE_SYSREG, SysReg.SCTLR_EL1))
    assert sctlr & 1 == 0, "MMU off"
    # Of the timers, what is to wake it is kept; all of the redistributor as well.
    cleared = {argument + n for code, argument, value in ops if code & 0xFF == Op.CLEAR_SYSREGS
               for n in range(64) if value >> n & 1}  # fmt: skip
    assert SysReg.TTBR0_EL1 in cleared
    assert SysReg.CNTV_CTL_EL0 not in cleared
    assert not any(code & 0xFF == Op.WRITE_PHYS for code, _, _ in ops)


@pytest.mark.parametrize("state", [POWER_DOWN, POWER_DOWN | 0x0100_0002, POWER_DOWN | 0x0200_FFFF])
def test_power_down_comes_up_at_the_entry_point(cpus: Cpus, state: int) -> None:
    frame = cpus.guest.window.frames[1]
    for word in range(Word.X17 + 1, Word.X30 + 1):
        frame[word] = 0xA5A5  # what the CPU had there
    answer = cpus(1, Psci.CPU_SUSPEND | WIDE, state, BACK, 0x1_0000_0055)
    comes_up(cpus, 1, answer, 0x1_0000_0055)
    assert cpus(0, Psci.AFFINITY_INFO, 1, 0)[X0] == 0, "ON: a CPU that is suspended has not been turned off"


def test_the_32_bit_call_has_32_bit_arguments(cpus: Cpus) -> None:
    comes_up(cpus, 0, cpus(0, Psci.CPU_SUSPEND, POWER_DOWN, 7 << 32 | BACK, 9 << 32 | 5), 5)


def test_sdei_is_masked_after_a_power_down_and_all_else_kept(cpus: Cpus) -> None:
    """Conformance 83. What was pending meanwhile is delivered at PE_UNMASK."""
    cpus(1, Psci.CPU_SUSPEND | WIDE, POWER_DOWN, BACK, 0)
    cpus.server.trigger(0, 1)
    assert cpus(1, Function.EVENT_STATUS, 0)[X0] == 3
    assert cpus(1, Function.PE_MASK)[X0] == 0, "it was masked"
    answer = cpus(1, Function.PE_UNMASK)
    assert answer[PC] == HANDLER
    assert answer[X0 + 1] == 0xA1


def test_standby_keeps_everything(cpus: Cpus) -> None:
    pc = cpus.guest.window.frames[1][Word.PC]
    answer = cpus(1, Psci.CPU_SUSPEND | WIDE, 3, BACK, 0)
    assert answer[0] == AnswerFlag.WFI
    assert answer[PC] == pc + 4
    assert answer[X0] == 0
    assert cpus(1, Function.PE_MASK)[X0] == 1, "it was not masked"


@pytest.mark.parametrize(
    ("state", "entry", "code"),
    [
        (POWER_DOWN, BACK + 2, Code.INVALID_ADDRESS),
        (POWER_DOWN | 0x0300_0000, BACK, Code.INVALID_PARAMETERS),
        (POWER_DOWN | 1 << 17, BACK, Code.INVALID_PARAMETERS),
        (1 << 31, BACK, Code.INVALID_PARAMETERS),
    ],
)
def test_what_cannot_be_suspended_to_is_refused(cpus: Cpus, state: int, entry: int, code: Code) -> None:
    answer = cpus(1, Psci.CPU_SUSPEND | WIDE, state, entry, 0)
    assert answer[0] == 0
    assert answer[X0] == code & M64
    assert cpus(1, Function.PE_MASK)[X0] == 1, "nothing happened"


@pytest.mark.parametrize(
    "call",
    [(Psci.CPU_SUSPEND | WIDE, 0), (Psci.CPU_SUSPEND | WIDE, POWER_DOWN, BACK, 0), (Psci.SYSTEM_SUSPEND, BACK, 0)],
)
def test_a_handler_cannot_suspend(cpus: Cpus, call: tuple[int, ...]) -> None:
    """DEN0054 6.5.4. It goes on, and completes."""
    cpus(1, Psci.CPU_OFF)
    cpus.handler(0)
    answer = cpus(0, *call)
    assert answer[0] == 0
    assert answer[X0] == Code.DENIED & M64
    assert cpus(0, Function.EVENT_STATUS, 0)[X0] == 7
    assert cpus(0, Function.EVENT_COMPLETE, 0)[PC] != HANDLER
    assert cpus(0, Function.EVENT_STATUS, 0)[X0] == 3


def test_cpu_off_in_a_handler_completes_it(cpus: Cpus) -> None:
    """DEN0054 6.5.4; and it leaves nothing behind for the next CPU_ON."""
    cpus.handler(1)
    assert cpus(1, Psci.CPU_OFF)[0] & AnswerFlag.PARK
    assert cpus.server.status()["pes"][1]["running"] == []
    assert cpus(0, Psci.AFFINITY_INFO, 1, 0)[X0] == 1
    assert cpus(0, Psci.CPU_ON, 1, 0x4100_0000, 0)[X0] == 0
    assert cpus.wake(1)[PC] == 0x4100_0000
    assert cpus(1, Function.EVENT_STATUS, 0)[X0] == 0


@pytest.mark.parametrize("function", [Psci.SYSTEM_OFF, Psci.SYSTEM_RESET, Psci.SYSTEM_RESET2])
def test_the_machine_can_be_ended_from_a_handler(cpus: Cpus, function: int) -> None:
    cpus.handler(0)
    answer = cpus(0, function, 0, 0)
    assert answer[0] & AnswerFlag.PARK
    assert answer[0] >> 8 & 0xFF == 2, "two writes to the GPIO"


def test_system_suspend_is_for_the_last_cpu(cpus: Cpus) -> None:
    assert cpus(0, Psci.SYSTEM_SUSPEND | WIDE, BACK, 6)[X0] == Code.DENIED & M64
    cpus(1, Psci.CPU_OFF)
    assert cpus(0, Psci.SYSTEM_SUSPEND | WIDE, BACK + 1, 6)[X0] == Code.INVALID_ADDRESS & M64
    comes_up(cpus, 0, cpus(0, Psci.SYSTEM_SUSPEND | WIDE, BACK, 6), 6)
    assert cpus(0, Function.PE_MASK)[X0] == 0, "it was masked"
    assert cpus(0, Psci.CPU_ON, 1, 0x4100_0000, 0)[X0] == 0
    assert cpus(0, Psci.SYSTEM_SUSPEND | WIDE, BACK, 6)[X0] == Code.DENIED & M64, "CPU 1 is on its way"


@pytest.mark.parametrize("function", [Psci.CPU_SUSPEND, Psci.SYSTEM_SUSPEND])
def test_features_announce_them_without_flags(cpus: Cpus, function: int) -> None:
    """0: power_state in the original format, platform-coordinated."""
    for width in (0, WIDE):
        assert cpus(0, Psci.PSCI_FEATURES, function | width)[X0] == 0


@pytest.mark.parametrize(("entered", "resumed"), [(0, SCTLR_SPAN), (SCTLR_SPAN, 0)])
def test_complete_and_resume_goes_by_the_frame_that_asks_for_it(cpus: Cpus, entered: int, resumed: int) -> None:
    """The handler has changed SCTLR_EL1.SPAN since it was entered (DEN0054 5.2.2)."""
    frame = cpus.guest.window.frames[0]
    frame[Word.SCTLR_EL1] = entered
    cpus.handler(0)
    assert bool(frame[Word.PSTATE] & PAN) is (entered == 0)
    frame[Word.SCTLR_EL1] = resumed
    answer = cpus(0, Function.EVENT_COMPLETE_AND_RESUME, 0x4400_0280)
    assert answer[PC] == 0x4400_0280
    assert bool(answer[PSTATE] & PAN) is (resumed == 0)
