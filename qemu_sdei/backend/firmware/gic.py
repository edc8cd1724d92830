"""Interrupts that SDEI owns: while a bound event is registered its interrupt is secure Group 0, before and after it
is the guest's (DEN0054 5.1.14, 5.1.15).

Pure: makes micro-operations and remembers what must be given back. The GIC's secure registers are reached through
them by whichever CPU is in an exchange; the guest (Non-secure) cannot touch an interrupt while it is secure.

An owned interrupt is enabled at the GIC exactly while its event is registered and neither pending nor running: the
first one that arrives is the trigger, and it stays quiet until the handler has completed. A level source that is
still asserted then fires again, as DEN0054 says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from qemu_sdei.errors import ProtocolError
from qemu_sdei.monitor.image import REDISTRIBUTOR_REGION_2
from qemu_sdei.monitor.layout import SysReg
from qemu_sdei.monitor.ops import MicroOp, OpResult, read_phys, write_phys, write_sysreg

GICD: Final = 0x0800_0000
GICR: Final = 0x080A_0000
_GICR_STRIDE: Final = 0x2_0000
_GICR_FIRST_REGION: Final = 123
_IGROUPR: Final = 0x80
_ISENABLER: Final = 0x100
_ICENABLER: Final = 0x180
_ICPENDR: Final = 0x280
_ISACTIVER: Final = 0x300
_ICACTIVER: Final = 0x380
_IPRIORITYR: Final = 0x400
_ICFGR1: Final = 0xC04
UART_INTID: Final = 40
"""The doorbell's: never the guest's."""
LAST_SPI: Final = 287
"""Of QEMU's `virt`."""
LOOKED: Final = 3
"""How many results `GicOwner.take` wants."""
_PRIORITY: Final = 0x40
"""Below the doorbell and kicks (0), above everything Non-secure (0x80 and up)."""
_LOWEST: Final = 0xFF
_FIRST_SPI: Final = 32
GUESTS: Final = 0xFFFF_00FF
"""Of SGIs and PPIs: SGIs 8-15 are the monitor's."""

Claim = tuple[int, int]
"""INTID, and PE for a PPI or -1 for an SPI."""
FIELDS: Final = 5


