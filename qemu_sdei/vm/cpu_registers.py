"""Registers of a vCPU out of what QEMU's monitor prints for people (HMP `info registers`).

There is no QMP command for them. Of what is printed, general registers (X00 to X30, SP, PC), PSTATE and its exception
level are taken; floating point and vector registers are left out. Forms of QEMU 6.2 to 11.1 (target/arm/cpu.c,
aarch64_cpu_dump_state).
"""

from __future__ import annotations

import re
from typing import Final

LEVEL: Final = "EL"
"""Name by which `parse` returns the exception level and stack pointer that are in use, such as "EL1h"."""
_MAX_TEXT: Final = 1 << 16
_WORD: Final = re.compile(r"\b(PC|SP|X\d\d|PSTATE)=([0-9a-f]{8,16})(?![0-9a-f:])")
_LEVEL: Final = re.compile(r"\bPSTATE=[0-9a-f]+ [^\n]*?\b(EL[0-3][ht])\b")


def parse(text: str) -> dict[str, int | str]:
    """Registers by name, as numbers, in the order PC, PSTATE, EL (a text), SP, X0 to X30.

    What is not there is left out: text of another form gives few, or none.
    """
    text = text[:_MAX_TEXT]
    found: dict[str, int | str] = {}
    for name, value in _WORD.findall(text):
        found.setdefault(f"X{int(name[1:])}" if name[0] == "X" else name, int(value, 16))
    if level := _LEVEL.search(text):
        found[LEVEL] = level[1]
    order = ("PC", "PSTATE", LEVEL, "SP", *(f"X{number}" for number in range(31)))
    return {name: found[name] for name in order if name in found}


def level(pstate: int) -> str:
    """Exception level and stack pointer of a PSTATE, such as "EL1h"; "AArch32" of a 32-bit mode."""
    return "AArch32" if pstate & 0x10 else f"EL{pstate >> 2 & 3}{'h' if pstate & 1 else 't'}"


def flags(pstate: int) -> str:
    """PSTATE in letters: "nZCv DAIF EL1h"; one that is upper case is set (of DAIF: that exception is masked)."""
    conditions = "".join(
        letter.upper() if pstate >> bit & 1 else letter for letter, bit in zip("nzcv", (31, 30, 29, 28), strict=True)
    )
    masks = "".join(
        letter.upper() if pstate >> bit & 1 else letter for letter, bit in zip("daif", (9, 8, 7, 6), strict=True)
    )
    return f"{conditions} {masks} {level(pstate)}"
