"""A GICv3 behind the micro-operations, as far as the firmware touches it: group, enable, priority, pending, active."""

from __future__ import annotations

from qemu_sdei.monitor.layout import Op, SysReg, Word
from tests.backend.simulated import read_registers

GICD = 0x0800_0000
GICR_SGI = 0x080B_0000
STRIDE = 0x2_0000
DOORBELL = 40
SPIS = 256


class Line:
    """One interrupt; as the guest sets it up before it binds it."""

    def __init__(self, priority: int, enabled: bool) -> None:
        self.group0 = False
        self.enabled = enabled
        self.priority = priority
        self.pending = False
        self.active = False

    def state(self) -> tuple[bool, bool, int]:
        """What must be the same after it has been given back."""
        return self.group0, self.enabled, self.priority


class SimulatedGic:
    """All interrupts of a machine; PPIs by (INTID, PE), SPIs by (INTID, -1)."""

    def __init__(self, nr_cpus: int) -> None:
        self.lines = {(intid, pe): Line(0xD0, True) for intid in range(16, 32) for pe in range(nr_cpus)}
        self.lines |= {(intid, -1): Line(0xA0 + intid % 8, intid % 2 == 0) for intid in range(32, 32 + SPIS)}
        self.lines[DOORBELL, -1].group0 = True

    def set_up(self, pe: int) -> None:
        """The guest does it, when the CPU has come up."""
        for intid in range(16, 32):
            line = self.lines[intid, pe]
            line.priority, line.enabled = 0xD0, True

    def states(self) -> dict[tuple[int, int], tuple[bool, bool, int]]:
        """Of all lines."""
        return {claim: line.state() for claim, line in self.lines.items()}

    def take(self, intid: int, pe: int) -> bool:
        """The line is asserted: does the firmware, on `pe`, get to acknowledge it?"""
        line = self.lines[intid, pe if intid < 32 else -1]
        line.pending = True
        if not (line.group0 and line.enabled and not line.active):
            return False
        line.pending = False
        line.active = True
        return True

    def execute(self, frame: memoryview, pe: int) -> None:
        """Do the operations of an answer as the monitor would."""
        read_registers(frame, pe)
        for n in range(frame[Word.FLAGS] >> 8 & 0xFF):
            at = Word.OPS + 3 * n
            code, argument, value = frame[at], frame[at + 1], frame[at + 2]
            if code & 0xFF == Op.WRITE_SYSREG and argument == SysReg.ICC_EOIR0_EL1:
                self.lines[value, pe if value < 32 else -1].active = False
            elif code & 0xFF in (Op.READ_PHYS, Op.WRITE_PHYS):
                frame[at + 2] = self._access(argument, value, code >> 8 & 0xFF, code & 0xFF == Op.WRITE_PHYS)

    def _access(self, address: int, value: int, size: int, write: bool) -> int:
        if address < GICR_SGI:
            owner, offset = -1, address - GICD
        else:
            owner, offset = divmod(address - GICR_SGI, STRIDE)
        if offset == 0xC04:
            return 0  # level or edge: nobody asks
        if 0x400 <= offset < 0x800:
            if size == 4:  # of SGIs there is nothing to see
                for intid in range(max(offset - 0x400, 16), offset - 0x400 + 4):
                    self.lines[intid, owner].priority = value
                return 0
            line = self.lines[offset - 0x400, owner]
            if write:
                line.priority = value & 0xFF
            return line.priority
        first = offset % 0x80 // 4 * 32
        found = 0
        for intid in range(max(first, 16), first + 32):
            line = self.lines[intid, owner]
            bit = 1 << intid % 32
            found |= self._bit(line, offset & ~0x7F, bool(value & bit), write) * bit
        return found

    @staticmethod
    def _bit(line: Line, register: int, bit: bool, write: bool) -> bool:
        if register == 0x80:
            line.group0 = not bit if write else line.group0
            return not line.group0
        if register == 0x300:
            assert not write
            return line.active
        if register == 0x380:
            line.active = line.active and not (write and bit)
            return line.active
        assert register in (0x100, 0x180, 0x280), f"GIC register {register:#x}"
        if register == 0x280:
            line.pending = line.pending and not (write and bit)
            return line.pending
        if write and bit:
            line.enabled = register == 0x100
        return line.enabled
