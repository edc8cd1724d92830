"""Services of the user's own, from a file, called by a bare-metal guest; and what they can ask of the EL3 monitor."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qemu_sdei.errors import UsageError
from qemu_sdei.guest.guest import Guest
from qemu_sdei.monitor.layout import SysReg
from qemu_sdei.vm.options import GuestOptions

pytestmark = pytest.mark.guest

HOWTO = Path(__file__).parents[2] / "docs" / "howto" / "own-service.md"
NOT_SUPPORTED = (1 << 64) - 1
RAM = 0x4100_0000
"""Free in a small flat guest."""
NOTHING = 0x0F00_0000
"""No device of QEMU's `virt` is here."""
UART_ID = 0x0900_0FE0

MONITOR_SERVICE = """
from qemu_sdei.monitor.layout import SysReg
from qemu_sdei.monitor.ops import MicroOp, read_phys, read_sysreg, write_phys, write_sysreg
from qemu_sdei.smccc import Call, FunctionRange, Owner, Service


class Peek(Service):
    name = "peek"
    ranges = (FunctionRange(Owner.OEM, 0x10, 0x1F),)

    def call(self, call):
        return getattr(self, f"do_{call.function & 0xff:x}")(*call.args[:3])

    def do_10(self, address, size, _):
        result = yield read_phys(address, size)
        return (result.value, result.aborted)

    def do_11(self, address, size, value):
        result = yield write_phys(address, value, size)
        return (result.value, result.aborted)

    def do_12(self, register, *_):
        result = yield read_sysreg(SysReg(register))
        return (result.value, result.aborted)

    def do_13(self, register, value, _):
        yield write_sysreg(SysReg(register), value)
        result = yield read_sysreg(SysReg(register))
        return result.value

    def do_14(self, good, bad, _):
        before, aborted, after = yield (read_phys(good), write_phys(bad, 1), read_phys(good, 4))
        return (0, before.value, aborted.aborted, after.value)

    def do_15(self, count, address, _):
        results = yield [read_phys(address)] * count
        return (0, len(results), results[-1].value)

    def do_16(self, what, address, _):
        if what == 0:
            yield 5
        elif what == 1:
            yield "read"
        elif what == 2:
            yield [None]
        elif what == 3:
            yield MicroOp(99, 0)
        elif what == 4:
            yield MicroOp(3, 4711)
        elif what == 5:
            yield read_phys(address + 1, 4)
        elif what == 6:
            yield read_phys(address, 3)
        elif what == 7:
            yield read_phys(-1)
        elif what == 8:
            yield read_phys(address)
            raise RuntimeError("after the first answer")
        elif what == 9:
            yield read_phys(address)
            return "text"
        return 0
"""


Caller = Callable[..., tuple[list[int], list[str]]]


@pytest.fixture
def call(tmp_path: Path) -> Caller:
    """Calls a function of a service file; x0..x3 and the rejections in the trace."""

    def call(source: str, function: int, *arguments: int, **options: Any) -> tuple[list[int], list[str]]:
        file = tmp_path / "mine.py"
        file.write_text(source)
        words = " ".join(f"a{n}={value:#x}" for n, value in enumerate(arguments, 1))
        guest_options = GuestOptions(
            kernel="builtin:bench",
            append=f"mode=call function={function:#x} {words} stay=1",
            smp=1,
            memory="128M",
            services=[file],
            **options,
        )
        with Guest(guest_options) as guest:
            found = guest.expect(r"call: x0=0x(\w+) x1=0x(\w+) x2=0x(\w+) x3=0x(\w+)\s", 30)
            rejected = [str(note["why"]) for note in guest.trace(1000) if note["type"] == "reject"]
            assert guest.backend_starts == 1
        return [int(word, 16) for word in found.groups()], rejected

    return call


def example() -> str:
    """The service in the documentation."""
    found = re.search(r"```python\n(.*?)```", HOWTO.read_text(), re.DOTALL)
    assert found
    return found[1]


