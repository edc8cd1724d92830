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
from dataclasses import dataclass
from typing import Any, Final, Protocol

from qemu_sdei.errors import CperError, ProtocolError, UsageError
from qemu_sdei.guest.console_feed import PrintedWords
from qemu_sdei.guest.helper import Runner
from qemu_sdei.guest.ras_observing import Observer
from qemu_sdei.guest.ras_pages import Page, Pages
from qemu_sdei.guest.ras_refusals import SourceState, chosen, refuse
from qemu_sdei.guest.ras_report import TIMEOUT, Report
from qemu_sdei.guest.ras_victim import Victim
from qemu_sdei.ras import block as blocks
from qemu_sdei.ras.addresses import addressed, has_place
from qemu_sdei.ras.block import Block
from qemu_sdei.ras.entry import Entry, entry
from qemu_sdei.ras.kinds import Section
from qemu_sdei.ras.severity import Severity, severity_of

_LOOK: Final = 0.025
"""Seconds between two looks at a source."""
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

    def ras_keep(self, block: bytes) -> dict[str, Any]:
        """Keep a status block for the BERT of the next boot."""

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

    def keep_for_next_boot(self, block: Block) -> None:
        """Have the BERT of the next boot tell of an error, as firmware writes down what its watchdog or its BMC says of
        a kernel that ended; this kernel is not told.

        Raises:
            UsageError: this guest has no BERT, or no room in it. `NotDeliveredError`: it has not booted yet.
        """
        self._access.control().ras_keep(block.pack())

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
            time.sleep(_LOOK)


def _placed(section: Section, address: int | None) -> Section:
    return addressed(section, address) if address is not None and has_place(section) else section


def severe(given: str) -> Severity:
    """A severity that a user names. Raises `UsageError`."""
    try:
        return severity_of(given)
    except CperError as error:
        raise UsageError(str(error)) from None
