"""What a guest's kernel makes of an error: its log, trace events of its RAS code, signals, pages it gave up, a panic.

Asked of the guest itself by one command at a time, and of its console. What comes back is the guest's word.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from dataclasses import dataclass, field
from typing import Final

from qemu_sdei.errors import GuestError, UsageError
from qemu_sdei.guest.console_feed import PrintedWords
from qemu_sdei.guest.helper import Runner
from qemu_sdei.guest.ras_pages import Pages
from qemu_sdei.vm.kernel_messages import KernelWords

_TRACING: Final = "/sys/kernel/tracing"
_MAX_LOG: Final = 400
"""Lines of the kernel's log, of the trace, that are looked at: the newest."""
_LOG_STAMP: Final = re.compile(r"^\[ *(\d+\.\d+)\] ?(.*)$")
_TRACE_LINE: Final = re.compile(r"^ *(.{1,32})-(\d+) +\[\d+\] +\S+ +[\d.]+: (\w+): (.*)$")
_TIMEOUT: Final = 45.0
"""Seconds for one look; an emulated guest on a busy host is slow."""
_END: Final = 5.0
"""Seconds to take our things out of the guest: one that hangs is not waited for."""


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """A line of the kernel's trace."""

    name: str
    text: str
    """What it says, as tracefs prints it."""
    pid: int
    """Whoever ran then."""


@dataclass(frozen=True, slots=True)
class Signal:
    """A SIGBUS that was sent."""

    pid: int
    code: int
    """Its si_code: 4 is BUS_MCEERR_AR, 5 is BUS_MCEERR_AO."""
    address: int | None = None
    """Its si_addr, of a victim of ours, which tells; None: not known."""
    lsb: int | None = None
    """The same of si_addr_lsb: as many low bits of the address say nothing."""


@dataclass(slots=True)
class Observed:
    """What a guest's kernel has done since the error."""

    log: list[str] = field(default_factory=list)
    """Lines of the kernel log, without their time stamps."""
    trace: list[TraceEvent] = field(default_factory=list)
    """Trace events."""
    signals: list[Signal] = field(default_factory=list)
    """SIGBUS signals that were sent."""
    corrupted: int | None = None
    """Memory that the kernel took out of use since, in KiB; None: the kernel does not count it."""
    poisoned: dict[int, bool | None] = field(default_factory=dict)
    """For each page frame that was asked for: True if it is out of use; None: not known."""
    panic: str | None = None
    """The kernel's words when it panicked; None: it did not."""


