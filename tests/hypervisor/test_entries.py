"""Frames that came by EL2: what the firmware sees of them, and that a backend that dies half-way changes nothing."""

from __future__ import annotations

import pytest

from qemu_sdei.hypervisor.entries import is_below, lift, refuse_smc
from qemu_sdei.monitor.layout import FRAME_WORDS, Kind, Word

VECTORS = 0x7FF1_0404
EL2H, EL1H, EL0 = 0x3C9, 0x3C5, 0x3C0
HVC, SMC_AT_EL3, ABORT = 0x16 << 26 | 1 << 25, 0x17 << 26 | 1 << 25 | 0x108, 0x24 << 26 | 0x10
GUEST = 0x4020_1004
"""Where ELR_EL2 points to."""


def frame_of(kind: Kind, syndrome: int, spsr: int = EL1H) -> memoryview:
    frame = memoryview(bytearray(8 * FRAME_WORDS)).cast("Q")
    frame[Word.KIND], frame[Word.ESR_EL3] = kind, SMC_AT_EL3
    frame[Word.PC], frame[Word.PSTATE] = VECTORS, EL2H
    frame[Word.ESR_EL2], frame[Word.ELR_EL2], frame[Word.SPSR_EL2] = syndrome, GUEST, spsr
    for n in range(31):
        frame[Word.X0 + n] = 0x1000 + n
    frame[Word.FUNCTION] = frame[Word.X0]
    return frame


class Died(BaseException):
    """Of the backend."""


class Dying:
    """A frame whose `left` + 1st store is never done."""

    def __init__(self, frame: memoryview, left: int) -> None:
        self._frame, self._left = frame, left

    def __getitem__(self, word: int) -> int:
        return int(self._frame[word])

    def __setitem__(self, word: int, value: int) -> None:
        if not self._left:
            raise Died
        self._left -= 1
        self._frame[word] = value


def test_an_hvc_is_a_call_of_the_guest() -> None:
    frame = frame_of(Kind.SMC, HVC)
    before = frame[Word.X0 : Word.X30 + 1].tolist()
    lift(frame)
    assert (frame[Word.KIND], frame[Word.PC], frame[Word.PSTATE]) == (Kind.SMC, GUEST, EL1H)
    assert frame[Word.X0 : Word.X30 + 1].tolist() == before
    assert not is_below(frame)


def test_another_exception_comes_as_one_with_its_own_syndrome() -> None:
    frame = frame_of(Kind.SMC, ABORT, EL0)
    lift(frame)
    assert (frame[Word.KIND], frame[Word.ESR_EL3]) == (Kind.EXCEPTION, ABORT)
    assert (frame[Word.PC], frame[Word.PSTATE]) == (GUEST, EL0)


@pytest.mark.parametrize(("syndrome", "pc"), [(HVC, GUEST - 4), (ABORT, GUEST)])
@pytest.mark.parametrize("kind", [Kind.KICK, Kind.INTERRUPT])
def test_an_interrupt_inside_el2_finds_the_guest_before_what_it_did(kind: Kind, syndrome: int, pc: int) -> None:
    frame = frame_of(kind, syndrome)
    lift(frame)
    assert (frame[Word.KIND], frame[Word.PC], frame[Word.PSTATE]) == (kind, pc, EL1H)


def test_a_fault_of_our_own_vectors_is_one() -> None:
    frame = frame_of(Kind.SMC, ABORT, EL2H)
    lift(frame)
    assert frame[Word.KIND] == Kind.FAULT
    assert not is_below(frame)


@pytest.mark.parametrize("spsr", [EL1H, EL2H])
@pytest.mark.parametrize("syndrome", [HVC, ABORT])
@pytest.mark.parametrize("kind", [Kind.SMC, Kind.KICK, Kind.INTERRUPT])
@pytest.mark.parametrize("stores", range(5))
def test_who_takes_over_from_a_dead_backend_gets_the_same(kind: Kind, syndrome: int, spsr: int, stores: int) -> None:
    whole, torn = frame_of(kind, syndrome, spsr), frame_of(kind, syndrome, spsr)
    lift(whole)
    try:
        lift(Dying(torn, stores))  # type: ignore[arg-type]
    except Died:
        pass
    if is_below(torn):
        lift(torn)
    assert torn.tolist() == whole.tolist()


def test_an_smc_is_refused_and_an_hvc_never() -> None:
    hvc = frame_of(Kind.SMC, HVC)
    lift(hvc)
    refuse_smc(hvc)
    assert hvc[Word.KIND] == Kind.SMC
    smc = frame_of(Kind.SMC, 0)
    smc[Word.PSTATE] = EL1H
    refuse_smc(smc)
    assert smc[Word.KIND] == Kind.EXCEPTION
