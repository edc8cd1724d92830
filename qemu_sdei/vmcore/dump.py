"""A crash dump as a whole: which kernel, who panicked, the registers of each CPU, the kernel log."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qemu_sdei.errors import UsageError
from qemu_sdei.vmcore import kernel_log
from qemu_sdei.vmcore.core_file import Core, Note
from qemu_sdei.vmcore.kernel_log import Record
from qemu_sdei.vmcore.kernel_memory import KernelMemory
from qemu_sdei.vmcore.vmcoreinfo import NAME, VmcoreInfo

_PRSTATUS: Final = 1
_STATUS: Final = struct.Struct("<32xI76x34Q")
"""`struct elf_prstatus` of arm64: pr_pid, then pr_reg (x0 to x30, sp, pc, pstate)."""
_PANIC: Final = re.compile(r"Kernel panic - not syncing: ?(.*)")
_WHO: Final = re.compile(
    r"CPU: (\d{1,4}) (?:UID: \d{1,10} )?PID: (\d{1,10}) Comm: (.{0,15}?) (?:Kdump: loaded )?(?:Not tainted|Tainted)"
)
_STARTED: Final = re.compile(r"smp: Brought up \d{1,4} nodes?, (\d{1,5}) CPUs?")
_NEAR: Final = 60
"""Records before the panic in which an Oops that led to it may have said who it was."""


@dataclass(frozen=True)
class Registers:
    """What a CPU had when it was stopped, or panicked."""

    pid: int
    """Of the task that ran there."""
    x: tuple[int, ...]
    """x0 to x30."""
    sp: int
    pc: int
    pstate: int


@dataclass(frozen=True)
class Crash:
    """What the kernel log says of the panic. None: it does not."""

    message: str
    cpu: int | None
    pid: int | None
    comm: str | None
    """The task's name."""


@dataclass(frozen=True)
class Dump:
    """What a vmcore says."""

    path: Path
    release: str
    """What `uname -r` said."""
    build_id: str | None
    """Of the kernel, in hex digits; kernels before 6.0 do not say."""
    crash_time: int | None
    """Seconds since 1970, of the guest's clock."""
    memory: int
    """Bytes of RAM that it has."""
    stored: int
    """Bytes of it on disk: pages of zeroes are a hole."""
    cpus: tuple[Registers, ...]
    """Of each CPU that has told its registers, in the order of their numbers."""
    crash: Crash | None
    log: tuple[Record, ...]
    """Kernels before 5.10 have another kind of log: nothing of it is here."""

    @classmethod
    def read(cls, path: str | Path) -> Dump:
        """Read a vmcore. Raises `UsageError`: it is none, is cut short, or is damaged."""
        with Core(path) as core:
            if not core.whole:
                raise UsageError(f"{core.path} is cut short: it has {core.size} of {core.needed} bytes")
            info = vmcore_info(core)
            told = info.text("SYMBOL(prb)") is not None
            log = tuple(kernel_log.kernel_log(KernelMemory(core, info), info)) if told else ()
            seconds = info.text("CRASHTIME")
            return cls(
                path=core.path,
                release=info.text("OSRELEASE") or "",
                build_id=info.text("BUILD-ID"),
                crash_time=int(seconds) if seconds and re.fullmatch("[0-9]{1,11}", seconds) else None,
                memory=sum(segment.size for segment in core.segments),
                stored=core.path.stat().st_blocks * 512,
                cpus=tuple(registers(core.notes)),
                crash=crash([record.text for record in log]),
                log=log,
            )

    @property
    def crashed(self) -> Registers | None:
        """The registers of the CPU that panicked, as far as can be told."""
        if self.crash is None:
            return None
        cpu, pid = self.crash.cpu, self.crash.pid
        alike = [one for one in self.cpus if one.pid == pid]
        # CPUs that were not stopped have told none, and the others move up: then a number says nothing of idle CPUs,
        # whose task has the PID 0 on each.
        started = next((int(found[1]) for one in self.log if (found := _STARTED.search(one.text))), 0)
        if cpu is not None and cpu < len(self.cpus) and self.cpus[cpu] in alike and (pid or len(self.cpus) >= started):
            return self.cpus[cpu]
        return alike[0] if len(alike) == 1 else None


def vmcore_info(core: Core) -> VmcoreInfo:
    """What the kernel says of itself. Raises `UsageError`: nothing."""
    data = next((note.data for note in core.notes if note.name == NAME), None)
    if data is None:
        raise UsageError(f"{core.path} has no VMCOREINFO: it is not a Linux kernel's vmcore")
    return VmcoreInfo(data)


def registers(notes: Sequence[Note]) -> list[Registers]:
    """Of each CPU that has told them."""
    found: list[Registers] = []
    for note in notes:
        if note.kind == _PRSTATUS and note.name == "CORE" and len(note.data) >= _STATUS.size:
            pid, *values = _STATUS.unpack_from(note.data)
            found.append(Registers(pid, tuple(values[:31]), *values[31:]))
    return found


def crash(log: Sequence[str]) -> Crash | None:
    """Who panicked, by the lines of a kernel log."""
    for at in range(len(log) - 1, -1, -1):
        panic = _PANIC.search(log[at])
        if panic is None:
            continue
        near = [*log[at : at + _NEAR], *reversed(log[max(at - _NEAR, 0) : at])]
        who = next((found for text in near if (found := _WHO.search(text))), None)
        if who is None:
            return Crash(panic[1][:300], None, None, None)
        return Crash(panic[1][:300], int(who[1]), int(who[2]), who[3])
    return None
