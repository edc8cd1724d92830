"""PSCI by itself: what is answered, and what is asked of whoever has the power."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from qemu_sdei.errors import ProtocolError
from qemu_sdei.services.psci import Code, Function, Power, Psci
from qemu_sdei.smccc.regs import X0, new_regs

SMC64 = 0x4000_0000
ENTRY = 0x4100_0000
RAM = range(0x4000_0000, 0x5000_0000)


class Control:
    """Notes what is asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.in_an_event = False
        self.steps: Generator[Any, Any, None] | None = None

    def start_cpu(self, pe: int) -> None:
        self.asked.append(("start", pe))

    def stop_cpu(self, pe: int) -> None:
        self.asked.append(("stop", pe))

    def standby(self, pe: int) -> None:
        self.asked.append(("standby", pe))

    def suspend(self, pe: int, entry: int, context: int) -> None:
        self.asked.append(("suspend", pe, entry, context))

    def in_handler(self, pe: int) -> bool:
        return self.in_an_event

    def kernel_begins(self, pe: int) -> Generator[Any, Any, None] | None:
        self.asked.append(("kernel", pe))
        return self.steps

    def system_off(self) -> None:
        self.asked.append(("off",))

    def system_reset(self) -> None:
        self.asked.append(("reset",))


class Machine:
    """Two CPUs, of which the first is on."""

    def __init__(self) -> None:
        self.control = Control()
        self.psci = Psci([0, 1], self.control, lambda function: function == Function.CPU_ON, RAM)
        self.psci.reset()

    def __call__(self, function: int, *arguments: int, pe: int = 0) -> Any:
        regs = new_regs()
        for n, value in enumerate((function, *arguments)):
            regs[X0 + n] = value
        return self.psci.handlers()[function](pe, regs)


def test_a_cpu_is_started_once() -> None:
    """DEN0022 5.1.4: what is on, or on its way, is not started again."""
    machine = Machine()
    assert machine(Function.CPU_ON | SMC64, 1, ENTRY, 7) == Code.SUCCESS
    assert machine(Function.CPU_ON | SMC64, 1, ENTRY, 8) == Code.ON_PENDING
    assert machine(Function.AFFINITY_INFO, 1, 0) == Power.ON_PENDING
    assert machine.control.asked == [("start", 1)]
    assert machine.psci.started(1) == (ENTRY, 7), "the first one's words"
    assert machine.psci.started(1) is None
    assert machine(Function.CPU_ON | SMC64, 1, ENTRY, 8) == Code.ALREADY_ON
    machine(Function.CPU_OFF, pe=1)
    assert machine.control.asked[1:] == [("stop", 1)]
    assert machine.psci.started(1) is None, "nobody asked for it"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((2, ENTRY, 0), Code.INVALID_PARAMETERS),
        ((0x8000_0001, ENTRY, 0), Code.INVALID_PARAMETERS),
        ((1, ENTRY + 2, 0), Code.INVALID_ADDRESS),
        ((1, RAM.stop, 0), Code.INVALID_ADDRESS),
    ],
    ids=["no such CPU", "a reserved bit", "misaligned", "not in RAM"],
)
def test_a_cpu_is_not_started(arguments: tuple[int, ...], code: Code) -> None:
    machine = Machine()
    assert machine(Function.CPU_ON | SMC64, *arguments) == code
    assert machine.control.asked == []
    assert machine.psci.power == [Power.ON, Power.OFF]


def test_affinity_levels_other_than_0_are_not_known() -> None:
    machine = Machine()
    assert machine(Function.AFFINITY_INFO, 0, 1) == Code.INVALID_PARAMETERS
    assert machine(Function.AFFINITY_INFO, 2, 0) == Code.INVALID_PARAMETERS
    assert machine(Function.AFFINITY_INFO, 0, 0) == Power.ON


def test_arguments_of_a_32_bit_call_have_32_bits() -> None:
    machine = Machine()
    high = 0xFFFF_FFFF_0000_0000
    assert machine(Function.CPU_ON, high | 1, high | ENTRY, high | 7) == Code.SUCCESS
    assert machine.psci.started(1) == (ENTRY, 7)


