"""True random numbers from the firmware: TRNG 1.0 (Arm DEN0098).

Linux asks for them before anything else can give it some, so that its random number generator is ready at time 0.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import ClassVar, Final, Self

from qemu_sdei.services.platform import Platform
from qemu_sdei.smccc.ids import FUNCTION_MASK, SMC64, SUCCESS, Owner
from qemu_sdei.smccc.regs import X0, Regs
from qemu_sdei.smccc.service import FunctionRange, Handler, JournalMode, Service

VERSION_1_0: Final = 1 << 16
UUID: Final = uuid.UUID("8bb3ba55-8b9c-493c-be35-cef3a67d8c1e")
"""Of this implementation: TRNG_GET_UUID (DEN0098 2.3) tells whose entropy it is. It is not KVM's."""
_W_MASK: Final = 0xFFFF_FFFF
_WORDS: Final = 3
"""Registers that bring bits: w1 to w3, or x1 to x3."""


class Code(IntEnum):
    """Return codes (DEN0098 2.1)."""

    NOT_SUPPORTED = -1
    INVALID_PARAMETERS = -2
    NO_ENTROPY = -3


class Function(IntEnum):
    """Function ids, in their 32-bit form (DEN0098 2)."""

    VERSION = 0x8400_0050
    FEATURES = 0x8400_0051
    GET_UUID = 0x8400_0052
    RND = 0x8400_0053


RND64: Final = Function.RND | SMC64


class Trng(Service):
    """The TRNG service.

    What it gave is recorded: a call that was cut off by the backend's death gives the same bits afterwards.
    """

    name = "trng"
    ranges = (FunctionRange(Owner.STANDARD, 0x50, 0x5F),)
    journal = JournalMode.OUTCOME
    reads = frozenset((Function.VERSION, Function.FEATURES, Function.GET_UUID))
    since_state_2 = True
    names: ClassVar[Mapping[int, str]] = {int(function): f"TRNG_{function.name}" for function in Function}

    @classmethod
    def of(cls, platform: Platform) -> Self:
        """The service of the guest on `platform`."""
        return cls(platform.entropy)

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        """`entropy`: gives as many random bytes as it is asked for, or raises `OSError`: it has none now."""
        self._entropy = entropy

    def handlers(self) -> dict[int, Handler]:
        """The calls by function id. Only RND has both widths."""
        return {
            Function.VERSION: self._version,
            Function.FEATURES: self._features,
            Function.GET_UUID: self._get_uuid,
            Function.RND: self._rnd32,
            RND64: self._rnd64,
        }

    def _version(self, pe: int, regs: Regs) -> int:
        return VERSION_1_0

    def _features(self, pe: int, regs: Regs) -> int:
        return SUCCESS if regs[X0 + 1] & FUNCTION_MASK in self.handlers() else Code.NOT_SUPPORTED

    def _get_uuid(self, pe: int, regs: Regs) -> tuple[int, ...]:
        data = UUID.bytes
        return tuple(int.from_bytes(data[n : n + 4], "little") for n in range(0, 16, 4))

    def _rnd32(self, pe: int, regs: Regs) -> tuple[int, ...]:
        return self._random(regs[X0 + 1] & _W_MASK, 32)

    def _rnd64(self, pe: int, regs: Regs) -> tuple[int, ...]:
        return self._random(regs[X0 + 1], 64)

    def _random(self, bits: int, width: int) -> tuple[int, ...]:
        """`bits` random bits in three registers of `width`, the last of them filled first; all others zero (2.4)."""
        if not 0 < bits <= _WORDS * width:
            return Code.INVALID_PARAMETERS, 0, 0, 0
        try:
            value = int.from_bytes(self._entropy((bits + 7) // 8), "little") & (1 << bits) - 1
        except OSError:
            return Code.NO_ENTROPY, 0, 0, 0
        mask = (1 << width) - 1
        return (SUCCESS, *(value >> width * n & mask for n in reversed(range(_WORDS))))
