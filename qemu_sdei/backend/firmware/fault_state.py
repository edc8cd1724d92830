"""What has become of vCPUs by a firmware profile: deaf, stuck, held, and what is kept of those that are off.

A deaf vCPU has an active priority in ICC_AP0R0_EL1: it is signalled no interrupt but kicks, which have the highest
priority of all, so that the firmware can look after it still.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from qemu_sdei.backend.firmware.core import PARK, Core
from qemu_sdei.errors import ProtocolError
from qemu_sdei.monitor.layout import SysReg
from qemu_sdei.monitor.ops import write_sysreg
from qemu_sdei.sdei import faults

ACTIVE: Final = 1 << 1
"""ICC_AP0R0_EL1: priority 0x08 is active. Kicks have 0x00; bound interrupts 0x40, the guest's 0x80 and more."""


class FaultState:
    """What has become of the vCPUs of one guest.

    Attributes:
        deaf: take no interrupt and no event.
        held: take no interrupt until their handlers complete.
        stuck: stay in EL3; the set that the power code looks at.
        kept: what a CPU that is off will find when it comes up.
        kept_shared: shared events that outlive a reset of the machine.
    """

    def __init__(self, core: Core) -> None:
        self.deaf: set[int] = set()
        self.held: set[int] = set()
        self.stuck = core.quirks.stuck
        self.kept: dict[int, dict[str, Any]] = {}
        self.kept_shared: list[dict[str, Any]] = []
        self._answer = core.answer
        self._dispatcher = core.dispatcher
        self._vcpus = core.machine.nr_cpus

    @property
    def left(self) -> bool:
        """Whether any vCPU is not as it would be by itself."""
        return bool(self.deaf or self.held or self.stuck or self.kept or self.kept_shared)

    def deafen(self, pe: int) -> None:
        """The vCPU whose frame is answered takes no interrupt and no event from now on."""
        self.deaf.add(pe)
        self._answer.ops.append(write_sysreg(SysReg.ICC_AP0R0_EL1, ACTIVE))

    def hold(self, pe: int) -> None:
        """The vCPU whose frame is answered takes no interrupt until `release`."""
        self.held.add(pe)
        self._answer.ops.append(write_sysreg(SysReg.ICC_AP0R0_EL1, ACTIVE))

    def release(self, pe: int) -> None:
        """The last handler there has completed."""
        if pe in self.held:
            self.held.discard(pe)
            if pe not in self.deaf:
                self._answer.ops.append(write_sysreg(SysReg.ICC_AP0R0_EL1, 0))

    def stick(self, pe: int) -> None:
        """The vCPU whose frame is answered stays in EL3."""
        self.stuck.add(pe)
        self._answer.flags |= PARK

    def powered_off(self, pe: int) -> None:
        """The vCPU whose frame is answered went off: it will come up with a fresh GIC interface."""
        if pe in self.deaf or pe in self.held:
            self.deaf.discard(pe)
            self.held.discard(pe)
            self._answer.ops.append(write_sysreg(SysReg.ICC_AP0R0_EL1, 0))

    def keep(self, pe: int, what: frozenset[str]) -> None:
        """Before it is powered off: what it is to find when it comes up."""
        self.kept[pe] = faults.keep(self._dispatcher, pe, what)

    def keep_over_reset(self) -> None:
        """Before the machine forgets: shared events, and vCPU 0's."""
        self.kept[0] = faults.keep(self._dispatcher, 0, frozenset(("events",)))
        self.kept_shared = faults.keep_shared(self._dispatcher)

    def put_back(self, pe: int) -> None:
        """A vCPU is on again: what was kept of it is there."""
        part = self.kept.pop(pe, None)
        if part is None:
            return
        shared, self.kept_shared = (self.kept_shared, []) if pe == 0 else ([], self.kept_shared)
        faults.put_back(self._dispatcher, pe, part, shared)

    def reset(self) -> None:
        """The machine is reset: all CPUs are as new."""
        self.clear()

    def clear(self) -> None:
        """Nothing has become of any vCPU."""
        self.deaf.clear()
        self.held.clear()
        self.stuck.clear()
        self.kept.clear()
        self.kept_shared = []

    def snapshot(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "deaf": sorted(self.deaf),
            "held": sorted(self.held),
            "stuck": sorted(self.stuck),
            "kept": [[pe, part] for pe, part in sorted(self.kept.items())],
            "kept_shared": list(self.kept_shared),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a snapshot. Raises `ProtocolError`: it is damaged."""
        try:
            sets = [{self._pe(pe) for pe in state[name]} for name in ("deaf", "held", "stuck")]
            kept = {self._pe(pe): part for pe, part in state["kept"]}
            shared = list(state["kept_shared"])
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolError(f"firmware profile: {error!r}") from None
        if shared and 0 not in kept:
            raise ProtocolError("firmware profile: shared events are kept over a reset, and nothing of vCPU 0")
        for pe, part in kept.items():
            faults.check_kept(self._dispatcher, pe, part, shared if pe == 0 else [])
        self.clear()
        for own, found in zip((self.deaf, self.held, self.stuck), sets, strict=True):
            own |= found
        self.kept.update(kept)
        self.kept_shared = shared

    def _pe(self, value: object) -> int:
        if type(value) is not int or not 0 <= value < self._vcpus:
            raise ValueError("a vCPU that is not there")
        return value
