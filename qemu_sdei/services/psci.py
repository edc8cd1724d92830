"""PSCI 1.1 (Arm DEN0022): power states of CPUs and of the system.

The service decides; what it decides is carried out through `PowerControl` (platform.py), which the firmware
implements: parking a CPU, letting one go, the secure GPIO that powers QEMU's machine off.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from enum import IntEnum
from typing import Any, ClassVar, Final, Self

from qemu_sdei.errors import ProtocolError
from qemu_sdei.sdei.context import X0
from qemu_sdei.services.platform import Platform, PowerControl
from qemu_sdei.smccc.ids import Owner
from qemu_sdei.smccc.service import FunctionRange, Handler, JournalMode, Lasting, Service

_M32: Final = 0xFFFF_FFFF
_SMC64: Final = 0x4000_0000
_AFFINITY_MASK: Final = 0xFF_00FF_FFFF
"""Aff3 to Aff0 of a target; all other bits are reserved (5.1.4). 32-bit calls have no Aff3."""
VERSION_1_1: Final = 0x1_0001


class Code(IntEnum):
    """Return codes (DEN0022 5.2.2)."""

    SUCCESS = 0
    NOT_SUPPORTED = -1
    INVALID_PARAMETERS = -2
    DENIED = -3
    ALREADY_ON = -4
    ON_PENDING = -5
    INTERNAL_FAILURE = -6
    NOT_PRESENT = -7
    DISABLED = -8
    INVALID_ADDRESS = -9


class Power(IntEnum):
    """Power state of a CPU, with the values of AFFINITY_INFO (DEN0022 5.1.8)."""

    ON = 0
    OFF = 1
    ON_PENDING = 2


class Function(IntEnum):
    """Function ids, in their 32-bit form (DEN0022 5.1)."""

    PSCI_VERSION = 0x8400_0000
    CPU_SUSPEND = 0x8400_0001
    CPU_OFF = 0x8400_0002
    CPU_ON = 0x8400_0003
    AFFINITY_INFO = 0x8400_0004
    MIGRATE_INFO_TYPE = 0x8400_0006
    SYSTEM_OFF = 0x8400_0008
    SYSTEM_RESET = 0x8400_0009
    PSCI_FEATURES = 0x8400_000A
    SYSTEM_SUSPEND = 0x8400_000E
    SYSTEM_RESET2 = 0x8400_0012


_BOTH_WIDTHS: Final = (
    *(Function.CPU_SUSPEND, Function.CPU_ON, Function.AFFINITY_INFO),
    *(Function.SYSTEM_SUSPEND, Function.SYSTEM_RESET2),
)
_POWER_DOWN: Final = 1 << 16
"""StateType of power_state in the original format (5.4.2)."""
_STATE_FIELDS: Final = 0x0301_FFFF
"""StateID, StateType, PowerLevel; all else is reserved."""
_LEVELS: Final = 3
"""Power levels: CPU, cluster, system."""
_NO_TRUSTED_OS: Final = 2
"""Of MIGRATE_INFO_TYPE (5.1.10): none that would need migrating."""
SMCCC_VERSION_ID: Final = 0x8000_0000


def _after(steps: Generator[Any, Any, None], result: int) -> Generator[object, Any, tuple[int, ...]]:
    yield from steps
    return (result,)


class Psci(Service):
    """The PSCI service.

    Attributes:
        power: state of each CPU.
        entry: for a CPU in ON_PENDING, its (entry point, context id).
    """

    name = "psci"
    ranges = (FunctionRange(Owner.STANDARD, 0x00, 0x1F),)
    journal = JournalMode.INPUT
    reads = frozenset(
        (
            *(Function.PSCI_VERSION, Function.PSCI_FEATURES),
            *(Function.AFFINITY_INFO, Function.AFFINITY_INFO | _SMC64),
        )
    )
    lasts = frozenset((Function.PSCI_VERSION, Function.PSCI_FEATURES))
    names: ClassVar[Mapping[int, str]] = {int(function): function.name for function in Function}

    @classmethod
    def of(cls, platform: Platform) -> Self:
        """The service of the guest on `platform`."""
        return cls(platform.affinities, platform.power, platform.registry.implemented, platform.ram)

    def __init__(
        self,
        affinities: Sequence[int],
        control: PowerControl,
        implemented: Callable[[int], bool],
        ram: range | None = None,
    ) -> None:
        """`affinities`: of each CPU, in MPIDR form; `ram`: physical addresses that a CPU may start at, None: any."""
        self._ram = ram
        self._index = {affinity: pe for pe, affinity in enumerate(affinities)}
        self._control = control
        self._implemented = implemented
        self.power = [Power.OFF] * len(affinities)
        self.entry: list[tuple[int, int] | None] = [None] * len(affinities)

    def reset(self) -> None:
        """System reset: CPU 0 is on, all others off."""
        self.power[:] = [Power.OFF] * len(self.power)
        self.power[0] = Power.ON
        self.entry[:] = [None] * len(self.power)

    def handlers(self) -> dict[int, Handler]:
        """The calls by function id, both widths where both exist."""
        table: dict[int, Handler] = {
            Function.PSCI_VERSION: self._version,
            Function.CPU_SUSPEND: self._cpu_suspend,
            Function.CPU_OFF: self._cpu_off,
            Function.CPU_ON: self._cpu_on,
            Function.AFFINITY_INFO: self._affinity_info,
            Function.MIGRATE_INFO_TYPE: self._migrate_info_type,
            Function.SYSTEM_OFF: self._system_off,
            Function.SYSTEM_RESET: self._system_reset,
            Function.PSCI_FEATURES: self._features,
            Function.SYSTEM_SUSPEND: self._system_suspend,
            Function.SYSTEM_RESET2: self._system_reset2,
        }
        for function in _BOTH_WIDTHS:
            table[function | _SMC64] = table[function]
        return table

    def lasting(self, function: int, pe: int, regs: memoryview) -> Lasting | None:
        """Always, until services are withheld or are not any more."""
        return Lasting(0 if function == Function.PSCI_VERSION else 1)

    def _argument(self, regs: memoryview, n: int) -> int:
        value: int = regs[X0 + n]
        return value if regs[X0] & _SMC64 else value & _M32

    def _pe(self, affinity: int, wide: bool) -> int | None:
        """PE of a target affinity. Reserved bits must be zero (DEN0022 5.1.4): MPIDR_EL1 as it is names no CPU, because
        its bit 31 is one.
        """
        reserved = ~_AFFINITY_MASK if wide else ~(_AFFINITY_MASK & _M32)
        return None if affinity & reserved else self._index.get(affinity)

    def _executable(self, entry: int) -> bool:
        """Can a CPU whose MMU is off start there? Aligned, and RAM of the guest's (INVALID_ADDRESS otherwise: 5.1.2,
        5.1.4, 5.1.19).
        """
        return not entry & 3 and (self._ram is None or entry in self._ram)

    def _version(self, pe: int, regs: memoryview) -> int:
        return VERSION_1_1

    def _cpu_suspend(self, pe: int, regs: memoryview) -> int | None:
        """5.1.2, power_state in the original format. Every StateID is taken: nothing here is deeper than anything else.

        Returns None for a power-down: the CPU comes up at its entry point, as after CPU_ON. Refused in an SDEI handler
        (DEN0054 6.5.4), which must not be left this way.
        """
        state = regs[X0 + 1] & _M32
        if state & ~_STATE_FIELDS or state >> 24 >= _LEVELS:
            return Code.INVALID_PARAMETERS
        if not state & _POWER_DOWN:
            if self._control.in_handler(pe):
                return Code.DENIED
            self._control.standby(pe)
            return Code.SUCCESS
        return self._suspend(pe, regs, 2)

    def _suspend(self, pe: int, regs: memoryview, first: int) -> int | None:
        """Power the calling CPU down. Argument `first`: where it comes up; the next: its context id."""
        entry = self._argument(regs, first)
        if not self._executable(entry):
            return Code.INVALID_ADDRESS
        if self._control.in_handler(pe):
            return Code.DENIED
        self._control.suspend(pe, entry, self._argument(regs, first + 1))
        return None

    def _system_suspend(self, pe: int, regs: memoryview) -> int | None:
        """5.1.19: CPU_SUSPEND to the deepest state, for the last CPU that is on."""
        if any(power is not Power.OFF for other, power in enumerate(self.power) if other != pe):
            return Code.DENIED
        return self._suspend(pe, regs, 1)

    def _cpu_off(self, pe: int, regs: memoryview) -> None:
        self.power[pe] = Power.OFF
        self.entry[pe] = None
        self._control.stop_cpu(pe)

    def _cpu_on(self, pe: int, regs: memoryview) -> int:
        target = self._pe(self._argument(regs, 1), bool(regs[X0] & _SMC64))
        if target is None:
            return Code.INVALID_PARAMETERS
        state = self.power[target]
        if state is Power.ON:
            return Code.ALREADY_ON
        if state is Power.ON_PENDING:
            return Code.ON_PENDING
        entry = self._argument(regs, 2)
        if not self._executable(entry):
            return Code.INVALID_ADDRESS
        self.power[target] = Power.ON_PENDING
        self.entry[target] = (entry, self._argument(regs, 3))
        self._control.start_cpu(target)
        return Code.SUCCESS

    def started(self, pe: int) -> tuple[int, int] | None:
        """The CPU stands in the monitor: where it is to go on (entry point, context id), or None when nobody asked
        for it.
        """
        entry = self.entry[pe]
        if self.power[pe] is not Power.ON_PENDING or entry is None:
            return None
        self.power[pe] = Power.ON
        self.entry[pe] = None
        return entry

    def _affinity_info(self, pe: int, regs: memoryview) -> int:
        """5.1.8. Only affinity level 0 is known (PSCI 1.0 allows that)."""
        if self._argument(regs, 2) != 0:
            return Code.INVALID_PARAMETERS
        target = self._pe(self._argument(regs, 1), bool(regs[X0] & _SMC64))
        return Code.INVALID_PARAMETERS if target is None else self.power[target]

    def _migrate_info_type(self, pe: int, regs: memoryview) -> int | Generator[object, Any, tuple[int, ...]]:
        # Linux asks this once, as it boots (psci_init_migrate), and so shows a kernel that another kernel has started.
        steps = self._control.kernel_begins(pe)
        return _NO_TRUSTED_OS if steps is None else _after(steps, _NO_TRUSTED_OS)

    def _system_off(self, pe: int, regs: memoryview) -> None:
        self._control.system_off()

    def _system_reset(self, pe: int, regs: memoryview) -> None:
        self._control.system_reset()

    def _system_reset2(self, pe: int, regs: memoryview) -> int | None:
        """5.1.14. Only SYSTEM_WARM_RESET; vendor resets (bit 31) are not defined here."""
        if regs[X0 + 1] & _M32 != 0:
            return Code.INVALID_PARAMETERS
        self._control.system_reset()
        return None

    def _features(self, pe: int, regs: memoryview) -> int:
        """5.1.15. Flags exist for CPU_SUSPEND only, and are 0: the original format (bit 1), no OS-initiated mode (bit
        0).
        """
        function = regs[X0 + 1] & _M32
        if function == SMCCC_VERSION_ID or self._implemented(function):
            return Code.SUCCESS
        return Code.NOT_SUPPORTED

    def snapshot(self) -> dict[str, Any]:
        """State for the journal and for migration."""
        return {"power": [int(p) for p in self.power], "entry": [list(e) if e else None for e in self.entry]}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a state.

        Raises:
            ProtocolError: it is damaged, or of a guest with another number of CPUs.
        """
        try:
            power = [Power(p) for p in state["power"]]
            entry = [(int(e[0]), int(e[1])) if e else None for e in state["entry"]]
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ProtocolError(f"psci state: {error!r}") from None
        if len(power) != len(self.power) or len(entry) != len(power):
            raise ProtocolError(f"psci state of {len(power)} CPUs; the guest has {len(self.power)}")
        self.power[:], self.entry[:] = power, entry
