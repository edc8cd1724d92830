"""A guest without QEMU: the monitor's half of the frame protocol in Python, so that a backend can be stopped at any
line.

Only for what real QEMU cannot produce: a crash between two given stores, forged frames. It does what
guest/monitor/monitor.S does: fill the frame, post SEQ, take the answer when ACK says so, set DONE.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qemu_sdei.backend.firmware import power_down
from qemu_sdei.backend.firmware.core import affinity
from qemu_sdei.backend.firmware.firmware import Firmware
from qemu_sdei.backend.firmware.machine_boot import Boot
from qemu_sdei.backend.loop.journal import Journal
from qemu_sdei.backend.loop.server import Server
from qemu_sdei.boot.config import Entry as EntryPoint
from qemu_sdei.monitor import layout
from qemu_sdei.monitor.layout import RESET_REGISTERS, AnswerFlag, Entry, Header, Kind, Op, Ready, Save, SysReg, Word
from qemu_sdei.monitor.ops import MicroOp, write_phys
from qemu_sdei.monitor.window import Window
from qemu_sdei.smccc.service import Service
from qemu_sdei.trace.meta import TraceMeta
from qemu_sdei.trace.reading import records_of
from qemu_sdei.trace.ring import Ring

RAM_BASE = 0x4000_0000
RAM_SIZE = 4 << 20
EL1H = 0x3C5
SYSREGS: dict[int, int] = {SysReg.ICC_AP1R0_EL1: 0x0500_0000, SysReg.PMCR_EL0: 0x3000}
"""Two priorities are active."""
BELL = 0
"""The doorbell's descriptor: registered, never polled."""
ENTRY = EntryPoint(pc=0x4020_0000, x0=0x4800_0000, x1=0)


class SimulatedBoot:
    """Nothing to load; before a second boot one micro-operation, as the real loader's."""

    def begin(self, again: bool) -> list[MicroOp]:
        return [write_phys(0x0902_0010, 0)] if again else []

    def proceed(self, frame: memoryview) -> list[MicroOp]:
        return []

    def load(self, epoch: int) -> EntryPoint:
        return ENTRY


def read_registers(frame: memoryview, pe: int) -> None:
    """Do the micro-operations of an answer, as far as anything comes back: of a CPU that went off in a handler."""
    for n in range(frame[Word.FLAGS] >> 8 & 0xFF):
        at = Word.OPS + 3 * n
        if frame[at] & 0xFF == Op.READ_SYSREG:
            frame[at + 2] = SYSREGS.get(frame[at + 1], 0)


class SimulatedWindow(Window):
    """Beside the window itself, what is behind the micro-operations of a CPU that comes up.

    Attributes:
        execute: does those of an answer's frame, of a PE.
        slept: PEs that waited for an interrupt before they went on.
    """

    def __init__(self, fd: int, ram_base: int, ram_size: int, nr_cpus: int) -> None:
        super().__init__(fd, ram_base, ram_size, nr_cpus)
        self.execute: Callable[[memoryview, int], None] = read_registers
        self.slept: list[int] = []


class SilentDoorbell:
    """Counts rings."""

    def __init__(self) -> None:
        self.rings = 0

    def fileno(self) -> int:
        return BELL

    def ring(self) -> None:
        self.rings += 1

    def drain(self) -> bool:
        return True

    def close(self) -> None:
        pass


COUNTER_NS = 16
"""Of a tick of the guest's counter."""


