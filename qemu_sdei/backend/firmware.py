"""Everything that decides, for one guest: services, SDEI, PSCI, and what each frame is answered with.

No I/O and no clock: the same frames in the same order give the same answers and the same state, which is what crash
recovery (the journal) and migration stand on. The one exception is `boot`, the loader that fills guest RAM at a reset
of CPU 0; it is never replayed, because a reset ends with a checkpoint.

A frame is answered in place: `handle` edits the words that the monitor will take (context, FLAGS, OPS). Writing ACK
is the owner's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final, Protocol

from qemu_sdei.backend.gic import LAST_SPI, LOOKED, UART_INTID
from qemu_sdei.backend.ownership import Job, Ownership
from qemu_sdei.boot.config import Entry
from qemu_sdei.errors import ProtocolError
from qemu_sdei.monitor import layout
from qemu_sdei.monitor.layout import AnswerFlag, Kind, SysReg, Word
from qemu_sdei.monitor.ops import MicroOp, OpResult, decode, encode, write_phys, write_sysreg
from qemu_sdei.sdei.constants import DENIED
from qemu_sdei.sdei.constants import Function as SdeiFunction
from qemu_sdei.sdei.context import PC, PSTATE, X0, new_regs
from qemu_sdei.sdei.dispatcher import Dispatcher
from qemu_sdei.sdei.events import ANY_PE
from qemu_sdei.sdei.interrupts import FIRST_SPI
from qemu_sdei.sdei.profile import Profile
from qemu_sdei.sdei.pstate import CpuFeatures
from qemu_sdei.services.psci import Function as PsciFunction
from qemu_sdei.services.psci import Power, Psci
from qemu_sdei.services.sdei import Sdei
from qemu_sdei.smccc.arch import SMCCC_VERSION, ArchService
from qemu_sdei.smccc.ids import FUNCTION_MASK
from qemu_sdei.smccc.registry import Registry
from qemu_sdei.smccc.service import JournalMode, Service

INPUT: Final = 1
OUTCOME: Final = 2
_ON: Final = Power.ON
_MODES: Final = {JournalMode.NONE: 0, JournalMode.INPUT: INPUT, JournalMode.OUTCOME: OUTCOME}
STATE_VERSION: Final = 2
"""1: without `gic`."""
_M64: Final = 0xFFFF_FFFF_FFFF_FFFF
_NOT_SUPPORTED: Final = _M64
_DAIF: Final = 0x3C0
_PARK: Final = int(AnswerFlag.PARK)
_REGISTER: Final = int(SdeiFunction.EVENT_REGISTER)
_ALL: Final = int(AnswerFlag.ALL)
_GPIO_POWEROFF: Final = 0
_GPIO_RESET: Final = 1
_SCTLR_RESET: Final = {1: 0x30D0_0800, 2: 0x30C5_0830}
"""RES1 bits only: MMU and caches off."""
_ESR_UNKNOWN: Final = 0x0200_0000  # EC 0, IL

Handler = Callable[[int, memoryview], Any]
Steps = Generator[Any, Any, Any]
Note = Callable[..., None]


def affinity(cpu: int) -> int:
    """MPIDR affinity of QEMU's CPU `cpu` with a GICv3: 16 CPUs in an Aff1 cluster, 256 clusters in an Aff2."""
    return cpu & 0xF | (cpu >> 4 & 0xFF) << 8 | cpu >> 12 << 16


def _store(regs: memoryview, words: tuple[int, ...]) -> None:
    for n, word in enumerate(words, X0):
        regs[n] = word & _M64


class Boot(Protocol):
    """What fills guest RAM at a reset of CPU 0."""

    def clear(self) -> list[MicroOp]:
        """What must be done before RAM that a guest has run from is filled again."""

    def load(self) -> Entry:
        """Fill RAM. Returns where CPU 0 starts."""


