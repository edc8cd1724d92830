"""Firmware profiles at work, in a guest without QEMU: what each action does, and that it is state as any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qemu_sdei.backend.control import state_document
from qemu_sdei.errors import UsageError
from qemu_sdei.monitor.layout import AnswerFlag, Kind, SysReg, Word
from qemu_sdei.profiles.firmware_profile import SPEC_PROFILE, FirmwareProfile
from qemu_sdei.sdei.constants import DENIED, INVALID_PARAMETERS, NOT_SUPPORTED, Function
from qemu_sdei.services.psci import Function as Psci
from qemu_sdei.trace.columns import Columns
from tests.backend.handed_over import taken
from tests.backend.misbehaving import CPU_ON, ENTRY, HANDLER, Machine
from tests.backend.simulated import records, serve
from tests.backend.test_crash import Killed, _Kill, tracing


def test_a_wrong_code_at_the_nth_time_and_nothing_done(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "EVENT_ENABLE nth=2 returns=DENIED")
    assert machine.call(0, Function.EVENT_REGISTER, 0, HANDLER, 0, 0, 0) == 0
    assert [machine.call(0, Function.EVENT_ENABLE, 0) for _ in range(3)] == [0, DENIED, 0]
    assert machine.acted() == [(0, 2 - 1, "returns=DENIED")]
    machine = Machine(tmp_path, "EVENT_REGISTER vcpu=0 event=0x100 returns=OUT_OF_RESOURCE")
    assert machine.call(0, Function.EVENT_REGISTER, 0x100, HANDLER, 0, 0, 0) == -10
    assert machine.call(0, Function.EVENT_STATUS, 0x100) == 0, "it was not registered"
    assert machine.call(0, Function.EVENT_REGISTER, 0x101, HANDLER, 0, 0, 0) == 0


def test_times_that_were_counted_outlive_the_backend_and_a_journey(tmp_path: Path) -> None:
    """Also those of calls that only read, which are in no journal without a profile."""
    machine = Machine(tmp_path, "EVENT_STATUS nth=3 returns=DENIED", "PE_MASK nth=every:2 answers=17")
    assert [machine.call(0, Function.EVENT_STATUS, 0) for _ in range(2)] == [0, 0]
    assert machine.call(0, Function.PE_MASK) == 0
    machine.again()
    assert machine.call(0, Function.PE_MASK) == 17
    assert machine.call(0, Function.EVENT_STATUS, 0) == DENIED
    before = machine.server.firmware.misbehaviour.snapshot()
    machine.moves(tmp_path / "there")
    assert machine.server.firmware.misbehaviour.snapshot() == before
    assert machine.call(0, Function.PE_MASK) == 0
    assert machine.call(0, Function.PE_MASK) == 17
    machine.server.misbehave(SPEC_PROFILE)
    assert "misbehaviour" not in taken(machine.server)["firmware"]


def test_versions_that_are_constants_elsewhere(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    assert machine.call(0, 0x8000_0000) == 0x10002
    assert machine.call(0, Function.VERSION) == 0x1_0001_004B_564D
    machine.rules("SMCCC_VERSION answers=0x10005", "SDEI_VERSION answers=0x0001000000000000")
    assert machine.call(0, 0x8000_0000) == 0x10005
    assert machine.call(0, Function.VERSION) == 1 << 48
    machine.server.misbehave(SPEC_PROFILE)
    assert machine.call(0, 0x8000_0000) == 0x10002
    assert machine.call(0, Function.VERSION) == 0x1_0001_004B_564D
    machine.rules("FFA_VERSION returns=0x10000")
    assert machine.call(0, 0x8400_0063) == 0x10000
    assert machine.call(0, 0x8400_0064) == NOT_SUPPORTED


def test_a_cpu_that_never_comes_back(tmp_path: Path) -> None:
    """CPU_OFF ends in EL3: the CPU is on for everybody, and no kick brings it out; a reset of the machine does."""
    machine = Machine(tmp_path, profile="wedge-on-off")
    machine.start(1)
    assert machine.pc(1) == ENTRY
    machine.guest.smc(1, Psci.CPU_OFF)
    serve(machine.server)
    assert machine.guest.take(1)[0] & AnswerFlag.PARK
    assert machine.call(0, Psci.AFFINITY_INFO | 0x4000_0000, 1, 0) == 0
    assert machine.call(0, CPU_ON, 1, ENTRY, 7) == -4
    machine.again()
    machine.moves(tmp_path / "there")
    machine.kicks()
    machine.guest.post(1, Kind.KICK)
    serve(machine.server)
    assert machine.guest.take(1)[0] & AnswerFlag.PARK
    assert machine.server.status()["firmware"]["stuck"] == [1]
    machine.guest.reset(0)
    machine.go(0)
    assert machine.server.status()["firmware"]["stuck"] == []


def test_events_that_are_lost_doubled_and_go_elsewhere(tmp_path: Path) -> None:
    machine = Machine(
        tmp_path,
        "EVENT_SIGNAL nth=1 loses=event",
        "delivery event=0 vcpu=1 nth=1 doubles=yes",
        "EVENT_SIGNAL nth=3 to=0",
        "delivery event=0x100 loses=event",
    )
    machine.start(1)
    for pe in (0, 1):
        machine.register(pe)
    assert machine.call(0, Function.EVENT_SIGNAL, 0, 1) == 0
    assert not machine.in_handler(1)
    assert machine.call(0, Function.EVENT_SIGNAL, 0, 1) == 0
    assert machine.in_handler(1)
    machine.call(1, Function.EVENT_COMPLETE, 0)
    assert machine.in_handler(1), "the second time"
    machine.call(1, Function.EVENT_COMPLETE, 0)
    assert not machine.in_handler(1)
    machine.call(0, Function.EVENT_SIGNAL, 0, 1)
    assert machine.in_handler(0)
    assert not machine.in_handler(1)
    machine.call(0, Function.EVENT_COMPLETE, 0)
    assert machine.guest.window.contexts[0][2:5].tolist() == [0, 0, 1], "the caller's registers"
    machine.register(0, 0x100)
    machine.server.trigger(0x100, 0)
    machine.kicks()
    assert not machine.in_handler(0)
    state_document.form()(taken(machine.server))
    triggers = {(row[0], row[1]): row[2:] for row in machine.server.firmware.dispatcher.counts()}
    assert triggers == {(0, 0): [1, 0, 0, 1], (0, 1): [3, 0, 1, 2], (0x100, 0): [1, 0, 1, 0]}
    assert machine.server.firmware.exchange.delivered == 3


def test_a_kick_that_is_lost(tmp_path: Path) -> None:
    machine = Machine(tmp_path, profile="lost-kick")
    machine.start(1)
    machine.register(1)
    machine.guest.smc(0, Function.EVENT_SIGNAL, 0, 1)
    serve(machine.server)
    assert machine.guest.take(0)[3] == 0
    machine.server.trigger(0, 1)
    assert machine.guest.take_kicks() == []
    machine.call(1, Function.EVENT_STATUS, 0)
    assert machine.in_handler(1), "its next call finds it"


def test_registers_beyond_the_calling_convention(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "SDEI_FEATURES clobbers=x5,x17,ELR_EL1", "delivery zeroes=x4..x17")
    machine.guest.window.contexts[0][7] = machine.guest.window.contexts[0][19] = 5
    machine.call(0, Function.FEATURES, 0)
    x = machine.taken[0][3:]
    assert (x[5], x[17], x[4]) == (0xBAD0_BAD0_BAD0_BAD0, 0xBAD0_BAD0_BAD0_BAD0, 0)
    assert machine.written(0, SysReg.ELR_EL1) == [0xBAD0_BAD0_BAD0_BAD0]
    machine.register(0)
    assert machine.call(0, Function.EVENT_SIGNAL, 0, 0) == 0
    assert machine.pc(0) == HANDLER
    assert machine.taken[0][7:] == [0] * 14
    machine.call(0, Function.EVENT_COMPLETE, 0)
    assert machine.taken[0][3:][17] == 0xBAD0_BAD0_BAD0_BAD0, "what was interrupted is restored"


def test_the_context_of_another_event(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "EVENT_CONTEXT context=outer", "EVENT_COMPLETE running=0x103 context=outer")
    machine.register(0)
    machine.register(0, 0x103)
    machine.guest.window.contexts[0][2 + 9] = 0x999
    machine.call(0, Function.EVENT_SIGNAL, 0, 0)
    interrupted = machine.guest.window.frames[0][Word.PC]
    machine.guest.window.contexts[0][2 + 9] = 0x111
    machine.server.trigger(0x103, 0)
    machine.kicks()
    assert machine.server.firmware.dispatcher.running(0) == (0, 0x103)
    assert machine.call(0, Function.EVENT_CONTEXT, 9) == 0x999, "and not 0x111"
    machine.call(0, Function.EVENT_COMPLETE, 0)
    assert machine.taken[0][3 + 9] == 0x999
    assert machine.server.firmware.dispatcher.running(0) == (0,)
    assert interrupted == HANDLER


def test_state_that_is_kept_over_a_power_down_and_a_reset(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "CPU_OFF nth=1 keeps=events,handlers,mask", "reset keeps=events")
    machine.start(1)
    machine.register(1)
    machine.register(1, 0x100)
    machine.call(0, Function.EVENT_SIGNAL, 0, 1)
    assert machine.in_handler(1)
    machine.call(1, Psci.CPU_OFF)
    assert not machine.in_handler(1)
    machine.again()
    machine.moves(tmp_path / "there")
    machine.start(1)
    assert machine.in_handler(1)
    assert [machine.call(1, Function.EVENT_STATUS, event) for event in (0, 0x100)] == [7, 3]
    assert machine.call(1, Function.PE_MASK) == 1, "it was not masked"
    machine.register(0, 0x101)
    assert machine.call(0, Function.EVENT_REGISTER, 0x200, HANDLER, 0, 1, 0) == 0
    machine.guest.reset(0)
    machine.go(0)
    assert [machine.call(0, Function.EVENT_STATUS, event) for event in (0x101, 0x200, 0)] == [3, 1, 0]
    machine.guest.reset(1)
    machine.go(1)
    machine.start(1)
    assert machine.call(1, Function.EVENT_STATUS, 0) == 0, "of others nothing outlives it"
    assert machine.call(1, Function.PE_MASK) == 0


def test_a_cpu_that_comes_up_unmasked(tmp_path: Path) -> None:
    machine = Machine(tmp_path, profile="unmask-early")
    machine.start(1)
    assert machine.call(1, Function.PE_MASK) == 1
    machine.guest.reset(0)
    machine.go(0)
    assert machine.call(0, Function.PE_MASK) == 1


def test_a_deaf_cpu_until_it_goes_off(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "EVENT_STATUS vcpu=1 nth=1 deaf=yes")
    machine.start(1)
    machine.register(1)
    assert machine.call(1, Function.EVENT_STATUS, 0) == 3
    assert machine.written(1, SysReg.ICC_AP0R0_EL1) == [2]
    machine.call(0, Function.EVENT_SIGNAL, 0, 1)
    machine.call(1, Function.PE_MASK)
    machine.call(1, Function.PE_UNMASK)
    assert not machine.in_handler(1)
    assert machine.server.status()["firmware"]["deaf"] == [1]
    machine.server.misbehave(SPEC_PROFILE)
    machine.again()
    machine.call(1, Function.EVENT_STATUS, 0)
    assert not machine.in_handler(1), "what has become of it stays"
    machine.call(1, Psci.CPU_OFF)
    assert machine.written(1, SysReg.ICC_AP0R0_EL1) == [0]
    machine.start(1)
    machine.register(1)
    machine.call(0, Function.EVENT_SIGNAL, 0, 1)
    assert machine.in_handler(1)


def test_no_interrupt_in_handlers(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "delivery holds=yes")
    machine.register(0)
    machine.register(0, 0x103)
    machine.call(0, Function.EVENT_SIGNAL, 0, 0)
    assert machine.written(0, SysReg.ICC_AP0R0_EL1) == [2]
    machine.server.trigger(0x103, 0)
    machine.kicks()
    assert machine.server.firmware.dispatcher.running(0) == (0, 0x103)
    machine.call(0, Function.EVENT_COMPLETE, 0)
    assert machine.written(0, SysReg.ICC_AP0R0_EL1) == [], "the outer one runs still"
    machine.call(0, Function.EVENT_COMPLETE, 0)
    assert machine.written(0, SysReg.ICC_AP0R0_EL1) == [0]


@pytest.mark.parametrize("kept", [False, True])
def test_active_priorities_over_cpu_on(tmp_path: Path, kept: bool) -> None:
    """The simulated CPU has two: `simulated.SYSREGS`."""
    machine = Machine(tmp_path, profile="gic-active" if kept else "spec")
    machine.start(1)
    seen: list[int] = []

    def execute(frame: memoryview, pe: int) -> None:
        seen.extend(machine.written(pe, SysReg.ICC_EOIR1_EL1))
        before(frame, pe)

    before, machine.guest.window.execute = machine.guest.window.execute, execute
    machine.call(1, Psci.CPU_OFF)
    machine.start(1)
    assert machine.pc(1) == ENTRY
    assert len(seen) == (0 if kept else 2)
    told = [record["then"] for record in records(machine.server) if record["type"] == "priorities"]
    assert told[-2:] == (["kept", "kept"] if kept else ["ended", None])


def test_a_rule_asks_for_the_state_and_the_call_site(tmp_path: Path) -> None:
    machine = Machine(
        tmp_path,
        "PE_MASK pc=0x1000..0x1fff answers=42",
        "EVENT_STATUS handler=yes running=0 returns=7",
        "EVENT_SIGNAL target=1 target-power=off returns=SUCCESS",
        "AFFINITY_INFO target=none returns=0",
    )
    machine.guest.window.frames[0][Word.PC] = 0x1100
    assert machine.call(0, Function.PE_MASK) == 42
    machine.guest.window.frames[0][Word.PC] = 0x2100
    assert machine.call(0, Function.PE_MASK) == 0
    assert machine.call(0, Function.EVENT_STATUS, 1) == INVALID_PARAMETERS
    assert machine.call(0, Function.EVENT_SIGNAL, 0, 1) == 0
    assert machine.call(0, Function.EVENT_SIGNAL, 0, 0) == INVALID_PARAMETERS
    assert machine.call(0, Psci.AFFINITY_INFO | 0x4000_0000, 77, 0) == 0
    machine.register(0)
    machine.call(0, Function.EVENT_SIGNAL, 0, 0)
    assert machine.call(0, Function.EVENT_STATUS, 1) == 7


def test_a_call_that_is_late(tmp_path: Path) -> None:
    """It is not answered before its time, others are meanwhile; the next one, which no rule is about, at once."""
    machine = Machine(tmp_path, "PE_MASK nth=1 late=5ms")
    machine.start(1)
    server, guest = machine.server, machine.guest
    frame = server.answer_function()
    guest.smc(0, Function.PE_MASK)
    frame(0, guest.window.seq[0])
    assert guest.waiting(0)
    guest.smc(1, Function.PE_UNMASK)
    frame(1, guest.window.seq[1])
    assert not guest.waiting(1)
    server.late.serve(server.hooks.frame)
    assert guest.waiting(0)
    assert server.late.at_most(1000) in range(1, 6)
    guest.counter += 1_000_000
    assert server.late.due
    server.late.serve(server.hooks.frame)
    assert not guest.waiting(0)
    guest.take(0)
    assert machine.acted() == [(0, 1, "late=5ms")]
    guest.smc(0, Function.PE_MASK)
    frame(0, guest.window.seq[0])
    assert not guest.waiting(0)


def test_it_is_seen(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "EVENT_STATUS nth=2 returns=DENIED")
    for _ in range(3):
        machine.call(0, Function.EVENT_STATUS, 0)
    status = machine.server.status()["firmware"]
    assert status["profile"] == "own"
    assert status["rules"] == [{"rule": "EVENT_STATUS nth=2 returns=DENIED", "why": "", "acted": 1}]
    lines = [
        Columns().words(record) for record in records(machine.server) if record["type"] in ("misbehaved", "firmware")
    ]
    assert lines[-1] == "firmware profile own rule 1: returns=DENIED"
    assert lines[0].startswith("firmware profile own, rules=1")
    machine.again()
    assert [record["profile"] for record in records(machine.server) if record["type"] == "firmware"][-1] == "own"


def test_rules_about_what_there_is_not(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    with pytest.raises(UsageError, match="to=9: this guest has vCPU"):
        machine.rules("EVENT_SIGNAL to=9")
    assert machine.server.status()["firmware"]["profile"] == "spec"


@pytest.mark.parametrize(
    "damage",
    [
        {"deaf": [7]},
        {"counts": [[0, 1, 3]]},
        {"counts": [[5, -1, 3]]},
        {"marks": [["x", 0]]},
        {"kept": [[0, {}]]},
        {"kept_shared": [{}]},
        {"profile": {"name": "x"}},
        {"stuck": "1"},
    ],
    ids=str,
)
def test_a_damaged_state_is_refused(tmp_path: Path, damage: dict[str, Any]) -> None:
    from qemu_sdei.errors import ProtocolError

    machine = Machine(tmp_path, "EVENT_STATUS nth=2 returns=DENIED")
    state = machine.server.firmware.misbehaviour.snapshot() | damage
    with pytest.raises(ProtocolError):
        machine.server.firmware.misbehaviour.restore(state)


@pytest.mark.not_quick
@pytest.mark.parametrize("part", range(4))
def test_a_backend_that_is_killed_at_any_line_counts_each_call_once(tmp_path: Path, part: int) -> None:
    """The second call is the one that the rule is about, whenever the backend dies in it, or in the one before."""
    rules = ("EVENT_STATUS nth=2 returns=DENIED", "PE_MASK nth=2 answers=17 marks=a", "delivery nth=2 loses=event")

    def calls(machine: Machine, kill: _Kill | None) -> list[int]:
        found = []
        for function in (Function.EVENT_STATUS, Function.PE_MASK, Function.EVENT_SIGNAL) * 3:
            machine.guest.smc(0, function, 0, 0)
            try:
                if kill is None:
                    serve(machine.server)
                else:
                    with tracing(kill):
                        serve(machine.server)
            except Killed:
                machine.again()
            found.append(machine.go(0))
            if machine.in_handler(0):
                machine.call(0, Function.EVENT_COMPLETE, 0)
        return [*found, machine.server.firmware.exchange.delivered]

    def fresh(number: int) -> Machine:
        directory = tmp_path / str(number)
        directory.mkdir()
        machine = Machine(directory, *rules)
        machine.register(0)
        return machine

    lines = _Kill(1 << 60)
    expected = calls(fresh(0), lines)
    assert expected[3] == DENIED
    assert expected == calls(fresh(1), None)
    for number, at in enumerate(range(part * 41, lines.lines, 4 * 41), 2):
        assert calls(fresh(number), _Kill(at)) == expected, f"killed at line {at}"


def test_nothing_is_in_the_way_without_a_profile(tmp_path: Path) -> None:
    """The call table and the deliveries are the very same as if there were no profiles."""
    machine = Machine(tmp_path)
    firmware = machine.server.firmware
    table, constants = dict(firmware.calls.table), dict(firmware.calls.constants)
    machine.rules("* late=1ms", "delivery doubles=yes")
    assert firmware.calls.table != table
    machine.server.misbehave(SPEC_PROFILE)
    assert firmware.calls.table == table
    assert firmware.calls.constants == constants
    assert not machine.server.hooks.wanted
    assert isinstance(firmware.misbehaviour.profile, FirmwareProfile)
