"""User programs for Linux guests. All but one are put together here word by word, so that no compiler is needed: there
is none here that makes AArch32 code.

The spinning ones and `regcheck` keep known values in their registers and check them for ever; one that has changed ends
them with status 1 (`regcheck`: 1 or more).
"""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

from qemu_sdei.guestcompile import find_compiler

BASE = 0x40_0000
_START = 0x1000
"""Offset of the code in the file, and from `BASE`."""
ENTRY = BASE + _START
"""Where the code is at run time."""


def value(register: int) -> int:
    """What a program keeps in a register."""
    return 0x80 + 3 * register


A64_REGISTERS = range(1, 29)
A32_REGISTERS = range(1, 15)
A32_VECTORS = range(32)


def spin_a64() -> bytes:
    """An AArch64 ELF executable: x1..x28 hold `value`, x0 counts."""
    words = [0xD280_0000 | value(n) << 5 | n for n in A64_REGISTERS]  # movz xn, #value
    words.append(0xD280_0000)  # movz x0, #0
    top = len(words)
    fail = top + 2 * len(A64_REGISTERS) + 2
    for n in A64_REGISTERS:
        words.append(0xF100_001F | value(n) << 10 | n << 5)  # cmp xn, #value
        words.append(0x5400_0001 | (fail - len(words)) << 5)  # b.ne fail
    words.append(0x9100_0400)  # add x0, x0, #1
    words.append(0x1400_0000 | (top - len(words)) & 0x3FF_FFFF)  # b top
    words += [0xD280_0000 | 93 << 5 | 8, 0xD280_0020, 0xD400_0001]  # exit(1)
    return elf64(struct.pack(f"<{len(words)}I", *words))


def print_and_exit(text: bytes) -> bytes:
    """An AArch64 ELF executable that writes `text` to standard output and exits with status 0."""
    words = [
        0xD280_0020,  # mov x0, #1
        0x1000_0000 | (32 - 4) >> 2 << 5 | 1,  # adr x1, the text, 32 bytes from the start
        0xD280_0000 | len(text) << 5 | 2,  # mov x2, #len
        0xD280_0000 | 64 << 5 | 8,  # mov x8, #write
        0xD400_0001,  # svc #0
        0xD280_0000,  # mov x0, #0
        0xD280_0000 | 93 << 5 | 8,  # mov x8, #exit
        0xD400_0001,
    ]
    return elf64(struct.pack(f"<{len(words)}I", *words) + text)


def regcheck(target: Path) -> Path:
    """Build regcheck.S, which checks all registers that a program has, into the file `target`."""
    compiler = find_compiler()
    assert compiler is not None, "a cross compiler for AArch64 is needed"
    source = Path(__file__).with_name("regcheck.S")
    subprocess.run([compiler.path, "-static", "-nostdlib", "-no-pie", "-o", target, source], check=True, timeout=60)
    return target


def elf64(code: bytes) -> bytes:
    """An AArch64 ELF executable of this code, which runs from its first word."""
    header = struct.pack(
        "<4s5B7x2HI3QI6H", b"\x7fELF", 2, 1, 1, 0, 0, 2, 183, 1, BASE + _START, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    segment = struct.pack("<2I6Q", 1, 5, 0, BASE, BASE, _START + len(code), _START + len(code), 0x1_0000)
    return (header + segment).ljust(_START, b"\0") + code


def spin_a32() -> bytes:
    """An AArch32 ELF executable (A32 instructions): r1..r12, sp, lr hold `value`, halves of d0..d31 other numbers."""
    halves = [(half << 21 | (n & 15) << 16 | n >> 4 << 7, 0x80 + 2 * n + half) for n in A32_VECTORS for half in (0, 1)]
    words = [0xE3A0_0000 | n << 12 | value(n) for n in A32_REGISTERS]  # mov rn, #value
    for where, number in halves:
        words += [0xE3A0_0000 | number, 0xEE00_0B10 | where]  # mov r0, #number; vmov.32 dn[half], r0
    top = len(words)
    fail = top + 2 * len(A32_REGISTERS) + 3 * len(halves) + 1
    for n in A32_REGISTERS:
        words.append(0xE350_0000 | n << 16 | value(n))  # cmp rn, #value
        words.append(0x1A00_0000 | fail - len(words) - 2)  # bne fail
    for where, number in halves:
        words += [0xEE10_0B10 | where, 0xE350_0000 | number]  # vmov.32 r0, dn[half]; cmp r0, #number
        words.append(0x1A00_0000 | fail - len(words) - 2)  # bne fail
    words.append(0xEA00_0000 | (top - len(words) - 2) & 0xFF_FFFF)  # b top
    words += [0xE3A0_7001, 0xE3A0_0001, 0xEF00_0000]  # exit(1)
    code = struct.pack(f"<{len(words)}I", *words)
    header = struct.pack(
        "<4s5B7x2HI3II6H", b"\x7fELF", 1, 1, 1, 0, 0, 2, 40, 1, BASE + _START, 52, 0, 0x0500_0000, 52, 32, 1, 0, 0, 0
    )
    segment = struct.pack("<8I", 1, 0, BASE, BASE, _START + len(code), _START + len(code), 5, 0x1_0000)
    return (header + segment).ljust(_START, b"\0") + code
