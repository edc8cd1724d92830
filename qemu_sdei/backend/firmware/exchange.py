"""How one frame is answered: a service is called, what has become deliverable is delivered, the rest is carried out.

The lowest of the three layers of the firmware (`Exchange`, `PowerFirmware`, `Firmware`): what every call goes through.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final

from qemu_sdei.backend.firmware.gic import LAST_SPI, UART_INTID
from qemu_sdei.backend.firmware.interrupt_ownership import Job, Ownership
from qemu_sdei.monitor import layout
from qemu_sdei.monitor.layout import AnswerFlag, Kind, SysReg, Word
from qemu_sdei.monitor.ops import MicroOp, OpResult, encode, write_sysreg
from qemu_sdei.sdei.constants import DENIED
from qemu_sdei.sdei.constants import Function as SdeiFunction
from qemu_sdei.sdei.context import PC, PSTATE, X0, new_regs
from qemu_sdei.sdei.dispatcher import Dispatcher
from qemu_sdei.sdei.profile import Profile
from qemu_sdei.sdei.pstate import EL_MASK
from qemu_sdei.services.psci import Function as PsciFunction
from qemu_sdei.services.psci import Power, Psci
from qemu_sdei.smccc.arch import SMCCC_VERSION
from qemu_sdei.smccc.ids import FUNCTION_MASK
from qemu_sdei.smccc.registry import Registry
from qemu_sdei.smccc.service import JournalMode

INPUT: Final = 1
OUTCOME: Final = 2
USERS_INPUT: Final = 4
"""As INPUT, of a user's service, which may take its time."""
_ON: Final = Power.ON
_MODES: Final = {JournalMode.NONE: 0, JournalMode.INPUT: INPUT, JournalMode.OUTCOME: OUTCOME}
_M64: Final = 0xFFFF_FFFF_FFFF_FFFF
_MAX_WHY: Final = 500
"""Characters of a rejection's reason."""
NOT_SUPPORTED: Final = _M64
"""As x0 holds it."""
PARK: Final = int(AnswerFlag.PARK)
DAIF: Final = 0x3C0
_ALL: Final = int(AnswerFlag.ALL)
_SCTLR_RESET: Final = {1: 0x30D0_0800, 2: 0x30C5_0830}
"""RES1 bits only: MMU and caches off."""
_REGISTER: Final = int(SdeiFunction.EVENT_REGISTER)
_RESUME: Final = int(SdeiFunction.EVENT_COMPLETE_AND_RESUME)

Handler = Callable[[int, memoryview], Any]
Steps = Generator[Any, Any, Any]
Note = Callable[..., None]


def affinity(cpu: int) -> int:
    """MPIDR affinity of QEMU's CPU `cpu` with a GICv3: 16 CPUs in an Aff1 cluster, 256 clusters in an Aff2."""
    return cpu & 0xF | (cpu >> 4 & 0xFF) << 8 | cpu >> 12 << 16


def _store(regs: memoryview, words: tuple[int, ...]) -> None:
    for n, word in enumerate(words, X0):
        regs[n] = word & _M64


