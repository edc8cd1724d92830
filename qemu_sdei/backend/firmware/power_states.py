"""CPUs that start, wait and come back: what a kick or a reset of one is answered with, by its power state."""

from __future__ import annotations

from qemu_sdei.backend.firmware import power_down
from qemu_sdei.backend.firmware.core import PARK, Core, park
from qemu_sdei.backend.firmware.exchange import Exchange
from qemu_sdei.backend.firmware.notices import Notices
from qemu_sdei.monitor.layout import AnswerFlag, Word
from qemu_sdei.monitor.ops import encode, marked
from qemu_sdei.sdei.context import PC, X0
from qemu_sdei.services.psci import Power, Psci


class PowerStates:
    """The power states of one guest's CPUs, as the answers to their frames.

    Attributes:
        started: PE -> entry point of CPUs that were sent off by CPU_ON or a boot; who looks at it drains it.
    """

    def __init__(self, core: Core, psci: Psci, exchange: Exchange, notices: Notices) -> None:
        self.started: dict[int, int] = {}
        self._machine = core.machine
        self._dispatcher = core.dispatcher
        self._ownership = core.ownership
        self._answer = core.answer
        self._observer = core.observer
        self._quirks = core.quirks
        self._psci = psci
        self._exchange = exchange
        self._notices = notices

    def kicked(self, pe: int, frame: memoryview, regs: memoryview) -> None:
        """The CPU was interrupted because there may be something for it, or it waits in the monitor and has been
        woken.
        """
        power, exchange, claims = self._psci.power[pe], self._exchange, self._dispatcher.interrupts
        if pe in self._quirks.stuck:
            self._answer.flags |= PARK
            exchange.finish(pe, frame, regs)
        elif power is Power.ON:
            notice = self._notices.next_of(pe) if self._notices.waiting and not claims else None
            if notice is None:
                exchange.finish(pe, frame, regs)
            else:
                first, *rest = self._notices.look(notice)
                exchange.repost(frame, [first, *rest, *self._answer.ops])
        elif power is Power.OFF:
            self._answer.flags |= PARK
            exchange.finish(pe, frame, regs)
        elif claims:
            # An SPI that this CPU took is to be seen to; then it is asked again.
            self._answer.flags |= PARK
            self._dispatcher.kicks.append(pe)
            exchange.finish(pe, frame, regs)
        else:
            self._ownership.gic.lose(pe)
            first, *rest = power_down.look(pe)
            exchange.repost(frame, [first, *self._answer.ops, *rest])

    def come_up(self, pe: int, frame: memoryview, regs: memoryview, step: int) -> None:
        """The next exchange of a CPU that comes back from a power-down: one that was off, or suspended. `step`: which
        of `power_down.Step` its frame brings back.
        """
        exchange, machine = self._exchange, self._machine
        pending = self._psci.power[pe] is Power.ON_PENDING
        occasion = "cpu-on" if pending else "wake"
        if step == power_down.Step.LOOK and (ops := power_down.drop(frame)):
            keeps = self._keeps(pe, not pending)
            self._observer.priorities(pe, occasion, power_down.active_at(frame), keeps=keeps)
            if not keeps:
                exchange.repost(frame, ops)
                return
        if step == power_down.Step.DROP and (left := power_down.left_at(frame)) is not None:
            self._observer.priorities(pe, occasion, left)
        if step in (power_down.Step.LOOK, power_down.Step.DROP) and not pending:
            exchange.repost(frame, power_down.wait(), AnswerFlag.WFI)
            return
        last = power_down.clear(machine.client_el, timers=pending)
        if machine.client_el == 2:
            if step != power_down.Step.CLEAR:
                exchange.repost(frame, last)
                return
            last = power_down.own(frame, machine.affinities[pe], machine.id_registers.get("MIDR_EL1", 0))
        self._answer.ops += [marked(last[0], power_down.Step.END), *last[1:]]
        if pending:
            self._start_wanted(pe, frame, regs)
        else:
            exchange.enter(frame, regs, regs[PC], regs[X0])
            if self._quirks.hooks is not None:
                self._quirks.hooks.woke(pe)
            exchange.finish(pe, frame, regs)

    def _keeps(self, pe: int, wakes: bool) -> bool:
        hooks = self._quirks.hooks
        return hooks is not None and hooks.keeps_priorities(pe, wakes)

    def _start_wanted(self, pe: int, frame: memoryview, regs: memoryview) -> None:
        start = self._psci.started(pe)
        if start is not None:
            self.start(pe, frame, regs, *start)

    def start(self, pe: int, frame: memoryview, regs: memoryview, entry: int, x0: int, x1: int = 0) -> None:
        """Send a CPU that was off to `entry`."""
        self._exchange.enter(frame, regs, entry, x0, x1)
        self.started[pe] = entry
        self._dispatcher.power_on(pe)
        self._observer.tell("power", pe, state="on", entry=entry)
        if self._quirks.hooks is not None and not self._quirks.hooks.came_up(pe):
            self._answer.clear()
            self._answer.flags = PARK
        self._exchange.finish(pe, frame, regs)

    def wait_after_reset(self, pe: int, frame: memoryview) -> None:
        """A CPU other than 0 has come out of reset: it waits until it is asked for (DEN0022 6.4)."""
        # What CPU_ON asked of it may be of the time before this very reset, whose frame of CPU 0 is still to come. Only
        # a kick starts a CPU: CPU 0 passes kicks on, and none from before its own reset.
        if self._psci.power[pe] is Power.ON_PENDING:
            self._dispatcher.kicks.append(pe)
        park(frame)
        frame[Word.FLAGS] |= encode(frame, self._machine.at_reset)

    def stop_broken(self, pe: int, frame: memoryview) -> None:
        """A CPU whose monitor is in trouble stops, the others go on."""
        self._psci.power[pe] = Power.OFF
        self._psci.entry[pe] = None
        self._dispatcher.power_off(pe)
        self._exchange.take_steps(pe)
        self._ownership.forget(pe)
        self._ownership.leave(self._dispatcher.interrupts)
        self._dispatcher.interrupts.clear()  # the PPIs that it owned are given back if it is ever started again
        park(frame)
