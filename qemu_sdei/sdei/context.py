"""The context that SDEI saves, replaces and restores: PC, PSTATE, X0..X17 (DEN0054 5.2.1).

Everything else of the CPU (X18..X30, stack pointers, floating point) is live in a handler and never touched.
Saving and restoring is one slice assignment between two views of the same format, that is one memcpy.
"""

from __future__ import annotations

from typing import Final

from qemu_sdei.smccc.regs import CONTEXT_WORDS, PC, PSTATE, WORD_MASK, X0, X17, Regs, new_regs

__all__ = ["CONTEXT_WORDS", "PC", "PSTATE", "WHOLE", "WORD_MASK", "X0", "X17", "Regs", "new_regs", "valid_address"]

WHOLE: Final = slice(None)
"""`kept[WHOLE] = regs`: all words at once."""


def valid_address(address: int) -> bool:
    """Can the client EL execute there? Not 0, aligned, canonical for 52-bit addresses (DEN0054 5.1.2, 5.1.7).

    Anything more would refuse what works: Linux registers a KPTI trampoline's alias that its page tables do not show.
    """
    return address != 0 and not address & 3 and (address >> 52 == 0 or address >> 52 == 0xFFF)
