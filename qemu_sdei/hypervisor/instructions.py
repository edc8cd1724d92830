"""The instructions that run at EL2, as words: there are so few that no assembler is needed.

A test has the cross compiler assemble each mnemonic, and compares.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

_WORD: Final = struct.Struct("<I")
SIZE: Final = _WORD.size
"""Bytes of an instruction."""
_SMC: Final = 0xD400_0003
_IMMEDIATE: Final = 5
"""Of an exception-generating instruction: its lowest bit (Arm ARM C4.1.94)."""
_MAX_IMMEDIATE: Final = 0xFFFF


class Instruction(NamedTuple):
    """One A64 instruction."""

    mnemonic: str
    """As an assembler takes it."""
    word: int


STAY: Final = Instruction("b .", 0x1400_0000)
"""A branch to itself: what nothing reaches."""


def smc(immediate: int) -> Instruction:
    """A call to EL3 that can be told from others by its 16-bit immediate. Raises ValueError: it has more bits."""
    if not 0 <= immediate <= _MAX_IMMEDIATE:
        raise ValueError(f"smc #{immediate}: the immediate has 16 bits")
    return Instruction(f"smc #{immediate:#x}", _SMC | immediate << _IMMEDIATE)


def code(instructions: Iterable[Instruction]) -> bytes:
    """Instructions as they lie in memory."""
    return b"".join(_WORD.pack(each.word) for each in instructions)
