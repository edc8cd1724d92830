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
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from qemu_sdei.errors import CperError, ProtocolError, UsageError
from qemu_sdei.guest.helper import Runner
from qemu_sdei.guest.ras_access import RasAccess
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


@dataclass(frozen=True, slots=True)
class HostError:
    """A page that failed on the host, as it is reported to the guest."""

    page: int
    """Guest physical address of the page."""
    source: str
    """The error source that reports it."""
    vcpu: int | None
    """Number of the vCPU that is notified; None: any."""


@dataclass(frozen=True, slots=True)
class Abort:
    """A synchronous external abort that a vCPU took, and the place where it took it."""

    vcpu: int
    """Number of the vCPU."""
    pc: int
    """Address of the interrupted instruction."""
    pstate: int
    """PSTATE there."""
    el: int
    """Exception level there; 0 is a process."""


class GuestRas:
    """Hardware errors of a guest: `guest.ras`.

    A method that asks the guest may also raise `GuestError`, `LostGuestError` and `GuestTimeoutError`.
    """

    def __init__(self, access: RasAccess) -> None:
        self._access = access
        self._observer: Observer | None = None
        self._victims: list[Victim] = []

    def close(self) -> None:
        """Remove what was put into the guest for this."""
        if self._observer is not None:
            self._observer.end()
            self._observer = None

    def __enter__(self) -> GuestRas:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def sources(self) -> list[SourceState]:
        """State of the guest's error sources, in the order of the HEST.

        Raises:
            SdeiError: the backend does not answer.
        """
        return [SourceState.of(each) for each in self._access.control().ras_sources()]

    def page(self, pid: int, virtual: int | None = None) -> Page:
        """A page of a process in the guest.

        Args:
            pid: process id in the guest.
            virtual: virtual address in the page; None: the page that the process will touch next, as far as this is
                known.

        Raises:
            UsageError: there is no such process or page.
        """
        return Pages(self._runner("pages of processes cannot be found")).page(pid, virtual)

    def _runner(self, what: str) -> Runner:
        if self._access.run is None:
            raise UsageError(
                f"{what}: guest {self._access.name!r} has no helper in it (start it with --ras and our own initramfs)"
            )
        return self._access.run

    def observe(self, *, trace: bool = True) -> Observer:
        """Begin to watch what the kernel does.

        `trace`: True: its trace events too, which needs tracefs.

        Raises:
            UsageError: `trace` is True, and the kernel has no tracefs.
        """
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
        """Report a hardware error (UEFI 2.10 appendix N) to the guest.

        Args:
            sections: sections of the error, as `qemu_sdei.ras` makes them, such as `Memory(physical_address=...)`.
            severity: severity of all sections: a word such as "recoverable", a `Severity`, or its number (UEFI 2.10
                N.2.1).
            source: name of the error source; None: the first one that is ready.
            vcpu: number of the vCPU that is notified; None: as the source's event is routed.
            pid: process of the guest whose page has the error. Its physical address goes into each section that has a
                field for it.
            virtual: virtual address in that process; None: the page that it will touch next, as far as this is known.
            address: physical address of the error, in place of `pid`.
            wait: True: wait until the guest has read the block and acknowledged it; None: wait, unless the error is
                fatal.
            force: True: report also an error that is not valid, and over one that has not been read.
            observe: True: watch what the kernel does, for `Report.expect`.
            timeout: seconds to wait.
            about: `fru_id`, `fru_text`, `timestamp`, `flags`, `revision` of each entry (ACPI 6.5 18.3.2.7.1).

        Raises:
            UsageError: the error cannot be reported so; nothing was written.
            NotDeliveredError: the error was written, and the guest did not handle it in time.
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
        """Report an error whose sections have different severities.

        Args:
            entries: one for each section.
            how: arguments of `inject_block`.

        Raises:
            UsageError, NotDeliveredError: as `inject`.
        """
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
        """Report the error of a status block (ACPI 6.5 18.3.2.7.1). Bytes are written unchanged, also if they are
        malformed. Other arguments, and errors, are those of `inject`.

        Args:
            block: the block, or its bytes.
            fault: virtual address for FAR_EL1, where the notification is a synchronous external abort.
            source, vcpu, wait, force, observe, timeout: as in `inject`.
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
        """Put an error into the BERT of the guest's next boot (ACPI 6.5 18.3.1), as firmware does for what a watchdog
        or a BMC reports of a dead kernel. The running kernel is not notified.

        `block`: the error status block.

        Raises:
            UsageError: this guest has no BERT, or the BERT has no room.
            NotDeliveredError: the guest has not booted yet.
        """
        self._access.control().ras_keep(block.pack())

    def host_memory_error(self, address: int, *, source: str | None = None, vcpu: int | None = None) -> HostError:
        """Report a page of guest RAM that has failed on the host, as a recoverable memory error. The backend does the
        same when the host's kernel tells it of such a page.

        Args:
            address: a guest physical address in the page.
            source: name of the error source; None: the first one that the guest listens to, SDEI before others.
            vcpu: number of the vCPU that is notified; None: any.

        Raises:
            UsageError: the page is not the guest's, or belongs to the frame window or the ACPI tables.
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
        """Make a vCPU take a synchronous external abort that no error record explains. In a process, Linux sends it
        SIGBUS. In the kernel, Linux panics.

        Args:
            vcpu: number of the vCPU; None: the first one that can take the abort without harm to the kernel.
            address: virtual address for FAR_EL1; None: FAR_EL1 holds no address.
            fetch: True: the abort is of an instruction fetch; False: of a data access.
            kernel: True: the abort may also hit the kernel; False: only code at EL0.
            limit: seconds to wait until a vCPU is at a place where it can take the abort.

        Raises:
            NotDeliveredError: no vCPU could take it within `limit`; the message says why.
            UsageError: there is no such vCPU.
        """
        found = self._access.control().abort(vcpu, address=address, fetch=fetch, kernel=kernel, limit=limit)
        if not all(type(found.get(name)) is int for name in ("vcpu", "pc", "pstate", "el")):
            raise ProtocolError("the backend's answer to abort is not of the protocol's form")
        return Abort(found["vcpu"], found["pc"], found["pstate"], found["el"])

    @property
    def ram(self) -> tuple[int, int]:
        """First physical address of the guest's RAM, and the first one behind it."""
        return self._access.ram

    def victim(self, *, early: bool = False, still: bool = False, file: str | None = None) -> Victim:
        """Start a process in the guest that has a page for an error, and reports the SIGBUS that it gets.

        `early`, `still`, `file`: as in `Victim.start`.

        Raises:
            GuestError: it did not start.
        """
        found = Victim.start(self._runner("a victim cannot be started"), early=early, still=still, file=file)
        self._victims.append(found)
        if self._observer is not None:
            self._observer.watch_victim(found.report)
        return found

    def threads(self, pid: int) -> tuple[int, ...]:
        """Thread ids of the process `pid` in the guest.

        Raises:
            UsageError: there is no such process.
        """
        found = self._runner("a process cannot be looked at")(f"ls /proc/{pid}/task")
        if found.status:
            raise UsageError(f"there is no process {pid} in the guest")
        return tuple(int(word) for word in found.output.split() if word.isdecimal() and len(word) < 10)

    def observing(self) -> Observer:
        """The same as `observe`, with trace events if the kernel has tracefs, else without."""
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