class Exchange:
    """What answers the calls of one guest. `Firmware` documents the attributes."""

    psci: Psci
    _power: list[Power]
    """That of `psci`: looked at in each call."""

    def __init__(self, nr_cpus: int, client_el: int, profile: Profile, ram: range | None) -> None:
        self.nr_cpus = nr_cpus
        self.client_el = client_el
        self.epoch = 0
        self.kernels = 0
        self.delivered = 0
        self.note: Note | None = None
        self.record: Callable[[int, memoryview, tuple[int, ...]], None] | None = None
        self.affinities = [affinity(cpu) for cpu in range(nr_cpus)]
        self.dispatcher = Dispatcher(
            profile,
            self.affinities,
            client_el=client_el,
            max_intid=LAST_SPI,
            reserved_intids=(UART_INTID,),
        )
        self.ownership = Ownership(self.dispatcher)
        self.registry = Registry()
        self.kicks = self.dispatcher.kicks
        self._attention = self.dispatcher.attention
        self._dispatch = self.dispatcher.dispatch
        self._claims = self.dispatcher.interrupts
        self.monitor = layout.VERSION
        """Version of the frame window that the guest's EL3 monitor is of."""
        self._sctlr = int(Word.SCTLR_EL1 if client_el == 1 else Word.SCTLR_EL2)
        self._flags = 0
        self._ops: list[MicroOp] = []
        self._wake: tuple[int, int] | None = None
        """(entry point, x0) at which the caller comes up, in place of returning."""
        self._steps: dict[int, tuple[Steps, int]] = {}
        """Services that wait for micro-operations: generator and number of operations asked for."""
        self.table: dict[int, tuple[Handler, int]] = {}
        self.constants: dict[int, int] = {}
        self._ram = ram
        self._frame: memoryview | None = None
        """That of the call which is being answered."""

    def open_services(self) -> None:
        """The registry is complete: look up what each call needs."""
        self.table = {f: self._entry(f, h) for f, h in self.registry.table.items()}
        if _RESUME in self.table:
            handler, mode = self.table[_RESUME]
            self.table[_RESUME] = self._resumes(handler), mode
        self.constants = self._find_constants()

    def _resumes(self, handler: Handler) -> Handler:
        """COMPLETE_AND_RESUME by `handler`, which knows what an address is, but not the MMU: while that is off an
        instruction can only be fetched from RAM, and anywhere else is an address that is not valid (DEN0054 5.1.7).
        """

        def checked(pe: int, regs: memoryview) -> Any:
            frame, ram = self._frame, self._ram
            if frame is None or ram is None or frame[self._sctlr] & 1 or regs[X0 + 1] in ram:
                return handler(pe, regs)
            return DENIED if regs[PSTATE] & EL_MASK == self.client_el << 2 else handler(pe, regs)

        return checked

    def _entry(self, function: int, handler: Handler) -> tuple[Handler, int]:
        service = self.registry.service_of(function)
        if service is None:
            return handler, OUTCOME
        if function in service.reads:
            return handler, 0
        if function in self.registry.table:
            return handler, _MODES[service.journal]
        # A user's service: a generator goes on with results that only its own frames bring; the rest is recorded if
        # it does not say that it can be run again, because what it writes to the registers would be its arguments the
        # second time.
        replay = service.journal is JournalMode.INPUT or inspect.isgeneratorfunction(type(service).call)
        return handler, USERS_INPUT if replay else OUTCOME

    def find(self, function: int) -> tuple[Handler, int] | None:
        """Handler and journal mode of a function id, users' services included; None: NOT_SUPPORTED."""
        entry = self.table.get(function)
        if entry is None:
            handler = self.registry.lookup(function)
            if handler is not None:
                entry = self._entry(function, handler)
        return entry

    def _find_constants(self) -> dict[int, int]:
        """Results of calls that never answer anything else, whoever asks. (At EL2 SDEI_VERSION asks who it is that
        asks.)
        """
        functions = [SMCCC_VERSION, PsciFunction.PSCI_VERSION]
        if self.client_el == 1 and SdeiFunction.VERSION in self.table:
            functions.append(SdeiFunction.VERSION)
        regs = new_regs()
        regs[PSTATE] = self.client_el << 2 | 1
        return {int(f): int(self.table[f][0](0, regs)) & _M64 for f in functions}

    def call(
        self, pe: int, frame: memoryview, regs: memoryview, handler: Handler | None, outcome: bool = False
    ) -> None:
        """Answer an SMC whose handler has been looked up; None: nobody serves this function.

        `outcome`: the handler may not be run twice; `record` is told its result before anything follows from it.
        """
        if self._power[pe] is not _ON:
            self._reject(pe, f"call {frame[Word.FUNCTION]:#x} from a PE that is off")
            self._park(frame)
            return
        self._frame = frame
        if handler is None:
            regs[X0] = NOT_SUPPORTED
            if self.note is not None:
                self.note("unknown", pe, function=frame[Word.FUNCTION])
        else:
            try:
                result = handler(pe, regs)
            except Exception as error:  # a user's service: its bugs are not the guest's
                result = (NOT_SUPPORTED,)  # recorded as any other: what is due is delivered after it
                self._reject(
                    pe, f"service failed on function {frame[Word.FUNCTION]:#x}: {type(error).__name__}: {error}"
                )
            if result is None:
                if self._ops or self.dispatcher.resume is not None:
                    self.finish(pe, frame, regs)
                    return
            elif isinstance(result, int):
                regs[2] = result & 0xFFFF_FFFF_FFFF_FFFF
            elif isinstance(result, tuple):
                if outcome and self.record is not None:
                    self.record(pe, frame, result)
                _store(regs, result)
            else:
                self._advance(pe, frame, regs, result, None)
                return
        if self._flags or self._claims:
            self.finish(pe, frame, regs)
            return
        # As in `finish`, for the ordinary answer.
        if self._attention[pe] and self._dispatch(pe, regs, frame[self._sctlr], frame[14]) is not None:
            self.delivered += 1
        frame[1] = 0  # Word.FLAGS

    def finish(self, pe: int, frame: memoryview, regs: memoryview) -> None:
        """The call is done: deliver what has become deliverable, and carry out what was asked for besides."""
        if self.dispatcher.resume is not None:
            elr, spsr = self.dispatcher.take_resume(regs, frame[self._sctlr], frame[Word.HCR_EL2])
            one = self.client_el == 1
            self._ops.append(write_sysreg(SysReg.ELR_EL1 if one else SysReg.ELR_EL2, elr))
            self._ops.append(write_sysreg(SysReg.SPSR_EL1 if one else SysReg.SPSR_EL2, spsr))
        if self._wake is not None:
            self._enter(frame, regs, *self._wake)
            self._wake = None
        if self._claims:
            job = Job(self._flags, list(self._ops), is_call=frame[Word.KIND] == Kind.SMC)
            if job.is_call and frame[Word.FUNCTION] & FUNCTION_MASK == _REGISTER:
                job.registering = self._claims[0]
            self._settle(pe, frame, regs, job, ())
        else:
            self._end(pe, frame, regs)

    def _enter(self, frame: memoryview, regs: memoryview, entry: int, x0: int, x1: int = 0) -> None:
        """The CPU goes on at `entry`, in the state that PSCI (DEN0022 6.4.3) and the Linux boot protocol ask for."""
        for word in range(Word.X0, Word.X30 + 1):
            frame[word] = 0
        regs[PC] = entry
        regs[PSTATE] = self.client_el << 2 | 1 | DAIF
        regs[X0] = x0
        regs[X0 + 1] = x1
        # A CPU that was on before has its MMU still on.
        self._ops.append(write_sysreg(SysReg.SCTLR_EL1, _SCTLR_RESET[1]))
        if self.client_el == 2:
            self._ops.append(write_sysreg(SysReg.SCTLR_EL2, _SCTLR_RESET[2]))
            self._ops.append(write_sysreg(SysReg.HCR_EL2, 0))
        self._flags |= _ALL

    def _end(self, pe: int, frame: memoryview, regs: memoryview) -> None:
        flags = self._flags
        if (
            self._attention[pe]
            and not flags & PARK
            and self.dispatcher.dispatch(pe, regs, frame[self._sctlr], frame[Word.HCR_EL2]) is not None
        ):
            self.delivered += 1
            flags &= ~int(AnswerFlag.WFI)
        if self._ops:
            flags |= encode(frame, self._ops)
            self._ops.clear()
        self._flags = 0
        frame[Word.FLAGS] = flags

    def _settle(self, pe: int, frame: memoryview, regs: memoryview, job: Job, found: Sequence[OpResult]) -> None:
        """The exchange goes on until the GIC is told all that `job` has to tell it; then it ends as it was to."""
        self.ownership.note(job, self._claims)
        ops = self.ownership.advance(pe, job, found)
        self._claims.clear()
        if job.refused:
            regs[X0] = DENIED & _M64
        if ops:
            self.ownership.jobs[pe] = job
            self._flags = 0
            self._ops.clear()
            frame[Word.FLAGS] = encode(frame, ops) | AnswerFlag.REPOST
        else:
            self._flags = job.flags
            self._ops[:] = job.ops
            self._end(pe, frame, regs)

    def _advance(self, pe: int, frame: memoryview, regs: memoryview, steps: Steps, results: Any) -> None:
        try:
            wanted = steps.send(results)
            ops = [wanted] if isinstance(wanted, MicroOp) else list(wanted)
            flags = encode(frame, ops)
        except StopIteration as stop:
            if stop.value is not None:
                _store(regs, stop.value)
            self.finish(pe, frame, regs)
            return
        except Exception as error:
            regs[X0] = NOT_SUPPORTED
            self._reject(pe, f"service failed: {type(error).__name__}: {error}")
            self.finish(pe, frame, regs)
            return
        self._steps[pe] = (steps, 0 if isinstance(wanted, MicroOp) else len(ops))
        frame[Word.FLAGS] = flags | AnswerFlag.REPOST

    def _reject(self, pe: int, why: str) -> None:
        if self.note is not None:
            self.note("reject", pe, why=why[:_MAX_WHY])  # a service's error may quote what the guest gave it

    def _park(self, frame: memoryview) -> None:
        frame[Word.FLAGS] = PARK

    @property
    def busy(self) -> bool:
        """A service waits for micro-operations: its progress cannot be written down now."""
        return bool(self._steps)

    @property
    def amid(self) -> list[int]:
        """The PEs whose services wait for micro-operations."""
        return list(self._steps)

    def abandon(self) -> None:
        """Forget services that wait for micro-operations; their callers will get NOT_SUPPORTED."""
        for pe in self._steps:
            self._reject(pe, "service given up: it is amid its micro-operations, and the journal is full of them")
        self._steps.clear()
