"""What became of an error that was injected: what its source says, and what the guest's kernel made of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from qemu_sdei.errors import ExpectationError, UsageError
from qemu_sdei.guest.ras_expecting import Expectation, Log, Offline, Panics, Sigbus, Trace
from qemu_sdei.guest.ras_observing import Observed, Observer
from qemu_sdei.guest.ras_pages import Page
from qemu_sdei.ras.block import Block

TIMEOUT: Final = 10.0
"""Seconds for the guest to deal with a report, and for what is expected to come."""
_LOOK: Final = 0.1


@dataclass(slots=True)
class Report:
    """Result of an injected error."""

    source: str
    """Name of the error source."""
    outcome: str
    """"completed": the guest's handler has completed, or the guest has read and acknowledged the block. "queued": the
    guest was notified, and has not handled the error yet, or nothing was waited for.
    """
    bytes: int
    """Size of the block in bytes."""
    vcpu: int | None = None
    """Number of the vCPU that was notified; None: not known."""
    event: int | None = None
    """Number of the SDEI event; None: the notification was another one."""
    entry_ns: int | None = None
    """Nanoseconds from the trigger to the entry of the SDEI handler; None: not an SDEI event, or not known."""
    complete_ns: int | None = None
    """Nanoseconds from the trigger to the handler's completion; None: not an SDEI event, or not completed."""
    state: str = ""
    """State of the source afterwards (`SourceState.state`)."""
    block: Block | None = field(default=None, repr=False)
    """The block that was written; None: it is not known as an object."""
    page: Page | None = None
    """The page that `pid` led to; None: there was no `pid`."""
    observer: Observer | None = field(default=None, repr=False)
    """Watches the kernel since the error; None: `observe` was False."""

    def observed(self) -> Observed:
        """What the kernel has done since the error."""
        return self.observer.look() if self.observer is not None else Observed()

    def expect(
        self,
        *more: Expectation,
        log: str | None = None,
        trace: str | None = None,
        sigbus: tuple[int, int] | None = None,
        panic: bool | str = False,
        offline: int | bool = False,
        timeout: float = TIMEOUT,
    ) -> Report:
        """Wait until the kernel has done all that is expected, and return this report.

        Args:
            more: further expectations (`qemu_sdei.guest.ras_expecting`).
            log: regular expression that a line of the kernel log must match.
            trace: a trace event of the kernel: "EVENT" or "EVENT:FIELD=VALUE".
            sigbus: process id and si_code of a SIGBUS: 4 is BUS_MCEERR_AR, 5 is BUS_MCEERR_AO.
            panic: True: the kernel must panic; a str: and its words must match this regular expression.
            offline: number of a page frame that the kernel must take out of use; True: the frame of the injected
                address.
            timeout: seconds to wait.

        Raises:
            ExpectationError: something did not come in time; the message says what came instead.
            UsageError: this guest gives no way to see it; the message says why.
        """
        wanted = list(more)
        if log is not None:
            wanted.append(Log.of(log))
        if trace is not None:
            wanted.append(Trace.of(trace))
        if sigbus is not None:
            wanted.append(Sigbus(*sigbus))
        if panic:
            wanted.append(Panics(Log.of(panic).pattern) if isinstance(panic, str) else Panics())
        if offline is not False:
            wanted.append(Offline(self._frame() if offline is True else offline))
        if self.observer is None:
            raise UsageError("nothing was observed: inject with observe=True")
        check_observable(self.observer, wanted)
        expect(self.observer, wanted, timeout)
        return self

    def _frame(self) -> int:
        if self.page is None:
            raise UsageError("which page is to go is not known: give its frame number")
        return self.page.frame


def check_observable(observer: Observer, wanted: Sequence[Expectation]) -> None:
    """Raise `UsageError` if what is expected could not be seen in this guest."""
    for each in wanted:
        if isinstance(each, Trace | Sigbus | Offline) and not observer.can_look:
            raise UsageError(
                f"{each} cannot be looked for: the guest has no helper in it (--ras with our own initramfs)"
            )
        if isinstance(each, Trace | Sigbus) and not observer.tracing:
            raise UsageError(f"{each} cannot be looked for: the guest's kernel has no tracefs")
        if isinstance(each, Panics) and observer.console is None:
            raise UsageError("a panic cannot be looked for: the guest's console is not known to qemu-sdei")
        if isinstance(each, Log) and not observer.can_look and observer.console is None:
            raise UsageError("the kernel's log cannot be looked at: neither its helper nor its console is known")


def expect(observer: Observer, wanted: Sequence[Expectation], timeout: float) -> Observed:
    """Wait until all has come. Raises `ExpectationError`, `UsageError`."""
    deadline = time.monotonic() + timeout
    frames = tuple(frame for each in wanted for frame in each.frames)
    panics = any(isinstance(each, Panics) for each in wanted)
    while True:
        # A guest that panics does not answer: while that is awaited only its console is looked at.
        waits = panics and time.monotonic() < deadline
        found = observer.look_at_console() if waits else observer.look(frames)
        missing = [each for each in wanted if not each.met(found)]
        if not missing:
            return found
        over = found.panic is not None and not panics
        ended = observer.console is not None and observer.console.ended
        if over or ended or time.monotonic() >= deadline:
            when = "" if over or ended else f"within {timeout:g} s "
            others = "".join(f"\n  nor: {each}" for each in missing[1:])
            raise ExpectationError(when + missing[0].missing(found) + others)
        time.sleep(_LOOK)
