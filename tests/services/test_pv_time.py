"""PV time: what its calls answer, and how a stolen time goes along (DEN0057A)."""

from __future__ import annotations

from typing import Any

import pytest

from qemu_sdei.backend.firmware.firmware import Firmware
from qemu_sdei.errors import ProtocolError
from qemu_sdei.services.pv_time import STRIDE, Function, PvTime
from qemu_sdei.smccc.arch import SMCCC_ARCH_FEATURES
from qemu_sdei.smccc.regs import X0, new_regs

RECORDS = 0x7FFB_8000


def _call(service: PvTime, function: int, argument: int = 0, pe: int = 0) -> Any:
    regs = new_regs()
    regs[X0], regs[X0 + 1] = function, argument
    return service.handlers()[function](pe, regs)


@pytest.mark.parametrize(
    ("argument", "code"), [(Function.FEATURES, 0), (Function.ST, 0), (0x8500_0020, -1), (0xC500_0022, -1), (0, -1)]
)
def test_features(argument: int, code: int) -> None:
    assert _call(PvTime(RECORDS, 1), Function.FEATURES, argument) == code


def test_each_cpu_has_a_record_of_its_own() -> None:
    service = PvTime(RECORDS, 3)
    assert [_call(service, Function.ST, 0, pe) for pe in range(3)] == [RECORDS + STRIDE * pe for pe in range(3)]


def test_nothing_is_counted_before_a_cpu_asks_and_nothing_is_lost_when_it_asks_again() -> None:
    service = PvTime(RECORDS, 2)
    assert service.add(0, 5) is None
    _call(service, Function.ST)
    assert service.add(0, 7) == 7
    _call(service, Function.ST)
    assert service.add(0, 3) == 10
    assert service.stolen == [10, None]
    service.reset()
    assert service.stolen == [None, None]


def test_it_is_found_by_arch_features() -> None:
    firmware = Firmware(1, stolen_time=RECORDS)
    regs = new_regs()
    for function, code in ((Function.FEATURES, 0), (Function.ST, -1)):
        regs[X0 + 1] = function
        assert firmware.registry.table[SMCCC_ARCH_FEATURES](0, regs) == code


def test_a_cleared_bit_takes_it_away() -> None:
    firmware = Firmware(1, stolen_time=RECORDS, selection=("std-hyp=",))
    regs = new_regs()
    regs[X0 + 1] = Function.FEATURES
    assert firmware.registry.table[SMCCC_ARCH_FEATURES](0, regs) == -1
    assert not any(firmware.registry.lookup(function) for function in Function)


def test_the_time_goes_along_and_is_checked() -> None:
    service = PvTime(RECORDS, 2)
    _call(service, Function.ST, 0, 1)
    service.add(1, 1 << 40)
    other = PvTime(RECORDS, 2)
    other.restore(service.snapshot())
    assert other.stolen == [None, 1 << 40]
    damages: tuple[Any, ...] = (None, {}, [None], [0, 1, 2], [0, -1], [0, 1 << 64], [0, "1"], [0, True], [0, 1.5])
    for damaged in damages:
        with pytest.raises(ProtocolError, match="pv-time"):
            other.restore(damaged)
    assert other.stolen == [None, 1 << 40]


def test_a_guest_of_a_program_without_it_goes_on_without_it() -> None:
    state = Firmware(1).snapshot()
    firmware = Firmware(1, stolen_time=RECORDS)
    firmware.restore(state)
    assert not any(firmware.registry.lookup(function) for function in Function)
    assert firmware.snapshot()["selection"]["std-hyp"] == 0
