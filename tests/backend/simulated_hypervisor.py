"""A simulated guest above our EL2: its calls, and what interrupts it, come by the vectors there."""

from __future__ import annotations

from qemu_sdei.backend.firmware.core import RefusedSmc
from qemu_sdei.backend.firmware.firmware import Firmware
from qemu_sdei.backend.loop.hypervisor_frames import HypervisorFrames
from qemu_sdei.backend.loop.journal import Journal
from qemu_sdei.backend.loop.server import Server
from qemu_sdei.hypervisor import vectors
from qemu_sdei.hypervisor.el2 import El2
from qemu_sdei.hypervisor.entries import EC, HVC
from qemu_sdei.monitor.layout import Header, Kind, Save, Word
from qemu_sdei.smccc.service import Service
from qemu_sdei.trace.ring import Ring
from tests.backend.simulated import RAM_BASE, SilentDoorbell, SimulatedGuest

EL2H = 0x3C9
SMC_AT_EL3 = 0x17


class HypervisorGuest(SimulatedGuest):
    """Posts frames as a CPU does whose EL2 has our vectors. Each kick hits it inside EL2, just when it calls by HVC.

    Attributes:
        refused: what becomes of an SMC; None: it is served.
    """

    refused: RefusedSmc | None = None

    def _firmware(self, services: tuple[Service, ...]) -> Firmware:
        el2 = El2(RAM_BASE, self.window.base)
        return Firmware(
            self.nr_cpus,
            boot=self.boot(),
            services=services,
            sdei=self.sdei,
            ram=self.ram,
            at_reset=el2.at_reset(),
            smc=self.refused,
            hypervisor=True,
        )

    def _server_of(self, bell: SilentDoorbell, firmware: Firmware, ring: Ring) -> Server:
        frames = HypervisorFrames(self.window, serves_smc=self.refused is None)
        journal = Journal(self.journal_path)
        return Server(self.window, bell, firmware, journal, ring, hypervisor=frames)  # type: ignore[arg-type]

    def post(self, pe: int, kind: int) -> None:
        frame = self.window.frames[pe]
        if kind in (Kind.SMC, Kind.KICK) and not self.parked[pe]:
            self.enter_el2(pe, HVC << EC, frame[Word.PC] + (4 if kind == Kind.KICK else 0))
            frame[Word.ESR_EL3] = SMC_AT_EL3 << EC | vectors.FIRST_IMMEDIATE + vectors.LOWER_SYNC
        super().post(pe, kind)

    def enter_el2(self, pe: int, syndrome: int, returns_to: int) -> None:
        """The CPU takes an exception to EL2; what there is of it the monitor saves, if it is asked to."""
        frame = self.window.frames[pe]
        if self.window.header[Header.SAVE] & Save.EL2:
            frame[Word.ESR_EL2], frame[Word.ELR_EL2] = syndrome, returns_to
            frame[Word.SPSR_EL2] = frame[Word.PSTATE]
        frame[Word.PC] = vectors.address(self.window.base) + vectors.LOWER_SYNC * vectors.ENTRY_SIZE + 4
        frame[Word.PSTATE] = EL2H

    def smc_itself(self, pe: int, function: int) -> None:
        """The guest executes `smc #0`, which goes past EL2."""
        frame = self.window.frames[pe]
        frame[Word.X0] = frame[Word.FUNCTION] = function
        frame[Word.PC] += 4
        frame[Word.ESR_EL3] = SMC_AT_EL3 << EC
        SimulatedGuest.post(self, pe, Kind.SMC)