class GicOwner:
    """Which interrupts are ours, and how they were before."""

    def __init__(self) -> None:
        self._saved: dict[Claim, tuple[int, bool]] = {}
        """Priority, and whether the guest had it enabled."""
        self._quiet: set[Claim] = set()
        """Those that have fired and not been enabled again."""

    def reset(self) -> None:
        """The GIC was reset with the machine."""
        self._saved.clear()
        self._quiet.clear()

    def owned_by(self, pe: int) -> list[Claim]:
        """The PPIs of a PE that are ours."""
        return [claim for claim in self._saved if claim[1] == pe]

    def owns(self, intid: int, pe: int) -> bool:
        """Is this interrupt, taken on `pe`, ours?"""
        return _claim(intid, pe) in self._saved

    def look(self, intid: int, pe: int) -> list[MicroOp]:
        """First half of taking over: what `take` wants to know."""
        base = _base(intid, pe)
        word = intid // 32 * 4
        return [
            read_phys(base + _ISENABLER + word, 4),
            read_phys(base + _IPRIORITYR + intid, 1),
            read_phys(base + _ISACTIVER + word, 4),
        ]

    def active(self, intid: int, found: Sequence[OpResult]) -> bool:
        """The guest is in the middle of handling it: it cannot be taken over now."""
        return bool(found[2].value >> intid % 32 & 1)

    def take(self, intid: int, pe: int, found: Sequence[OpResult]) -> list[MicroOp]:
        """Second half: remember, make it Group 0, drop what was pending (5.1.2), enable it."""
        enabled, priority, _ = found
        self._saved[_claim(intid, pe)] = (priority.value & 0xFF, bool(enabled.value >> intid % 32 & 1))
        base = _base(intid, pe)
        word, bit = intid // 32 * 4, 1 << intid % 32
        return [
            write_phys(base + _ICENABLER + word, bit, 4),
            write_phys(base + _IGROUPR + word, self._groups(intid, pe), 4),
            write_phys(base + _IPRIORITYR + intid, _PRIORITY, 1),
            write_phys(base + _ICPENDR + word, bit, 4),
            write_phys(base + _ISENABLER + word, bit, 4),
        ]

    def give_back(self, intid: int, pe: int) -> list[MicroOp]:
        """The event is not registered any more: the guest gets the interrupt as it was."""
        self._quiet.discard(_claim(intid, pe))
        saved = self._saved.pop(_claim(intid, pe), None)
        if saved is None:
            return []
        priority, enabled = saved
        base = _base(intid, pe)
        word, bit = intid // 32 * 4, 1 << intid % 32
        ops = [
            write_phys(base + _ICENABLER + word, bit, 4),
            write_phys(base + _IGROUPR + word, self._groups(intid, pe), 4),
            write_phys(base + _IPRIORITYR + intid, priority, 1),
        ]
        if enabled:
            ops.append(write_phys(base + _ISENABLER + word, bit, 4))
        return ops

    def spoil(self, intid: int, pe: int) -> None:
        """It is to be given back disabled, with the lowest priority. Nothing if it is not ours."""
        claim = _claim(intid, pe)
        if claim in self._saved:
            self._saved[claim] = _LOWEST, False

    def lose(self, pe: int) -> None:
        """The redistributor of a PE was reset: its PPIs are the guest's, and off."""
        for claim in self.owned_by(pe):
            del self._saved[claim]
            self._quiet.discard(claim)

    def quiet(self, intid: int, pe: int) -> list[MicroOp]:
        """It fired: no more of it until its handler has completed."""
        self._quiet.add(_claim(intid, pe))
        return [
            write_phys(_base(intid, pe) + _ICENABLER + intid // 32 * 4, 1 << intid % 32, 4),
            write_sysreg(SysReg.ICC_EOIR0_EL1, intid),
        ]

    def listen(self, intid: int, pe: int) -> list[MicroOp]:
        """It may fire again: its handler has completed. Nothing if it is not ours, or did not fire."""
        claim = _claim(intid, pe)
        if claim not in self._quiet or claim not in self._saved:
            return []
        self._quiet.discard(claim)
        return [write_phys(_base(intid, pe) + _ISENABLER + intid // 32 * 4, 1 << intid % 32, 4)]

    def _groups(self, intid: int, pe: int) -> int:
        """IGROUPR word of `intid`. Nobody but us writes it, so it is known: ours are 0, the guest's are 1."""
        first = intid // 32 * 32
        if first == 0:
            word = GUESTS
            owned = [i for i, p in self._saved if p == pe]
        else:
            word = 0xFFFF_FFFF
            owned = [i for i, p in self._saved if p == -1 and first <= i < first + 32]
            if first <= UART_INTID < first + 32:
                owned.append(UART_INTID)
        for i in owned:
            word &= ~(1 << i % 32)
        return word

    def snapshot(self) -> list[list[int]]:
        """What is owned: [INTID, PE or -1, priority, enabled, quiet]."""
        return [
            [*claim, priority, int(enabled), int(claim in self._quiet)]
            for claim, (priority, enabled) in sorted(self._saved.items())
        ]

    def restore(self, state: Any, nr_cpus: int) -> None:
        """Take over a state.

        Raises:
            ProtocolError: it is damaged.
        """
        self.reset()
        for entry in state if isinstance(state, list) else [None]:
            if not isinstance(entry, list) or [type(n) for n in entry] != [int] * FIELDS:
                raise ProtocolError("gic state: an interrupt is five numbers")
            intid, pe, priority, enabled, quiet = entry
            if not (16 <= intid <= 1019 and (pe >= 0) is (intid < _FIRST_SPI) and 0 <= priority <= 0xFF):
                raise ProtocolError("gic state: no interrupt that can be owned")
            if not (-1 <= pe < nr_cpus and 0 <= enabled <= 1 and 0 <= quiet <= 1):
                raise ProtocolError("gic state: of a CPU that is not there, or neither on nor off")
            self._saved[intid, pe] = priority, bool(enabled)
            if quiet:
                self._quiet.add((intid, pe))


def redistributor_reset(pe: int) -> list[MicroOp]:
    """SGIs and PPIs of a PE as after a reset, and the guest's; but for the monitor's own SGIs, and LPIs."""
    base = _base(0, pe)
    return [
        *(write_phys(base + register, GUESTS, 4) for register in (_ICENABLER, _IGROUPR, _ICPENDR, _ICACTIVER)),
        write_phys(base + _ICFGR1, 0, 4),
        *(write_phys(base + _IPRIORITYR + intid, 0, 4) for intid in (0, 4, 16, 20, 24, 28)),
    ]


def _claim(intid: int, pe: int) -> Claim:
    return intid, pe if intid < _FIRST_SPI else -1


def _base(intid: int, pe: int) -> int:
    """Address of the distributor, or of the SGI/PPI frame of the redistributor of `pe`."""
    if intid >= _FIRST_SPI:
        return GICD
    if pe < _GICR_FIRST_REGION:
        return GICR + pe * _GICR_STRIDE + 0x1_0000
    return REDISTRIBUTOR_REGION_2 + (pe - _GICR_FIRST_REGION) * _GICR_STRIDE + 0x1_0000
