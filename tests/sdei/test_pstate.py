"""Conformance 37-40: PSTATE on entry, and where a handler may start."""

from __future__ import annotations

import pytest

from qemu_sdei.sdei.pstate import CpuFeatures, entry_pstate, interruptible_modes

ALL = CpuFeatures(*[True] * 9)
NONE = CpuFeatures()
DAIF = 0x3C0
SPAN, DSSBS, SPINTMASK = 1 << 23, 1 << 44, 1 << 62
E2H_TGE = 1 << 34 | 1 << 27
SSBS, ALLINT, PAN, UAO, DIT, TCO = 1 << 12, 1 << 13, 1 << 22, 1 << 23, 1 << 24, 1 << 25


@pytest.mark.parametrize(("client_el", "mode"), [(1, 0x5), (2, 0x9)])
@pytest.mark.parametrize("pstate", [0x0, 0x4, 0x5, 0x3C5, 0x8, 0x9])
def test_mode_and_daif(client_el: int, mode: int, pstate: int) -> None:
    """37."""
    assert entry_pstate(NONE, client_el)(pstate, 0, 0) == mode | DAIF


@pytest.mark.parametrize("client_el", [1, 2])
def test_nothing_but_the_preserved_survives(client_el: int) -> None:
    """40: of all 64 bits set only NZCV, DIT and PAN stay; on a CPU without features only NZCV."""
    mode = client_el << 2 | 1
    everything = (1 << 64) - 1
    quiet = SPAN | SPINTMASK
    assert entry_pstate(ALL, client_el)(everything, quiet, 0) == 0xF << 28 | DIT | PAN | TCO | DAIF | mode
    assert entry_pstate(NONE, client_el)(everything, 0, 0) == 0xF << 28 | DAIF | mode
    assert entry_pstate(ALL, client_el)(0, quiet, 0) == TCO | DAIF | mode


@pytest.mark.parametrize("before", [0, PAN])
def test_pan_at_el1(before: int) -> None:
    """39."""
    entry = entry_pstate(CpuFeatures(pan=True), 1)
    assert entry(before, 0, 0) & PAN == PAN
    assert entry(before, SPAN, 0) & PAN == before


@pytest.mark.parametrize("hcr", [0, 1 << 34, 1 << 27])
def test_pan_at_el2_needs_the_host_regime(hcr: int) -> None:
    """39: only with E2H and TGE."""
    entry = entry_pstate(CpuFeatures(pan=True), 2)
    assert entry(0, 0, hcr) & PAN == 0
    assert entry(PAN, 0, hcr) & PAN == PAN
    assert entry(0, 0, E2H_TGE) & PAN == PAN
    assert entry(0, SPAN, E2H_TGE) & PAN == 0


def test_ssbs_and_allint_follow_sctlr() -> None:
    """40."""
    entry = entry_pstate(ALL, 1)
    assert entry(SSBS, SPINTMASK, 0) & (SSBS | ALLINT) == 0
    assert entry(0, DSSBS, 0) & (SSBS | ALLINT) == SSBS | ALLINT
    assert entry_pstate(NONE, 1)(0, DSSBS, 0) & (SSBS | ALLINT) == 0


def test_dit_needs_the_feature() -> None:
    """40: a bit that is RES0 on this CPU is not carried over."""
    assert entry_pstate(CpuFeatures(dit=True), 1)(DIT, 0, 0) & DIT == DIT
    assert entry_pstate(NONE, 1)(DIT, 0, 0) & DIT == 0


def test_aarch32_el0() -> None:
    """Q, GE, IT, E, T and IL of an AArch32 program do not reach the handler."""
    a32 = 0xF << 28 | 1 << 27 | 3 << 25 | 0xF << 16 | 0x3F << 10 | 1 << 9 | 1 << 5 | 1 << 20 | 0x10
    assert entry_pstate(NONE, 1)(a32, 0, 0) == 0xF << 28 | DAIF | 0x5


def test_where_handlers_may_start() -> None:
    """Client EL and below; AArch32 only below the client."""
    el1 = [mode for mode, allowed in enumerate(interruptible_modes(1)) if allowed]
    assert el1 == [0x0, 0x4, 0x5, 0x10]
    el2 = [mode for mode, allowed in enumerate(interruptible_modes(2)) if allowed]
    assert el2 == [0x0, 0x4, 0x5, 0x8, 0x9, 0x10, 0x11, 0x12, 0x13, 0x17, 0x1B, 0x1F]


def test_features_from_id_registers() -> None:
    """A Neoverse N1: PAN, UAO, SSBS, EL2 and VHE, but no DIT, BTI, MTE, NMI."""
    n1 = {
        "ID_AA64PFR0_EL1": 0x1100000010111112,
        "ID_AA64PFR1_EL1": 0x0000000000000020,
        "ID_AA64MMFR1_EL1": 0x0000000010212122,
        "ID_AA64MMFR2_EL1": 0x0000000000001011,
    }
    assert CpuFeatures.from_id_registers(n1) == CpuFeatures(el2=True, vhe=True, pan=True, uao=True, ssbs=True)
    assert CpuFeatures.from_id_registers({}) == CpuFeatures()
    every = dict.fromkeys(n1, 0x2222_2222_2222_2222)
    assert CpuFeatures.from_id_registers(every) == ALL
    assert not CpuFeatures.from_id_registers({"ID_AA64PFR1_EL1": 0x100}).mte2, "MTE without tags in memory"
