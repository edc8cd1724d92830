"""What each call needs: its handler, how it is journalled, and the result of those that always answer the same."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from typing import Any, Final

from qemu_sdei.backend.firmware.core import Answer, MachineFacts
from qemu_sdei.sdei.constants import DENIED
from qemu_sdei.sdei.constants import Function as SdeiFunction
from qemu_sdei.sdei.context import PSTATE, X0, new_regs
from qemu_sdei.sdei.pstate import EL_MASK
from qemu_sdei.services.psci import Function as PsciFunction
from qemu_sdei.smccc.arch import SMCCC_VERSION
from qemu_sdei.smccc.ids import NOT_SUPPORTED
from qemu_sdei.smccc.registry import Registry
from qemu_sdei.smccc.service import JournalMode, Lasting

INPUT: Final = 1
OUTCOME: Final = 2
USERS_INPUT: Final = 4
"""As INPUT, of a user's service, which may take its time."""
_MODES: Final = {JournalMode.NONE: 0, JournalMode.INPUT: INPUT, JournalMode.OUTCOME: OUTCOME}
_M64: Final = 0xFFFF_FFFF_FFFF_FFFF
_RESUME: Final = int(SdeiFunction.EVENT_COMPLETE_AND_RESUME)

Handler = Callable[[int, memoryview], Any]
Lasts = Callable[[int, int, memoryview], "Lasting | None"]
"""`Service.lasting`."""


def _nobody(pe: int, regs: memoryview) -> int:
    return NOT_SUPPORTED


class CallTable:
    """The calls of one guest's firmware.

    Attributes:
        table: function id -> (handler, journal mode) of the built-in services.
        constants: function id -> result, for calls that always answer the same.
    """

    def __init__(self, registry: Registry, machine: MachineFacts, answer: Answer) -> None:
        """`registry`: it must be complete."""
        self._registry = registry
        self._machine = machine
        self._answer = answer
        self.table: dict[int, tuple[Handler, int]] = {}
        self.constants: dict[int, int] = {}
        self._plain = self.table
        self._plain_constants = self.constants
        self.rebuild()

    def rebuild(self) -> None:
        """Take up what the registry has now. What was intercepted is so no more."""
        self.table = {f: self._entry(f, h) for f, h in self._registry.table.items()}
        if _RESUME in self.table:
            handler, mode = self.table[_RESUME]
            self.table[_RESUME] = self._resumes(handler), mode
        self.constants = self._find_constants()
        self._plain = dict(self.table)
        self._plain_constants = dict(self.constants)

    def intercept(self, functions: Collection[int], wrap: Callable[[int, Handler], Handler]) -> None:
        """Have calls of these functions go by `wrap(function, handler)`, and all others by their own handlers; also
        those that nobody serves. What is intercepted is kept, also where it only reads. Users' own services are left
        alone: `users_own` tells which they are.
        """
        self.table = dict(self._plain)
        self.constants = {f: result for f, result in self._plain_constants.items() if f not in functions}
        for function in functions:
            if not self.users_own(function):
                handler, mode = self._plain.get(function, (_nobody, 0))
                self.table[function] = wrap(function, handler), mode or INPUT

    def users_own(self, function: int) -> bool:
        """Whether a service of the user's own answers a function."""
        return function not in self._plain and self._registry.lookup(function) is not None

    def find(self, function: int) -> tuple[Handler, int] | None:
        """Handler and journal mode of a function id, users' services included; None: NOT_SUPPORTED."""
        entry = self.table.get(function)
        if entry is None:
            handler = self._registry.lookup(function)
            if handler is not None:
                entry = self._entry(function, handler)
        return entry

    def lasting(self, function: int) -> Lasts | None:
        """What tells how long an answer of `function` lasts, after it was given; None: it may always be another one."""
        service = self._registry.service_of(function)
        if service is None or function not in service.lasts or function not in self._plain:
            return None
        return None if self.table.get(function) != self._plain[function] else service.lasting

    def _entry(self, function: int, handler: Handler) -> tuple[Handler, int]:
        service = self._registry.service_of(function)
        if service is None:
            return handler, OUTCOME
        if function in service.reads:
            return handler, 0
        if function in self._registry.table:
            return handler, _MODES[service.journal]
        # A user's service: a generator goes on with results that only its own frames bring; the rest is recorded if
        # it does not say that it can be run again, because what it writes to the registers would be its arguments the
        # second time.
        replay = service.journal is JournalMode.INPUT or inspect.isgeneratorfunction(type(service).call)
        return handler, USERS_INPUT if replay else OUTCOME

    def _resumes(self, handler: Handler) -> Handler:
        """COMPLETE_AND_RESUME by `handler`, which knows what an address is, but not the MMU: while that is off an
        instruction can only be fetched from RAM, and anywhere else is an address that is not valid (DEN0054 5.1.7).
        """
        answer, ram = self._answer, self._machine.ram
        sctlr, client = self._machine.sctlr, self._machine.client_el << 2

        def checked(pe: int, regs: memoryview) -> Any:
            frame = answer.frame
            if frame is None or ram is None or frame[sctlr] & 1 or regs[X0 + 1] in ram:
                return handler(pe, regs)
            return DENIED if regs[PSTATE] & EL_MASK == client else handler(pe, regs)

        return checked

    def _find_constants(self) -> dict[int, int]:
        """Results of calls that never answer anything else, whoever asks. (At EL2 SDEI_VERSION asks who it is that
        asks.)
        """
        functions = [SMCCC_VERSION, PsciFunction.PSCI_VERSION]
        if self._machine.client_el == 1:
            functions.append(SdeiFunction.VERSION)
        regs = new_regs()
        regs[PSTATE] = self._machine.client_el << 2 | 1
        # The guest may be denied any of them.
        return {int(f): int(self.table[f][0](0, regs)) & _M64 for f in functions if f in self.table}
