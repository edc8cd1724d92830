"""Micro-operations: what only EL3 can do, asked for in a frame's answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from qemu_sdei.monitor.layout import (
    MAX_OPS,
    OP_ABORTED,
    OP_WORDS,
    OPS_SHIFT,
    READ_ONLY,
    SYSREG_NUMBERS,
    Op,
    SysReg,
    Word,
)

_OF_SYSREGS: Final = frozenset((Op.READ_SYSREG, Op.WRITE_SYSREG, Op.CLEAR_SYSREGS))


@dataclass(frozen=True, slots=True)
class MicroOp:
    """One micro-operation, as it stands in the frame.

    Attributes:
        code: an `Op`; bits 15:8 are the access size in bytes for physical accesses, else a mark (see `marked`).
        argument: physical address, `SysReg`, or SGI register value.
        value: what to write.
    """

    code: int
    argument: int
    value: int = 0


@dataclass(frozen=True, slots=True)
class OpResult:
    """What came back: the value read (or written), and whether the access took an external abort."""

    value: int
    aborted: bool


def read_phys(address: int, size: int = 8) -> MicroOp:
    """Read `size` (1, 2, 4, 8) bytes at a physical address of the secure world."""
    return MicroOp(Op.READ_PHYS | _size(size) << 8, address)


def write_phys(address: int, value: int, size: int = 8) -> MicroOp:
    """Write `size` (1, 2, 4, 8) bytes at a physical address of the secure world."""
    return MicroOp(Op.WRITE_PHYS | _size(size) << 8, address, value)


def read_sysreg(register: SysReg) -> MicroOp:
    """Read a system register of the CPU that is in the exchange."""
    return MicroOp(Op.READ_SYSREG, register)


def write_sysreg(register: SysReg, value: int) -> MicroOp:
    """Write a system register of the CPU that is in the exchange."""
    return MicroOp(Op.WRITE_SYSREG, register, value)


def clear_sysregs(first: int, mask: int) -> MicroOp:
    """Write 0 to the system registers with the numbers first + n, for each bit n of `mask`."""
    return MicroOp(Op.CLEAR_SYSREGS, first, mask)


def marked(op: MicroOp, mark: int) -> MicroOp:
    """An operation on system registers with this mark of its maker's (1..255), and no other: the monitor ignores it and
    brings it back.
    """
    return replace(op, code=op.code & 0xFF | mark << 8)


def mark_of(frame: memoryview | list[int]) -> int:
    """The mark of a frame's first micro-operation, or 0."""
    code: int = frame[Word.OPS]
    return code >> 8 & 0xFF if code & 0xFF in _OF_SYSREGS else 0


def _size(size: int) -> int:
    if size not in (1, 2, 4, 8):
        raise ValueError(f"access size {size} is not 1, 2, 4 or 8")
    return size


def encode(frame: memoryview, ops: Sequence[MicroOp]) -> int:
    """Put `ops` into a frame. Returns the bits that FLAGS needs for them.

    Raises:
        ValueError: more than `MAX_OPS`, or one that the monitor would refuse. The frame is as it was then.
    """
    if len(ops) > MAX_OPS:
        raise ValueError(f"{len(ops)} micro-operations; {MAX_OPS} fit into a frame")
    for op in ops:
        check(op)
    at = int(Word.OPS)
    for op in ops:
        frame[at] = op.code
        frame[at + 1] = op.argument
        frame[at + 2] = op.value & 0xFFFF_FFFF_FFFF_FFFF
        at += OP_WORDS
    return len(ops) << OPS_SHIFT


def check(op: MicroOp) -> None:
    """Raise ValueError for what the monitor cannot carry out: it would have to give up the CPU."""
    code, size = op.code & 0xFF, op.code >> 8
    if not 0 <= op.argument < 1 << 64:
        raise ValueError(f"micro-operation {op}: the argument does not fit in 64 bits")
    if code in (Op.READ_PHYS, Op.WRITE_PHYS):
        if op.argument % _size(size):
            raise ValueError(f"access of {size} bytes at {op.argument:#x} is not aligned")
    elif code in (Op.READ_SYSREG, Op.WRITE_SYSREG):
        register = SysReg(op.argument)
        if code == Op.WRITE_SYSREG and register in READ_ONLY:
            raise ValueError(f"{register.name} can only be read")
    elif code == Op.CLEAR_SYSREGS:
        unknown = {op.argument + n for n in range(64) if op.value >> n & 1} - (SYSREG_NUMBERS - READ_ONLY)
        if unknown:
            raise ValueError(f"no system registers that can be written are {sorted(unknown)}")
    elif code != Op.SGI:
        raise ValueError(f"there is no micro-operation {op.code:#x}")


def decode(frame: memoryview, count: int) -> list[OpResult]:
    """Results of the first `count` micro-operations of a frame of kind OPS."""
    start = int(Word.OPS)
    return [
        OpResult(frame[at + 2], bool(frame[at] & OP_ABORTED)) for at in range(start, start + count * OP_WORDS, OP_WORDS)
    ]
