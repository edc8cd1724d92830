"""The client module (`qemu_sdei/data/module/`) in a running Linux guest, as typed objects.

`Guest.sdei_client` makes one. It needs nothing but a way to run shell commands as root there, so it serves a guest with
an init of its own too.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from qemu_sdei.errors import GuestError, ProtocolError
from qemu_sdei.guest.sdei_where import Where, places
from qemu_sdei.guest.shell import CommandResult
from qemu_sdei.host.client_module import MODULE_PATH
from qemu_sdei.trace.guest_clock import MARKS

MAX_NS: Final = 10_000_000_000
"""How long a handler or a thread may be made to spin, in ns."""
_PROC: Final = "/proc/sdei_test"
_SAME_KERNEL: Final = (
    r"""v=$(tr '\0' '\n' <{path} | sed -n 's/^vermagic=\([^ ]*\) .*/\1/p'); """
    """[ -z "$v" ] || [ "$v" = "$(uname -r)" ] || """
    """{{ echo "the client module is built for kernel $v, and this is $(uname -r)"; exit 1; }}"""
)
"""insmod says no more than "invalid module format"."""
_EL0_32: Final = 0x10


class SdeiClientError(GuestError):
    """The module or the kernel refused a command. `errno` is the guest's own words, such as "Invalid argument"."""

    def __init__(self, message: str, errno: str) -> None:
        super().__init__(message)
        self.errno = errno


@dataclass(frozen=True)
class Count:
    """Events of one number that one CPU took."""

    cpu: int
    event: int
    count: int
    """Handlers that began."""
    returned: int
    """Handlers that ended."""


@dataclass(frozen=True)
class Dumps:
    """What became of the records: `printed` in full to the kernel log, `suppressed` by the limit of dumps a second,
    `lost` because more came than a CPU keeps before they could be printed.
    """

    printed: int
    suppressed: int
    lost: int


@dataclass(frozen=True)
class Record:
    """One event that a handler of the module took, and what it had interrupted."""

    cpu: int
    number: int
    """On that CPU, from 0: a gap means records that newer ones have replaced."""
    event: int
    parameter: int
    time: int
    """ns of the guest's monotonic clock, when the handler began."""
    pc: int
    pstate: int
    sp: int
    """The EL1 stack pointer, also where user space was interrupted."""
    regs: tuple[int, ...]
    """x0..x30 as the kernel saved them."""
    context: tuple[int, ...] | None
    """x0..x17 as SDEI_EVENT_CONTEXT gave them; None where no full dump was made."""

    @property
    def user(self) -> bool:
        """It interrupted EL0."""
        return self.aarch32 or self.pstate & 0xF == 0

    @property
    def aarch32(self) -> bool:
        """It interrupted AArch32 user space."""
        return bool(self.pstate & _EL0_32)

    @property
    def irqs_masked(self) -> bool:
        """It interrupted code that ran with PSTATE.I set."""
        return bool(self.pstate & 1 << 7)


@dataclass(frozen=True)
class EventInfo:
    """What the guest's firmware says of an event (EVENT_STATUS and EVENT_GET_INFO, DEN0054 5.1.9 and 5.1.10)."""

    event: int
    registered: bool
    enabled: bool
    running: bool
    shared: bool
    critical: bool
    signalable: bool
    routed: bool | None
    """To one CPU only; None for an event that has no routing (private, or not registered)."""
    affinity: int | None
    """That CPU's MPIDR."""


