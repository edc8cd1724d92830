"""Everything that decides, for one guest: services, SDEI, PSCI, and what each frame is answered with.

No I/O and no clock: the same frames in the same order give the same answers and the same state, which is what crash
recovery (the journal) and migration stand on. The one exception is `boot`, the loader that fills guest RAM at a reset
of CPU 0; it is never replayed, because a reset ends with a checkpoint.

A frame is answered in place: `handle` edits the words that the monitor will take (context, FLAGS, OPS). Writing ACK
is the owner's. It hands a frame to the part that answers its kind: `exchange.py` (calls and deliveries, the hot path),
`power_states.py` (CPUs that start and wait), `machine_boot.py` (reset and boot).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

from qemu_sdei.backend.firmware import power_down
from qemu_sdei.backend.firmware.call_table import OUTCOME, CallTable
from qemu_sdei.backend.firmware.core import Answer, Core, MachineFacts, Observer, RefusedSmc
from qemu_sdei.backend.firmware.exchange import NOT_SUPPORTED, Exchange
from qemu_sdei.backend.firmware.gic import LAST_SPI, LOOKED, UART_INTID
from qemu_sdei.backend.firmware.guest_exceptions import GuestExceptions
from qemu_sdei.backend.firmware.interrupt_ownership import Ownership
from qemu_sdei.backend.firmware.machine_boot import Boot, MachineBoot
from qemu_sdei.backend.firmware.misbehaviour import Misbehaviour
from qemu_sdei.backend.firmware.notices import Notices
from qemu_sdei.backend.firmware.power_control import AnsweredPower
from qemu_sdei.backend.firmware.power_states import PowerStates
from qemu_sdei.backend.firmware.quirks import Quirks
from qemu_sdei.errors import ProtocolError, UsageError
from qemu_sdei.hypervisor.entries import EC, HVC
from qemu_sdei.monitor.layout import AnswerFlag, Kind, SysReg, Word, counter_of
from qemu_sdei.monitor.ops import MicroOp, OpResult, decode, encode, write_sysreg
from qemu_sdei.sdei.context import X0
from qemu_sdei.sdei.dispatcher import Dispatcher
from qemu_sdei.sdei.events import ANY_PE
from qemu_sdei.sdei.interrupts import FIRST_SPI
from qemu_sdei.sdei.machine_description import MachineDescription
from qemu_sdei.sdei.pstate import CpuFeatures
from qemu_sdei.services.built_in import services_of
from qemu_sdei.services.platform import CrossTime, Platform
from qemu_sdei.services.psci import Power, Psci
from qemu_sdei.services.sdei import Sdei
from qemu_sdei.smccc import call_filter
from qemu_sdei.smccc.call_filter import CallFilter
from qemu_sdei.smccc.ids import FUNCTION_MASK
from qemu_sdei.smccc.registry import Registry
from qemu_sdei.smccc.selection import Selection, parse
from qemu_sdei.smccc.service import JournalMode, Service

STATE_VERSION: Final = 2


class Firmware:
    """The firmware of one guest.

    Attributes:
        machine: facts of its machine; resets and kernels are counted there.
        dispatcher: the SDEI core.
        ownership: which interrupts are the firmware's.
        notices: aborts and interrupts that wait for a CPU to make them.
        psci: power states, as PSCI has them.
        registry: its services.
        selection: which of them the guest finds; written by `select`.
        calls: what each call needs.
        exchange: what answers calls.
        power: what answers frames of CPUs that start and wait.
        boot: what answers frames of a reset and boot of the machine.
        observer: who is told what happens.
        misbehaviour: what it does wrong on purpose; nothing without a firmware profile.
        kicks: PEs that ought to be interrupted; the owner drains it.
        serves_sdei: whether it has SDEI at all.
    """

    def __init__(
        self,
        nr_cpus: int,
        *,
        client_el: int = 1,
        profile: MachineDescription | None = None,
        sdei: bool = True,
        services: Sequence[Service] = (),
        boot: Boot | None = None,
        ram: range | None = None,
        at_reset: Sequence[MicroOp] = (),
        smc: RefusedSmc | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
        stolen_time: int | None = None,
        hypervisor: bool = False,
        selection: Sequence[str] = (),
        smccc_filter: Sequence[str] = (),
    ) -> None:
        """`sdei`: False for firmware without it: the function ids are NOT_SUPPORTED, and there are no events.
        `ram`: physical addresses of the guest's RAM, where it can run with its MMU off; None: anywhere.
        `at_reset`, `smc`: see `MachineFacts`.
        `entropy`: gives as many random bytes as it is asked for. `stolen_time`: see `Platform`. `hypervisor`,
        `selection`, `smccc_filter`: see `GuestConfig`.

        Raises:
            UsageError: two services want the same functions, or there is no such service to be selected.
        """
        self.machine = MachineFacts(nr_cpus, client_el, ram, at_reset, smc)
        self.dispatcher = Dispatcher(
            profile or MachineDescription.default(),
            self.machine.affinities,
            client_el=client_el,
            max_intid=LAST_SPI,
            reserved_intids=(UART_INTID,),
        )
        self.ownership = Ownership(self.dispatcher)
        self.notices = Notices(self.machine, self.dispatcher)
        self.observer = Observer()
        self._answer = Answer()
        core = Core(self.machine, self.dispatcher, self.ownership, self._answer, self.observer, Quirks())
        self.registry = Registry(CallFilter(call_filter.parse(smccc_filter)), self._conduit)
        self.serves_sdei = sdei
        power = AnsweredPower(core)
        platform = Platform(
            self.machine.affinities,
            self.registry,
            self.dispatcher,
            power,
            ram,
            sdei,
            entropy,
            stolen_time,
            hypervisor,
            lambda: self.machine.id_registers,
            self._cross_time,
        )
        for service in services_of(platform):
            self.registry.register(service)
        for service in services:
            self.registry.register(service, users=True)
        self.selection = Selection(self.registry.implemented)
        self.selection.elect(parse(selection))
        self.registry.withhold(self.selection.withheld())
        self.psci = self.registry.find(Psci)
        self.calls = CallTable(self.registry, self.machine, self._answer)
        self.exchange = Exchange(core, self.psci.power)
        self._exceptions = GuestExceptions(core, self.exchange)
        self.power = PowerStates(core, self.psci, self.exchange, self.notices)
        self.boot = MachineBoot(core, self.psci, self.registry, self.exchange, self.power, boot)
        self.misbehaviour = Misbehaviour(core, self.psci, self.calls, self.exchange)
        self.kicks = self.dispatcher.kicks
        self._kept = [
            service
            for service in self.registry
            if service.journal is JournalMode.INPUT and not isinstance(service, Psci | Sdei)
        ]
        """Services with a state that has no place of its own in `snapshot`."""

    def handle(self, pe: int, frame: memoryview, regs: memoryview) -> None:
        """Answer one frame in place. `regs` is the view of its context."""
        kind = frame[Word.KIND]
        if kind == Kind.SMC:
            entry = self.calls.find(frame[Word.FUNCTION] & FUNCTION_MASK)
            if entry is None:
                self.exchange.call(pe, frame, regs, None)
            else:
                self.exchange.call(pe, frame, regs, entry[0], entry[1] == OUTCOME)
        elif kind == Kind.KICK:
            self.power.kicked(pe, frame, regs)
        elif kind == Kind.RESET and (pe != 0 or self.boot.is_proven(frame)):
            # The owner has looked already, but the guest may write into the frame meanwhile.
            if pe == 0:
                self.notices.reset()
            self.boot.reset(pe, frame, regs)
        elif kind == Kind.INTERRUPT:
            self._interrupt(pe, frame, regs)
        elif kind == Kind.OPS:
            if self.boot.is_boots(pe, frame):
                self.boot.proceed(frame, regs)
            else:
                self._continue(pe, frame, regs)
        elif kind == Kind.EXCEPTION:
            self._exceptions.take(pe, frame, regs)
        else:
            self._broken(pe, frame, kind)

    def _interrupt(self, pe: int, frame: memoryview, regs: memoryview) -> None:
        """A Group 0 interrupt, acknowledged: the trigger of a bound event (DEN0054 5.1.14)."""
        intid = frame[Word.VECTOR]
        if not self.ownership.gic.owns(intid, pe):
            # A bound one was taken just when its event was unregistered. No other can be.
            if not self.dispatcher.is_bound(intid):
                self.observer.reject(pe, f"interrupt {intid} is secure Group 0 and belongs to no event")
            self._answer.ops.append(write_sysreg(SysReg.ICC_EOIR0_EL1, intid))
            self.power.kicked(pe, frame, regs)
            return
        ops = self.ownership.gic.quiet(intid, pe)
        event = self.dispatcher.event_of(intid)
        self.observer.tell("trigger", pe, event=event, by="interrupt", intid=intid, outcome="pending")
        self.misbehaviour.interrupted(intid, pe)
        if intid < FIRST_SPI:
            self._answer.ops += ops
            self.power.kicked(pe, frame, regs)
            return
        self.ownership.quieting[pe] = intid
        frame[Word.FLAGS] = encode(frame, ops) | AnswerFlag.REPOST

    def _continue(self, pe: int, frame: memoryview, regs: memoryview) -> None:
        job = self.ownership.jobs.pop(pe, None)
        if job is not None:
            self.exchange.settle(pe, frame, regs, job, decode(frame, LOOKED))
            return
        intid = self.ownership.quieting.pop(pe, None)
        if intid is not None:
            self.dispatcher.interrupts.append((intid, ANY_PE))
            self.power.kicked(pe, frame, regs)
            return
        waiting = self.exchange.take_steps(pe)
        step = power_down.step_of(frame)
        if waiting is None and 0 < step < power_down.Step.END and self.psci.power[pe] is not Power.OFF:
            self.power.come_up(pe, frame, regs, step)
            return
        if waiting is None and self.notices.is_one(frame):
            self._noticed(pe, frame, regs)
            return
        if waiting is None:
            regs[X0] = NOT_SUPPORTED
            self.observer.reject(pe, "micro-operations done that nobody waits for")
            self.exchange.finish(pe, frame, regs)
            return
        steps, count = waiting
        results: OpResult | list[OpResult] = decode(frame, count) if count else decode(frame, 1)[0]
        self.exchange.advance(pe, frame, regs, steps, results)

    def _noticed(self, pe: int, frame: memoryview, regs: memoryview) -> None:
        """A CPU that was kicked has looked whether it can make a notice: it does, or goes on as after the kick."""
        if self.psci.power[pe] is not Power.ON:
            self.power.kicked(pe, frame, regs)
            return
        self._answer.ops += self.notices.take(pe, frame, regs)
        self.exchange.finish(pe, frame, regs)

    # ---- what ought not to happen -----------------------------------------------------------------------------------

    def _broken(self, pe: int, frame: memoryview, kind: int) -> None:
        """The monitor is in trouble, or somebody wrote into the frame: this CPU stops, the others go on."""
        known = Kind(kind).name if kind in Kind._value2member_map_ else "unknown"
        self.observer.reject(
            pe,
            f"frame of kind {kind} ({known}): vector {frame[Word.VECTOR]} ESR {frame[Word.ESR_EL3]:#x} "
            f"FAR {frame[Word.FAR_EL3]:#x} pc {frame[Word.PC]:#x}; the CPU is parked",
        )
        self.power.stop_broken(pe, frame)

    def _conduit(self) -> Literal["smc", "hvc"]:
        """By which instruction the call came that is being answered."""
        frame = self._answer.frame
        return "hvc" if frame is not None and frame[Word.ESR_EL3] >> EC == HVC else "smc"

    def _cross_time(self) -> CrossTime | None:
        """When the call came that is being answered; None: the monitor does not tell, or this is a replay."""
        frame, wall = self._answer.frame, self.observer.wall
        hz = self.machine.id_registers.get("CNTFRQ_EL0", 0)
        counter = None if frame is None else counter_of(frame, self.machine.monitor)
        if wall is None or counter is None or not hz:
            return None
        return CrossTime(wall(counter, hz), counter)

    # ---- the host's side --------------------------------------------------------------------------------------------

    def trigger(self, event: int, pe: int | None) -> Any:
        """Make an event pending from outside; `kicks` then says who must be interrupted. Raises what
        `Dispatcher.trigger` raises.
        """
        if not self.serves_sdei:
            raise UsageError("this guest's firmware has no SDEI: start it without --no-sdei")
        return self.misbehaviour.trigger(event, pe)

    def select(self, values: Mapping[int, int]) -> bool:
        """Write registers of `selection`, by id, all or none.

        Returns:
            Whether the guest finds other services now.

        Raises:
            RefusedError: one of them cannot be written.
        """
        before = self.selection.snapshot()
        try:
            changed = [
                self.selection.write(number, value, has_run=self.machine.epoch > 0) for number, value in values.items()
            ]
        except UsageError:
            self.selection.restore(before)
            raise
        if any(changed):
            self._selected()
        return any(changed)

    def _selected(self) -> None:
        self.registry.withhold(self.selection.withheld())
        self.calls.rebuild()
        self.misbehaviour.use(self.misbehaviour.profile)

    def snapshot(self) -> dict[str, Any]:
        """The whole state as a JSON-able document."""
        return {
            "version": STATE_VERSION,
            "nr_cpus": self.machine.nr_cpus,
            "client_el": self.machine.client_el,
            "epoch": self.machine.epoch,
            "kernels": self.machine.kernels,
            "booting": self.boot.booting,
            "serves_sdei": self.serves_sdei,
            "id_registers": self.machine.id_registers,
            "selection": self.selection.snapshot(),
            "psci": self.psci.snapshot(),
            "sdei": self.dispatcher.snapshot(),
            "triggers": self.dispatcher.counts(),
            "gic": self.ownership.snapshot(),
            # Not where there are none, as most of the time: programs that know of none take the document, too.
            **({"notices": self.notices.snapshot()} if self.notices.waiting else {}),
            "services": {service.title: service.snapshot() for service in self._kept},
            **({"misbehaviour": self.misbehaviour.snapshot()} if self.misbehaviour.active else {}),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a state.

        Raises:
            ProtocolError: it is damaged, newer, or of another machine; this object must then be thrown away.
        """
        version = state.get("version")
        if type(version) is not int or version != STATE_VERSION:
            raise ProtocolError(f"state of another version than this program knows ({STATE_VERSION})")
        for name, value in (("nr_cpus", self.machine.nr_cpus), ("client_el", self.machine.client_el)):
            if type(state.get(name)) is not int or state[name] != value:
                raise ProtocolError("state of a machine with other CPUs")
        if state.get("serves_sdei", True) is not self.serves_sdei:
            raise ProtocolError(f"state of a machine {'without' if self.serves_sdei else 'with'} SDEI")
        booting = state.get("booting")
        if "booting" in state and not isinstance(booting, bool):
            raise ProtocolError("state document: booting: must be true or false")
        try:
            self.machine.epoch = int(state["epoch"])
            self.machine.kernels = int(state.get("kernels", 0))  # older programs did not count them
            self.machine.id_registers = {str(k): int(v) for k, v in state["id_registers"].items()}
            self.dispatcher.features = CpuFeatures.from_id_registers(self.machine.id_registers)
            # Older programs had SDEI only: what came after it stays away from the guests that they began.
            self.selection.restore(state.get("selection", self.selection.before))
            self._selected()
            self.psci.restore(state["psci"])
            self.dispatcher.restore(state["sdei"])
            # Older programs did not say. While a machine boots no CPU is on for SDEI.
            self.boot.booting = not any(pe["on"] for pe in state["sdei"]["pes"]) if booting is None else booting
            self.dispatcher.restore_counts(state.get("triggers", []))
            self.ownership.reset()
            self.ownership.restore(state["gic"], self.machine.nr_cpus)
            self.notices.restore(state.get("notices", []))
            self.misbehaviour.restore(state.get("misbehaviour"))
            for service in self._kept:
                if service.since_state_2 and service.title not in state["services"]:
                    service.reset()
                else:
                    service.restore(state["services"][service.title])
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ProtocolError(f"state document: {error!r}") from None
