"""Power states as a frame's answer: reset and boot of the machine, CPUs that start, stop, wait, and the GPIO."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from qemu_sdei.backend.firmware import power_down
from qemu_sdei.backend.firmware.exchange import PARK, Exchange, Steps
from qemu_sdei.boot.config import Entry
from qemu_sdei.monitor import layout
from qemu_sdei.monitor.layout import AnswerFlag, Kind, SysReg, Word
from qemu_sdei.monitor.ops import MicroOp, encode, marked, read_sysreg, write_phys
from qemu_sdei.sdei.context import PC, X0
from qemu_sdei.sdei.profile import Profile
from qemu_sdei.sdei.pstate import CpuFeatures
from qemu_sdei.services.built_in import services_of
from qemu_sdei.services.platform import Platform
from qemu_sdei.services.psci import Power, Psci
from qemu_sdei.smccc.service import Service

_GPIO_POWEROFF: Final = 0
_GPIO_RESET: Final = 1


class Boot(Protocol):
    """What fills guest RAM at a reset of CPU 0."""

    def begin(self, again: bool) -> list[MicroOp]:
        """What must be done before RAM is filled; `again`: a guest has run from it. Nothing: `load` comes next."""

    def proceed(self, frame: memoryview) -> list[MicroOp]:
        """What must be done after the micro-operations that `frame` brings back. Nothing: `load` comes next."""

    def load(self) -> Entry:
        """Fill RAM. Returns where CPU 0 starts."""


class PowerFirmware(Exchange):
    """An `Exchange` whose CPUs can be powered: it is PSCI's `PowerControl`."""

    def __init__(
        self,
        nr_cpus: int,
        client_el: int,
        profile: Profile,
        sdei: bool,
        services: Sequence[Service],
        boot: Boot | None,
        ram: range | None,
    ) -> None:
        super().__init__(nr_cpus, client_el, profile, ram)
        self.serves_sdei = sdei
        platform = Platform(self.affinities, self.registry, self.dispatcher, self, ram, sdei)
        for service in (*services_of(platform), *services):
            self.registry.register(service)
        self.psci = self.registry.find(Psci)
        self._power = self.psci.power
        self.open_services()
        self.id_registers: dict[str, int] = {}
        self.booting = False
        self.proof = 0
        self.started: dict[int, int] = {}
        self._boot = boot

    def _kick(self, pe: int, frame: memoryview, regs: memoryview) -> None:
        """The CPU was interrupted because there may be something for it, or it waits in the monitor and has been
        woken.
        """
        if self.psci.power[pe] is Power.ON:
            self.finish(pe, frame, regs)
            return
        if self.psci.power[pe] is Power.OFF:
            self._flags |= PARK
            self.finish(pe, frame, regs)
        elif self.monitor < layout.COLD:
            self._claims += self.ownership.gic.owned_by(pe)
            self._started(pe, frame, regs)
        elif self._claims:
            # An SPI that this CPU took is to be seen to; then it is asked again.
            self._flags |= PARK
            self.kicks.append(pe)
            self.finish(pe, frame, regs)
        else:
            self.ownership.gic.lose(pe)
            first, *rest = power_down.look(pe)
            self._repost(frame, [first, *self._ops, *rest])

    def _repost(self, frame: memoryview, ops: list[MicroOp], flags: int = 0) -> None:
        """These, and then another frame; what was asked for so far is among them."""
        self._ops.clear()
        frame[Word.FLAGS] = encode(frame, ops) | AnswerFlag.REPOST | flags

    def _come_up(self, pe: int, frame: memoryview, regs: memoryview, step: int) -> None:
        """The next exchange of a CPU that comes back from a power-down: one that was off, or suspended."""
        pending = self.psci.power[pe] is Power.ON_PENDING
        if step == power_down.Step.LOOK and (ops := power_down.drop(frame)):
            self._repost(frame, ops)
            return
        if step in (power_down.Step.LOOK, power_down.Step.DROP) and not pending:
            self._repost(frame, power_down.wait(), AnswerFlag.WFI)
            return
        last = power_down.clear(self.client_el, timers=pending)
        if self.client_el == 2:
            if step != power_down.Step.CLEAR:
                self._repost(frame, last)
                return
            last = power_down.own(frame, self.affinities[pe], self.id_registers.get("MIDR_EL1", 0))
        self._ops += [marked(last[0], power_down.Step.END), *last[1:]]
        if pending:
            self._started(pe, frame, regs)
        else:
            self._enter(frame, regs, regs[PC], regs[X0])
            self.finish(pe, frame, regs)

    def _started(self, pe: int, frame: memoryview, regs: memoryview) -> None:
        start = self.psci.started(pe)
        if start is not None:
            self._start(pe, frame, regs, *start)

    def _reset(self, pe: int, frame: memoryview, regs: memoryview) -> None:
        """DEN0022 6.4: CPU 0 boots, the others wait until they are asked for. CPU 0's reset is the machine's."""
        self._steps.pop(pe, None)
        self.ownership.forget(pe)
        if pe == 0:
            # Now, not when CPU 0 boots: the others come out of reset meanwhile, and what they were to do is void.
            self.psci.reset()
            self.dispatcher.reset()
            self.ownership.reset()
            self.booting = True
            self._boot_machine(frame, regs)
            return
        # What CPU_ON asked of it may be of the time before this very reset, whose frame of CPU 0 is still to come. Only
        # a kick starts a CPU: CPU 0 passes kicks on, and none from before its own reset.
        if self.psci.power[pe] is Power.ON_PENDING:
            self.kicks.append(pe)
        self._park(frame)

    def _boot_machine(self, frame: memoryview, regs: memoryview) -> None:
        ops = self._operations_of_boot(frame)
        if ops:
            frame[Word.FLAGS] = encode(frame, ops) | AnswerFlag.REPOST
            return
        self._reset_machine(frame)
        entry = self._boot.load() if self._boot is not None else Entry(0, 0, 0)
        self._start(0, frame, regs, entry.pc, entry.x0, entry.x1)

    def _reset_machine(self, frame: memoryview) -> None:
        self.epoch += 1
        self.kernels = 0
        self.booting = False
        self._steps.clear()
        self.kicks.clear()
        self._flags = 0
        self._wake = None
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
        """Send a CPU that was off to `entry`."""
        self._enter(frame, regs, entry, x0, x1)
        self.started[pe] = entry
        self.dispatcher.power_on(pe)
        if self.note is not None:
            self.note("power", pe, state="on", entry=entry)
        self.finish(pe, frame, regs)

    def boots(self, pe: int, frame: memoryview) -> bool:
        """Whether answering this frame ends in a boot of the machine, which is not replayed but checkpointed.

        It does so for CPU 0's RESET frame, unless the boot begins with micro-operations: then for the frame that brings
        their end. All before that is replayed: from the RESET frame on nothing is as it was.
        """
        return self.is_boots(pe, frame) and not self._operations_of_boot(frame)

    def is_boots(self, pe: int, frame: memoryview) -> bool:
        """Whether a frame belongs to a boot of the machine: to what CPU 0 does from its RESET frame on until it starts.

        One of kind OPS that comes later is a service's, or forged. VECTOR tells as well (a reset is not taken through
        one): who was just started again may not know whether the machine boots.
        """
        if pe != 0 or not self.is_proven(frame):
            return False
        if frame[Word.KIND] == Kind.RESET:
            return True
        ops = frame[Word.KIND] == Kind.OPS and frame[Word.VECTOR] == 0 and not power_down.step_of(frame)
        return bool(ops and self.booting and pe not in self.ownership.jobs)

    def is_proven(self, frame: memoryview) -> bool:
        """Whether the monitor has put its proof into this frame of CPU 0, as it does when it comes out of reset, and
        nowhere else. What CPU 0 boots by has it until the guest runs.
        """
        return not self.proof or frame[Word.PROOF] == self.proof

    def _operations_of_boot(self, frame: memoryview) -> list[MicroOp]:
        """The micro-operations that answer a frame of a boot. Asked twice, it gives and does the same."""
        if self._boot is None:
            return []
        return self._boot.begin(self.epoch > 0) if frame[Word.KIND] == Kind.RESET else self._boot.proceed(frame)

    # ---- PowerControl: what PSCI asks for ---------------------------------------------------------------------------

    def start_cpu(self, pe: int) -> None:
        """See `PowerControl`."""
        self.kicks.append(pe)

    def stop_cpu(self, pe: int) -> None:
        """See `PowerControl`."""
        self.dispatcher.power_off(pe)
        self._flags |= PARK
        if self.note is not None:
            self.note("power", pe, state="off")

    def standby(self, pe: int) -> None:
        """See `PowerControl`."""
        self._flags |= int(AnswerFlag.WFI)

    def suspend(self, pe: int, entry: int, context: int) -> None:
        """See `PowerControl`. There is no state of being suspended: the answer is to wait in EL3, then come up. Where
        to stands in the frame meanwhile.
        """
        self.dispatcher.suspended(pe)
        self._wake = (entry, context)
        if self.monitor < layout.COLD:
            self._flags |= int(AnswerFlag.WFI)
        else:
            self._flags |= int(AnswerFlag.REPOST)
            self._ops[:0] = power_down.look(None)
        if self.note is not None:
            self.note("power", pe, state="suspended", entry=entry)

    def in_handler(self, pe: int) -> bool:
        """See `PowerControl`."""
        return bool(self.dispatcher.running(pe))

    def kernel_begins(self, pe: int) -> Steps | None:
        """See `PowerControl`. A kernel that another has started, on a CPU that was not powered down, has active
        priorities where that one left an interrupt's handler: by a panic in an SDEI handler that interrupted it.
        """
        self.kernels += 1
        if self.note is not None:
            self.note("kernel", pe, kernel=self.kernels)
        return self._drop_priorities() if self.kernels > 1 and self.monitor >= layout.COLD else None

    def _drop_priorities(self) -> Steps:
        """What Linux does itself as it boots, by a write to ICC_AP1R0_EL1 that QEMU ignores where there is an EL3."""
        found = yield read_sysreg(SysReg.ICC_AP1R0_EL1)
        ends = power_down.ends(found.value)
        if ends:
            yield ends
        return None

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
        self._flags |= PARK
        if self.note is not None:
            self.note("off" if pin == _GPIO_POWEROFF else "resetting", 0)
