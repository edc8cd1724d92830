"""The firmware profiles that come with the program, in a guest without QEMU: each does what it reproduces."""

from __future__ import annotations

from pathlib import Path

from qemu_sdei.monitor.layout import AnswerFlag, Kind, SysReg
from qemu_sdei.sdei.constants import DENIED, INVALID_PARAMETERS, NOT_SUPPORTED, Function
from qemu_sdei.services.psci import Function as Psci
from tests.backend.misbehaving import HANDLER, Machine
from tests.backend.simulated import serve


def kernel_begins(machine: Machine) -> None:
    """Linux' psci_init_migrate."""
    machine.guest.smc(0, Psci.MIGRATE_INFO_TYPE)
    serve(machine.server)
    while machine.guest.take(0)[0] & AnswerFlag.REPOST:
        machine.guest.post(0, Kind.OPS)
        serve(machine.server)


def test_tfa_a_pending_when_the_handler_completes_masked(tmp_path: Path) -> None:
    machine = Machine(tmp_path, profile="tfa")
    machine.register(0)
    machine.call(0, Function.EVENT_SIGNAL, 0, 0)
    assert machine.call(0, Function.EVENT_SIGNAL, 0, 0) == 0
    assert machine.call(0, Function.PE_MASK) == 1
    machine.call(0, Function.EVENT_COMPLETE, 0)
    assert machine.written(0, SysReg.ICC_AP0R0_EL1)[-1] == 2
    assert machine.call(0, Function.EVENT_SIGNAL, 0, 0) == INVALID_PARAMETERS, "masked"
    assert machine.call(0, Function.PE_UNMASK) == 0
    assert machine.call(0, Function.EVENT_SIGNAL, 0, 0) == 0
    assert not machine.in_handler(0)


def test_tfa_b_a_signal_to_a_cpu_that_went_off_unmasked(tmp_path: Path) -> None:
    machine = Machine(tmp_path, profile="tfa")
    machine.start(1)
    machine.register(1)
    machine.call(1, Psci.CPU_OFF)
    assert machine.call(0, Function.EVENT_SIGNAL, 0, 1) == 0
    machine.start(1)
    assert machine.server.status()["firmware"]["deaf"] == [1]
    machine.call(1, Psci.CPU_OFF)
    assert machine.call(0, Function.EVENT_SIGNAL, 0, 1) == INVALID_PARAMETERS, "nothing was registered this time"
    machine.start(1)
    assert machine.server.status()["firmware"]["deaf"] == []


def test_tfa_c_and_d_a_handler_that_is_left(tmp_path: Path) -> None:
    machine = Machine(tmp_path, profile="tfa")
    machine.start(1)
    machine.register(1)
    machine.call(0, Function.EVENT_SIGNAL, 0, 1)
    assert machine.written(1, SysReg.ICC_AP0R0_EL1) == [2]
    assert machine.call(1, Function.PRIVATE_RESET) == DENIED
    assert machine.written(1, SysReg.ICC_AP0R0_EL1) == [], "D: the priority stays active"
    machine.call(1, Psci.CPU_OFF)
    machine.start(1)
    assert machine.server.status()["firmware"]["deaf"] == [1]
    assert machine.call(1, Function.EVENT_CONTEXT, 0) == DENIED
    assert machine.call(1, Function.EVENT_COMPLETE, 0) == DENIED


def test_tfa_the_rest(tmp_path: Path) -> None:
    machine = Machine(tmp_path, profile="tfa")
    assert machine.call(0, Function.VERSION) == 1 << 48
    assert machine.call(0, Function.FEATURES, 1) == INVALID_PARAMETERS
    assert machine.call(0, Function.EVENT_REGISTER, 0, HANDLER, 0, 1, 0x77) == INVALID_PARAMETERS
    assert machine.call(0, Function.INTERRUPT_BIND, 260) == DENIED
    assert machine.call(0, Psci.CPU_SUSPEND, 0x10003) == INVALID_PARAMETERS
    assert machine.call(0, Function.EVENT_REGISTER, 0, HANDLER, 0, 0, 0) == 0
    machine.call(0, Function.PE_UNMASK)
    assert machine.call(0, Function.EVENT_SIGNAL, 0, 0) == INVALID_PARAMETERS, "disabled"
    machine.call(0, Function.EVENT_ENABLE, 0)
    machine.call(0, Function.EVENT_SIGNAL, 0, 0)
    machine.call(0, Function.EVENT_COMPLETE_AND_RESUME, 0x1002)
    assert machine.pc(0) == 0x1002


def test_kvm7(tmp_path: Path) -> None:
    machine = Machine(tmp_path, profile="kvm7")
    assert machine.call(0, Function.VERSION) == 0x0001_0001_564B_CAA9
    for function in (Function.INTERRUPT_BIND, Function.INTERRUPT_RELEASE, Function.EVENT_ROUTING_SET):
        assert machine.call(0, function, 27) == NOT_SUPPORTED
    assert machine.call(0, Function.FEATURES, 0) == 0
    assert machine.call(0, Function.EVENT_GET_INFO, 0, 1) == 1
    assert machine.call(0, Function.EVENT_CONTEXT, 99) == DENIED
    machine.register(0)
    machine.call(0, Function.EVENT_SIGNAL, 0, 0)
    assert machine.call(0, Function.PRIVATE_RESET) == 0, "in a handler"
    machine.call(0, Function.EVENT_COMPLETE, 0)
    assert machine.call(0, Function.PE_MASK) == 0


def test_no_event_0(tmp_path: Path) -> None:
    machine = Machine(tmp_path, profile="no-event0")
    for function in (Function.EVENT_REGISTER, Function.EVENT_STATUS, Function.EVENT_GET_INFO, Function.EVENT_SIGNAL):
        assert machine.call(0, function, 0, HANDLER) == INVALID_PARAMETERS
    machine.register(0, 0x100)


def test_events_that_a_kernel_has_left(tmp_path: Path) -> None:
    machine = Machine(tmp_path, profile="agdi-eio")
    kernel_begins(machine)
    machine.register(0)
    assert machine.call(0, Function.PRIVATE_RESET) == 0, "the first kernel's"
    machine.register(0)
    kernel_begins(machine)
    assert [machine.call(0, function) for function in (Function.PRIVATE_RESET, Function.SHARED_RESET)] == [DENIED] * 2
    assert machine.call(0, Function.EVENT_STATUS, 0) == 3
