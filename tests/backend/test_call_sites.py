"""Rules that ask from where a call came, by addresses and by names: in a kernel that lies elsewhere each time."""

from __future__ import annotations

from pathlib import Path

import pytest

from qemu_sdei.errors import ProtocolError, UsageError
from qemu_sdei.monitor.layout import Word
from qemu_sdei.sdei.constants import DENIED, Function
from tests.backend.handed_over import taken
from tests.backend.misbehaving import Machine
from tests.backend.simulated import serve

FILE = 0xFFFF_8000_0800_0000
"""Where the kernel's file has it."""
CALLS = f"~{FILE + 0x100:#x}..{FILE + 0x13F:#x}"
WANTED = f"wanted@{FILE + 0x2000:#x}..{FILE + 0x203F:#x}{CALLS}"
KASLR = (0, 0x2A3_0000, -0x1_0000)


def call(machine: Machine, function: int, *arguments: int, pc: int = 0, caller: int = 0, pe: int = 0) -> int:
    """x0 of a call from there."""
    frame = machine.guest.window.frames[pe]
    machine.guest.smc(pe, function, *arguments)
    frame[Word.PC], frame[Word.X30] = pc, caller
    return machine.go(pe)


def test_by_address(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "EVENT_STATUS pc=0x1000..0x1fff caller=0x40080010 returns=DENIED")
    for pc, caller, result in (
        (0x1004, 0x4008_0010, DENIED),
        (0x1004, 0x4008_0014, 0),
        (0x2004, 0x4008_0010, 0),
    ):
        assert call(machine, Function.EVENT_STATUS, 0, pc=pc, caller=caller) == result


@pytest.mark.parametrize("distance", KASLR)
def test_by_name_wherever_the_kernel_lies(tmp_path: Path, distance: int) -> None:
    machine = Machine(tmp_path, f"EVENT_STATUS caller={WANTED} returns=DENIED")
    there = FILE + distance
    for at, result in ((0x2010, DENIED), (0x2040, DENIED), (0x2000, 0), (0x2044, 0)):
        assert call(machine, Function.EVENT_STATUS, 0, pc=there + 0x108, caller=there + at) == result
    wrong = FILE + distance + 0x1_0000
    assert call(machine, Function.EVENT_STATUS, 0, pc=there + 0x108, caller=wrong + 0x2010) == 0


def test_what_is_interrupted_is_known_by_calls_before_it(tmp_path: Path) -> None:
    machine = Machine(tmp_path, f"delivery pc={WANTED} loses=event")
    there = FILE + 0x2A3_0000
    machine.register(0)
    frame = machine.guest.window.frames[0]
    for known, lost in ((False, False), (True, True)):
        if known:
            call(machine, Function.VERSION, pc=there + 0x108)
        machine.server.trigger(0, 0)
        frame[Word.PC] = there + 0x2010
        machine.kicks()
        serve(machine.server)
        assert machine.in_handler(0) is not lost
        if machine.in_handler(0):
            machine.call(0, Function.EVENT_COMPLETE, 0)
    machine.guest.reset(0)
    machine.go(0)
    assert "kernel" not in taken(machine.server)["firmware"]["misbehaviour"], "the next kernel lies elsewhere"


def test_who_called_outlives_the_backend_and_a_journey(tmp_path: Path) -> None:
    """What was counted by a call's x30 is counted the same when the journal is run again."""
    machine = Machine(tmp_path, f"EVENT_STATUS nth=3 caller={WANTED} returns=DENIED")
    there = FILE + 0x10_0000

    def ask(at: int) -> int:
        return call(machine, Function.EVENT_STATUS, 0, pc=there + 0x108, caller=there + at)

    assert [ask(at) for at in (0x2010, 0x3000, 0x2010)] == [0, 0, 0]
    before = machine.server.firmware.misbehaviour.snapshot()
    machine.again()
    assert machine.server.firmware.misbehaviour.snapshot() == before
    assert before["kernel"] == [0, 0x10_0000]
    machine.moves(tmp_path / "there")
    assert machine.server.firmware.misbehaviour.snapshot() == before
    assert [ask(at) for at in (0x3000, 0x2010, 0x2010)] == [0, DENIED, 0]


def test_late_calls_ask_it_too(tmp_path: Path) -> None:
    machine = Machine(tmp_path, f"EVENT_STATUS caller={WANTED} late=600s")
    assert call(machine, Function.EVENT_STATUS, 0, pc=FILE + 0x108, caller=FILE + 0x3000) == 0
    machine.guest.smc(0, Function.EVENT_STATUS, 0)
    frame = machine.guest.window.frames[0]
    frame[Word.PC], frame[Word.X30] = FILE + 0x108, FILE + 0x2010
    machine.server.answer_as_wanted(0, machine.guest.window.seq[0])
    assert machine.guest.waiting(0)


def test_a_journal_full_of_such_calls_is_emptied(tmp_path: Path) -> None:
    machine = Machine(tmp_path, f"EVENT_STATUS nth=2000 caller={WANTED} returns=DENIED")
    results = [call(machine, Function.EVENT_STATUS, 0, pc=FILE + 0x108, caller=FILE + 0x2010) for _ in range(2001)]
    assert results.count(DENIED) == 1
    assert results[1999] == DENIED
    machine.again()
    assert machine.server.firmware.misbehaviour.report()["rules"][0]["acted"] == 1


def test_a_name_that_nobody_has_looked_up_is_refused(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    with pytest.raises(UsageError, match=r"rule 1: nobody has said where the function psci_cpu_off is: .* --symbols"):
        machine.rules("CPU_OFF caller=psci_cpu_off returns=DENIED")
    assert not machine.server.firmware.misbehaviour.active


@pytest.mark.parametrize("kernel", [[0, 1 << 65], [1, 0], [0, "0"], [0, True], [0], 5, [-1, 0], None])
def test_a_place_that_cannot_be_is_a_damaged_document(tmp_path: Path, kernel: object) -> None:
    machine = Machine(tmp_path, f"EVENT_STATUS caller={WANTED} returns=DENIED")
    state = machine.server.firmware.misbehaviour.snapshot() | {"kernel": kernel}
    with pytest.raises(ProtocolError, match="firmware profile: "):
        machine.server.firmware.misbehaviour.restore(state)
