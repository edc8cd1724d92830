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
