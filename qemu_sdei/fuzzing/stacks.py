"""Where the vCPUs of a guest that hangs are: call traces by frame pointers, read through QEMU's monitor.

What is read is the guest's memory, and may be anything: a chain of frames is followed for a few steps only, and what
has no name ends it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from qemu_sdei.fuzzing.troubles import own_frames
from qemu_sdei.vm import cpu_registers

FRAMES: Final = 24
SAMPLES: Final = 4
_BETWEEN: Final = 0.05
_MASK: Final = (1 << 64) - 1
_KERNEL: Final = 1 << 63
_TOP_BITS: Final = 0xFFFF << 48
"""Where pointer authentication may have put a signature."""
_WORDS: Final = re.compile(r"^[0-9a-f]+: (0x[0-9a-f]{16}) (0x[0-9a-f]{16})\s*$", re.MULTILINE)
_IDLE: Final = re.compile(r"\bcpu_do_idle$|^do_idle$|^default_idle_call$|^arch_cpu_idle$|^cpuidle_|^psci_cpu_suspend")

Name = Callable[[int], str | None]
"""The function that an address is in."""


class Machine(Protocol):
    """A guest, as far as it is looked at here."""

    def qmp(self, command: str, **arguments: object) -> Any:
        """Execute a QMP command."""


def stuck(guest: Machine, vcpus: int, name: Name) -> tuple[str, ...]:
    """The call trace of the first vCPU that neither idles nor runs programs, as far as it is the same for a while: the
    innermost function is the one that does not end. Empty: there is none, or names are not known.

    Raises:
        SdeiError: QEMU does not answer.
    """
    for vcpu in range(vcpus):
        samples = []
        for _ in range(SAMPLES):
            frames = trace(guest, vcpu, name)
            if not frames or any(map(_IDLE.search, frames)):
                break
            samples.append(frames)
            time.sleep(_BETWEEN)
        if len(samples) == SAMPLES and (shared := in_common(samples)):
            return shared
    return ()


def in_common(samples: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """What the call traces have in common, from the outermost function inwards; the innermost is the first again."""
    shared = []
    for functions in zip(*map(reversed, samples), strict=False):
        if len(set(functions)) > 1:
            break
        shared.append(functions[0])
    return tuple(reversed(shared))


def trace(guest: Machine, vcpu: int, name: Name) -> tuple[str, ...]:
    """The functions that a vCPU is in, the innermost first, up to where an interrupt or an event came. Empty: it is in
    no function of the kernel's.
    """
    registers = cpu_registers.parse(str(_ask(guest, vcpu, "info registers")))
    pc, frame = registers.get("PC"), registers.get("X29")
    if not isinstance(pc, int) or not isinstance(frame, int):
        return ()
    found = []
    for _ in range(FRAMES):
        function = name(pc) if pc & _KERNEL else None
        if function is None:
            break
        found.append(function)
        if not frame & _KERNEL or frame % 8:
            break
        words = _WORDS.search(str(_ask(guest, vcpu, f"x/2gx {frame:#x}")))
        if words is None:
            break
        frame, back = int(words[1], 16), int(words[2], 16)
        # The call is before where it returns to.
        pc = ((back | _TOP_BITS) - 4) & _MASK
    return own_frames(found) if found else ()


def _ask(guest: Machine, vcpu: int, command: str) -> Any:
    return guest.qmp("human-monitor-command", command_line=command, cpu_index=vcpu)
