"""Frames of a guest that runs above our EL2, as the firmware takes them: as if the guest had come straight to EL3.

A guest's HVC goes to the vectors of EL2, whose SMC brings it to EL3. So PC and PSTATE of the frame are those of the
vectors, and where the guest was stands in the words of EL2. `lift` puts that in their place.

The frame is in guest RAM and a backend may die at any store. PSTATE, which says that a frame is still to be lifted, is
written last, and everything else only from words that are not changed: so whoever comes after does the same again.
"""

from __future__ import annotations

from typing import Final

from qemu_sdei.hypervisor.instructions import SIZE
from qemu_sdei.monitor.layout import Kind, Word

EL: Final = 0xC
"""The exception level in PSTATE."""
EL2: Final = 0x8
EC: Final = 26
"""Lowest bit of the exception class in ESR."""
HVC: Final = 0x16
SMC: Final = 0x17
_M64: Final = 0xFFFF_FFFF_FFFF_FFFF


def is_below(frame: memoryview) -> bool:
    """Whether a frame was posted from EL2, and is still to be lifted. A guest that is served at EL1 never is there."""
    return bool(frame[Word.PSTATE] & EL == EL2)


def lift(frame: memoryview) -> None:
    """Make a frame that was posted from EL2 one of the guest's own.

    An HVC becomes a call. Another exception that came to EL2 becomes one that came to EL3 (kind EXCEPTION). ESR_EL3 is
    then what ESR_EL2 was.

    An interrupt of ours may hit between the exception and the SMC of the vectors. Then the guest's exception is undone:
    the frame is one of a guest that is about to execute that instruction, and it will, once more.
    """
    syndrome, pc, pstate = frame[Word.ESR_EL2], frame[Word.ELR_EL2], frame[Word.SPSR_EL2]
    is_hvc = syndrome >> EC == HVC
    if pstate & EL == EL2:
        frame[Word.KIND] = Kind.FAULT  # our own vectors have faulted: nothing of the guest's is known
        pstate &= ~EL
    elif frame[Word.KIND] not in (Kind.SMC, Kind.EXCEPTION):
        if is_hvc:
            pc = pc - SIZE & _M64  # where it returns to is behind it
    else:
        frame[Word.ESR_EL3] = syndrome
        frame[Word.KIND] = Kind.SMC if is_hvc else Kind.EXCEPTION
    frame[Word.PC] = pc
    frame[Word.PSTATE] = pstate


def refuse_smc(frame: memoryview) -> None:
    """Have a call by SMC, from the guest itself, be an exception: of class SMC, as its ESR_EL3 says. One that came by
    HVC is lifted already, and its ESR_EL3 is of class HVC.
    """
    if frame[Word.KIND] == Kind.SMC and frame[Word.ESR_EL3] >> EC == SMC:
        frame[Word.KIND] = Kind.EXCEPTION
