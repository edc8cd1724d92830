"""Paravirtualized time: how long the host kept each CPU waiting (Arm DEN0057A).

This is the interface alone: which CPUs have asked, and how much it is by now. Who measures it, and writes it into the
record that the guest reads, is the owner (`qemu_sdei.backend.loop.stolen_time`).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, ClassVar, Final, Self

from qemu_sdei.errors import ProtocolError
from qemu_sdei.services.platform import Platform
from qemu_sdei.smccc.ids import FUNCTION_MASK, NOT_SUPPORTED, SUCCESS, Owner
from qemu_sdei.smccc.regs import X0, Regs
from qemu_sdei.smccc.service import FunctionRange, Handler, JournalMode, Service, Widths

STRIDE: Final = 64
"""Bytes from one record to the next: they are aligned to 64 bytes (DEN0057 3.2.2)."""
_WORD: Final = (1 << 64) - 1


class Function(IntEnum):
    """Function ids (DEN0057 3.1, 3.2): SMC64 only."""

    FEATURES = 0xC500_0020
    ST = 0xC500_0021


class PvTime(Service):
    """The PV time service.

    Attributes:
        stolen: nanoseconds of each CPU that were stolen since the machine's reset; None: it has not asked yet. What is
            added while nobody has asked for it is lost.
    """

    name = "pv-time"
    ranges = (FunctionRange(Owner.STANDARD_HYP, 0x20, 0x21, Widths.SMC64),)
    journal = JournalMode.INPUT
    reads = frozenset((Function.FEATURES,))
    since_state_2 = True
    names: ClassVar[Mapping[int, str]] = {int(function): f"PV_TIME_{function.name}" for function in Function}

    @classmethod
    def of(cls, platform: Platform) -> Self | None:
        """The service of the guest on `platform`; None: there is no memory for records."""
        if platform.stolen_time is None:
            return None
        return cls(platform.stolen_time, len(platform.affinities))

    def __init__(self, records: int, nr_cpus: int) -> None:
        """`records`: physical address of the first CPU's record."""
        self._records = records
        self.stolen: list[int | None] = [None] * nr_cpus

    def handlers(self) -> dict[int, Handler]:
        """The calls by function id."""
        return {Function.FEATURES: self._features, Function.ST: self._st}

    def arch_features(self, function: int) -> int | None:
        """SMCCC_ARCH_FEATURES(PV_TIME_FEATURES) says that the service is there (DEN0057 3.1)."""
        return SUCCESS if function == Function.FEATURES else None

    def _features(self, pe: int, regs: Regs) -> int:
        return SUCCESS if regs[X0 + 1] & FUNCTION_MASK in (Function.FEATURES, Function.ST) else NOT_SUPPORTED

    def _st(self, pe: int, regs: Regs) -> int:
        """The address of the caller's record. One that asks again goes on from where it was: time only grows."""
        if self.stolen[pe] is None:
            self.stolen[pe] = 0
        return self._records + STRIDE * pe

    def add(self, pe: int, ns: int) -> int | None:
        """A CPU was kept waiting for `ns` more. Returns how much it is now; None: it has not asked."""
        total = self.stolen[pe]
        if total is not None:
            self.stolen[pe] = total = total + ns & _WORD
        return total

    def reset(self) -> None:
        """The machine was reset: nobody has asked."""
        self.stolen = [None] * len(self.stolen)

    def snapshot(self) -> list[int | None]:
        """What `stolen` is."""
        return list(self.stolen)

    def restore(self, state: Any) -> None:
        """Take what `snapshot` gave."""
        if not isinstance(state, list) or len(state) != len(self.stolen):
            raise ProtocolError("pv-time: not a number for each CPU")
        if not all(total is None or (type(total) is int and 0 <= total <= _WORD) for total in state):
            raise ProtocolError("pv-time: a time that has not 64 bits")
        self.stolen = list(state)
