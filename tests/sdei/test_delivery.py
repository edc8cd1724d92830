"""Conformance 31-55: mask, entry, context, completion, resume."""

from __future__ import annotations

import pytest

from qemu_sdei.sdei import CpuFeatures
from qemu_sdei.sdei.constants import Function
from qemu_sdei.sdei.context import PC, PSTATE, WORD_MASK, X0
from qemu_sdei.sdei.pstate import PAN, SCTLR_DSSBS, SCTLR_SPAN, SSBS
from tests.sdei.machine import (
    ARGUMENT,
    CALL_PC,
    DENIED,
    ENTRY,
    INVALID,
    PENDING,
    PRIVATE,
    PRIVATE_2,
    PRIVATE_CRITICAL,
    SHARED,
    Machine,
)

DAIF = 0x3C0
EVENTS = pytest.mark.parametrize("event", [0, PRIVATE, PRIVATE_CRITICAL, SHARED])


def fill(machine: Machine, pe: int = 0, pstate: int = 0x8000_0005) -> list[int]:
    """Recognisable values in all registers; returns them."""
    values = [0xFFFF_8000_1234_5678, pstate] + [0x1_0000_0000_0000 * n + 0xABC0 + n for n in range(18)]
    for index, value in enumerate(values):
        machine.regs[pe][index] = value
    return values


def interrupt(machine: Machine, event: int = PRIVATE, pe: int = 0, pstate: int = 0x8000_0005) -> list[int]:
    """Enable and inject `event` while `pe` runs with recognisable registers; returns these."""
    machine.enable(pe, event)
    values = fill(machine, pe, pstate)
    machine.trigger(event, pe)
    assert machine.deliveries[-1] == (pe, event)
    return values


def test_mask_and_unmask_results() -> None:
    """31."""
    machine = Machine(unmask=False)
    for function, result in (
        (Function.PE_MASK, 0),
        (Function.PE_UNMASK, 0),
        (Function.PE_UNMASK, 0),
        (Function.PE_MASK, 1),
        (Function.PE_MASK, 0),
    ):
        assert machine(0, function) == result


def test_masked_pe_gets_it_at_unmask_once() -> None:
    """32: before the instruction behind the UNMASK, and with its result in the interrupted x0."""
    machine = Machine(unmask=False)
    machine.enable(0, 0)
    assert machine.signal(0, 0) == 0
    assert machine.deliveries == []
    assert machine(0, Function.PE_UNMASK) == 0
    assert machine.deliveries == [(0, 0)]
    assert machine.x(0, 2) == CALL_PC
    assert machine(0, Function.EVENT_CONTEXT, 0) == 0
    assert machine(0, Function.EVENT_COMPLETE, 0) is None
    assert machine.deliveries == [(0, 0)]


def test_mask_inside_a_handler() -> None:
    """33: the handler goes on, what follows waits."""
    machine = Machine()
    machine.run(0, 0)
    assert machine(0, Function.PE_MASK) == 1
    assert machine.status(0, 0) == 7
    assert machine.signal(0, 0) == 0
    assert machine(0, Function.EVENT_COMPLETE, 0) is None
    assert machine.deliveries == [(0, 0)]
    assert machine(0, Function.PE_UNMASK) == 0
    assert machine.deliveries == [(0, 0)] * 2


def test_mask_inside_a_normal_handler_blocks_critical_events() -> None:
    """[J] of 5.2.1.2."""
    machine = Machine()
    machine.enable(0, PRIVATE_CRITICAL)
    machine.run(0, PRIVATE)
    assert machine(0, Function.PE_MASK) == 1
    machine.trigger(PRIVATE_CRITICAL, 0)
    assert machine.deliveries == [(0, PRIVATE)]
    assert machine(0, Function.PE_UNMASK) == 0
    assert machine.deliveries == [(0, PRIVATE), (0, PRIVATE_CRITICAL)]


def test_mask_is_per_pe() -> None:
    """34."""
    machine = Machine()
    machine.enable(1, 0)
    assert machine(0, Function.PE_MASK) == 1
    assert machine.signal(0, 1) == 0
    assert machine.deliveries == [(1, 0)]


@pytest.mark.parametrize("masked", [False, True])
def test_resets_leave_the_mask(masked: bool) -> None:
    """35."""
    machine = Machine(unmask=not masked)
    assert machine(0, Function.PRIVATE_RESET) == 0
    assert machine(0, Function.SHARED_RESET) == 0
    assert machine(0, Function.PE_MASK) == (0 if masked else 1)


