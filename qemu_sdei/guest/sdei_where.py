"""Where a CPU of the guest is, as the client module tells it: its backtraces and the lockups that it found."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from qemu_sdei.errors import ProtocolError
from qemu_sdei.printable import printable

_PLACE: Final = re.compile(
    r"(?:backtrace|lockup) cpu (\d+) time (\d+) pc (0x[0-9a-f]+) pstate (0x[0-9a-f]+) pid (\d+) comm (.{0,64})"
)
_FRAME: Final = re.compile(r"  (lr )?0x[0-9a-f]+ (\S{1,600}(?: \[\S{1,80}\])?)")
_IRQS_MASKED: Final = 1 << 7


@dataclass(frozen=True)
class Where:
    """Where a CPU was when an event interrupted it."""

    cpu: int
    """Number of the CPU."""
    time: int
    """When, in ns of the guest's monotonic clock."""
    pc: int
    """Interrupted address."""
    pstate: int
    """Interrupted PSTATE."""
    pid: int
    """Process id of the task that ran."""
    comm: str
    """Name of the task that ran."""
    lr: str
    """Symbol of the link register (x30), as the kernel prints it: the caller of a function that has not made its frame
    yet. "" in user space.
    """
    stack: tuple[str, ...]
    """Functions, innermost first, as the guest's kernel prints them: `spin+0x44/0x68 [sdei_test]`. Empty in user space.
    """

    @property
    def irqs_masked(self) -> bool:
        """It ran with PSTATE.I set."""
        return bool(self.pstate & _IRQS_MASKED)


def places(lines: Iterable[str]) -> list[Where]:
    """The places in what the module's `backtrace` and `lockups` files say; their other lines are left out.

    Raises:
        ProtocolError: a line is not of their form.
    """
    found: list[Where] = []
    for line in lines:
        if line.startswith(("backtrace ", "lockup ")):
            head = _PLACE.fullmatch(line)
            if head is None:
                raise ProtocolError(f"the client module's line {line[:200]!r} is not of its form")
            cpu, time, pid = int(head[1]), int(head[2]), int(head[5])
            found.append(Where(cpu, time, int(head[3], 16), int(head[4], 16), pid, printable(head[6]), "", ()))
        elif found and (frame := _FRAME.fullmatch(line)):
            last, name = found[-1], printable(frame[2])
            found[-1] = replace(last, lr=name) if frame[1] else replace(last, stack=(*last.stack, name))
    return found