class Observer:
    """Looks at one guest."""

    def __init__(self, run: Runner | None, console: PrintedWords | None) -> None:
        """`run`: commands in the guest; `console`: what it prints from now on. Each None: there is none."""
        self._run = run
        self.console = console
        self._instance = f"qemu-sdei-{secrets.token_hex(4)}"
        self.tracing = False
        """The kernel traces its RAS events and each SIGBUS."""
        self._stamp = "0"
        self._corrupted: int | None = None
        self._victims: list[str] = []
        self._last = Observed()
        self.silent = False
        """The guest's helper did not answer any more."""

    @property
    def can_look(self) -> bool:
        """Whether it can be asked for anything but its console."""
        return self._run is not None

    def begin(self, *, trace: bool = True) -> None:
        """From now on: what was before is not of the error.

        Raises:
            UsageError: the kernel has no tracefs, and `trace` is wanted.
        """
        self._last = Observed()
        if self._run is None:
            return
        words = "dmesg | tail -n 1; echo; echo corrupted $(grep HardwareCorrupted /proc/meminfo)"
        words += "".join(f"; grep -q sigbus {path} && echo over {path}" for path in self._victims)
        if trace:
            words = f"{self._set_up()}; {words}; true"
        found = self._run(words, _TIMEOUT)
        if found.status == 77:
            raise UsageError("the guest's kernel has no tracefs: what it traces cannot be looked at")
        self.tracing = trace
        # One that has told of its signal already will tell of no other.
        self._victims = [path for path in self._victims if f"\nover {path}\n" not in found.output]
        stamps = [match[1] for line in found.output.split("\n") if (match := _LOG_STAMP.match(line))]
        self._stamp = stamps[-1] if stamps else "0"
        self._corrupted = _corrupted(found.output)

    def _set_up(self) -> str:
        """Commands that have the kernel trace into an instance of our own, emptied."""
        there = f"{_TRACING}/instances/{self._instance}"
        return (
            f"[ -d {_TRACING}/instances ] || mount -t tracefs tracefs {_TRACING} 2>/dev/null; "
            f"mkdir -p {there} 2>/dev/null; cd {there} || exit 77; "
            "for e in events/ras events/signal/signal_generate; do "
            'case $e in *signal*) echo "sig==7" >$e/filter ;; esac; echo 1 >$e/enable; done 2>/dev/null; echo >trace'
        )

    def end(self) -> None:
        """Leave nothing in the guest: neither the trace nor victims."""
        if self._run is not None and self.tracing and not self.silent and self._last.panic is None:
            there = f"{_TRACING}/instances/{self._instance}"
            with contextlib.suppress(GuestError):
                self._run(f"echo 0 >{there}/events/enable; rmdir {there}", _END)
        self.tracing = False

    def watch_victim(self, report: str) -> None:
        """Read also what a victim writes into the file `report` of the guest."""
        self._victims.append(report)

    def look(self, frames: tuple[int, ...] = ()) -> Observed:
        """What has come until now; `frames`: pages whose state is wanted."""
        found = self._last
        if self._run is not None and not self.silent and found.panic is None:
            try:
                self._ask(found, frames)
            except GuestError:
                self.silent = True  # the console may still say why
        return self.look_at_console()

    def look_at_console(self) -> Observed:
        """The same, as far as the guest need not be asked."""
        found = self._last
        if self.console is None:
            return found
        text = self.console.text
        words = KernelWords()
        words.feed(text, 0)
        if words.panic is not None:
            found.panic = words.panic.message
        if self._run is None or self.silent or found.panic is not None:
            # Its own log cannot be had any more, or could not from the start.
            found.log = [_without_stamp(line) for line in text.split("\n")[-_MAX_LOG:] if line.strip()]
        return found

    def _ask(self, found: Observed, frames: tuple[int, ...]) -> None:
        assert self._run is not None
        there = f"{_TRACING}/instances/{self._instance}"
        # awk: only what is newer. Each part ends with a line of its own.
        words = (
            f"dmesg | awk -F '[][]' '$2 + 0 > {self._stamp}' | tail -n {_MAX_LOG}; echo; echo end of log; "
            + (f"grep -v '^#' {there}/trace | tail -n {_MAX_LOG}; " if self.tracing else "")
            + "echo; echo end of trace; grep HardwareCorrupted /proc/meminfo; "
            + "".join(f"cat {path} 2>/dev/null; " for path in self._victims)
        )
        output = self._run(words, _TIMEOUT).output
        log, _, rest = output.partition("\nend of log\n")
        trace, _, rest = rest.partition("\nend of trace\n")
        found.log = [match[2] for line in log.split("\n") if (match := _LOG_STAMP.match(line))]
        found.trace = [event for line in trace.split("\n") if (event := _trace_event(line)) is not None]
        found.signals = [signal for event in found.trace if (signal := _signal(event)) is not None]
        self._told_by_victims(found, rest)
        now = _corrupted(rest)
        if now is not None and self._corrupted is not None:
            found.corrupted = now - self._corrupted
        for frame in frames:
            found.poisoned[frame] = Pages(self._run).poisoned(frame)

    @staticmethod
    def _told_by_victims(found: Observed, text: str) -> None:
        """A victim knows more of its signal than the trace: put it in place of that."""
        told: list[Signal] = []
        pid = 0
        for line in text.split("\n"):
            if ready := re.match(r"ready pid=(\d{1,9}) ", line):
                pid = int(ready[1])
            elif match := re.match(r"sigbus code=(\d{1,9}) address=0x([0-9a-f]{1,16}) lsb=(\d{1,5})", line):
                told.append(Signal(pid, int(match[1]), int(match[2], 16), int(match[3])))
        for signal in told:
            known = [each for each in found.signals if (each.pid, each.code) != (signal.pid, signal.code)]
            found.signals = [*known, signal]


def _corrupted(text: str) -> int | None:
    match = re.search(r"HardwareCorrupted: +(\d{1,12}) kB", text)
    return int(match[1]) if match else None


def _without_stamp(line: str) -> str:
    match = _LOG_STAMP.match(line)
    return match[2] if match else line


def _trace_event(line: str) -> TraceEvent | None:
    match = _TRACE_LINE.match(line)
    return None if match is None else TraceEvent(match[3], match[4], int(match[2]))


def _signal(event: TraceEvent) -> Signal | None:
    """The SIGBUS that a line of `signal_generate` tells of."""
    if event.name != "signal_generate":
        return None
    match = re.search(r"sig=7 errno=-?\d+ code=(-?\d{1,9}) comm=.* pid=(\d{1,9}) ", event.text)
    return None if match is None else Signal(int(match[2]), int(match[1]))