@pytest.mark.parametrize(
    ("function", "arguments", "result"),
    [
        (0xC300_0000, (2, 3), 5),
        (0x8300_0000, (0xFFFF_FFFF_0000_0002, 3), 5),
        (0xC300_0000, (1 << 63, 1 << 63), 0),
        (0xC300_0001, (2, 3), NOT_SUPPORTED),
    ],
    ids=["64 bits", "32 bits", "wraps", "not of its range"],
)
def test_the_documented_service(call: Caller, function: int, arguments: tuple[int, ...], result: int) -> None:
    (x0, *rest), rejected = call(example(), function, *arguments)
    assert x0 == result
    assert rest[:2] == list(arguments), "what it does not return stays"
    assert not rejected


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("raise ValueError('odd')", "ValueError: odd"),
        ("return 'text'", "call() returned a str"),
        ("return 1 << 64", "does not fit in 64 bits"),
        ("return ()", "0 values"),
    ],
)
def test_a_service_with_a_bug_costs_its_caller_one_call(call: Caller, body: str, why: str) -> None:
    source = example().replace("return call.args[0]", f"{body}\n        return call.args[0]")
    (x0, *_), rejected = call(source, 0xC300_0000, 2, 3)
    assert x0 == NOT_SUPPORTED
    assert len(rejected) == 1
    assert why in rejected[0]


def test_services_that_want_the_same_functions_are_refused(tmp_path: Path) -> None:
    files = [tmp_path / "one.py", tmp_path / "two.py"]
    files[0].write_text(example())
    files[1].write_text(example().replace("Adder", "Other").replace('"adder"', '"other"'))
    with pytest.raises(UsageError, match=r"service other .* overlaps service adder"):
        Guest(GuestOptions(kernel="builtin:bench", append="mode=idle", memory="128M", services=files)).start()


# ---- micro-operations -----------------------------------------------------------------------------------------------


def test_physical_memory_is_read_and_written_in_every_size(call: Caller) -> None:
    (x0, aborted, *_), rejected = call(MONITOR_SERVICE, 0xC300_0010, UART_ID, 4)
    assert (x0, aborted, rejected) == (0x11, 0, [])
    for size in (1, 2, 4, 8):
        value = 0x1122_3344_5566_7788
        (x0, aborted, *_), rejected = call(MONITOR_SERVICE, 0xC300_0011, RAM + 8 * size, size, value)
        assert (aborted, rejected) == (0, [])


@pytest.mark.parametrize("function", [0xC300_0010, 0xC300_0011], ids=["read", "write"])
@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_an_access_that_aborts_is_told(call: Caller, function: int, size: int) -> None:
    (_, aborted, *_), rejected = call(MONITOR_SERVICE, function, NOTHING, size, 5)
    assert (aborted, rejected) == (1, [])


def test_operations_after_one_that_aborted_are_done(call: Caller) -> None:
    result, rejected = call(MONITOR_SERVICE, 0xC300_0014, UART_ID, NOTHING)
    assert result[2:] == [1, 0x11]
    assert not rejected


@pytest.mark.parametrize("virtualization", [False, True], ids=["EL1", "EL2"])
def test_system_registers(call: Caller, virtualization: bool) -> None:
    options = {"virtualization": virtualization}
    assert call(MONITOR_SERVICE, 0xC300_0012, 17, **options)[0][0] == 62_500_000  # CNTFRQ_EL0 of QEMU's CPUs
    assert call(MONITOR_SERVICE, 0xC300_0013, 15, 0x1234_5678_9ABC_DEF0, **options)[0][0] == 0x1234_5678_9ABC_DEF0
    wanted = 0x5678 if virtualization else 0  # HSTR_EL2: there is none without EL2
    assert call(MONITOR_SERVICE, 0xC300_0013, SysReg.HSTR_EL2, 0x5678, **options)[0][0] == wanted


def test_as_many_operations_as_fit_and_more(call: Caller) -> None:
    result, rejected = call(MONITOR_SERVICE, 0xC300_0015, 16, UART_ID - 0x20)
    assert (result[:2], rejected) == ([0, 16], [])
    (x0, *_), rejected = call(MONITOR_SERVICE, 0xC300_0015, 17, UART_ID - 0x20)
    assert x0 == NOT_SUPPORTED
    assert "17 micro-operations; 16 fit" in rejected[0]


@pytest.mark.parametrize(
    ("what", "why"),
    [
        (0, "TypeError"),
        (1, "AttributeError"),
        (2, "AttributeError"),
        (3, "there is no micro-operation"),
        (4, "is not a valid SysReg"),
        (5, "is not aligned"),
        (6, "access size 3"),
        (7, "does not fit in 64 bits"),
        (8, "RuntimeError: after the first answer"),
        (9, "call() returned a str"),
    ],
)
def test_a_wish_that_makes_no_sense_costs_its_caller_one_call(call: Caller, what: int, why: str) -> None:
    (x0, *_), rejected = call(MONITOR_SERVICE, 0xC300_0016, what, RAM)
    assert x0 == NOT_SUPPORTED
    assert len(rejected) == 1
    assert why in rejected[0]
