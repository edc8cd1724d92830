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
    """How many events of one number a CPU took."""

    cpu: int
    """Number of the CPU."""
    event: int
    """Event number."""
    count: int
    """Handlers that began."""
    returned: int
    """Handlers that ended."""


@dataclass(frozen=True)
class Dumps:
    """What became of the records' full dumps."""

    printed: int
    """Printed to the kernel log."""
    suppressed: int
    """Not printed, because of the limit of dumps a second."""
    lost: int
    """Not printed, because newer records came before there was time."""


@dataclass(frozen=True)
class Record:
    """An event that a handler of the module took, and the state that it interrupted."""

    cpu: int
    """Number of the CPU."""
    number: int
    """Number of the record on that CPU, from 0. A gap means that newer records have replaced some."""
    event: int
    """Event number."""
    parameter: int
    """Argument that the module had registered with the event."""
    time: int
    """When the handler began, in ns of the guest's monotonic clock."""
    pc: int
    """Interrupted address."""
    pstate: int
    """Interrupted PSTATE."""
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
    """What the firmware says of an event (EVENT_STATUS and EVENT_GET_INFO, DEN0054 5.1.9 and 5.1.10)."""

    event: int
    """Event number."""
    registered: bool
    """True: a handler is registered."""
    enabled: bool
    """True: the event is enabled."""
    running: bool
    """True: its handler runs."""
    shared: bool
    """True: a shared event; False: a private one."""
    critical: bool
    """True: priority critical; False: normal."""
    signalable: bool
    """True: EVENT_SIGNAL can trigger it."""
    routed: bool | None
    """True: the event goes to one CPU only; None: it has no routing (private, or not registered)."""
    affinity: int | None
    """MPIDR of that CPU; None: the event goes to any CPU, or has no routing."""


