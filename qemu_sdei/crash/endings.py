"""How a CPU that hangs is stopped, and leaves the event that stopped it.

Linux may stop such a CPU by SDEI's event 0 (DEN0054 4.4), which reaches it although it masks interrupts. Four ways to
end its handler are argued about (linux-arm-kernel, June 2026, "arm64: cross-CPU NMI via SDEI"); they are the default.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from qemu_sdei.errors import UsageError

CONTROL: Final = "/proc/sdei_test/control"
"""Of the client module (`qemu_sdei/data/module/`), which has each ending but one."""
_CRASHES: Final = 0
"""The CPU that panics."""


@dataclass(frozen=True)
class Ending:
    """One way.

    Attributes:
        name: in a word, for options, tables and JSON.
        sentence: what such a CPU does.
        hangs: the CPUs to be stopped hang, and take no interrupt; else Linux stops them, by its own interrupt.
        by_kernel: whoever stops CPUs that hang is the kernel that runs; else the client module, and event 0 is its own.
    """

    name: str
    sentence: str
    hangs: bool = True
    by_kernel: bool = False

    def script(self, vcpus: int) -> str:
        """What crashes a guest of `vcpus` so, as one line for its shell. Of CPUs that hang, those of an odd number hang
        in a thread, the others in an interrupt's handler.
        """
        words = [f"hang {vcpu}{'' if vcpu % 2 else ' irq'}" for vcpu in range(vcpus) if vcpu != _CRASHES and self.hangs]
        words += [f"crash {self.name}"] if self.hangs and not self.by_kernel else []
        lines = [f"echo {command} >{CONTROL}" for command in words]
        lines += [] if self.hangs and not self.by_kernel else ["echo c >/proc/sysrq-trigger"]
        return f"taskset {1 << _CRASHES:x} sh -c '{' && '.join(lines)}'"


ENDINGS: Final = {
    ending.name: ending
    for ending in (
        Ending("stay", "stays in the handler for good: the event is never completed"),
        Ending("off", "calls CPU_OFF inside the handler: the event is never completed"),
        Ending("abort-stay", "ends the handler by COMPLETE_AND_RESUME, at a place where it waits for good"),
        Ending("abort-off", "ends the handler by COMPLETE_AND_RESUME, at a place where it calls CPU_OFF"),
        Ending("complete-off", "ends the handler by COMPLETE, and calls CPU_OFF from what the event had interrupted"),
        Ending(
            "irq-off",
            "does not hang: it takes Linux' own stop interrupt and calls CPU_OFF in that handler, without an event",
            hangs=False,
        ),
        Ending(
            "linux",
            "is stopped as its kernel does it without a client module: by event 0 where it has CONFIG_ARM_SDEI_NMI, "
            "else not at all",
            by_kernel=True,
        ),
    )
}
DEFAULT: Final = ("stay", "off", "abort-stay", "abort-off")


def endings_of(names: Sequence[str]) -> list[Ending]:
    """Those of these names, each once. Raises `UsageError`: there is none of a name."""
    unknown = next((name for name in names if name not in ENDINGS), None)
    if unknown is not None:
        raise UsageError(f"there is no ending {unknown!r}: give {', '.join(ENDINGS)}")
    return [ENDINGS[name] for name in dict.fromkeys(names)]