def test_entry_by_self_signal() -> None:
    """36: x2 is behind the call; the interrupted x0 is SIGNAL's result."""
    machine = Machine()
    machine.enable(0, 0)
    assert machine.signal(0, 0) == 0
    assert machine.regs[0][PC] == ENTRY
    assert [machine.x(0, n) for n in range(4)] == [0, ARGUMENT, CALL_PC, 5]
    assert machine(0, Function.EVENT_CONTEXT, 0) == 0


@EVENTS
def test_entry_state(event: int) -> None:
    """37, 41: x0-x3, PC, PSTATE; everything else as interrupted."""
    machine = Machine()
    values = interrupt(machine, event, pstate=0)
    regs = machine.regs[0].tolist()
    assert regs[PC] == ENTRY
    assert regs[PSTATE] == 0x5 | DAIF
    assert regs[X0 : X0 + 4] == [event, ARGUMENT, values[PC], 0]
    assert regs[X0 + 4 :] == values[X0 + 4 :]


def test_delivered_with_interrupts_masked() -> None:
    """38."""
    machine = Machine()
    interrupt(machine, pstate=0x5 | DAIF)
    assert machine.x(0, 3) == 0x5 | DAIF


@EVENTS
def test_context_is_the_interrupted_one(event: int) -> None:
    """43: whatever the handler did to its registers."""
    machine = Machine()
    values = interrupt(machine, event)
    for index in range(X0, 20):
        machine.regs[0][index] = 0x5555
    assert [machine(0, Function.EVENT_CONTEXT, n) for n in range(18)] == values[X0:]


def test_context_index() -> None:
    """44."""
    machine = Machine()
    values = interrupt(machine)
    for index in (18, 0x100, 0xFFFF_FFFF):
        assert machine(0, Function.EVENT_CONTEXT, index) == INVALID
    assert machine(0, Function.EVENT_CONTEXT, 1 << 32) == values[X0], "a 32-bit parameter"


@pytest.mark.parametrize("state", [0, 1, 3])
def test_context_without_a_handler(state: int) -> None:
    """45; the index is looked at first."""
    machine = Machine()
    machine.to_state(0, 0, state)
    assert machine(0, Function.EVENT_CONTEXT, 0) == DENIED
    assert machine(0, Function.EVENT_CONTEXT, 18) == INVALID


@EVENTS
@pytest.mark.parametrize("status", [0, 1, 0xDEAD])
def test_complete_restores_everything(event: int, status: int) -> None:
    """46, 47, 49."""
    machine = Machine()
    values = interrupt(machine, event)
    for index in range(20):
        machine.regs[0][index] = 0x5555
    machine.regs[0][PSTATE] = 0x5 | DAIF
    assert machine(0, Function.EVENT_COMPLETE, status) is None
    assert machine.regs[0].tolist() == values
    assert machine.status(0, event) == 3
    machine.trigger(event, 0)
    assert machine.deliveries == [(0, event)] * 2


@pytest.mark.parametrize("function", [Function.EVENT_COMPLETE, Function.EVENT_COMPLETE_AND_RESUME])
@pytest.mark.parametrize("address", [0, 0x1000])
def test_complete_without_a_handler(function: Function, address: int) -> None:
    """48, 53."""
    machine = Machine()
    assert machine(0, function, address) == DENIED
    assert machine.regs[0][PC] == CALL_PC
    assert machine.resumed is None


def test_complete_and_resume() -> None:
    """50, 51."""
    machine = Machine()
    values = interrupt(machine, pstate=0x6000_0000)
    for index in range(X0, 20):
        machine.regs[0][index] = 0x5555
    assert machine(0, Function.EVENT_COMPLETE_AND_RESUME, 0xFFFF_8000_0000_0480) is None
    assert machine.regs[0].tolist() == [0xFFFF_8000_0000_0480, 0x6000_0005 | DAIF, *values[X0:]]
    assert machine.resumed == (values[PC], 0x6000_0000)
    assert machine.status(0, PRIVATE) == 3


def test_resume_pstate_follows_the_entry_rule_not_the_handler() -> None:
    """PSTATE is derived from the interrupted one: nothing that the handler set gets through."""
    machine = Machine()
    interrupt(machine, pstate=0x8030_0C10)  # AArch32 EL0 with SS, IL and IT bits
    machine.regs[0][PSTATE] = 0x7000_0005
    assert machine(0, Function.EVENT_COMPLETE_AND_RESUME, 0x1000) is None
    assert machine.regs[0][PSTATE] == 0x8000_0005 | DAIF
    assert machine.resumed == (0xFFFF_8000_1234_5678, 0x8030_0C10)


