"""A guest for `GuestRas`: its backend, its helper with a kernel behind it, its console."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from typing import Any

from qemu_sdei.guest.ras import GuestRas
from qemu_sdei.guest.ras_access import RasAccess
from qemu_sdei.guest.shell import CommandResult

RAM = (0x4000_0000, 0x7FC0_0000)
MAPS = """00400000-005b3000 r-xp 00000000 00:02 11                                 /bin/busybox
005d0000-005d3000 rw-p 001c0000 00:02 11                                 /bin/busybox
3d190000-3d1b2000 rw-p 00000000 00:00 0                                  [heap]
ffff9db1e000-ffff9db20000 r--p 00000000 00:00 0                          [vvar]
ffffa10ba000-ffffa10bb000 rw-p 00000000 00:00 0 
ffffd8c55000-ffffd8c76000 rw-p 00000000 00:00 0                          [stack]
"""  # noqa: W291
STACK_PAGE = 0xFFFFD8C74000
PRESENT = 1 << 63


def source(name: str = "ghes", **more: Any) -> dict[str, Any]:
    """As a backend describes an error source."""
    return {
        "name": name, "id": 0, "type": "ghes-v2", "notify": "sdei", "event": 0x324, "interrupt": None, "poll_ms": None,
        "block": 4096, "raw": 4096, "records": 1, "sections": 1, "address": 0x7FD02000, "address_register": 0x7FD00000,
        "read_ack": 0x7FD00008, "state": "free", "status": 0, "ready": True, "reason": None, **more,
    }  # fmt: skip


@dataclass
class FakeGuest:
    """What it was told, and what it will say."""

    sources: list[dict[str, Any]] = field(default_factory=lambda: [source()])
    answer: dict[str, Any] = field(default_factory=lambda: {"outcome": "completed", "vcpu": 0, "complete_ns": 800_000})
    reports: list[tuple[str, bytes, dict[str, Any]]] = field(default_factory=list)
    kept: list[bytes] = field(default_factory=list)
    asked: list[tuple[str, int | None, dict[str, Any]]] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    pages: dict[int, int] = field(default_factory=lambda: {STACK_PAGE: 0x41E78})
    """Of process 123: page frame numbers by virtual address."""
    call: str = ""
    """What procfs says of its system call; "": that it waits in one."""
    poisoned: set[int] = field(default_factory=set)
    log: list[str] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)
    corrupted: int = 0
    printed: str = ""
    tracefs: bool = True
    ended: bool = False

    def ras_sources(self) -> list[dict[str, Any]]:
        return self.sources

    def ras_keep(self, block: bytes) -> dict[str, Any]:
        self.kept.append(block)
        return {"bytes": len(block)}

    def ras_report(self, source: str, block: bytes, **how: Any) -> dict[str, Any]:
        self.reports.append((source, block, how))
        return self.answer

    def memory_error(self, address: int, **how: Any) -> dict[str, Any]:
        self.asked.append(("memory_error", address, how))
        return {"page": address - address % 4096, "source": "ghes", "vcpu": None, "outcome": "queued"}

    def abort(self, vcpu: int | None = None, **how: Any) -> dict[str, Any]:
        self.asked.append(("abort", vcpu, how))
        return {"vcpu": 1, "pc": 0x1234, "pstate": 0, "el": 0}

    @property
    def text(self) -> str:
        return self.printed

    def run(self, command: str, timeout: float = 30.0) -> CommandResult:
        self.commands.append(command)
        if "cat comm" in command:
            pid = int(command.split("/proc/")[1].split()[0])
            if pid != 123:
                return CommandResult(9, "")
            call = self.call or f"73 0x1 0x2 0x3 0x4 0x5 0x6 {STACK_PAGE + 0x1230:#x} 0x44bd4c"
            return CommandResult(0, f"sh\nKernelPageSize:        4 kB\n{call}\nmaps\n{MAPS}")
        if match := re.search(r"pagemap bs=8 skip=(\d+) count=(\d+)", command):
            first, count = int(match[1]), int(match[2])
            frames = [self.pages.get((first + n) * 4096) for n in range(count)]
            return words(0 if frame is None else PRESENT | frame for frame in frames)
        if match := re.search(r"kpageflags bs=8 skip=(\d+)", command):
            return words([1 << 19 if int(match[1]) in self.poisoned else 0])
        if "/task" in command:
            return CommandResult(0, "123\n124\n")
        if "end of log" in command:
            trace = "\n".join(f"           <...>-55      [001] d..2.    12.345678: {line}" for line in self.trace)
            log = "\n".join(f"[   12.345678] {line}" for line in self.log)
            memory = f"HardwareCorrupted: {self.corrupted:5} kB"
            return CommandResult(0, f"{log}\n\nend of log\n{trace}\n\nend of trace\n{memory}\n")
        if "corrupted $(" in command:
            if not self.tracefs and "instances" in command:
                return CommandResult(77, "")
            return CommandResult(0, "[    5.000001] something before\n\ncorrupted HardwareCorrupted:     0 kB")
        return CommandResult(0, "")

    def access(self, *, helper: bool = True) -> RasAccess:
        """How it is reached."""
        return RasAccess("guest", lambda: self, RAM, self.run if helper else None, lambda: self)

    def ras(self, *, helper: bool = True) -> GuestRas:
        """Its errors, as its user reaches them."""
        return GuestRas(self.access(helper=helper))


def words(numbers: Any) -> CommandResult:
    """As `hexdump` prints words of eight bytes."""
    return CommandResult(0, "".join(struct.pack("<Q", number).hex() + "\n" for number in numbers))
