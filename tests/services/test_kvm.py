"""The calls of KVM's own: what each answers, and what the features say of a selection."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from qemu_sdei.backend.firmware.firmware import Firmware
from qemu_sdei.services.kvm import UUID, Counter, Function, Kvm
from qemu_sdei.smccc.regs import X0, new_regs

WALL, COUNTER = 0x1234_5678_9ABC_DEF0, 0xFEDC_BA98_7654_3210
MIDR = 0x410F_D083


def _firmware(selection: Sequence[str] = ()) -> Firmware:
    return Firmware(1, hypervisor=True, selection=selection)


def _call(function: int, *arguments: int, selection: Sequence[str] = ()) -> tuple[int, ...]:
    firmware = _firmware(selection)
    firmware.machine.id_registers = {"MIDR_EL1": MIDR}
    regs = new_regs()
    regs[X0] = function
    for n, argument in enumerate(arguments, X0 + 1):
        regs[n] = argument
    handler = firmware.registry.lookup(function)
    found = (-1,) if handler is None else handler(0, regs)
    assert isinstance(found, int | tuple)
    return found if isinstance(found, tuple) else (found,)


def test_the_uid_is_kvms() -> None:
    assert _call(Function.CALL_UID) == (0xB66F_B428, 0xE911_C52E, 0x564B_CAA9, 0x743A_004D)
    assert str(UUID) == "28b46fb6-2ec5-11e9-a9ca-4b564d003a74"


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        ((), (3, 0, 0, 0)),
        (("vendor-hyp=func_feat",), (1, 0, 0, 0)),
        (("vendor-hyp=func_feat,ptp", "vendor-hyp-2=discover_impl_ver,discover_impl_cpus"), (3, 0, 3, 0)),
        (("vendor-hyp-2=discover_impl_cpus",), (3, 0, 2, 0)),
        (("vendor-hyp=ptp",), (-1,)),
    ],
)
def test_features_are_those_that_were_selected(selection: Sequence[str], words: tuple[int, ...]) -> None:
    assert _call(Function.FEATURES, selection=selection) == words


def test_each_function_goes_with_its_bit_alone() -> None:
    bits = {
        "vendor-hyp=func_feat": {Function.CALL_UID, Function.FEATURES},
        "vendor-hyp=ptp": {Function.PTP},
        "vendor-hyp-2=discover_impl_ver": {Function.DISCOVER_IMPL_VER},
        "vendor-hyp-2=discover_impl_cpus": {Function.DISCOVER_IMPL_CPUS},
    }
    for word, functions in bits.items():
        rest = ("vendor-hyp=",) if word.startswith("vendor-hyp-2") else ("vendor-hyp-2=",)
        registry = _firmware((word, *rest)).registry
        assert {function for function in Function if registry.lookup(function) is not None} == functions


def test_a_guest_without_a_hypervisor_has_none_of_them() -> None:
    firmware = Firmware(1)
    assert not any(firmware.registry.implemented(function) for function in Function)
    assert firmware.selection.snapshot()["vendor-hyp"] == 0


@pytest.mark.parametrize("counter", [*Counter, Counter.PHYSICAL | 1 << 32])
def test_ptp_gives_the_moment_in_halves(counter: int) -> None:
    from qemu_sdei.services.platform import CrossTime, Platform

    firmware = _firmware()
    platform = Platform((0,), firmware.registry, firmware.dispatcher, None, cross_time=lambda: CrossTime(WALL, COUNTER))  # type: ignore[arg-type]
    regs = new_regs()
    regs[X0 + 1] = counter
    assert Kvm(platform).handlers()[Function.PTP](0, regs) == (0x1234_5678, 0x9ABC_DEF0, 0xFEDC_BA98, 0x7654_3210)


@pytest.mark.parametrize("counter", [2, 0xFFFF_FFFF])
def test_ptp_of_no_counter_is_not_supported(counter: int) -> None:
    assert _call(Function.PTP, counter) == (-1, 0, 0, 0)


def test_ptp_without_a_counter_in_the_frame_is_not_supported() -> None:
    """A monitor before frame window 4 does not save it."""
    assert _call(Function.PTP, 0) == (-1, 0, 0, 0)


SECOND = ("vendor-hyp-2=discover_impl_ver,discover_impl_cpus",)


def test_the_one_implementation_is_the_cpu_that_the_guest_runs_on() -> None:
    assert _call(Function.DISCOVER_IMPL_VER, selection=SECOND) == (0, 0x1_0000, 1, 0)
    assert _call(Function.DISCOVER_IMPL_CPUS, 0, selection=SECOND) == (0, MIDR, 0, 0)
    for index in (1, 1 << 32, (1 << 64) - 1):
        assert _call(Function.DISCOVER_IMPL_CPUS, index, selection=SECOND) == (-3, 0, 0, 0)


def test_they_are_not_found_unless_they_are_selected() -> None:
    assert _call(Function.DISCOVER_IMPL_VER) == (-1,)