@pytest.mark.parametrize(("entered", "resumed"), [(0, SCTLR_SPAN), (SCTLR_SPAN, 0)])
def test_resume_goes_by_sctlr_as_it_is_then(entered: int, resumed: int) -> None:
    """The handler may have written SCTLR_EL1: an exception goes by what it is when it is taken."""
    machine = Machine(features=CpuFeatures(pan=True, ssbs=True))
    machine.sctlr = entered
    interrupt(machine, pstate=0x6000_0000)
    assert bool(machine.regs[0][PSTATE] & PAN) is (entered == 0)
    machine.sctlr = resumed | SCTLR_DSSBS
    assert machine(0, Function.EVENT_COMPLETE_AND_RESUME, 0x1000) is None
    assert machine.regs[0][PSTATE] == 0x6000_0005 | DAIF | SSBS | (PAN if resumed == 0 else 0)
    assert machine.resumed is not None
    assert machine.resumed[1] == 0x6000_0000


@pytest.mark.parametrize("address", [0, 1, 0x1002, 1 << 60])
def test_resume_at_a_bad_address(address: int) -> None:
    """54: the handler goes on."""
    machine = Machine()
    values = interrupt(machine)
    assert machine(0, Function.EVENT_COMPLETE_AND_RESUME, address) == DENIED
    assert machine.resumed is None
    assert machine.status(0, PRIVATE) == 7
    assert machine(0, Function.EVENT_COMPLETE, 0) is None
    assert machine.regs[0].tolist() == values


def test_next_event_is_stacked_on_the_restored_context() -> None:
    """Ordering trap 2: x2 and x3 of the second handler are the original ones."""
    machine = Machine()
    machine.enable(0, PRIVATE_2)
    values = interrupt(machine, PRIVATE)
    machine.trigger(PRIVATE_2, 0)
    assert machine(0, Function.EVENT_COMPLETE, 0) is None
    assert machine.deliveries == [(0, PRIVATE), (0, PRIVATE_2)]
    assert [machine.x(0, 2), machine.x(0, 3)] == [values[PC], values[PSTATE]]
    assert machine(0, Function.EVENT_COMPLETE, 0) is None
    assert machine.regs[0].tolist() == values


def test_next_event_is_stacked_on_the_resume_context() -> None:
    """Ordering trap 2, after COMPLETE_AND_RESUME: ELR/SPSR keep the first interrupted values."""
    machine = Machine()
    machine.enable(0, PRIVATE_2)
    values = interrupt(machine, PRIVATE)
    machine.trigger(PRIVATE_2, 0)
    assert machine(0, Function.EVENT_COMPLETE_AND_RESUME, 0x4000) is None
    assert machine.deliveries == [(0, PRIVATE), (0, PRIVATE_2)]
    assert [machine.x(0, 2), machine.x(0, 3)] == [0x4000, 0x8000_0005 | DAIF]
    assert machine.resumed == (values[PC], values[PSTATE])


def test_enable_result_is_part_of_the_interrupted_context() -> None:
    """Ordering trap 1, for ENABLE: x0 = 0 before the handler starts."""
    machine = Machine()
    assert machine.register(0, PRIVATE) == 0
    machine.trigger(PRIVATE, 0)
    assert machine.deliveries == []
    machine.regs[0][X0] = WORD_MASK
    assert machine(0, Function.EVENT_ENABLE, PRIVATE) == 0
    assert machine.deliveries == [(0, PRIVATE)]
    assert machine(0, Function.EVENT_CONTEXT, 0) == 0


def test_disable_keeps_a_trigger() -> None:
    """A trigger before or during DISABLE is delivered at ENABLE, once."""
    machine = Machine()
    machine.enable(0, PRIVATE)
    machine(0, Function.PE_MASK)
    machine.trigger(PRIVATE, 0)
    assert machine(0, Function.EVENT_DISABLE, PRIVATE) == 0
    machine(0, Function.PE_UNMASK)
    assert machine.deliveries == []
    assert machine(0, Function.EVENT_ENABLE, PRIVATE) == 0
    assert machine.deliveries == [(0, PRIVATE)]


