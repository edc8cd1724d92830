"""When a CPU can be made to take a synchronous external abort, and what it then has.

Each row says the clause that it stands for: "ARM" is the Arm Architecture Reference Manual (DDI 0487), "Linux" what
arch/arm64 does at that moment.
"""

from __future__ import annotations

import pytest

from qemu_sdei.backend.firmware.external_abort import Stand, Wish, obstacle, take
from qemu_sdei.monitor.layout import SysReg
from qemu_sdei.sdei.pstate import HCR_E2H, HCR_TGE, SCTLR_DSSBS, SCTLR_SPAN, CpuFeatures

VBAR, PC, MMU_ON = 0xFFFF_8000_0801_0800, 0xAAAA_0000_1234, 1
EL0, EL0_32, EL1T, EL1H, EL2H = 0x0, 0x10, 0x4, 0x5, 0x9
D, A, IRQ, FIQ = 0x200, 0x100, 0x80, 0x40
HOST = HCR_E2H | HCR_TGE
DATA, FETCH, KERNEL = 0, Wish.FETCH, Wish.KERNEL


def stand(pstate: int, **more: int | bool) -> Stand:
    return Stand(**{"pc": PC, "pstate": pstate, "sctlr": MMU_ON, "vbar": VBAR} | more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("where", "wish", "client_el", "why", "clause"),
    [
        (stand(EL0), DATA, 1, None, "ARM: at EL0 nothing of EL1's is in ELR_EL1 and SPSR_EL1"),
        (stand(EL0 | D | A | IRQ | FIQ), DATA, 1, None, "ARM D1.3.1: synchronous exceptions are not masked"),
        (stand(EL0_32), DATA, 1, None, "ARM: from AArch32 EL0 as from AArch64"),
        (stand(EL1H), DATA, 1, "kernel", "Linux do_sea: APEI is only asked for user_mode(regs)"),
        (stand(EL1H), KERNEL, 1, None, "Linux DAIF_PROCCTX: entry code is done"),
        (stand(EL1H | FIQ), KERNEL, 1, None, "FIQ is the firmware's: what it masks says nothing"),
        (stand(EL1H | D | A | IRQ | FIQ), KERNEL, 1, "D, A or I", "ARM TakeException: entry code begins so"),
        (stand(EL1H | IRQ | FIQ), KERNEL, 1, "D, A or I", "an exit path that masks I only has ELR already restored"),
        (stand(EL1H | A), KERNEL, 1, "D, A or I", "Linux DAIF_ERRCTX"),
        (stand(EL1H | D), KERNEL, 1, "D, A or I", "Linux: debug exceptions off, as in entry code of a debug trap"),
        (stand(EL1T), KERNEL, 1, None, "ARM D1.3.1.1: the vectors for SP_EL0 are as good"),
        (stand(EL0, in_handler=True), DATA, 1, "SDEI handler", "DEN0054 5.2.1: what it interrupted may be entry code"),
        (stand(EL0, sctlr=0), DATA, 1, "MMU off", "Linux head.S: no vectors that could be fetched"),
        (stand(EL0, vbar=0), DATA, 1, "VBAR is 0", "Linux sets VBAR_EL1 in __primary_switched"),
        (stand(EL2H), KERNEL, 1, "no level", "EL2 is not there for a guest at EL1"),
        (stand(0x13), KERNEL, 1, "no level", "AArch32 EL1 is not"),
        (stand(EL2H, hcr_el2=HOST), KERNEL, 2, None, "ARM D1.3.1: with E2H and TGE the host takes it at EL2"),
        (stand(EL2H, hcr_el2=HOST), DATA, 2, "EL2", "as at EL1"),
        (stand(EL0, hcr_el2=HOST), DATA, 2, None, "ARM: TGE routes EL0's exceptions to EL2"),
        (stand(EL0, hcr_el2=HCR_E2H), DATA, 2, "guest of its own", "ARM: without TGE EL0 is that of a guest at EL1"),
        (stand(EL1H, hcr_el2=HCR_E2H), KERNEL, 2, "guest of its own", "Linux KVM: a guest runs"),
        (stand(EL0_32, hcr_el2=0), DATA, 2, "guest of its own", "Linux without VHE: EL1 is its host kernel's"),
    ],
)  # fmt: skip
def test_when(where: Stand, wish: int, client_el: int, why: str | None, clause: str) -> None:
    found = obstacle(where, wish, client_el)
    assert (found is None) if why is None else (found is not None and why in found), (clause, found)


