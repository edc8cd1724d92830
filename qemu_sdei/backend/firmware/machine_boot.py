"""Reset and boot of the machine: what CPU 0 does from its RESET frame on until it starts."""

from __future__ import annotations

from typing import Protocol

from qemu_sdei.backend.firmware import power_down
from qemu_sdei.backend.firmware.core import Core
from qemu_sdei.backend.firmware.exchange import Exchange
from qemu_sdei.backend.firmware.power_states import PowerStates
from qemu_sdei.boot.config import Entry
from qemu_sdei.monitor import layout
from qemu_sdei.monitor.layout import AnswerFlag, Kind, Word
from qemu_sdei.monitor.ops import MicroOp, encode
from qemu_sdei.sdei.pstate import CpuFeatures
from qemu_sdei.services.psci import Psci
from qemu_sdei.smccc.registry import Registry


class Boot(Protocol):
    """What fills guest RAM at a reset of CPU 0."""

    def begin(self, again: bool) -> list[MicroOp]:
        """What must be done before RAM is filled; `again`: a guest has run from it. Nothing: `load` comes next."""

    def proceed(self, frame: memoryview) -> list[MicroOp]:
        """What must be done after the micro-operations that `frame` brings back. Nothing: `load` comes next."""

    def load(self, epoch: int) -> Entry:
        """Fill RAM, for this boot of the machine, the first being 1. Returns where CPU 0 starts."""


class MachineBoot:
    """Boots one guest's machine, at each reset.

    Attributes:
        booting: CPU 0's RESET frame has come, and what its boot needs of QEMU is not all there yet.
        proof: what the monitor puts into a RESET frame of CPU 0 (`monitor.image.proof_of`); 0: nothing, so any is
            taken.
    """

    def __init__(
        self, core: Core, psci: Psci, registry: Registry, exchange: Exchange, power: PowerStates, loader: Boot | None
    ) -> None:
        """`registry`: the services that are reset as well; `loader` None: RAM is left alone, CPU 0 starts at 0."""
        self.booting = False
        self.proof = 0
        self._machine = core.machine
        self._answer = core.answer
        self._dispatcher = core.dispatcher
        self._ownership = core.ownership
        self._observer = core.observer
        self._quirks = core.quirks
        self._psci = psci
        self._registry = registry
        self._exchange = exchange
        self._power = power
        self._loader = loader

    def reset(self, pe: int, frame: memoryview, regs: memoryview) -> None:
        """A CPU has come out of reset. DEN0022 6.4: CPU 0 boots, the others wait until they are asked for. CPU 0's
        reset is the machine's.
        """
        self._exchange.take_steps(pe)
        self._ownership.forget(pe)
        if pe != 0:
            self._power.wait_after_reset(pe, frame)
            return
        # Now, not when CPU 0 boots: the others come out of reset meanwhile, and what they were to do is void.
        if self._quirks.hooks is not None:
            self._quirks.hooks.machine_resets()
        self._psci.reset()
        self._dispatcher.reset()
        self._ownership.reset()
        self.booting = True
        self.proceed(frame, regs)

    def proceed(self, frame: memoryview, regs: memoryview) -> None:
        """The next step of a boot: micro-operations, or CPU 0 starts."""
        ops = self._operations(frame)
        if ops:
            frame[Word.FLAGS] = encode(frame, ops) | AnswerFlag.REPOST
            return
        self._reset_machine(frame)
        entry = self._loader.load(self._machine.epoch) if self._loader is not None else Entry(0, 0, 0)
        self._answer.ops += self._machine.at_reset
        self._power.start(0, frame, regs, entry.pc, entry.x0, entry.x1)

    def _reset_machine(self, frame: memoryview) -> None:
        machine = self._machine
        machine.epoch += 1
        machine.kernels = 0
        self.booting = False
        self._exchange.reset()
        self._dispatcher.kicks.clear()
        names = layout.RESET_REGISTERS
        machine.id_registers = {name: frame[Word.ID_REGISTERS + i] for i, name in enumerate(names)}
        self._dispatcher.features = CpuFeatures.from_id_registers(machine.id_registers)
        self._dispatcher.reset()
        self._ownership.reset()
        for service in self._registry:
            service.reset()
        self._observer.tell("reset", 0, epoch=machine.epoch, counter_hz=machine.id_registers["CNTFRQ_EL0"])

    def boots(self, pe: int, frame: memoryview) -> bool:
        """Whether answering this frame ends in a boot of the machine, which is not replayed but checkpointed.

        It does so for CPU 0's RESET frame, unless the boot begins with micro-operations: then for the frame that brings
        their end. All before that is replayed: from the RESET frame on nothing is as it was.
        """
        return self.is_boots(pe, frame) and not self._operations(frame)

    def is_boots(self, pe: int, frame: memoryview) -> bool:
        """Whether a frame belongs to a boot of the machine.

        One of kind OPS that comes later is a service's, or forged. VECTOR tells as well (a reset is not taken through
        one): who was just started again may not know whether the machine boots.
        """
        if pe != 0 or not self.is_proven(frame):
            return False
        if frame[Word.KIND] == Kind.RESET:
            return True
        ops = frame[Word.KIND] == Kind.OPS and frame[Word.VECTOR] == 0 and not power_down.step_of(frame)
        return bool(ops and self.booting and pe not in self._ownership.jobs)

    def is_proven(self, frame: memoryview) -> bool:
        """Whether the monitor has put its proof into this frame of CPU 0, as it does when it comes out of reset, and
        nowhere else. What CPU 0 boots by has it until the guest runs. A monitor of another version than ours is
        another one, whatever its proof.
        """
        version = self._machine.monitor
        ours = version < layout.COUNTER_SINCE or frame[Word.MONITOR_VERSION] == version
        return ours and (not self.proof or frame[Word.PROOF] == self.proof)

    def _operations(self, frame: memoryview) -> list[MicroOp]:
        """The micro-operations that answer a frame of a boot. Asked twice, it gives and does the same."""
        if self._loader is None:
            return []
        reset = frame[Word.KIND] == Kind.RESET
        return self._loader.begin(self._machine.epoch > 0) if reset else self._loader.proceed(frame)