class SdeiClient:
    """The client module, loaded into a guest. Each method runs a command in the guest, and may raise `SdeiClientError`
    (the kernel or the module refused) and the errors of `Guest.run`.
    """

    def __init__(self, run: Callable[[str], CommandResult], path: str = MODULE_PATH) -> None:
        """`run` runs a shell command in the guest as root, `path` is the module's there. Nothing is done yet."""
        self._run = run
        self._path = path

    def shell(self, command: str) -> str:
        """Run a shell command in the guest, and return its output.

        Raises:
            SdeiClientError: the command failed; the message has its last line.
        """
        result = self._run(command)
        if result.status != 0:
            reason = (result.output.strip().splitlines() or [f"exit status {result.status}"])[-1]
            words = reason.rpartition(": ")[2]
            raise SdeiClientError(f"in the guest, {command.partition(' >')[0]!r} failed: {reason}", words)
        return result.output

    # Life

    def load(self, events: Iterable[int] = (0,), *, verbose: int = 10, records: int = 256) -> None:
        """Load the module; it registers and enables `events`.

        Args:
            events: event numbers.
            verbose: how many full dumps a second the module prints to the kernel log at most.
            records: how many of its newest records each CPU keeps.

        Raises:
            SdeiClientError: the module is built for another kernel, the kernel has a handler of its own for one of
                `events`, or the kernel refused for another reason; the message says which.
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
        """Unload the module. It unregisters all its events, and prints the dumps that wait."""
        self.shell("rmmod sdei_test")

    @property
    def loaded(self) -> bool:
        """True: the module is loaded."""
        return self._run(f"test -d {_PROC}").status == 0

    # Events

    def _command(self, command: str) -> None:
        self.shell(f"echo {command} >{_PROC}/control")

    def register(self, event: int) -> None:
        """EVENT_REGISTER by the kernel's driver (DEN0054 5.1.2). The event stays disabled. `event`: its number."""
        self._command(f"register {event:#x}")

    def unregister(self, event: int) -> None:
        """EVENT_DISABLE, wait for a running handler, then EVENT_UNREGISTER (DEN0054 5.1.8). `event`: its number."""
        self._command(f"unregister {event:#x}")

    def enable(self, event: int) -> None:
        """EVENT_ENABLE (DEN0054 5.1.3); for a private event on all CPUs. `event`: its number."""
        self._command(f"enable {event:#x}")

    def disable(self, event: int) -> None:
        """EVENT_DISABLE (DEN0054 5.1.4); for a private event on all CPUs. `event`: its number."""
        self._command(f"disable {event:#x}")

    def route(self, event: int, cpu: int | None = None) -> None:
        """EVENT_ROUTING_SET of a shared event (DEN0054 5.1.11). `event`: its number; `cpu`: number of a CPU, or None
        for any.
        """
        self._command(f"route {event:#x} {'any' if cpu is None else cpu}")

    def info(self, event: int) -> EventInfo:
        """EVENT_STATUS and EVENT_GET_INFO (DEN0054 5.1.9, 5.1.10). The status of a private event is that of the CPU
        that runs the command. `event`: its number.
        """
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
        """Make each handler run for at least `ns` nanoseconds, at most `MAX_NS`; 0 ends it."""
        self._command(f"run-for {ns}")

    def panic(self, *, in_interrupt: bool = False) -> None:
        """Make the next handler panic. `in_interrupt`: True: the next handler that interrupts an interrupt handler."""
        self._command("panic irq" if in_interrupt else "panic")

    def restart(self) -> None:
        """Make the next handler restart the machine: SYSTEM_RESET in NMI context."""
        self._command("restart")

    # CPUs

    def backtrace(self) -> list[Where]:
        """Signal event 0 to each online CPU, and return where each one was, also with interrupts off. Event 0 must be
        enabled.

        Raises:
            SdeiClientError: a CPU did not answer within ten seconds, for example because it has masked SDEI.
        """
        return places(self.shell(f"echo backtrace >{_PROC}/control && cat {_PROC}/backtrace").splitlines())

    def watchdog(self, milliseconds: int, *, panic: bool = False) -> None:
        """Detect hard lockups: a timer, bound to an SDEI event, finds a CPU that takes no interrupt for some time.

        Args:
            milliseconds: that time, 16 to 10000.
            panic: True: the kernel panics at a lockup.
        """
        self._command(f"watchdog {milliseconds}{' panic' if panic else ''}")

    def watchdog_off(self) -> None:
        """End `watchdog`; the kernel has the timer's interrupt back."""
        self._command("watchdog off")

    def lockups(self) -> list[Where]:
        """For each CPU that had a lockup: where it was at the newest one (see `watchdog`)."""
        return places(self.shell(f"cat {_PROC}/lockups").splitlines())

    def signal(self, cpu: int) -> None:
        """EVENT_SIGNAL of event 0 (DEN0054 5.1.16). `cpu`: number of the CPU."""
        self._command(f"signal {cpu}")

    def mask(self, cpu: int | None = None) -> None:
        """PE_MASK (DEN0054 5.1.12). `cpu`: number of a CPU; None: all online CPUs."""
        self._command(f"mask {'' if cpu is None else cpu}".strip())

    def unmask(self, cpu: int | None = None) -> None:
        """PE_UNMASK (DEN0054 5.1.13). `cpu`: number of a CPU; None: all online CPUs."""
        self._command(f"unmask {'' if cpu is None else cpu}".strip())

    def irqs_off(self, cpu: int, ns: int) -> None:
        """Run a kernel thread with interrupts off, and return when they are off.

        Args:
            cpu: number of the CPU.
            ns: how long, in nanoseconds; at most `MAX_NS`.
        """
        self._command(f"irqs-off {cpu} {ns}")

    def mark_trace(self, times: int = 16, tracing: str = "/sys/kernel/tracing") -> None:
        """Write pairs of markers into the guest's ftrace, each around a firmware call that is in our trace too. With
        them both traces can be shown on one time axis (docs/howto/linux-ftrace.md). Where a kernel has kprobes, these
        are more exact.

        Args:
            times: number of pairs.
            tracing: path of tracefs in the guest.
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
        """Lines of the module's `status` file."""
        return self.shell(f"cat {_PROC}/status").splitlines()

    def counts(self) -> list[Count]:
        """A `Count` for each event that was ever registered, and for each possible CPU."""
        found = (_pairs(line) for line in self.status() if line.startswith("cpu "))
        return [Count(words["cpu"], words["event"], words["count"], words["returned"]) for words in found]

    def count(self, event: int | None = None, cpu: int | None = None) -> int:
        """Number of handlers that have ended.

        Args:
            event: only of this event; None: of all.
            cpu: only on this CPU; None: on all.
        """
        return sum(
            entry.returned for entry in self.counts() if event in (None, entry.event) and cpu in (None, entry.cpu)
        )

    def dumps(self) -> Dumps:
        """Number of dumps that were printed, suppressed and lost. Dumps that wait are printed first."""
        self.flush()
        (words,) = (_pairs(line) for line in self.status() if line.startswith("dumps "))
        return Dumps(words["dumps"], words["suppressed"], words["lost"])

    def flush(self) -> None:
        """Wait until all that came so far is in the kernel log."""
        self._command("flush")

    def records(self, cpu: int | None = None, event: int | None = None, last: int | None = None) -> list[Record]:
        """The records that are kept, CPU by CPU.

        Args:
            cpu: only of this CPU; None: of all.
            event: only of this event; None: of all.
            last: only the newest ones, so many; None: all.
        """
        pattern = f"^cpu {r'[0-9]*' if cpu is None else cpu} number [0-9]* event "
        pattern += "" if event is None else f"{event:#x} "
        # Filtered there: a record is a kilobyte, and the console a serial line. grep finds none: status 1.
        text = self.shell(f"grep '{pattern}' {_PROC}/records" + ("; true" if last is None else f" | tail -n {last}"))
        return [_record(line) for line in text.splitlines() if line.startswith("cpu ")]

    def record(self, cpu: int | None = None, event: int | None = None) -> Record:
        """The newest record. `cpu` and `event`: as in `records`.

        Raises:
            GuestError: there is no record.
        """
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
