"""The Arm architecture service (owner 0): what the calling convention says about itself (DEN0028, 7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final, Protocol, Self

from qemu_sdei.smccc.ids import NOT_SUPPORTED, SUCCESS, Owner, owner_of
from qemu_sdei.smccc.registry import Registry
from qemu_sdei.smccc.regs import X0, Regs
from qemu_sdei.smccc.service import FunctionRange, Handler, JournalMode, Lasting, Service, Widths

SMCCC_VERSION: Final = 0x8000_0000
SMCCC_ARCH_FEATURES: Final = 0x8000_0001
SMCCC_ARCH_SOC_ID: Final = 0x8000_0002
SMCCC_ARCH_WORKAROUND_1: Final = 0x8000_8000
SMCCC_ARCH_WORKAROUND_2: Final = 0x8000_7FFF
SMCCC_ARCH_WORKAROUND_3: Final = 0x8000_3FFF

VERSION_1_2: Final = 1 << 16 | 2


class HasRegistry(Protocol):
    """What the service asks of the firmware."""

    @property
    def registry(self) -> Registry:
        """The services of the guest."""


class ArchService(Service):
    """SMCCC_VERSION and SMCCC_ARCH_FEATURES.

    Not there, and so NOT_SUPPORTED: SOC_ID, because the machine models no SoC with a JEP-106 code; the WORKAROUND
    calls, because there is nothing that they could do for QEMU's CPUs, which do not speculate. ARCH_FEATURES denies
    them as well and does not answer 1 ("this PE needs none"): that would vouch for the host's CPU. The kernel then goes
    by the ID registers.
    """

    name: ClassVar[str] = "smccc"
    ranges: ClassVar[tuple[FunctionRange, ...]] = (FunctionRange(Owner.ARCH, 0, 0xFFFF, Widths.BOTH),)
    journal: ClassVar[JournalMode] = JournalMode.NONE

    lasts: ClassVar[frozenset[int]] = frozenset((SMCCC_VERSION, SMCCC_ARCH_FEATURES))

    names: ClassVar[Mapping[int, str]] = {
        SMCCC_VERSION: "SMCCC_VERSION",
        SMCCC_ARCH_FEATURES: "SMCCC_ARCH_FEATURES",
    }

    @classmethod
    def of(cls, platform: HasRegistry) -> Self:
        """The service of the guest on `platform`."""
        return cls(platform.registry)

    def __init__(self, registry: Registry, version: int = VERSION_1_2) -> None:
        """`version`: major in 31:16, minor in 15:0."""
        self._registry = registry
        self._version = version

    def handlers(self) -> dict[int, Handler]:
        """The two functions."""
        return {SMCCC_VERSION: self._do_version, SMCCC_ARCH_FEATURES: self._do_arch_features}

    def lasting(self, function: int, pe: int, regs: Regs) -> Lasting | None:
        """Always, until services are withheld or are not any more."""
        return Lasting(0 if function == SMCCC_VERSION else 1)

    def _do_version(self, pe: int, regs: Regs) -> int:
        return self._version

    def _do_arch_features(self, pe: int, regs: Regs) -> int:
        function = regs[X0 + 1] & 0xFFFF_FFFF
        if owner_of(function) == Owner.ARCH:
            return SUCCESS if function in self._registry.table else NOT_SUPPORTED
        if self._registry.withheld(function):
            return NOT_SUPPORTED
        service = self._registry.service_of(function)
        answer = None if service is None else service.arch_features(function)
        return NOT_SUPPORTED if answer is None else answer
