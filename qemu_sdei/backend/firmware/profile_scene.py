"""What the rules of a firmware profile can see of one guest's firmware, and what a call is about."""

from __future__ import annotations

from typing import Final

from qemu_sdei.backend.firmware.core import Core
from qemu_sdei.profiles.matching import Moment
from qemu_sdei.profiles.vocabulary import EVENT_ARGUMENT, INNERMOST, TARGET_ARGUMENT, Occasion
from qemu_sdei.sdei import faults
from qemu_sdei.sdei.constants import AFFINITY_MASK, W_MASK
from qemu_sdei.sdei.context import PC, X0
from qemu_sdei.services.function_names import function_name
from qemu_sdei.services.psci import Power, Psci

_POWER: Final = {Power.ON: "on", Power.OFF: "off", Power.ON_PENDING: "pending"}
_SMC64: Final = 0x4000_0000


class ProfileScene:
    """The `Scene` of one guest."""

    def __init__(self, core: Core, psci: Psci) -> None:
        self.affinities = core.machine.affinities
        self._machine = core.machine
        self._dispatcher = core.dispatcher
        self._psci = psci
        self._pe_of = {affinity: pe for pe, affinity in enumerate(self.affinities)}

    def handlers(self, vcpu: int) -> tuple[int, ...]:
        """See `Scene`."""
        return self._dispatcher.running(vcpu)

    def masked(self, vcpu: int) -> bool:
        """See `Scene`."""
        return faults.masked(self._dispatcher, vcpu)

    def registered(self, vcpu: int) -> bool:
        """See `Scene`."""
        return faults.registered(self._dispatcher, vcpu)

    def pending(self, vcpu: int) -> bool:
        """See `Scene`."""
        return faults.pending(self._dispatcher, vcpu)

    def state(self, event: int, vcpu: int | None) -> int | None:
        """See `Scene`."""
        return faults.state(self._dispatcher, event, vcpu)

    def routed(self, event: int) -> str | None:
        """See `Scene`."""
        return faults.routed(self._dispatcher, event)

    def power(self, vcpu: int) -> str:
        """See `Scene`."""
        return _POWER[self._psci.power[vcpu]]

    def kernel(self) -> int:
        """See `Scene`."""
        return self._machine.kernels

    def call(self, function: int, pe: int, regs: memoryview, caller: int) -> Moment:
        """What a call is about. `regs`: its context; `caller`: its x30."""
        name = function_name(function)
        moment = Moment(Occasion.CALL, pe, function, regs[X0 : X0 + 6].tolist(), pc=regs[PC], caller=caller)
        argument = TARGET_ARGUMENT.get(name)
        if argument is not None:
            affinity = moment.x[argument] & (AFFINITY_MASK if function & _SMC64 else AFFINITY_MASK & W_MASK)
            moment.named, moment.target = True, self._pe_of.get(affinity)
        if name in EVENT_ARGUMENT:
            moment.event = moment.x[1] & W_MASK
        elif name in INNERMOST:
            running = self._dispatcher.running(pe)
            moment.event = running[-1] if running else None
        return moment
