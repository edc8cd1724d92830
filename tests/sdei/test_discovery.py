"""Conformance 1-11: what the interface says about itself, and to whom it speaks."""

from __future__ import annotations

import pytest

from qemu_sdei.sdei.constants import Function
from qemu_sdei.sdei.context import PSTATE, X0, new_regs
from tests.sdei.machine import EL1H, INVALID, NOT_SUPPORTED, Machine, profile


def test_version_is_the_configured_one_and_stays() -> None:
    """1."""
    machine = Machine()
    assert machine(0, Function.VERSION) == 0x0001_0001_004B_564D
    assert machine(1, Function.VERSION) == 0x0001_0001_004B_564D
    assert Machine(profile=profile(version=(1, 2), vendor=0xFFFF_FFFF))(0, Function.VERSION) == 0x0001_0002_FFFF_FFFF


def test_version_1_0_is_the_exact_word_that_tftf_wants() -> None:
    """2."""
    assert Machine(profile=profile(version=(1, 0), vendor=0))(0, Function.VERSION) == 0x0001_0000_0000_0000


def test_only_assigned_functions_have_a_handler() -> None:
    """3, 4."""
    assert sorted(Machine().dispatcher.handlers) == list(range(0xC400_0020, 0xC400_0033))


@pytest.mark.parametrize("client_el", [1, 2])
@pytest.mark.parametrize("function", list(Function))
def test_only_the_client_el_is_served(client_el: int, function: Function) -> None:
    """6: any other EL, or AArch32, gets NOT_SUPPORTED and changes nothing."""
    machine = Machine(client_el=client_el)
    machine.enable(0, 0)
    machine.run(0, 0x100)
    before = machine.dispatcher.snapshot()
    regs = new_regs()
    for pstate in (0x0, 0x4, 0x5, 0x8, 0x9, 0xC, 0xD, 0x10, 0x13, 0x1F):
        if pstate >> 2 == client_el:
            continue
        regs[PSTATE] = pstate
        regs[X0 + 2] = 0x1000
        assert machine.dispatcher.handlers[function](0, regs) == NOT_SUPPORTED
    assert machine.dispatcher.snapshot() == before
    assert not machine.dispatcher.kicks


@pytest.mark.parametrize("function", [f for f in Function if "COMPLETE" not in f.name])
def test_an_ordinary_call_changes_no_register(function: Function) -> None:
    """8: the handlers write nothing, not even x0: the owner does that."""
    machine = Machine(unmask=False)
    regs = new_regs()
    regs[PSTATE] = EL1H
    for index in range(X0, 20):
        regs[index] = 0x1111_1111_1111_1111 * (index & 7)
    before = regs.tolist()
    machine.dispatcher.handlers[function](0, regs)
    assert regs.tolist() == before


def test_features() -> None:
    """9, 10, 11: 4 private slots, 8 shared ones; relative mode is known since v1.1, and not offered."""
    machine = Machine()
    assert machine(0, Function.FEATURES, 0) == 0x8_0004
    assert machine(0, Function.FEATURES, 1) == 0
    assert machine(0, Function.FEATURES, 2) == INVALID
    assert machine(0, Function.FEATURES, 0x10) == INVALID
    assert machine(0, Function.FEATURES, 0xFFFF_FFFF) == INVALID
    assert machine(0, Function.FEATURES, 0xABCD_0000_0000) == 0x8_0004, "a 32-bit parameter"
    old = Machine(profile=profile(version=(1, 0), slots=(0, 0)))
    assert old(0, Function.FEATURES, 1) == INVALID
    assert old(0, Function.FEATURES, 0) == 0
