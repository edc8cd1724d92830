"""The registers of a call: a view of 20 words that lies, as a rule, straight over a CPU's frame.

It is here and not in `sdei` because every service gets its arguments from it; SDEI's name for the same words is a
context.
"""

from __future__ import annotations

from typing import Final, TypeAlias

Regs: TypeAlias = memoryview
"""Format "Q", 20 words: PC, PSTATE, X0..X17."""

PC: Final = 0
PSTATE: Final = 1
X0: Final = 2
X17: Final = 19
CONTEXT_WORDS: Final = 20

WORD_MASK: Final = 0xFFFF_FFFF_FFFF_FFFF


def new_regs() -> Regs:
    """Registers of their own memory, all zero: for contexts that are kept, and for tests."""
    return memoryview(bytearray(CONTEXT_WORDS * 8)).cast("Q")