class SdeiClient:
    """The loaded module. Every method runs a command in the guest; errors of the guest are `SdeiClientError`."""

    def __init__(self, run: Callable[[str], CommandResult], path: str = MODULE_PATH) -> None:
        """`run` runs a shell command in the guest as root, `path` is the module's there. Nothing is done yet."""
        self._run = run
        self._path = path

    def shell(self, command: str) -> str:
        """The output of a shell command. Raises `SdeiClientError` with its last line if it fails."""
        result = self._run(command)
        if result.status != 0:
            reason = (result.output.strip().splitlines() or [f"exit status {result.status}"])[-1]
            words = reason.rpartition(": ")[2]
            raise SdeiClientError(f"in the guest, {command.partition(' >')[0]!r} failed: {reason}", words)
        return result.output

    # Life

    def load(self, events: Iterable[int] = (0,), *, verbose: int = 10, records: int = 256) -> None:
        """Load the module: it registers and enables `events`.

        Args:
            verbose: full dumps a second at most.
            records: how many of the newest records each CPU keeps.

        Raises:
            SdeiClientError: the module is built for another kernel, the kernel has a handler of its own for one of
                `events`, or another reason of the guest's.
        """
        looked = self._run(_SAME_KERNEL.format(path=self._path))
        if looked.status:
            raise SdeiClientError((looked.output.strip().splitlines() or ["uname fails"])[-1], "Exec format error")
        numbers = ",".join(hex(event) for event in events)
        try:
            self.shell(f"insmod {self._path} events={numbers} verbose={verbose} records={records}")
        except SdeiClientError as error:
            if "busy" not in error.errno:
                raise
            raise SdeiClientError(
                f"an event of {numbers} has a handler already, the kernel's own (event 0 where CONFIG_ARM_SDEI_NMI is "
                "set): leave it out, as in events=[0x100]",
                error.errno,
            ) from None

    def unload(self) -> None:
        """Unload the module: all its events are unregistered, what was not printed yet is printed."""
        self.shell("rmmod sdei_test")

    @property
    def loaded(self) -> bool:
        """Whether it is."""
        return self._run(f"test -d {_PROC}").status == 0

    # Events

    def _command(self, command: str) -> None:
        self.shell(f"echo {command} >{_PROC}/control")

    def register(self, event: int) -> None:
        """EVENT_REGISTER by the kernel's driver; the event stays disabled."""
        self._command(f"register {event:#x}")

    def unregister(self, event: int) -> None:
        """Disable, wait for a running handler, unregister."""
        self._command(f"unregister {event:#x}")

    def enable(self, event: int) -> None:
        """EVENT_ENABLE, on all CPUs for a private event."""
        self._command(f"enable {event:#x}")

    def disable(self, event: int) -> None:
        """EVENT_DISABLE, on all CPUs for a private event."""
        self._command(f"disable {event:#x}")

    def route(self, event: int, cpu: int | None = None) -> None:
        """EVENT_ROUTING_SET of a shared event: to one CPU, or with None to any."""
        self._command(f"route {event:#x} {'any' if cpu is None else cpu}")

    def info(self, event: int) -> EventInfo:
        """What the firmware says of an event; a private event's status is that of whichever CPU asks."""
        with_answer = f"echo info {event:#x} >{_PROC}/control && cat {_PROC}/control"
        found = _pairs(self.shell(with_answer).strip())
        return EventInfo(
            event=found["event"],
            registered=bool(found["registered"]),
            enabled=bool(found["enabled"]),
            running=bool(found["running"]),
            shared=bool(found["shared"]),
            critical=bool(found["critical"]),
            signalable=not found["unsignalable"],
            routed=bool(found["routed"]) if "routed" in found else None,
            affinity=found.get("affinity"),
        )

    def run_for(self, ns: int) -> None:
        """Have each handler return no sooner than `ns` after its start; 0 ends that. At most `MAX_NS`."""
        self._command(f"run-for {ns}")

    def panic(self, *, in_interrupt: bool = False) -> None:
        """Have the next handler panic; or the next that has interrupted the handler of an interrupt."""
        self._command("panic irq" if in_interrupt else "panic")

    def restart(self) -> None:
        """Have the next handler restart the machine: SYSTEM_RESET in NMI context."""
        self._command("restart")

    # CPUs

    def backtrace(self) -> list[Where]:
        """Where each online CPU is, by event 0: also one that has interrupts off. Event 0 must be enabled. Raises
        `SdeiClientError`: a CPU does not answer within ten seconds, as one that has masked SDEI.
        """
        return places(self.shell(f"echo backtrace >{_PROC}/control && cat {_PROC}/backtrace").splitlines())

    def watchdog(self, milliseconds: int, *, panic: bool = False) -> None:
        """From now on a CPU that takes no interrupt for so long (16 to 10000) is a hard lockup: it is found by a timer
        that is bound to an event, and with `panic` the kernel panics there.
        """
        self._command(f"watchdog {milliseconds}{' panic' if panic else ''}")

    def watchdog_off(self) -> None:
        """The end of `watchdog`; the timer's interrupt is the kernel's again."""
        self._command("watchdog off")

    def lockups(self) -> list[Where]:
        """The newest lockup that the watchdog has found of each CPU."""
        return places(self.shell(f"cat {_PROC}/lockups").splitlines())

    def signal(self, cpu: int) -> None:
        """EVENT_SIGNAL: event 0 to that CPU."""
        self._command(f"signal {cpu}")

    def mask(self, cpu: int | None = None) -> None:
        """PE_MASK there, or on every CPU that is online."""
        self._command(f"mask {'' if cpu is None else cpu}".strip())

    def unmask(self, cpu: int | None = None) -> None:
        """PE_UNMASK there, or on every CPU that is online."""
        self._command(f"unmask {'' if cpu is None else cpu}".strip())

    def irqs_off(self, cpu: int, ns: int) -> None:
        """Have a kernel thread on that CPU run for `ns` with interrupts off; returns when they are off."""
        self._command(f"irqs-off {cpu} {ns}")

    def mark_trace(self, times: int = 16, tracing: str = "/sys/kernel/tracing") -> None:
        """Write `times` pairs of markers into the guest's ftrace, each around a call that our trace has too: so the two
        can be shown on one axis (docs/howto/linux-ftrace.md). Kprobes do it more precisely where a kernel has them.
        """
        first = time.monotonic_ns() // 1000 % (len(MARKS) - times)  # others than the last time
        commands = []
        for event in MARKS[first : first + times]:
            for when in ("before", "after"):
                commands.append(f"echo 'qemu-sdei {when} event={event:#x}' >{tracing}/trace_marker || exit 1")
            commands.insert(-1, f"echo info {event:#x} >{_PROC}/control 2>/dev/null")  # there is no such event
        self.shell("; ".join(commands))

    # What happened

    def status(self) -> list[str]:
        """The lines of the module's `status` file."""
        return self.shell(f"cat {_PROC}/status").splitlines()

    def counts(self) -> list[Count]:
        """One for each event that was ever registered and each possible CPU."""
        found = (_pairs(line) for line in self.status() if line.startswith("cpu "))
        return [Count(words["cpu"], words["event"], words["count"], words["returned"]) for words in found]

    def count(self, event: int | None = None, cpu: int | None = None) -> int:
        """How many handlers have ended: of all, of one event, on one CPU."""
        return sum(
            entry.returned for entry in self.counts() if event in (None, entry.event) and cpu in (None, entry.cpu)
        )

    def dumps(self) -> Dumps:
        """How many dumps were printed, suppressed and lost; those under way are printed first."""
        self.flush()
        (words,) = (_pairs(line) for line in self.status() if line.startswith("dumps "))
        return Dumps(words["dumps"], words["suppressed"], words["lost"])

    def flush(self) -> None:
        """Wait until everything that arrived before is in the kernel log."""
        self._command("flush")

    def records(self, cpu: int | None = None, event: int | None = None, last: int | None = None) -> list[Record]:
        """The records that are kept: of all CPUs, one after another, or of one; of one event; the newest `last`."""
        pattern = f"^cpu {r'[0-9]*' if cpu is None else cpu} number [0-9]* event "
        pattern += "" if event is None else f"{event:#x} "
        # Filtered there: a record is a kilobyte, and the console a serial line. grep finds none: status 1.
        text = self.shell(f"grep '{pattern}' {_PROC}/records" + ("; true" if last is None else f" | tail -n {last}"))
        return [_record(line) for line in text.splitlines() if line.startswith("cpu ")]

    def record(self, cpu: int | None = None, event: int | None = None) -> Record:
        """The newest record, of those that `records` would give. Raises `GuestError`: there is none."""
        found = self.records(cpu, event)
        if not found:
            raise GuestError("the client module has taken no such event")
        return max(found, key=lambda record: record.time)


def _pairs(line: str) -> dict[str, int]:
    """A line `name number name number ...`. Raises `ProtocolError`."""
    words = line.split()
    try:
        return {name: int(value, 0) for name, value in zip(words[::2], words[1::2], strict=True)}
    except ValueError:
        raise ProtocolError(f"the client module's line {line[:200]!r} is not of its form") from None


def _record(line: str) -> Record:
    words: dict[str, Any] = _pairs(line)
    try:
        context = tuple(words[f"c{number}"] for number in range(18)) if "c0" in words else None
        return Record(
            **{name: words[name] for name in ("cpu", "number", "event", "parameter", "time", "pc", "pstate", "sp")},
            regs=tuple(words[f"x{number}"] for number in range(31)),
            context=context,
        )
    except KeyError as missing:
        raise ProtocolError(f"the client module's record has no {missing}: {line[:200]!r}") from None


def kernel_lines(log: str) -> list[str]:
    """The lines of a `dmesg` without their time stamps."""
    return [re.sub(r"^\[ *\d+\.\d+\] ", "", line) for line in log.splitlines()]
