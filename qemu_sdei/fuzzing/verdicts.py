"""What a kernel made of one error: by what it said, and by whether it still lives."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from qemu_sdei.fuzzing.troubles import Level, Trouble, troubles, worst


class Verdict(Enum):
    """What became of it, the worst last."""

    IGNORED = "ignored"
    """The kernel took nothing from it: the block was refused as a whole, or seemed to be empty."""
    LOGGED = "logged"
    """It was taken for an error, and handled."""
    PANIC_AS_ASKED = "panic-as-asked"
    """It said that it was fatal, and the kernel panicked; or that a page of init or our shell is bad, which ended."""
    WARNED = "warned"
    OOPS = "oops"
    HANG = "hang"
    PANIC = "panic"

    @property
    def is_finding(self) -> bool:
        """Whether the kernel has a fault."""
        return self in _FINDINGS

    @property
    def loses_guest(self) -> bool:
        """Whether the guest is not to be trusted after it."""
        return self not in (Verdict.IGNORED, Verdict.LOGGED, Verdict.WARNED)


_FINDINGS: Final = (Verdict.WARNED, Verdict.OOPS, Verdict.HANG, Verdict.PANIC)
_OF_LEVEL: Final = {
    Level.WARNING: Verdict.WARNED,
    Level.STALL: Verdict.HANG,
    Level.OOPS: Verdict.OOPS,
    Level.PANIC: Verdict.PANIC,
}
_FATAL: Final = re.compile(
    r"Fatal hardware error|Fatal (?:local )?error|Hardware error from unknown source|AER: unrecov"
)
_SPOKEN: Final = re.compile(r"\[Hardware Error\]|ghes_print_estatus: \d+ callbacks suppressed|Memory failure: |GHES: ")
_POISONED: Final = re.compile(r"Memory failure: 0x|hardware memory corruption|hwpoison")
_INIT: Final = "Attempted to kill init"
_SHELL: Final = re.compile(r"\bsh: \d+: not found")
"""A shell that has begun anew reads what was meant for the one before."""


@dataclass(frozen=True)
class Observed:
    """What was seen after one error was reported."""

    console: str
    """What the guest printed from then on."""
    completed: bool = True
    """Its handler ended, and the block was taken (acknowledged)."""
    alive: bool = True
    """The guest did what it was asked to afterwards, within the limit."""
    taken: bool | None = None
    """The kernel went on to handle what the block says; None: that is not known, and the console must tell."""
    stuck: tuple[str, ...] = ()
    """Of one that hangs: the call trace of a vCPU that does not get on, as `troubles.own_frames` has it."""


@dataclass(frozen=True)
class Judged:
    """A verdict, and what it follows from."""

    verdict: Verdict
    trouble: Trouble | None = None
    note: str = ""
    troubles: Sequence[Trouble] = field(default=(), repr=False)

    @property
    def key(self) -> str:
        """What two cases that find the same fault have in common; "" where none was found."""
        if not self.verdict.is_finding:
            return ""
        if self.trouble is None:
            return f"{self.verdict.value}: {self.note}"
        level, _, where = self.trouble.key.partition(": ")
        return f"{self.verdict.value}: {where}" if level else self.verdict.value


def judge(seen: Observed, *, asks_to_panic: bool) -> Judged:
    """What became of an error.

    Args:
        seen: what was observed.
        asks_to_panic: it said that it is fatal.
    """
    found = troubles(seen.console)
    cause = worst(found)
    panic = next((each for each in found if each.level is Level.PANIC), None)
    if panic is not None:
        oops = any(each.level is Level.OOPS for each in found)
        if asks_to_panic and not oops and _FATAL.search(panic.title):
            return Judged(Verdict.PANIC_AS_ASKED, panic)
        if _INIT in panic.title and _POISONED.search(seen.console) and not oops:
            return Judged(Verdict.PANIC_AS_ASKED, panic, "a page of init was said to be bad")
        return Judged(Verdict.PANIC, cause, troubles=found)
    if cause is not None and cause.level is not Level.WARNING:
        if cause.level is Level.STALL and seen.stuck:
            # Whether the kernel has noticed it yet is of no account, and what it says of other tasks neither.
            cause = replace(cause, stack=seen.stuck)
        return Judged(_OF_LEVEL[cause.level], cause, troubles=found)
    if seen.completed and _SHELL.search(seen.console) and _POISONED.search(seen.console):
        return Judged(Verdict.PANIC_AS_ASKED, note="a page of the shell was said to be bad")
    if not seen.completed or not seen.alive:
        what = "its handler did not end" if not seen.completed else "it does nothing any more"
        return Judged(Verdict.HANG, _stuck(seen), what)
    if cause is not None:
        return Judged(Verdict.WARNED, cause, troubles=found)
    taken = bool(_SPOKEN.search(seen.console)) if seen.taken is None else seen.taken
    return Judged(Verdict.LOGGED if taken else Verdict.IGNORED)


def _stuck(seen: Observed) -> Trouble | None:
    """A hang of which the kernel says nothing, by where it is."""
    return Trouble(Level.STALL, f"no end in {seen.stuck[0]}", seen.stuck) if seen.stuck else None
