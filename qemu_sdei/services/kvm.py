"""What KVM offers to its guests beside Arm's own services: the calls of the vendor's hypervisor (SMCCC owner 6).

The ids and the answers are those of Linux, Documentation/virt/kvm/arm/hypercalls.rst and ptp_kvm.rst. A stock Linux
looks for them only where it calls by HVC, so that only a guest of `--hypervisor` has them.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from enum import IntEnum
from typing import ClassVar, Final, Self

from qemu_sdei.services.platform import Platform
from qemu_sdei.smccc.ids import INVALID_PARAMETER, NOT_SUPPORTED, SUCCESS, Owner, number_of
from qemu_sdei.smccc.regs import X0, Regs
from qemu_sdei.smccc.service import FunctionRange, Handler, JournalMode, Service, Widths

UUID: Final = uuid.UUID("28b46fb6-2ec5-11e9-a9ca-4b564d003a74")
"""By which a guest knows that the calls of this owner are KVM's."""
IMPLEMENTATIONS_1_0: Final = 1 << 16
"""Version of the two calls about implementations."""
_W_MASK: Final = 0xFFFF_FFFF
_NOTHING: Final = (NOT_SUPPORTED, 0, 0, 0)


class Function(IntEnum):
    """Function ids (hypercalls.rst): the first three are SMC32, the others SMC64."""

    CALL_UID = 0x8600_FF01
    FEATURES = 0x8600_0000
    PTP = 0x8600_0001
    DISCOVER_IMPL_VER = 0xC600_0040
    DISCOVER_IMPL_CPUS = 0xC600_0041


class Counter(IntEnum):
    """Argument of PTP: which counter the guest wants the time of. Both count alike here: CNTVOFF_EL2 is 0."""

    VIRTUAL = 0
    PHYSICAL = 1


class Kvm(Service):
    """The vendor's hypervisor service, as KVM has it."""

    name = "kvm"
    ranges = (
        FunctionRange(Owner.VENDOR_HYP, 0, 1, Widths.SMC32),
        FunctionRange(Owner.VENDOR_HYP, 0x40, 0x41, Widths.SMC64),
        FunctionRange(Owner.VENDOR_HYP, 0xFF01, 0xFF01, Widths.SMC32),
    )
    journal = JournalMode.OUTCOME
    reads = frozenset(Function) - {Function.PTP}
    since_state_2 = True
    names: ClassVar[Mapping[int, str]] = {
        int(function): "VENDOR_HYP_CALL_UID" if function is Function.CALL_UID else f"VENDOR_HYP_KVM_{function.name}"
        for function in Function
    }

    @classmethod
    def of(cls, platform: Platform) -> Self | None:
        """The service of the guest on `platform`; None: it does not run as under a hypervisor."""
        return cls(platform) if platform.hypervisor else None

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def handlers(self) -> dict[int, Handler]:
        """The calls by function id."""
        return {
            Function.CALL_UID: self._call_uid,
            Function.FEATURES: self._features,
            Function.PTP: self._ptp,
            Function.DISCOVER_IMPL_VER: self._discover_version,
            Function.DISCOVER_IMPL_CPUS: self._discover_implementation,
        }

    def _call_uid(self, pe: int, regs: Regs) -> tuple[int, ...]:
        data = UUID.bytes
        return tuple(int.from_bytes(data[n : n + 4], "little") for n in range(0, 16, 4))

    def _features(self, pe: int, regs: Regs) -> tuple[int, ...]:
        """A bit for each function number that the guest finds, in four words of 32. UID and FEATURES are number 0."""
        numbers = {
            number_of(function)
            for function in Function
            if function is not Function.CALL_UID and not self._platform.registry.withheld(function)
        }
        bits = sum(1 << number for number in numbers)
        return tuple(bits >> 32 * n & _W_MASK for n in range(4))

    def _ptp(self, pe: int, regs: Regs) -> tuple[int, ...]:
        """The host's real time and the guest's counter, of the moment at which the call came."""
        if regs[X0 + 1] & _W_MASK not in (Counter.VIRTUAL, Counter.PHYSICAL):
            return _NOTHING
        time = self._platform.cross_time()
        if time is None:
            return _NOTHING
        return (
            time.wall_ns >> 32 & _W_MASK,
            time.wall_ns & _W_MASK,
            time.counter >> 32 & _W_MASK,
            time.counter & _W_MASK,
        )

    def _discover_version(self, pe: int, regs: Regs) -> tuple[int, ...]:
        """There is one implementation that the guest can meet: the one it runs on."""
        return SUCCESS, IMPLEMENTATIONS_1_0, 1, 0

    def _discover_implementation(self, pe: int, regs: Regs) -> tuple[int, ...]:
        """MIDR_EL1, REVIDR_EL1 and AIDR_EL1. The latter two are 0 in all CPU models of QEMU's that are served here."""
        if regs[X0 + 1] != 0:
            return INVALID_PARAMETER, 0, 0, 0
        return SUCCESS, self._platform.id_registers().get("MIDR_EL1", 0), 0, 0