@pytest.mark.parametrize(
    ("where", "wish", "client_el", "offset", "esr", "clause"),
    [
        (stand(EL0), DATA, 1, 0x400, 0x9200_0410, "ARM: EC 0x24, IL, FnV, DFSC 0x10; lower EL, AArch64"),
        (stand(EL0), FETCH, 1, 0x400, 0x8200_0410, "ARM: EC 0x20"),
        (stand(EL0_32), DATA, 1, 0x600, 0x9200_0410, "ARM D1.3.1.1: lower EL, AArch32"),
        (stand(EL1H), DATA, 1, 0x200, 0x9600_0410, "ARM: EC 0x25; current EL with SP_ELx"),
        (stand(EL1H), FETCH, 1, 0x200, 0x8600_0410, "ARM: EC 0x21"),
        (stand(EL1T), DATA, 1, 0x000, 0x9600_0410, "ARM D1.3.1.1: current EL with SP_EL0"),
        (stand(EL0, hcr_el2=HOST), DATA, 2, 0x400, 0x9200_0410, "ARM: from EL0 to EL2 by TGE"),
        (stand(EL2H, hcr_el2=HOST), DATA, 2, 0x200, 0x9600_0410, "ARM: EC 0x25 at EL2 as well"),
    ],
)  # fmt: skip
def test_vector_and_syndrome(where: Stand, wish: int, client_el: int, offset: int, esr: int, clause: str) -> None:
    taken = take(where, wish, 0, CpuFeatures(), client_el)
    assert taken.pc == VBAR + offset, clause
    written = {SysReg(op.argument).name: op.value for op in taken.ops}
    assert written == {
        f"ELR_EL{client_el}": PC,
        f"SPSR_EL{client_el}": where.pstate,
        f"ESR_EL{client_el}": esr,
    }, clause


def test_an_address_is_in_far_and_esr_says_that_it_is() -> None:
    taken = take(stand(EL0), Wish.ADDRESS, 0xFFFF_9000_1000, CpuFeatures(), 1)
    written = {SysReg(op.argument).name: op.value for op in taken.ops}
    assert written["FAR_EL1"] == 0xFFFF_9000_1000
    assert written["ESR_EL1"] == 0x9200_0010


def test_the_low_bits_of_vbar_are_no_part_of_the_vector() -> None:
    """ARM VBAR_EL1: bits [10:0] are RES0."""
    assert take(stand(EL0, vbar=VBAR + 0x10), DATA, 0, CpuFeatures(), 1).pc == VBAR + 0x400


@pytest.mark.parametrize(
    ("pstate", "features", "sctlr", "expected", "clause"),
    [
        (EL0, CpuFeatures(), SCTLR_SPAN, 0x3C5, "ARM TakeException: EL1h, DAIF set"),
        (0xF000_0000 | 1 << 20 | 1 << 21 | 3 << 10, CpuFeatures(), SCTLR_SPAN, 0xF000_03C5, "flags; not IL, SS, BTYPE"),
        (EL0, CpuFeatures(pan=True), 0, 0x40_03C5, "ARM: PAN is set unless SCTLR.SPAN"),
        (EL0, CpuFeatures(pan=True), SCTLR_SPAN, 0x3C5, "ARM: SPAN leaves it"),
        (EL0, CpuFeatures(ssbs=True), SCTLR_SPAN | SCTLR_DSSBS, 0x13C5, "ARM: SSBS becomes SCTLR.DSSBS"),
        (EL0 | 1 << 12, CpuFeatures(ssbs=True), SCTLR_SPAN, 0x3C5, "ARM: SSBS becomes SCTLR.DSSBS"),
        (EL0 | 1 << 23, CpuFeatures(uao=True), SCTLR_SPAN, 0x3C5, "ARM: UAO is cleared"),
        (EL0, CpuFeatures(mte2=True), SCTLR_SPAN, 0x200_03C5, "ARM: TCO is set"),
        (EL0 | 1 << 24, CpuFeatures(dit=True), SCTLR_SPAN, 0x100_03C5, "ARM: DIT stays"),
    ],
)  # fmt: skip
def test_the_handler_begins_as_any_exception_does(
    pstate: int, features: CpuFeatures, sctlr: int, expected: int, clause: str
) -> None:
    assert take(stand(pstate, sctlr=sctlr | MMU_ON), DATA, 0, features, 1).pstate == expected, clause
