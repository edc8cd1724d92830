"""What frames say beside registers: the guest's counter and, at EL2, the registers of an exception to EL2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qemu_sdei.config import RAM_BASE
from qemu_sdei.guest import start
from qemu_sdei.guest.guest import Guest
from qemu_sdei.monitor.image import with_proof
from qemu_sdei.monitor.layout import BadAnswer, Header, Save, SysReg, Word
from qemu_sdei.monitor.window import Window
from qemu_sdei.trace.reading import open_trace
from qemu_sdei.vm.options import GuestOptions
from tests.guest.guests import until

pytestmark = pytest.mark.guest

EL2: dict[SysReg, int] = {
    SysReg.ESR_EL2: 0x5600_4242,
    SysReg.ELR_EL2: 0xFFFF_8000_1234_5678,
    SysReg.SPSR_EL2: 0x6000_03C9,
    SysReg.FAR_EL2: 0xFFFF_8000_9ABC_DEF0,
    SysReg.HPFAR_EL2: 0x12_3450,
}
SERVICE = """
from qemu_sdei.monitor.layout import SysReg
from qemu_sdei.monitor.ops import read_sysreg, write_sysreg
from qemu_sdei.smccc import FunctionRange, Owner, Service


class Registers(Service):
    name = "registers"
    ranges = (FunctionRange(Owner.OEM, 0x10, 0x11),)

    def call(self, call):
        if call.function & 0xF == 0:
            result = yield read_sysreg(SysReg.CNTPCT_EL0)
            return result.value
        yield [write_sysreg(SysReg(number), value) for number, value in REGISTERS]
        return 0
"""
FREQUENCY = 62_500_000
"""Of QEMU's counter, in Hz."""
READ_COUNTER, WRITE_REGISTERS = 0xC300_0010, 0xC300_0011


def options(folder: Path, function: int, **more: Any) -> GuestOptions:
    service = folder / "registers.py"
    service.write_text(SERVICE + f"\n\nREGISTERS = {[(int(register), value) for register, value in EL2.items()]}\n")
    append = f"mode=call function={function:#x} stay=1"
    return GuestOptions(kernel="builtin:bench", append=append, memory="64M", smp=1, services=[service], **more)


@pytest.mark.parametrize("virtualization", [False, True])
def test_the_trace_tells_the_guests_counter(virtualization: bool, tmp_path: Path) -> None:
    """It is the counter that the CPU has: what was read by the call's own micro-operation is a little later."""
    trace = tmp_path / "trace"
    with Guest(options(tmp_path, READ_COUNTER, virtualization=virtualization, trace=trace)) as guest:
        read = int(guest.expect(r"call: x0=0x(\w+) ")[1], 16)
    with open_trace(trace) as reading:
        records = list(reading.records())
    (counter,) = (record["counter"] for record in records if record["type"] == "call" and record["id"] == READ_COUNTER)
    assert counter < read < counter + 60 * FREQUENCY


def test_the_counter_is_only_read_when_the_host_asks(tmp_path: Path) -> None:
    """It costs each call some 70 ns; the trace ring asks for it, always."""
    with Guest(options(tmp_path, READ_COUNTER)) as guest:
        guest.expect("call: x0=")
        frame, header = _frame(guest)
        assert header[Header.SAVE] == Save.COUNTER
        _come_by(guest)
        assert frame[Word.COUNTER] > 0
        header[Header.SAVE] = 0  # in the host's name, while the guest runs
        _come_by(guest)
        assert frame[Word.COUNTER] == 0


@pytest.mark.parametrize("virtualization", [True, False])
def test_registers_of_el2_are_saved_when_the_host_asks(virtualization: bool, tmp_path: Path) -> None:
    """Nothing asks for them yet: the test does, in the header. A CPU without EL2 has zeroes there, and goes on."""
    with Guest(options(tmp_path, WRITE_REGISTERS, virtualization=virtualization)) as guest:
        guest.expect("call: x0=0x0 ")
        frame, header = _frame(guest)
        words = slice(Word.ESR_EL2, Word.HPFAR_EL2 + 1)
        _come_by(guest)
        assert frame[words].tolist() == [0] * 5, "not asked for"
        header[Header.SAVE] = Save.EL2
        _come_by(guest)
        assert frame[words].tolist() == (list(EL2.values()) if virtualization else [0] * 5)
        assert frame[Word.SCR_EL3] & 0x405 == 0x405, "NS, FIQ, RW"
        assert frame[Word.COUNTER] == 0
        assert guest.status()["counts"]["rejected"] == 0


def test_the_monitor_goes_nowhere_with_a_host_that_speaks_of_another_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """The image says that it is the former monitor, and is not: the host goes by that, and the monitor finds it out."""
    monkeypatch.setattr(start, "with_proof", lambda image: with_proof(image).replace(b"SDEIMON3", b"SDEIMON2", 1))
    with Guest(GuestOptions(kernel="builtin:bench", append="mode=idle", memory="64M", smp=1)) as guest:
        until("it says so", lambda: any(f"(BAD_ANSWER): vector {BadAnswer.VERSION} " in why for why in _why(guest)))
        assert guest.status()["pes"][0]["power"] == "off"
        assert "idle" not in guest.console


def _why(guest: Guest) -> list[str]:
    return [str(note["why"]) for note in guest.trace(1000) if note["type"] == "reject"]


def _frame(guest: Guest) -> tuple[memoryview, memoryview]:
    """CPU 0's frame and the window's header, in the RAM of a guest that runs."""
    ram = guest.placement.ram
    window = Window(ram.fd, RAM_BASE, ram.size, 1)
    return window.frames[0], window.header


def _come_by(guest: Guest) -> None:
    """Have CPU 0 be kicked, and wait until its frame was answered."""
    with guest.client() as client:
        client.request("signs", {"every_ms": 1000})
