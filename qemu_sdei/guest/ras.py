"""Hardware errors for a guest: reported by its error sources, with what its kernel made of them.

```
with Guest(GuestOptions(ras=True, helper=True)) as guest:
    pid = ...
    report = guest.ras.inject(Memory(memory_error_type="Multi-bit ECC"), severity="recoverable", pid=pid)
    report.expect(sigbus=(pid, 4), log="Memory failure")
```
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from qemu_sdei.errors import CperError, ExpectationError, ProtocolError, UsageError
from qemu_sdei.guest.console_feed import PrintedWords
from qemu_sdei.guest.helper import Runner
from qemu_sdei.guest.ras_expecting import Expectation, Log, Offline, Panics, Sigbus, Trace
from qemu_sdei.guest.ras_observing import Observed, Observer
from qemu_sdei.guest.ras_pages import Page, Pages
from qemu_sdei.guest.ras_refusals import SourceState, chosen, refuse
from qemu_sdei.guest.ras_victim import Victim
from qemu_sdei.ras import block as blocks
from qemu_sdei.ras.addresses import addressed, has_place
from qemu_sdei.ras.block import Block
from qemu_sdei.ras.entry import Entry, entry
from qemu_sdei.ras.kinds import Section
from qemu_sdei.ras.severity import Severity, severity_of

TIMEOUT: Final = 10.0
"""Seconds for the guest to deal with a report, and for what is expected to come."""
_LOOK: Final = 0.1
_FREE: Final = "free"


class RasControl(Protocol):
    """What is asked of a backend: `ControlClient`."""

    def ras_sources(self) -> list[dict[str, Any]]:
        """The error sources and their state."""

    def ras_report(
        self,
        source: str,
        block: bytes,
        *,
        vcpu: int | None = None,
        address: int | None = None,
        wait: bool = False,
        force: bool = False,
        raw: bool = False,
        timeout: float = 5.0,
    ) -> dict[str, Any]:
        """Write a status block and notify the guest."""

    def memory_error(self, address: int, *, source: str | None = None, vcpu: int | None = None) -> dict[str, Any]:
        """Tell of a page that is bad at the host."""

    def abort(
        self,
        vcpu: int | None = None,
        *,
        address: int | None = None,
        fetch: bool = False,
        kernel: bool = False,
        limit: int = 10,
    ) -> dict[str, Any]:
        """Have a vCPU take a synchronous external abort."""


@dataclass(frozen=True, slots=True)
class RasAccess:
    """How one guest is reached."""

    name: str
    control: Callable[[], RasControl]
    ram: tuple[int, int]
    """Where its RAM begins and ends, physical addresses."""
    run: Runner | None = None
    """Commands in it; None: none can be run."""
    console: Callable[[], PrintedWords | None] = lambda: None
    """What it prints from now on."""


@dataclass(frozen=True, slots=True)
class HostError:
    """A page that went bad at the host, as it is reported to the guest."""

    page: int
    """Its physical address."""
    source: str
    """The error source that reports it."""
    vcpu: int | None
    """Which one is told; None: no certain one."""


@dataclass(frozen=True, slots=True)
class Abort:
    """A synchronous external abort that a vCPU has taken, and what it has interrupted."""

    vcpu: int
    pc: int
    pstate: int
    el: int
    """Exception level: 0 is a process."""


@dataclass(slots=True)
class Report:
    """What became of an error that was injected."""

    source: str
    outcome: str
    """`completed`: the guest's handler has dealt with it, or it has read and acknowledged the block; `queued`: it was
    told, and nothing was waited for, or it has not dealt with it yet.
    """
    bytes: int
    vcpu: int | None = None
    event: int | None = None
    entry_ns: int | None = None
    """Nanoseconds from the trigger to the handler's entry, where the notification is an SDEI event."""
    complete_ns: int | None = None
    state: str = ""
    """Of the source afterwards: "free" where the block was read, and acknowledged."""
    block: Block | None = field(default=None, repr=False)
    page: Page | None = None
    """Whose page it was, where it was asked for by `pid`."""
    observer: Observer | None = field(default=None, repr=False)

    def observed(self) -> Observed:
        """What the guest's kernel made of it until now."""
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
        """Wait until all that is expected has come; returns itself.

        Args:
            more: as of `ras_expecting`.
            log: regular expression for a line of the kernel's log.
            trace: "EVENT" or "EVENT:FIELD=VALUE", a trace event of the kernel's.
            sigbus: process and si_code: 4 is BUS_MCEERR_AR, 5 is BUS_MCEERR_AO.
            panic: the kernel panics; a text: a regular expression for what it says then.
            offline: page frame that is taken out of use; True: that of the injected address.
            timeout: seconds.

        Raises:
            ExpectationError: something did not come; it says what came in place of it.
            UsageError: it cannot be known of this guest.
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


class GuestRas:
    """Hardware errors of one guest: `guest.ras`."""

    def __init__(self, access: RasAccess) -> None:
        self._access = access
        self._observer: Observer | None = None
        self._victims: list[Victim] = []

    def close(self) -> None:
        """Leave nothing of it in the guest."""
        if self._observer is not None:
            self._observer.end()
            self._observer = None

    def __enter__(self) -> GuestRas:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def sources(self) -> list[SourceState]:
        """The guest's error sources and their state. Raises `SdeiError`: the backend does not answer."""
        return [SourceState.of(each) for each in self._access.control().ras_sources()]

    def page(self, pid: int, virtual: int | None = None) -> Page:
        """The page of a process in the guest: see `Pages.page`. Raises `UsageError`."""
        return Pages(self._runner("pages of processes cannot be found")).page(pid, virtual)

    def _runner(self, what: str) -> Runner:
        if self._access.run is None:
            raise UsageError(
                f"{what}: guest {self._access.name!r} has no helper in it (start it with --ras and our own initramfs)"
            )
        return self._access.run

    def observe(self, *, trace: bool = True) -> Observer:
        """Look at what the kernel does from now on. Raises `UsageError`: `trace` is wanted and it has no tracefs."""
        if self._observer is None:
            self._observer = Observer(self._access.run, None)
            for victim in self._victims:
                self._observer.watch_victim(victim.report)
        self._observer.console = self._access.console()
        self._observer.begin(trace=trace)
        return self._observer

    def inject(
        self,
        *sections: Section,
        severity: Severity | str | int = Severity.CORRECTED,
        source: str | None = None,
        vcpu: int | None = None,
        pid: int | None = None,
        virtual: int | None = None,
        address: int | None = None,
        wait: bool | None = None,
        force: bool = False,
        observe: bool = True,
        timeout: float = TIMEOUT,
        **about: Any,
    ) -> Report:
        """Report an error of these sections.

        Args:
            sections: as `qemu_sdei.ras` makes them: `Memory(physical_address=...)`.
            severity: of all of them.
            source: name of the error source; None: the first that is ready.
            vcpu: which takes the notification; None: as the source's event is routed.
            pid: process of the guest whose page is to have it; the physical address goes into each section that has
                one. `virtual`: which page; None: the one that it touches next, as far as can be told.
            address: the physical address, in place of `pid`.
            wait: until the guest has read the block and acknowledged it; None: unless it is fatal.
            force: also what is wrong, and over a report that was not read.
            observe: look at what the kernel makes of it, for `Report.expect`.
            timeout: seconds to wait.
            about: `fru_id`, `fru_text`, `timestamp`, `flags`, `revision` of each entry.

        Raises:
            UsageError: it cannot be (nothing was written). `NotDeliveredError`: it was written, and not dealt with.
        """
        page = None if pid is None else self.page(pid, virtual)
        if page is not None:
            address = page.physical
        placed = [_placed(each, address) for each in sections]
        if address is not None and not any(has_place(each) for each in sections):
            raise UsageError(f"no section says a physical address: {', '.join(each.kind.name for each in sections)}")
        made = blocks.block([entry(each, severity, **about) for each in placed])
        report = self.inject_block(
            made,
            source=source,
            vcpu=vcpu,
            fault=None if page is None else page.virtual,
            wait=wait,
            force=force,
            observe=observe,
            timeout=timeout,
        )
        report.page = page
        return report

    def inject_entries(self, entries: Sequence[Entry], **how: Any) -> Report:
        """Report an error whose sections have severities of their own; `how`: as `inject_block`."""
        return self.inject_block(blocks.block(entries), **how)

    def inject_block(
        self,
        block: Block | bytes,
        *,
        source: str | None = None,
        vcpu: int | None = None,
        fault: int | None = None,
        wait: bool | None = None,
        force: bool = False,
        observe: bool = True,
        timeout: float = TIMEOUT,
    ) -> Report:
        """Report an error by this status block; bytes are written as they are, however wrong. See `inject`.

        `fault`: the virtual address that a synchronous external abort is about, where the source is told of by one.
        """
        if isinstance(block, bytes):
            data, parsed = block, None
        else:
            data, parsed = block.pack(), block
        target = chosen(self.sources(), source, self._access.name)
        refuse(target, parsed, len(data), ram=self._access.ram, force=force)
        observer = self.observing() if observe else None
        fatal = parsed is not None and parsed.severity == Severity.FATAL
        waits = not fatal if wait is None else wait
        answer = self._access.control().ras_report(
            target.name,
            data,
            vcpu=vcpu,
            address=fault if target.notify == "sea" else None,
            wait=waits,
            force=force,
            raw=parsed is None,
            timeout=timeout,
        )
        report = Report(
            source=target.name,
            outcome=str(answer.get("outcome", "queued")),
            bytes=len(data),
            vcpu=answer.get("vcpu"),
            event=target.event,
            entry_ns=answer.get("entry_ns"),
            complete_ns=answer.get("complete_ns"),
            block=parsed,
            observer=observer,
        )
        if waits:
            report.state = self._until_free(target.name, timeout)
            if report.state == _FREE:
                report.outcome = "completed"
        return report

    def host_memory_error(self, address: int, *, source: str | None = None, vcpu: int | None = None) -> HostError:
        """Tell it of a page of its RAM that has gone bad at the host, as the backend does when the host's kernel says
        so: it is reported as a recoverable memory error.

        Args:
            address: guest physical, in that page.
            source: name of the error source; None: the first that the guest listens to, those of SDEI before others.
            vcpu: which one is told; None: any.

        Raises:
            UsageError: that is no page of the guest's (but of the frame window, or of the tables).
            NotDeliveredError: no source can report it now; nothing was written.
        """
        found = self._access.control().memory_error(address, source=source, vcpu=vcpu)
        if not isinstance(found.get("page"), int) or not isinstance(found.get("source"), str):
            raise ProtocolError("the backend's answer to memory_error is not of the protocol's form")
        return HostError(found["page"], found["source"], found.get("vcpu"))

    def external_abort(
        self,
        vcpu: int | None = None,
        *,
        address: int | None = None,
        fetch: bool = False,
        kernel: bool = False,
        limit: int = 10,
    ) -> Abort:
        """Have a vCPU take a synchronous external abort that no error record explains. Linux sends the process that it
        hits a SIGBUS; one in the kernel it does not survive.

        Args:
            vcpu: which; None: the first that can take one without the guest being lost.
            address: virtual, for FAR; None: FAR holds none.
            fetch: of an instruction, not of data.
            kernel: it may hit the kernel too, and not only what runs at EL0.
            limit: seconds in which a moment is to come.

        Raises:
            NotDeliveredError: no moment came; it says what was in the way. `UsageError`: there is no such vCPU.
        """
        found = self._access.control().abort(vcpu, address=address, fetch=fetch, kernel=kernel, limit=limit)
        if not all(type(found.get(name)) is int for name in ("vcpu", "pc", "pstate", "el")):
            raise ProtocolError("the backend's answer to abort is not of the protocol's form")
        return Abort(found["vcpu"], found["pc"], found["pstate"], found["el"])

    @property
    def ram(self) -> tuple[int, int]:
        """Where the guest's RAM begins and ends, physical addresses."""
        return self._access.ram

    def victim(self, *, early: bool = False, still: bool = False, file: str | None = None) -> Victim:
        """Start a process in the guest that has a page for an error, and tells of its SIGBUS: see `Victim.start`."""
        found = Victim.start(self._runner("a victim cannot be started"), early=early, still=still, file=file)
        self._victims.append(found)
        if self._observer is not None:
            self._observer.watch_victim(found.report)
        return found

    def threads(self, pid: int) -> tuple[int, ...]:
        """The threads of a process in the guest. Raises `UsageError`: there is no such process."""
        found = self._runner("a process cannot be looked at")(f"ls /proc/{pid}/task")
        if found.status:
            raise UsageError(f"there is no process {pid} in the guest")
        return tuple(int(word) for word in found.output.split() if word.isdecimal() and len(word) < 10)

    def observing(self) -> Observer:
        """As `observe`, of a kernel without tracefs without it."""
        try:
            return self.observe()
        except UsageError:
            return self.observe(trace=False)

    def _until_free(self, name: str, timeout: float) -> str:
        """Wait until the guest has read the block, and acknowledged it; returns the source's state then, or after
        `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            state = chosen(self.sources(), name, self._access.name).state
            if state == _FREE or time.monotonic() >= deadline:
                return state
            time.sleep(_LOOK / 4)


def _placed(section: Section, address: int | None) -> Section:
    return addressed(section, address) if address is not None and has_place(section) else section


def severe(given: str) -> Severity:
    """A severity that a user names. Raises `UsageError`."""
    try:
        return severity_of(given)
    except CperError as error:
        raise UsageError(str(error)) from None
