"""The stages of a crash dump, from a loaded capture kernel to a guest that has powered off; and what came of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Final

from qemu_sdei.errors import KdumpError


class Stage(Enum):
    """What happens one after the other. The value is its name in JSON."""

    LOADED = "loaded"
    CRASH = "crash"
    KERNEL = "capture-kernel"
    INIT = "init"
    SDEI = "sdei"
    VMCORE = "vmcore"
    OFF = "power-off"


SENTENCES: Final = {
    Stage.LOADED: "capture kernel loaded",
    Stage.CRASH: "crash seen",
    Stage.KERNEL: "capture kernel started",
    Stage.INIT: "its init started",
    Stage.SDEI: "SDEI re-initialised",
    Stage.VMCORE: "vmcore copied",
    Stage.OFF: "powered off",
}
NOT_REACHED: Final = {
    Stage.LOADED: "the capture kernel was not loaded",
    Stage.CRASH: "the kernel did not crash",
    Stage.KERNEL: "the capture kernel did not start",
    Stage.INIT: "the capture kernel did not come to its init",
    Stage.SDEI: "the capture kernel does not take SDEI events",
    Stage.VMCORE: "the vmcore was not copied",
    Stage.OFF: "the capture kernel did not power off",
}
NEXT: Final = {
    Stage.LOADED: "waiting for the crash",
    Stage.CRASH: "waiting for the capture kernel",
    Stage.KERNEL: "the capture kernel boots",
    Stage.INIT: "the capture kernel's init",
    Stage.SDEI: "copying the vmcore",
    Stage.VMCORE: "powering off",
}
"""What goes on once a stage is reached."""
_FIRST_EXIT_CODE: Final = 10


@dataclass(frozen=True)
class Reached:
    """A stage that was reached."""

    stage: Stage
    seconds: float
    """Since the crash was seen; 0 before it."""
    note: str = ""
    """What is worth knowing: the panic's message, which vCPUs run."""
    vcpus: tuple[int, ...] = ()
    """Of `SDEI`: those that the capture kernel runs on."""


@dataclass
class Stages:
    """Those that were reached."""

    reached: dict[Stage, Reached] = field(default_factory=dict)

    def __contains__(self, stage: Stage) -> bool:
        return stage in self.reached

    @property
    def missing(self) -> Stage | None:
        """The first that was not reached."""
        return next((stage for stage in Stage if stage not in self.reached), None)

    @property
    def exit_code(self) -> int:
        """0: all; else 10 and how many came behind the first one."""
        missing = self.missing
        return 0 if missing is None else _FIRST_EXIT_CODE + max(list(Stage).index(missing) - 1, 0)

    def to_json(self) -> list[dict[str, Any]]:
        """Each stage as JSON."""
        return [
            {
                "stage": stage.value,
                "reached": stage in self.reached,
                "seconds": round(found.seconds, 3) if (found := self.reached.get(stage)) else None,
                "note": found.note if found else "",
            }
            for stage in Stage
        ]

    def error(self, message: str, *, console: list[str] | None = None, vmcore: Path | None = None) -> KdumpError:
        """The error for a dump that comes no further."""
        names = [stage.value for stage in self.reached]
        return KdumpError(message, stages=names, exit_code=self.exit_code, console=console, vmcore=vmcore)


@dataclass(frozen=True)
class Kdump:
    """A crash dump that is complete."""

    path: Path
    """Path of the vmcore."""
    stages: tuple[Reached, ...]
    """The stages that were reached, in their order, with their times."""
    panic: str
    """The kernel's words when it panicked; "": it printed none on the console."""
    size: int
    """Size of the vmcore in bytes."""
    written: int
    """Bytes of the vmcore without holes."""


@dataclass(frozen=True)
class Copying:
    """How far memory is copied, in bytes."""

    done: int
    total: int
    written: int


@dataclass
class CaptureWords:
    """What the capture kernel's init has said so far: see `qemu_sdei/boot/capture.py` and `guest/kdump/copy.c`."""

    sdei: str | None = None
    """The version that its kernel has found; "none"."""
    vcpus: tuple[int, ...] = ()
    """That its kernel runs on."""
    copying: Copying | None = None
    copied: tuple[int, int] | None = None
    """Bytes of the vmcore, and those that were written."""
    failure: tuple[str, int] | None = None
    """What the copying failed in, and the error number."""

    def take(self, lines: Sequence[str]) -> None:
        """Take whole lines. What is none of its own is left out."""
        for line in lines:
            if found := re.fullmatch(r"sdei (.{1,64})", line):
                self.sdei = found[1]
            elif found := re.fullmatch(r"cpus((?: [0-9a-f]{1,6}){1,512})", line):
                self.vcpus = tuple(sorted(map(_vcpu, found[1].split())))
            elif found := re.fullmatch(r"copy (\d{1,16}) (\d{1,16}) (\d{1,16})", line):
                self.copying = Copying(*map(int, found.groups()))
            elif found := re.fullmatch(r"copied (\d{1,16}) (\d{1,16})", line):
                self.copied = (int(found[1]), int(found[2]))
            elif found := re.fullmatch(r"failed ([a-z]{1,16}) (\d{1,16})", line):
                self.failure = (found[1], int(found[2]))


def _vcpu(mpidr: str) -> int:
    """The vCPU of an MPIDR, in hex digits: QEMU's `virt` has 16 of them in a cluster, with a GICv3."""
    number = int(mpidr, 16)
    return (number >> 8) * 16 + (number & 0xFF)


def copy_failure(what: str, number: int, room: str) -> str:
    """Why the capture kernel could not copy. `room`: the host's directory, if it has no room."""
    if what in ("write", "room") and room:
        return f"the vmcore cannot be written: there is no room left in {room}: make room, or give another --vmcore"
    reasons = {
        "vmcore": "the capture kernel has no /proc/vmcore: it needs CONFIG_PROC_VMCORE, and a crash that it came from",
        "disk": "the capture kernel does not see the disk for the vmcore: it needs virtio_pci and virtio_blk, built in",
        "memory": "the capture kernel has too little memory to copy: use a larger --crashkernel",
        "room": "the vmcore is larger than the guest's memory: its headers are damaged",
        "headers": "the vmcore's headers are damaged",
    }
    return reasons.get(what, f"the capture kernel could not copy: {what} failed with error {number}")


def load_failure(text: str) -> str:
    """Why the capture kernel could not be loaded, of what `guest/kdump/load.c` said."""
    if found := re.fullmatch(r"failed small (\d{1,6}) (\d{1,6})", text):
        need, reserved = int(found[1]), int(found[2])
        return (
            f"the capture kernel needs {need} MiB, and the kernel has reserved {reserved} MiB for it: use "
            f"--crashkernel {-(-need // 32) * 32}M"
        )
    if text == "failed kexec 38":
        return "the guest's kernel has no kexec: build it with CONFIG_KEXEC and CONFIG_CRASH_DUMP, or take another"
    if text in ("failed files 2", "failed memory 12"):
        return "the guest has too little memory to load the capture kernel: use more --memory, or less --crashkernel"
    if text == "failed reservation 0":
        return (
            "the guest's kernel has reserved no memory for a capture kernel: use a smaller --crashkernel, or a kernel "
            "with CONFIG_CRASH_DUMP (the console says more: run with -v)"
        )
    return f"the capture kernel could not be loaded: {text.removeprefix('failed ')[:80] or 'its loader died'}"
