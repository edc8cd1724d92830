"""A guest without QEMU whose firmware has a profile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qemu_sdei.backend.control import state_document
from qemu_sdei.monitor.layout import Kind, Op, SysReg, Word
from qemu_sdei.profiles.firmware_profile import load
from qemu_sdei.profiles.rule import Rule
from qemu_sdei.sdei.constants import Function
from qemu_sdei.services.psci import Function as Psci
from tests.backend.handed_over import fresh_window, taken
from tests.backend.handed_over import machine as described
from tests.backend.simulated import SimulatedGuest, records, serve

CPU_ON = Psci.CPU_ON | 0x4000_0000
HANDLER = 0x4010_0000
ENTRY = 0x4011_0000
_M64 = (1 << 64) - 1


class Machine:
    """A guest whose backend has a firmware profile."""

    def __init__(self, directory: Path, *rules: str, vcpus: int = 2, profile: str = "") -> None:
        self.guest = SimulatedGuest(vcpus, directory)
        self.server = self.guest.server()
        self.guest.reset(0)
        serve(self.server)
        self.taken = {0: self.guest.take(0)}
        if profile:
            self.server.misbehave(load(profile))
        if rules:
            self.rules(*rules)

    def rules(self, *rules: str) -> None:
        profile = self.server.firmware.misbehaviour.profile
        self.server.misbehave(profile.with_rules([Rule.of_text(rule) for rule in rules]))

    def call(self, pe: int, function: int, *arguments: int) -> int:
        """x0 of a call, as a signed number."""
        self.guest.smc(pe, function, *arguments)
        return self.go(pe)

    def go(self, pe: int) -> int:
        serve(self.server)
        self.taken[pe] = self.guest.take(pe)
        self.kicks()
        word = self.taken[pe][3]
        return word - (1 << 64) if word >> 63 else word

    def kicks(self) -> list[int]:
        """CPUs that were kicked, and have come."""
        kicked = self.guest.take_kicks()
        for pe in kicked:
            self.guest.post(pe, Kind.KICK)
            serve(self.server)
            self.taken[pe] = self.guest.take(pe)
        return kicked

    def register(self, pe: int, event: int = 0) -> None:
        """Registered, enabled, and the PE unmasked."""
        assert self.call(pe, Function.EVENT_REGISTER, event, HANDLER, 0xA0, 0, 0) == 0
        assert self.call(pe, Function.EVENT_ENABLE, event) == 0
        assert self.call(pe, Function.PE_UNMASK) == 0

    def start(self, pe: int) -> None:
        if not self.guest.parked[pe] and self.guest.window.seq[pe] == 0:
            self.guest.reset(pe)
            self.go(pe)
        assert self.call(0, CPU_ON, pe, ENTRY, 7) == 0

    def pc(self, pe: int) -> int:
        return self.taken[pe][1]

    def in_handler(self, pe: int) -> bool:
        return bool(self.server.firmware.dispatcher.running(pe))

    def written(self, pe: int, register: SysReg) -> list[int]:
        """What the newest answer has that CPU write to a system register."""
        frame = self.guest.window.frames[pe]
        count = frame[Word.FLAGS] >> 8 & 0xFF
        ops = [frame[Word.OPS + 3 * n : Word.OPS + 3 * n + 3].tolist() for n in range(count)]
        return [value for code, argument, value in ops if code & 0xFF == Op.WRITE_SYSREG and argument == register]

    def again(self) -> None:
        """The backend dies, and another one goes on."""
        self.server = self.guest.server()
        assert self.server.recover()
        self.server.begin()

    def moves(self, directory: Path) -> dict[str, Any]:
        """The guest goes on with another backend, which knows nothing but the state document; that document."""
        document = taken(self.server)
        state_document.form()(document)
        directory.mkdir()
        self.guest.window = fresh_window(self.guest.nr_cpus)
        self.guest.journal_path = directory / "journal"
        self.server = self.guest.server()
        self.server.guest.machine = described(self.guest.nr_cpus)
        state_document.restore(self.server, document)
        return document

    def acted(self) -> list[tuple[int, int, str]]:
        """vCPU, rule and words of each time that a rule acted."""
        found = [record for record in records(self.server) if record["type"] == "misbehaved"]
        return [(record["vcpu"], record["rule"], record["does"]) for record in found]