class SimulatedGuest:
    """RAM with a window, and CPUs that post frames."""

    def __init__(self, nr_cpus: int, directory: Path, boot: type[Boot] = SimulatedBoot) -> None:
        self.nr_cpus = nr_cpus
        self.boot = boot
        self.journal_path = directory / "journal"
        fd = os.memfd_create("test-ram")
        os.ftruncate(fd, RAM_SIZE)
        self.window = SimulatedWindow(fd, RAM_BASE, RAM_SIZE, nr_cpus)
        os.close(fd)
        self.kicks_seen = [0] * nr_cpus
        self.parked = [False] * nr_cpus
        self.x18 = 0
        self.sdei = True
        self.proof = 0x1234_5678_9ABC_DEF1
        """Of the monitor's image. 0: it has none."""
        self.version = layout.VERSION
        """Of the frame window that the monitor was built for."""
        self.counter = 0
        """The guest's counter: it goes on with each frame."""
        self.ram: range | None = None
        """Where the firmware takes it to be, see `Firmware`."""
        self.hypervisor = False
        """The firmware has KVM's own calls, by whichever conduit they come."""
        self.stolen_time = False
        """It has PV time."""
        self.filter: tuple[str, ...] = ()
        """Rules of the firmware's SMCCC filter."""
        self.id_registers: dict[str, int] = {}
        """What CPUs show of their ID registers at their next reset; 0 if not named."""

    def server(self, services: tuple[Service, ...] = ()) -> Server:
        """A new backend for this guest, as after a restart."""
        ticks = itertools.count()
        firmware = self._firmware(services)
        bell = SilentDoorbell()
        path = self.journal_path.with_name("trace-ring")
        ring = Ring(path, lambda: self.counter * COUNTER_NS + next(ticks), 1024)
        server = self._server_of(bell, firmware, ring)
        firmware.machine.monitor, firmware.boot.proof = self.version, self.proof
        server.rung(0)  # its doorbell cannot fail
        server.begin()
        return server

    def firmware(self) -> Firmware:
        """What decides for it, from the beginning."""
        return self._firmware(())

    def _firmware(self, services: tuple[Service, ...]) -> Firmware:
        return Firmware(
            self.nr_cpus,
            hypervisor=self.hypervisor,
            stolen_time=self.window.base + layout.PV_TIME_OFFSET if self.stolen_time else None,
            boot=self.boot(),
            services=services,
            sdei=self.sdei,
            ram=self.ram,
            smccc_filter=self.filter,
        )

    def _server_of(self, bell: SilentDoorbell, firmware: Firmware, ring: Ring) -> Server:
        return Server(self.window, bell, firmware, Journal(self.journal_path), ring)  # type: ignore[arg-type]

    def post(self, pe: int, kind: int) -> None:
        """Post what lies in the frame."""
        frame = self.window.frames[pe]
        frame[Word.KIND] = kind
        if self.version >= layout.COUNTER_SINCE:
            self.counter += 1000
            frame[Word.COUNTER] = self.counter if self.window.header[Header.SAVE] & Save.COUNTER else 0
        if kind not in (Kind.OPS, Kind.INTERRUPT):  # of the latter it is the INTID, set by who posts it
            frame[Word.VECTOR] = 8 if kind in (Kind.SMC, Kind.EXCEPTION) else 0
        frame[Word.MPIDR_EL1] = 1 << 31 | affinity(pe)
        self.window.seq[pe] += 1

    def reset(self, pe: int) -> None:
        """The CPU comes out of reset."""
        frame = self.window.frames[pe]
        for word in (*range(Word.FUNCTION, Word.COUNTER), *range(Word.PC, Word.X30 + 1)):
            frame[word] = 0
        for n, name in enumerate(RESET_REGISTERS):
            frame[Word.ID_REGISTERS + n] = self.id_registers.get(name, 0)
        frame[Word.PROOF] = 0 if pe else self.proof
        frame[Word.MONITOR_VERSION] = self.version if self.version >= layout.COUNTER_SINCE else 0
        self.parked[pe] = False
        self.post(pe, Kind.RESET)

    def smc(self, pe: int, function: int, *arguments: int) -> None:
        """The guest executes `smc #0`."""
        frame = self.window.frames[pe]
        frame[Word.X0] = frame[Word.FUNCTION] = function
        for n, value in enumerate(arguments, 1):
            frame[Word.X0 + n] = value & 0xFFFF_FFFF_FFFF_FFFF
        frame[Word.PC] = frame[Word.PC] + 4 & 0xFFFF_FFFF_FFFF_FFFF
        self.post(pe, Kind.SMC)

    def ready(self, pe: int, function: int, *arguments: int) -> int | None:
        """What the monitor answers a call with by itself, as guest/monitor/monitor.S does it; None: it posts a frame.
        The caller is at EL1, and calls by SMC.
        """
        table = self.window.ready[pe]
        if not table[Ready.VALID] >> (function & 63) & 1 or self.version < layout.VERSION:
            return None
        if table[Ready.TRAP] != 0x5E00_0000 or table[Ready.CALLER] != 4 << 32 or not 0 < function < 1 << 32:
            return None
        x1, x2 = (*arguments, 0x1D1E, 0x1D1E)[:2]  # what a caller has there that does not say
        for more, which, argument in (
            (0, (), None),
            (layout.READY_ONE, (x1,), x1),
            (layout.READY_TWO, (x1, x2), x1 | x2 << 32),
        ):
            at = layout.ready_entry(function, *which) * layout.READY_ENTRY_WORDS
            if table[at + Entry.KEY] == function | more and argument in (None, table[at + Entry.ARGUMENT]):
                table[at + Entry.COUNT] += 1
                return table[at + Entry.RESULT]
        return None

    def answer_to(self, server: Server, pe: int, function: int, *arguments: int) -> tuple[int, bool]:
        """A call, wherever its answer comes from: x0, and whether the monitor gave it."""
        found = self.ready(pe, function, *arguments)
        if found is not None:
            return found, True
        self.smc(pe, function, *arguments)
        server.answer_as_wanted(pe, self.window.seq[pe])
        return self.take(pe)[3], False

    def waiting(self, pe: int) -> bool:
        """Whether the CPU waits for an answer."""
        return bool(self.window.frames[pe][Word.ACK] != self.window.seq[pe])

    def take(self, pe: int) -> list[int]:
        """Take the answer as the monitor does. Returns FLAGS, PC, PSTATE, X0..X17."""
        frame = self.window.frames[pe]
        assert not self.waiting(pe), f"CPU {pe} was not answered"
        frame[layout.done_word(self.version)] = self.window.seq[pe]
        flags = frame[Word.FLAGS]
        self.parked[pe] = bool(flags & AnswerFlag.PARK)
        return [flags, *self.window.contexts[pe].tolist()]

    def take_kicks(self) -> list[int]:
        """CPUs that the host kicked since the last look; each posts a KICK frame."""
        kicked = []
        for pe in range(self.nr_cpus):
            if self.window.kick[pe] != self.kicks_seen[pe]:
                self.kicks_seen[pe] = self.window.kick[pe]
                kicked.append(pe)
        return kicked


