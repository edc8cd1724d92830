"""SDEI as a service: the range of function ids, and the pure dispatcher behind it (DEN0054 5.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final, Self

from qemu_sdei.sdei.constants import FIRST_NUMBER, LAST_NUMBER, W_MASK, Function, Info
from qemu_sdei.sdei.context import X0, Regs
from qemu_sdei.sdei.dispatcher import Dispatcher
from qemu_sdei.services.platform import Platform
from qemu_sdei.smccc.ids import Owner
from qemu_sdei.smccc.service import FunctionRange, Handler, JournalMode, Lasting, Service

_ALWAYS: Final = (Info.TYPE, Info.SIGNALABLE, Info.PRIORITY)
"""What EVENT_GET_INFO says of an event as long as the machine is there."""


class Sdei(Service):
    """The SDEI service of one guest; its state is the dispatcher's."""

    name = "sdei"
    ranges = (FunctionRange(Owner.STANDARD, FIRST_NUMBER, LAST_NUMBER),)
    journal = JournalMode.INPUT
    reads = frozenset(
        (Function.VERSION, Function.EVENT_CONTEXT, Function.EVENT_STATUS, Function.EVENT_GET_INFO, Function.FEATURES)
    )

    lasts = frozenset((Function.VERSION, Function.EVENT_STATUS, Function.EVENT_GET_INFO, Function.FEATURES))

    names: ClassVar[Mapping[int, str]] = {int(function): f"SDEI_{function.name}" for function in Function}

    @classmethod
    def of(cls, platform: Platform) -> Self | None:
        """The service of the guest on `platform`; None: it is to find no SDEI."""
        return cls(platform.dispatcher) if platform.serves_sdei else None

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.dispatcher = dispatcher

    def handlers(self) -> dict[int, Handler]:
        """The calls by function id."""
        return dict(self.dispatcher.handlers)

    def lasting(self, function: int, pe: int, regs: Regs) -> Lasting | None:
        """What there is lasts; what an event's state is, until a transition. Of a bound event nothing does: also what
        becomes of its interrupt changes the answers.
        """
        if function == Function.VERSION:
            return Lasting(0)
        if function == Function.FEATURES:
            return Lasting(1)
        event = regs[X0 + 1] & W_MASK
        if not self.dispatcher.has_static(pe, event):
            return None
        if function == Function.EVENT_STATUS:
            return Lasting(1, event)
        return Lasting(2) if regs[X0 + 2] & W_MASK in _ALWAYS else None
