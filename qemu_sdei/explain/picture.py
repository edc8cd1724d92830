"""A guest at one moment, as far as it could be seen: what explanations are made of.

Whoever gathers it may have reached QEMU, the backend, or neither; so each part says whether it is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from qemu_sdei.errors import ProtocolError
from qemu_sdei.monitor.sysregs import active_priorities
from qemu_sdei.sdei.transitions import BIT_ENABLED, BIT_REGISTERED, BIT_RUNNING, STATE_NAMES

Record = dict[str, Any]
"""A trace record: docs/reference/trace.md."""
_D, _A, _I, _F = 1 << 9, 1 << 8, 1 << 7, 1 << 6
_AARCH32: Final = 1 << 4
_PRIORITY_BITS: Final = 3
"""Each bit of ICC_AP1R0_EL1 is one of 32 priorities that differ by 8."""
_KICKS: Final = 1
"""The highest priority, in ICC_AP0R0_EL1."""


def no_name(address: int) -> str | None:
    """The symbol of an address, where there are no symbols."""
    return None


@dataclass(frozen=True, slots=True)
class Where:
    """A vCPU's registers at one moment.

    Attributes:
        pc, pstate: where it runs, and how.
        x: X0 to X30, as far as they are known.
        registers: system registers by name.
        by: who said so: "itself" (a look), or "QEMU".
    """

    pc: int
    pstate: int
    x: tuple[int, ...] = ()
    registers: dict[str, int] = field(default_factory=dict)
    by: str = "itself"

    @property
    def el(self) -> int:
        """Exception level."""
        return 0 if self.pstate & _AARCH32 else self.pstate >> 2 & 3

    @property
    def interrupts_masked(self) -> bool:
        """PSTATE.I: it takes no interrupt."""
        return bool(self.pstate & _I)

    @property
    def daif(self) -> str:
        """Which exceptions it masks, as letters: "DAIF", "I", ""."""
        return "".join(name for name, bit in zip("DAIF", (_D, _A, _I, _F), strict=True) if self.pstate & bit)

    @property
    def active_priorities(self) -> tuple[int, ...]:
        """Priorities of interrupts that were acknowledged and not ended, as Non-secure software sees them (0xa0 is
        Linux's), the highest first.
        """
        return active_priorities(self.registers.get("ICC_AP1R0_EL1", 0))

    @property
    def firmwares_own_active(self) -> bool:
        """A priority of a secure interrupt is active (ICC_AP0R0_EL1), other than that of the firmware's own kicks, by
        one of which this was seen: no interrupt of the guest is signalled.
        """
        return bool(self.registers.get("ICC_AP0R0_EL1", 0) & ~_KICKS)

    @property
    def priority_masked(self) -> bool:
        """The priority mask alone keeps those interrupts away that an active priority would."""
        active = self.registers.get("ICC_AP1R0_EL1", 0)
        lowest = (active & -active).bit_length() - 1 << _PRIORITY_BITS if active else 0x100
        return self.registers.get("ICC_PMR_EL1", 0xFF) <= lowest


@dataclass(frozen=True, slots=True)
class Vcpu:
    """One vCPU.

    Attributes:
        index: its number.
        affinity: in MPIDR form.
        power: "on", "off", "pending" (CPU_ON was called, it has not come yet).
        masked: by SDEI_PE_MASK, or because it was never unmasked.
        running: events whose handlers run, the innermost last.
        calls: how often it made each call, by name.
        silent_since: where it was started, if it has made no call since.
        seen: its registers, one for each look at it, the oldest first.
        sleeps: it waits in the monitor for an interrupt (CPU_SUSPEND).
        missing: it was asked to come to the firmware, and did not.
        asked: whether it was.
    """

    index: int
    affinity: int = 0
    power: str = "on"
    masked: bool = False
    running: tuple[int, ...] = ()
    calls: dict[str, int] = field(default_factory=dict)
    silent_since: int | None = None
    seen: tuple[Where, ...] = ()
    sleeps: bool = False
    missing: bool = False
    asked: bool = False

    @property
    def on(self) -> bool:
        """Whether it runs the guest."""
        return self.power == "on"

    @property
    def where(self) -> Where | None:
        """Its newest registers."""
        return self.seen[-1] if self.seen else None

    @property
    def stays(self) -> bool:
        """It was seen more than once, at the same PC."""
        return len(self.seen) > 1 and len({where.pc for where in self.seen}) == 1


@dataclass(frozen=True, slots=True)
class Instance:
    """An event as it stands: on one vCPU, or on all (`vcpu` None) for a shared one."""

    event: int
    vcpu: int | None
    registered: bool = False
    enabled: bool = False
    running: bool = False
    pending: bool = False
    routed_to: int | None = None
    running_on: int | None = None
    since_ns: int | None = None
    """Since when it is in its state, by the host's clock, as far as the backend knows."""

    @property
    def state(self) -> str:
        """Name of its state (DEN0054 6.1)."""
        bits = BIT_REGISTERED * self.registered | BIT_ENABLED * self.enabled | BIT_RUNNING * self.running
        return STATE_NAMES.get(bits, f"{bits:#x}")


@dataclass(frozen=True, slots=True)
class Event:
    """An event, and how it stands. `acpi`: what ACPI tables name it for."""

    number: int
    name: str
    shared: bool = False
    critical: bool = False
    acpi: str = ""
    instances: tuple[Instance, ...] = ()


@dataclass(frozen=True, slots=True)
class ErrorBlock:
    """The memory of one error source of the HEST (ACPI 18.3.2.8).

    Attributes:
        event: which says that there is something to read.
        source: its id in the HEST.
        address: of the status block, as the source's register has it; `expected`: where the block is.
        status, severity: of the block.
        acknowledged: bit 0 of the read-ack register.
    """

    event: int
    source: int
    address: int
    expected: int
    status: int
    severity: int
    acknowledged: bool


@dataclass(frozen=True)
class Picture:
    """A guest at one moment.

    Attributes:
        guest: its name.
        now_ns: that moment, by the host's monotonic clock.
        vcpus, events: empty where their state is not known.
        known_by: who told their state: "backend", "journal" (the backend does not answer), "" (nobody).
        backend, qemu: "" if it answers; else why it does not, as a sentence.
        ended: QEMU has ended, and the guest with it.
        paused: QEMU has the vCPUs stopped: what QEMU calls that ("paused", "inmigrate", ...); "" if they run.
        epoch, kernels: resets of the machine; kernels that have begun since.
        client_el: exception level of SDEI's client.
        records: the newest trace records, in order.
        lost: how many records are missing among them.
        errors: error sources of the HEST.
        acpi: the guest boots by ACPI.
        console: its last lines on the console.
        misbehaves: what its firmware does wrong on purpose; "": nothing.
        name: the symbol of an address, such as "default_idle+0x1c"; None: not known.
    """

    guest: str
    now_ns: int
    vcpus: tuple[Vcpu, ...] = ()
    events: tuple[Event, ...] = ()
    known_by: str = "backend"
    backend: str = ""
    qemu: str = ""
    ended: bool = False
    paused: str = ""
    epoch: int = 1
    kernels: int = 0
    client_el: int = 1
    records: tuple[Record, ...] = ()
    lost: int = 0
    errors: tuple[ErrorBlock, ...] = ()
    acpi: bool = False
    console: tuple[str, ...] = ()
    misbehaves: str = ""
    name: Callable[[int], str | None] = no_name

    def event(self, number: int) -> Event:
        """An event by its number; one without name if there is none of this number."""
        return next((event for event in self.events if event.number == number), Event(number, ""))

    def vcpu(self, index: int) -> Vcpu | None:
        """A vCPU by its number; None: there is none, or its state is not known."""
        return next((vcpu for vcpu in self.vcpus if vcpu.index == index), None)

    def instances(self) -> Iterable[tuple[Event, Instance]]:
        """All that events have."""
        for event in self.events:
            for instance in event.instances:
                yield event, instance

    def at(self, address: int) -> str:
        """An address as people read it: with its symbol, if that is known."""
        name = self.name(address)
        return f"{address:#x}" if name is None else f"{name} ({address:#x})"

    def called(self, event: int) -> str:
        """An event as people read it."""
        name = self.event(event).name
        return f"event {event:#x}" + (f" ({name})" if name else "")


def vcpus_of(status: Record) -> tuple[Vcpu, ...]:
    """The vCPUs of a backend's status (docs/reference/control-protocol.md). Raises ProtocolError."""
    try:
        return tuple(
            Vcpu(
                index=int(entry["pe"]),
                affinity=int(entry["affinity"]),
                power=str(entry.get("power", "on" if entry["on"] else "off")),
                masked=bool(entry["masked"]),
                running=tuple(int(event) for event in entry["running"]),
                calls={str(name): int(count) for name, count in entry.get("calls", {}).items()},
                silent_since=entry.get("not_heard_of_since"),
            )
            for entry in status["pes"]
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProtocolError(f"the backend's status is not of the protocol's form ({error!r})") from None


def events_of(status: Record, acpi: dict[int, str]) -> tuple[Event, ...]:
    """The events of a backend's status; `acpi`: what ACPI tables name them for, by number. Raises ProtocolError."""
    try:
        return tuple(
            Event(
                number=int(entry["event"]),
                name=str(entry["name"]),
                shared=entry["type"] == "shared",
                critical=entry["priority"] == "critical",
                acpi=acpi.get(int(entry["event"]), ""),
                instances=tuple(
                    Instance(
                        event=int(entry["event"]),
                        vcpu=found["pe"],
                        registered=bool(found["registered"]),
                        enabled=bool(found["enabled"]),
                        running=bool(found["running"]),
                        pending=bool(found["pending"]),
                        routed_to=found.get("routed_to"),
                        running_on=found.get("running_on") if found["pe"] is None else found["pe"],
                        since_ns=found.get("since_ns"),
                    )
                    for found in entry["instances"]
                ),
            )
            for entry in status["events"]
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProtocolError(f"the backend's status is not of the protocol's form ({error!r})") from None