def serve(server: Server) -> None:
    """The server's loop while there is news. The micro-operations of a reset, and of a CPU that comes up, are done
    here, as the monitor does them.
    """
    window = server.window
    while True:
        while window.seq != server.guest.seen:
            server.drain()
        done = layout.done_word(server.firmware.machine.monitor)
        again = [pe for pe in range(window.nr_cpus) if _goes_on(window, pe, done)]
        if not again:
            return
        for pe in again:
            frame, s = window.frames[pe], window.seq[pe]
            if isinstance(window, SimulatedWindow) and frame[Word.KIND] != Kind.RESET:
                window.execute(frame, pe)
                window.slept += [pe] if frame[Word.FLAGS] & AnswerFlag.WFI else []
            frame[done] = s
            frame[Word.KIND] = Kind.OPS
            window.seq[pe] = s + 1


def _goes_on(window: Window, pe: int, done: int) -> bool:
    frame = window.frames[pe]
    s = window.seq[pe]
    if not (frame[Word.ACK] == s != frame[done] and s < 1 << 47 and frame[Word.FLAGS] & AnswerFlag.REPOST):
        return False
    return bool(frame[Word.KIND] == Kind.RESET or power_down.step_of(frame))


def records(server: Server) -> list[dict[str, Any]]:
    """What is in the server's trace ring, oldest first."""
    meta = TraceMeta(monitor=server.firmware.machine.monitor)
    return list(records_of(meta, server.log.ring.newest_slots(1 << 20)))
