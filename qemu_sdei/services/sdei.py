"""SDEI as a service: the range of function ids, and the pure dispatcher behind it (DEN0054 5.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

from qemu_sdei.sdei.constants import FIRST_NUMBER, LAST_NUMBER, Function
from qemu_sdei.sdei.dispatcher import Dispatcher
from qemu_sdei.services.platform import Platform
from qemu_sdei.smccc.ids import Owner
from qemu_sdei.smccc.service import FunctionRange, Handler, JournalMode, Service


class Sdei(Service):
    """The SDEI service of one guest; its state is the dispatcher's."""

    name = "sdei"
    ranges = (FunctionRange(Owner.STANDARD, FIRST_NUMBER, LAST_NUMBER),)
    journal = JournalMode.INPUT
    reads = frozenset(
        (Function.VERSION, Function.EVENT_CONTEXT, Function.EVENT_STATUS, Function.EVENT_GET_INFO, Function.FEATURES)
    )

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