class Firmware:
    """The firmware of one guest.

    Attributes:
        dispatcher: the SDEI core.
        psci: power states.
        table: function id -> (handler, journal mode) of the built-in services.
        constants: function id -> result, for calls that always answer the same.
        kicks: PEs that ought to be interrupted; the owner drains it.
        epoch: counts resets of the machine.
        delivered: counts handlers that were entered.
        record: called with (PE, frame, x0...) when a service that may not be run twice has given its result.
        note: called with (name, PE, details...) for what a person would want to see; None in a replay.
    """

    def __init__(
        self,
        nr_cpus: int,
        *,
        client_el: int = 1,
        profile: Profile | None = None,
        services: Sequence[Service] = (),
        boot: Boot | None = None,
    ) -> None:
        self.nr_cpus = nr_cpus
        self.client_el = client_el
        self.epoch = 0
        self.delivered = 0
        self.note: Note | None = None
        self.record: Callable[[int, memoryview, tuple[int, ...]], None] | None = None
        self.affinities = [affinity(cpu) for cpu in range(nr_cpus)]
        self.dispatcher = Dispatcher(
            profile or Profile.default(),
            self.affinities,
            client_el=client_el,
            max_intid=LAST_SPI,
            reserved_intids=(UART_INTID,),
        )
        self.ownership = Ownership(self.dispatcher)
        self.registry = Registry()
        self.psci = Psci(self.affinities, self, self.registry.implemented)
        for service in (ArchService(self.registry), self.psci, Sdei(self.dispatcher), *services):
            self.registry.register(service)
        self._users = services
        self._power = self.psci.power
        self._attention = self.dispatcher.attention
        self._dispatch = self.dispatcher.dispatch
        self._claims = self.dispatcher.interrupts
        self._sctlr = int(Word.SCTLR_EL1 if client_el == 1 else Word.SCTLR_EL2)
        self.kicks = self.dispatcher.kicks
        self.id_registers: dict[str, int] = {}
        self._boot = boot
        self._flags = 0
        self._ops: list[MicroOp] = []
        self._steps: dict[int, tuple[Steps, int]] = {}
        """Services that wait for micro-operations: generator and number of operations asked for."""
        self._reset_answer: memoryview | None = None
        self.table: dict[int, tuple[Handler, int]] = {f: self._entry(f, h) for f, h in self.registry.table.items()}
        self.constants = self._find_constants()

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
        return handler, INPUT if replay else OUTCOME

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
        functions = [SMCCC_VERSION, PsciFunction.PSCI_VERSION, PsciFunction.MIGRATE_INFO_TYPE]
        if self.client_el == 1:
            functions.append(SdeiFunction.VERSION)
        regs = new_regs()
        regs[PSTATE] = self.client_el << 2 | 1
        return {int(f): int(self.table[f][0](0, regs)) & _M64 for f in functions}

    # ---- frames -------------------------------------------------------------------------------------------------

    def handle(self, pe: int, frame: memoryview, regs: memoryview) -> None:
        """Answer one frame in place. `regs` is the view of its context."""
        kind = frame[Word.KIND]
        if kind == Kind.SMC:
            entry = self.find(frame[Word.FUNCTION] & FUNCTION_MASK)
            if entry is None:
                self.call(pe, frame, regs, None)
            else:
                self.call(pe, frame, regs, entry[0], entry[1] == OUTCOME)
        elif kind == Kind.KICK:
            self._kick(pe, frame, regs)
        elif kind == Kind.RESET:
            self._reset(pe, frame, regs)
        elif kind == Kind.INTERRUPT:
            self._interrupt(pe, frame, regs)
        elif kind == Kind.OPS:
            if self.boots(pe, frame):
                self._boot_machine(frame, regs)
            else:
                self._continue(pe, frame, regs)
        elif kind == Kind.EXCEPTION:
            self._exception(pe, frame, regs)
        else:
            self._broken(pe, frame, kind)

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
        if handler is None:
            regs[X0] = _NOT_SUPPORTED
            if self.note is not None:
                self.note("unknown", pe, function=frame[Word.FUNCTION])
        else:
            try:
                result = handler(pe, regs)
            except Exception as error:  # a user's service: its bugs are not the guest's
                result = (_NOT_SUPPORTED,)  # recorded as any other: what is due is delivered after it
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
        dispatcher = self.dispatcher
        resume = dispatcher.resume
        if resume is not None:
            dispatcher.resume = None
            one = self.client_el == 1
            self._ops.append(write_sysreg(SysReg.ELR_EL1 if one else SysReg.ELR_EL2, resume[0]))
            self._ops.append(write_sysreg(SysReg.SPSR_EL1 if one else SysReg.SPSR_EL2, resume[1]))
        if self._claims:
            job = Job(self._flags, list(self._ops), is_call=frame[Word.KIND] == Kind.SMC)
            if job.is_call and frame[Word.FUNCTION] & FUNCTION_MASK == _REGISTER:
                job.registering = self._claims[0]
            self._settle(pe, frame, regs, job, ())
        else:
            self._end(pe, frame, regs)

    def _end(self, pe: int, frame: memoryview, regs: memoryview) -> None:
        flags = self._flags
        if (
            self._attention[pe]
            and not flags & _PARK
            and self.dispatcher.dispatch(pe, regs, frame[self._sctlr], frame[Word.HCR_EL2]) is not None
        ):
            self.delivered += 1
            flags &= ~int(AnswerFlag.WFI)
        if self._ops:
            flags |= encode(frame, self._ops)
            self._ops.clear()
        self._flags = 0
        frame[Word.FLAGS] = flags

    def _kick(self, pe: int, frame: memoryview, regs: memoryview) -> None:
        """The CPU was interrupted because there may be something for it, or it waits in the monitor and has been
        woken.
        """
        if self.psci.power[pe] is Power.ON:
            self.finish(pe, frame, regs)
            return
        start = self.psci.started(pe)
        if start is None:
            self._flags |= _PARK
            self.finish(pe, frame, regs)
        else:
            self._start(pe, frame, regs, *start)

    def _interrupt(self, pe: int, frame: memoryview, regs: memoryview) -> None:
        """A Group 0 interrupt, acknowledged: the trigger of a bound event (DEN0054 5.1.13)."""
        intid = frame[Word.VECTOR]
        if not self.ownership.gic.owns(intid, pe):
            # A bound one was taken just when its event was unregistered. No other can be.
            if not self.dispatcher.is_bound(intid):
                self._reject(pe, f"interrupt {intid} is secure Group 0 and belongs to no event")
            self._ops.append(write_sysreg(SysReg.ICC_EOIR0_EL1, intid))
            self._kick(pe, frame, regs)
            return
        ops = self.ownership.gic.quiet(intid, pe)
        self.dispatcher.interrupt(intid, pe)
        if intid < FIRST_SPI:
            self._ops += ops
            self._kick(pe, frame, regs)
            return
        self.ownership.quieting[pe] = intid
        frame[Word.FLAGS] = encode(frame, ops) | AnswerFlag.REPOST

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

    def _reset(self, pe: int, frame: memoryview, regs: memoryview) -> None:
        """DEN0022 6.4: CPU 0 boots, the others wait until they are asked for. CPU 0's reset is the machine's."""
        self._steps.pop(pe, None)
        self.ownership.forget(pe)
        if pe == 0:
            if self._boot is not None and self.epoch > 0:
                # Now, not when CPU 0 boots: the others come out of reset meanwhile, and what they were to do is void.
                self.psci.reset()
                self.dispatcher.reset()
                self.ownership.reset()
                frame[Word.FLAGS] = encode(frame, self._boot.clear()) | AnswerFlag.REPOST
            else:
                self._boot_machine(frame, regs)
            return
        # What CPU_ON asked of it may be of the time before this very reset, whose frame of CPU 0 is still to come. Only
        # a kick starts a CPU: CPU 0 passes kicks on, and none from before its own reset.
        if self.psci.power[pe] is Power.ON_PENDING:
            self.kicks.append(pe)
        self._park(frame)

    def _boot_machine(self, frame: memoryview, regs: memoryview) -> None:
        self._reset_machine(frame)
        entry = self._boot.load() if self._boot is not None else Entry(0, 0, 0)
        self._start(0, frame, regs, entry.pc, entry.x0, entry.x1)

    def _reset_machine(self, frame: memoryview) -> None:
        self.epoch += 1
        self._steps.clear()
        self.kicks.clear()
        self._flags = 0
        self._ops.clear()
        names = layout.RESET_REGISTERS
        self.id_registers = {name: frame[Word.ID_REGISTERS + i] for i, name in enumerate(names)}
        self.dispatcher.features = CpuFeatures.from_id_registers(self.id_registers)
        self.dispatcher.reset()
        self.ownership.reset()
        for service in self.registry:
            service.reset()
        if self.note is not None:
            self.note("reset", 0, epoch=self.epoch)

    def _start(self, pe: int, frame: memoryview, regs: memoryview, entry: int, x0: int, x1: int = 0) -> None:
        """Send a CPU to `entry` in the state that PSCI (DEN0022 6.4.3) and the Linux boot protocol ask for."""
        for word in range(Word.X0, Word.X30 + 1):
            frame[word] = 0
        regs[PC] = entry
        regs[PSTATE] = self.client_el << 2 | 1 | _DAIF
        regs[X0] = x0
        regs[X0 + 1] = x1
        # A CPU that was on before has its MMU still on.
        self._ops.append(write_sysreg(SysReg.SCTLR_EL1, _SCTLR_RESET[1]))
        if self.client_el == 2:
            self._ops.append(write_sysreg(SysReg.SCTLR_EL2, _SCTLR_RESET[2]))
            self._ops.append(write_sysreg(SysReg.HCR_EL2, 0))
        self._flags |= _ALL
        self.dispatcher.power_on(pe)
        self._claims += self.ownership.gic.owned_by(pe)
        if self.note is not None:
            self.note("power", pe, state="on", entry=entry)
        self.finish(pe, frame, regs)

    def boots(self, pe: int, frame: memoryview) -> bool:
        """Whether answering this frame ends in a boot of the machine, which is not replayed but checkpointed.

        It does so for CPU 0's RESET frame of the first boot; later boots begin with micro-operations, and it is the
        frame that brings their end. VECTOR tells it from a service's: a reset is not taken through one.
        """
        if pe != 0:
            return False
        if frame[Word.KIND] == Kind.RESET:
            return self._boot is None or self.epoch == 0
        return bool(frame[Word.KIND] == Kind.OPS and frame[Word.VECTOR] == 0 and pe not in self.ownership.jobs)

    def _park(self, frame: memoryview) -> None:
        frame[Word.FLAGS] = _PARK

    # ---- services that use micro-operations -----------------------------------------------------------------------

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
            regs[X0] = _NOT_SUPPORTED
            self._reject(pe, f"service failed: {type(error).__name__}: {error}")
            self.finish(pe, frame, regs)
            return
        self._steps[pe] = (steps, 0 if isinstance(wanted, MicroOp) else len(ops))
        frame[Word.FLAGS] = flags | AnswerFlag.REPOST

    def _continue(self, pe: int, frame: memoryview, regs: memoryview) -> None:
        job = self.ownership.jobs.pop(pe, None)
        if job is not None:
            self._settle(pe, frame, regs, job, decode(frame, LOOKED))
            return
        intid = self.ownership.quieting.pop(pe, None)
        if intid is not None:
            self._claims.append((intid, ANY_PE))
            self._kick(pe, frame, regs)
            return
        waiting = self._steps.pop(pe, None)
        if waiting is None:
            regs[X0] = _NOT_SUPPORTED
            self._reject(pe, "micro-operations done that nobody waits for")
            self.finish(pe, frame, regs)
            return
        steps, count = waiting
        results: OpResult | list[OpResult] = decode(frame, count) if count else decode(frame, 1)[0]
        self._advance(pe, frame, regs, steps, results)

    # ---- what ought not to happen -----------------------------------------------------------------------------------

    def _exception(self, pe: int, frame: memoryview, regs: memoryview) -> None:
        """The guest ran into EL3 by something that is no SMC (a register that traps, ...): it gets an Undefined
        Instruction for it.
        """
        self._reject(pe, f"exception to EL3: ESR {frame[Word.ESR_EL3]:#x} vector {frame[Word.VECTOR]} pc {regs[PC]:#x}")
        self._advance(pe, frame, regs, self._undefined(regs), None)

    def _undefined(self, regs: memoryview) -> Steps:
        two = self.client_el == 2 and regs[PSTATE] & 0xC == 8
        names = "VBAR_EL2 ELR_EL2 SPSR_EL2 ESR_EL2" if two else "VBAR_EL1 ELR_EL1 SPSR_EL1 ESR_EL1"
        vbar, elr, spsr, esr = (SysReg[name] for name in names.split())
        base = yield MicroOp(layout.Op.READ_SYSREG, vbar)
        mode = regs[PSTATE] & 0x1F
        if mode & 0x10:
            offset = 0x600
        elif mode >> 2 == (2 if two else 1):
            offset = 0x200 if mode & 1 else 0
        else:
            offset = 0x400
        self._ops += [
            write_sysreg(elr, regs[PC]),
            write_sysreg(spsr, regs[PSTATE]),
            write_sysreg(esr, _ESR_UNKNOWN),
        ]
        regs[PC] = base.value + offset & _M64
        regs[PSTATE] = regs[PSTATE] & 0xF000_0000 | (9 if two else 5) | _DAIF
        return None

    def _broken(self, pe: int, frame: memoryview, kind: int) -> None:
        """The monitor is in trouble, or somebody wrote into the frame: this CPU stops, the others go on."""
        known = Kind(kind).name if kind in Kind._value2member_map_ else "unknown"
        self._reject(
            pe,
            f"frame of kind {kind} ({known}): vector {frame[Word.VECTOR]} ESR {frame[Word.ESR_EL3]:#x} "
            f"FAR {frame[Word.FAR_EL3]:#x} pc {frame[Word.PC]:#x}; the CPU is parked",
        )
        self.psci.power[pe] = Power.OFF
        self.psci.entry[pe] = None
        self.dispatcher.power_off(pe)
        self.ownership.forget(pe)
        self._claims.clear()  # what it owned is given back if it is ever started again
        self._park(frame)

    def _reject(self, pe: int, why: str) -> None:
        if self.note is not None:
            self.note("reject", pe, why=why)

    # ---- PowerControl: what PSCI asks for
    # -----------------------------------------------------------------------------

    def start_cpu(self, pe: int) -> None:
        """See `PowerControl`."""
        self.kicks.append(pe)

    def stop_cpu(self, pe: int) -> None:
        """See `PowerControl`."""
        self.dispatcher.power_off(pe)
        self._flags |= _PARK
        if self.note is not None:
            self.note("power", pe, state="off")

    def standby(self, pe: int) -> None:
        """See `PowerControl`."""
        self._flags |= int(AnswerFlag.WFI)

    def system_off(self) -> None:
        """See `PowerControl`."""
        self._pull_pin(_GPIO_POWEROFF)

    def system_reset(self) -> None:
        """See `PowerControl`."""
        self._pull_pin(_GPIO_RESET)

    def _pull_pin(self, pin: int) -> None:
        gpio = layout.POWER_GPIO
        self._ops.append(write_phys(gpio + 0x400, 3, 4))  # GPIODIR: both pins are outputs
        self._ops.append(write_phys(gpio + (4 << pin), 1 << pin, 4))  # GPIODATA, masked by the address
        self._flags |= _PARK
        if self.note is not None:
            self.note("off" if pin == _GPIO_POWEROFF else "resetting", 0)

    # ---- the host's side
    # ------------------------------------------------------------------------------------------------

    def trigger(self, event: int, pe: int | None) -> Any:
        """Make an event pending from outside; `kicks` then says who must be interrupted. Raises what
        `Dispatcher.trigger` raises.
        """
        result = self.dispatcher.trigger(event, pe)
        return result

    @property
    def busy(self) -> bool:
        """A service waits for micro-operations: its progress cannot be written down now."""
        return bool(self._steps)

    def abandon(self) -> None:
        """Forget services that wait for micro-operations; their callers will get NOT_SUPPORTED."""
        self._steps.clear()

    def snapshot(self) -> dict[str, Any]:
        """The whole state as a JSON-able document."""
        return {
            "version": STATE_VERSION,
            "nr_cpus": self.nr_cpus,
            "client_el": self.client_el,
            "epoch": self.epoch,
            "id_registers": self.id_registers,
            "psci": self.psci.snapshot(),
            "sdei": self.dispatcher.snapshot(),
            "gic": self.ownership.snapshot(),
            "services": {s.title: s.snapshot() for s in self._users if s.journal is JournalMode.INPUT},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a state.

        Raises:
            ProtocolError: it is damaged, newer, or of another machine; this object must then be thrown away.
        """
        version = state.get("version")
        if type(version) is not int or not 1 <= version <= STATE_VERSION:
            raise ProtocolError(f"state of version {state.get('version')!r}; this program knows 1 to {STATE_VERSION}")
        if state.get("nr_cpus") != self.nr_cpus or state.get("client_el") != self.client_el:
            raise ProtocolError("state of a machine with other CPUs")
        try:
            self.epoch = int(state["epoch"])
            self.id_registers = {str(k): int(v) for k, v in state["id_registers"].items()}
            self.dispatcher.features = CpuFeatures.from_id_registers(self.id_registers)
            self.psci.restore(state["psci"])
            self.dispatcher.restore(state["sdei"])
            self.ownership.reset()
            if version > 1:
                self.ownership.restore(state["gic"], self.nr_cpus)
            for service in self._users:
                if service.journal is JournalMode.INPUT:
                    service.restore(state["services"][service.title])
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ProtocolError(f"state document: {error!r}") from None