def test_suspend() -> None:
    """5.1.2; in an event's handler it is refused (DEN0054 6.5.4)."""
    machine = Machine()
    power_down = 1 << 16
    assert machine(Function.CPU_SUSPEND, 0) == Code.SUCCESS
    assert machine(Function.CPU_SUSPEND | SMC64, power_down, ENTRY, 9) is None
    assert machine.control.asked == [("standby", 0), ("suspend", 0, ENTRY, 9)]
    assert machine(Function.CPU_SUSPEND, 3 << 24) == Code.INVALID_PARAMETERS
    assert machine(Function.CPU_SUSPEND, 1 << 31) == Code.INVALID_PARAMETERS
    assert machine(Function.CPU_SUSPEND | SMC64, power_down, 0) == Code.INVALID_ADDRESS
    machine.control.in_an_event = True
    assert machine(Function.CPU_SUSPEND, 0) == Code.DENIED
    assert machine(Function.CPU_SUSPEND | SMC64, power_down, ENTRY) == Code.DENIED
    assert len(machine.control.asked) == 2


def test_only_the_last_cpu_suspends_the_system() -> None:
    """5.1.19."""
    machine = Machine()
    machine(Function.CPU_ON | SMC64, 1, ENTRY, 0)
    assert machine(Function.SYSTEM_SUSPEND | SMC64, ENTRY, 5) == Code.DENIED
    machine(Function.CPU_OFF, pe=1)
    assert machine(Function.SYSTEM_SUSPEND | SMC64, ENTRY, 5) is None
    assert machine.control.asked[-1] == ("suspend", 0, ENTRY, 5)


def test_off_and_resets() -> None:
    """5.1.14: of SYSTEM_RESET2 only the warm one is there."""
    machine = Machine()
    assert machine(Function.SYSTEM_OFF) is None
    assert machine(Function.SYSTEM_RESET) is None
    assert machine(Function.SYSTEM_RESET2 | SMC64, 0, 77) is None
    for other in (1, 0x8000_0000, 0x8000_0001):
        assert machine(Function.SYSTEM_RESET2, other) == Code.INVALID_PARAMETERS
    assert machine.control.asked == [("off",), ("reset",), ("reset",)]


def test_features() -> None:
    machine = Machine()
    assert machine(Function.PSCI_VERSION) == 0x1_0001
    assert machine(Function.PSCI_FEATURES, Function.CPU_ON) == Code.SUCCESS
    assert machine(Function.PSCI_FEATURES, 0x8000_0000) == Code.SUCCESS, "SMCCC_VERSION"
    assert machine(Function.PSCI_FEATURES, 0x8400_0007) == Code.NOT_SUPPORTED


def test_a_kernel_that_begins() -> None:
    """What must be done first is done before the answer."""
    machine = Machine()
    assert machine(Function.MIGRATE_INFO_TYPE) == 2
    done: list[str] = []

    def steps() -> Generator[Any, Any, None]:
        done.append((yield "clear"))

    machine.control.steps = steps()
    work = machine(Function.MIGRATE_INFO_TYPE)
    assert next(work) == "clear"
    with pytest.raises(StopIteration) as end:
        work.send("cleared")
    assert end.value.value == (2,)
    assert done == ["cleared"]
    assert machine.control.asked == [("kernel", 0)] * 2


def test_state() -> None:
    machine, other = Machine(), Machine()
    machine(Function.CPU_ON | SMC64, 1, ENTRY, 7)
    other.psci.restore(machine.psci.snapshot())
    assert other.psci.snapshot() == machine.psci.snapshot()
    assert other.psci.started(1) == (ENTRY, 7)


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"power": [0, 3], "entry": [None, None]},
        {"power": [0, 1], "entry": [None, [1]]},
        {"power": [0], "entry": [None]},
        {"power": [0, 1], "entry": [None]},
        {"power": None, "entry": []},
    ],
)
def test_damaged_state_changes_nothing(state: dict[str, Any]) -> None:
    machine = Machine()
    before = machine.psci.snapshot()
    with pytest.raises(ProtocolError, match="psci state"):
        machine.psci.restore(state)
    assert machine.psci.snapshot() == before