def test_nothing_is_delivered_above_the_client() -> None:
    """A PE that is in EL2 for EL1's sake is left alone; the event comes when it is back."""
    machine = Machine()
    machine.enable(0, PRIVATE)
    for pstate in (0x9, 0xD, 0x13, 0x1A):
        machine.regs[0][PSTATE] = pstate
        machine.trigger(PRIVATE, 0)
        assert machine.deliveries == []
        assert machine.dispatcher.attention[0]
    machine.regs[0][PSTATE] = 0x4
    assert machine.frame(0) == PRIVATE


@pytest.mark.parametrize("pstate", [0x0, 0x4, 0x5, 0x8, 0x9, 0x10, 0x13])
def test_everything_below_an_el2_client_is_interrupted(pstate: int) -> None:
    """A client at EL2 gets its event on top of its guests, AArch32 ones included."""
    machine = Machine(client_el=2)
    machine.enable(0, PRIVATE)
    machine.regs[0][PSTATE] = pstate
    machine.trigger(PRIVATE, 0)
    assert machine.deliveries == [(0, PRIVATE)]
    assert machine.regs[0][PSTATE] == 0x9 | DAIF


def test_critical_nests_and_unwinds() -> None:
    """77: CONTEXT and COMPLETE are about the innermost handler."""
    machine = Machine()
    machine.enable(0, PRIVATE_CRITICAL)
    values = interrupt(machine, PRIVATE)
    machine.regs[0][X0 + 7] = 0x777
    inner = machine.regs[0].tolist()
    machine.trigger(PRIVATE_CRITICAL, 0)
    assert machine.deliveries[-1] == (0, PRIVATE_CRITICAL)
    assert machine.dispatcher.running(0) == (PRIVATE, PRIVATE_CRITICAL)
    assert machine(0, Function.EVENT_CONTEXT, 7) == 0x777
    assert machine(0, Function.EVENT_COMPLETE, 0) is None
    assert machine.regs[0].tolist() == inner
    assert machine(0, Function.EVENT_CONTEXT, 7) == values[X0 + 7]
    assert machine(0, Function.EVENT_COMPLETE, 0) is None
    assert machine.regs[0].tolist() == values


def test_nested_resume_twice() -> None:
    """What a crashing kernel does in nested handlers: COMPLETE_AND_RESUME to its next instruction, twice."""
    machine = Machine()
    machine.enable(0, PRIVATE_CRITICAL)
    values = interrupt(machine, PRIVATE)
    machine.trigger(PRIVATE_CRITICAL, 0)
    assert machine(0, Function.EVENT_COMPLETE_AND_RESUME, 0x4000) is None
    assert machine.dispatcher.running(0) == (PRIVATE,)
    assert machine.regs[0][PC] == 0x4000
    assert machine(0, Function.EVENT_COMPLETE_AND_RESUME, 0x4004) is None
    assert machine.regs[0].tolist() == [0x4004, 0x8000_0005 | DAIF, *values[X0:]]
    assert machine.dispatcher.running(0) == ()


def test_unregister_in_the_handler() -> None:
    """57."""
    machine = Machine()
    for event in (0, PRIVATE, SHARED):
        machine.run(0, event)
        assert machine(0, Function.EVENT_UNREGISTER, event) == PENDING
        assert machine.status(0, event) == 4
        assert machine(0, Function.EVENT_UNREGISTER, event) == PENDING
        assert machine.register(0, event) == DENIED
        assert machine(0, Function.EVENT_ENABLE, event) == DENIED
        assert machine(0, Function.EVENT_DISABLE, event) == DENIED
        assert machine(0, Function.EVENT_CONTEXT, 0) is not None
        assert machine(0, Function.EVENT_COMPLETE, 0) is None
        assert machine.status(0, event) == 0
        assert machine(0, Function.EVENT_UNREGISTER, event) == DENIED
        assert machine.register(0, event) == 0


@pytest.mark.parametrize("event", [PRIVATE, SHARED])
def test_disabled_in_its_handler(event: int) -> None:
    """The handler runs on (5); completed, the event is registered and disabled, and what came meanwhile waits."""
    machine = Machine()
    machine.run(0, event)
    assert machine(0, Function.EVENT_DISABLE, event) == 0
    assert machine.status(0, event) == 5
    machine.trigger(event, 0)
    assert machine(0, Function.EVENT_COMPLETE, 0) is None
    assert machine.status(0, event) == 1
    assert machine.deliveries == [(0, event)]
    assert machine(0, Function.EVENT_ENABLE, event) == 0
    assert machine.deliveries == [(0, event), (0, event)]
