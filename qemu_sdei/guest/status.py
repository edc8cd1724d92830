"""The type of what `Guest.status` returns; its form as a JSON Schema, with all that a field means, is in
`status_schema.py` (docs/reference/status.schema.json). A test compares both.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict


class TriggerCounts(TypedDict):
    """How an event's triggers ended. accepted = merged + dropped + delivered, + 1 while one is pending."""

    accepted: int
    """Triggers that the firmware accepted."""
    merged: int
    """Triggers that found the event pending already (DEN0054 5.1.16.1)."""
    dropped: int
    """Pending triggers that were cancelled, such as by unregistering the event."""
    delivered: int
    """Triggers for which a handler was entered."""


class InstanceStatus(TypedDict):
    """State of an event on one vCPU. A shared event has one instance, whose `pe` is None."""

    pe: int | None
    """Number of the vCPU; None: a shared event."""
    state: str
    """Name of its state (docs/reference/sdei-states.md)."""
    registered: bool
    """True: the guest has registered a handler."""
    enabled: bool
    """True: the guest has enabled it."""
    running: bool
    """True: its handler runs."""
    pending: bool
    """True: it was triggered, and is not delivered yet."""
    since_ns: int | None
    """When it entered this state, in ns of the host's monotonic clock; None: before this backend began."""
    waits: str | None
    """Why a pending event is not delivered; None: it is not pending, or is being delivered."""
    triggers: TriggerCounts
    """Counts of its triggers."""
    routed_to: NotRequired[int | None]
    """Shared event: number of the vCPU that gets it; None: any."""
    running_on: NotRequired[int | None]
    """Shared event: number of the vCPU on which its handler runs."""


class EventStatus(TypedDict):
    """An SDEI event."""

    event: int
    """Event number."""
    name: str
    """Name in the machine description."""
    type: Literal["private", "shared"]
    """"private": one instance for each vCPU; "shared": one for the machine (DEN0054 5.1.10)."""
    priority: Literal["normal", "critical"]
    """Priority of the event (DEN0054 5.1.10)."""
    signalable: bool
    """True: EVENT_SIGNAL can trigger it (DEN0054 5.1.16)."""
    intid: NotRequired[int]
    """Number of the interrupt that is bound to it."""
    instances: list[InstanceStatus]
    """One for each vCPU, or a single one for a shared event."""


class VcpuStatus(TypedDict):
    """State of a vCPU."""

    pe: int
    """Number of the vCPU, from 0."""
    affinity: int
    """Affinity fields of its MPIDR_EL1."""
    on: bool
    """True: the vCPU is on, for SDEI."""
    masked: bool
    """True: SDEI is masked there (DEN0054 5.1.12)."""
    running: list[int]
    """Numbers of the events whose handlers run there, outermost first."""
    power: Literal["on", "off", "pending"]
    """PSCI state; "pending": CPU_ON was called, and the vCPU has not started yet."""
    power_since_ns: int | None
    """When it entered that state, in ns of the host's monotonic clock; None: before this backend began."""
    not_heard_of_since: int | None
    """Address at which the vCPU was started, if it has made no call since; None: it has."""
    pc: int | None
    """Address to which it returned when it was last at EL3; None: it was not there yet."""
    pstate: int | None
    """PSTATE with which it returned there."""
    pc_symbol: NotRequired[str]
    """`pc` as function+offset/size, where symbols are known."""
    last_call: str | None
    """Function of its last call; None: it was last at EL3 for another reason."""
    calls: dict[str, int]
    """Name or id of each function that it called, and how often."""


class RuleStatus(TypedDict):
    """A rule by which the firmware misbehaves."""

    rule: str
    """The rule as text (docs/reference/firmware-profiles.md)."""
    why: str
    """The rule's own comment; "": none."""
    acted: int
    """How many times it has acted."""


class FirmwareStatus(TypedDict):
    """What the firmware does wrong on purpose."""

    profile: str
    """Name of the firmware profile; "spec" does nothing wrong."""
    summary: str
    """What the profile does, in one line."""
    rules: list[RuleStatus]
    """Its rules."""
    deaf: list[int]
    """Numbers of the vCPUs that take no interrupt and no event, because of a rule."""
    stuck: list[int]
    """Numbers of the vCPUs that a rule has left in EL3."""
    held: list[int]
    """Numbers of the vCPUs that take no interrupt until their handlers complete."""


class SourceStatus(TypedDict):
    """State of an error source of the HEST (ACPI 6.5 18.3.2.7 and 18.3.2.8)."""

    name: str
    """Name in the machine description."""
    id: int
    """Source Id in the HEST."""
    type: Literal["ghes", "ghes-v2"]
    """"ghes-v2" has a read-ack register (ACPI 6.5 18.3.2.8)."""
    notify: Literal["sdei", "sea", "interrupt", "external", "polled"]
    """How the guest is notified of an error (ACPI 6.5 18.3.2.9)."""
    event: int | None
    """"sdei": event number; else None."""
    interrupt: int | None
    """"interrupt": interrupt number (INTID); else None."""
    poll_ms: int | None
    """"polled": poll interval in milliseconds; else None."""
    block: int
    """Size of the error status block in bytes."""
    raw: int
    """Max Raw Data Length, in bytes."""
    records: int
    """Number Of Records To Preallocate."""
    sections: int
    """Max Sections Per Record."""
    address: int
    """Guest physical address of the error status block."""
    address_register: int
    """Guest physical address at which the guest reads `address`."""
    read_ack: int | None
    """Guest physical address of the read-ack register; None: the source has none."""
    state: Literal["free", "unread", "unacknowledged", "damaged"]
    """"free": an error can be reported. "unread": an error is in the block. "unacknowledged": it was read, and the
    read-ack register is not set. "damaged": the guest has overwritten the block's address.
    """
    status: int
    """Block Status, the first word of the block (ACPI 6.5 18.3.2.7.1)."""
    ready: bool
    """True: the guest would notice an error now."""
    reason: str | None
    """Why the guest would not notice an error; None: it would."""


class Counts(TypedDict):
    """Sums over all events and vCPUs."""

    calls: int
    """Firmware calls."""
    accepted: int
    """Triggers that the firmware accepted."""
    merged: int
    """Triggers that found their event pending already."""
    dropped: int
    """Pending triggers that were cancelled."""
    delivered: int
    """Handlers that were entered."""
    completed: int
    """Handlers that completed."""
    rejected: int
    """Frames that the backend rejected."""


class Status(TypedDict):
    """State of a guest, as its firmware sees it. docs/reference/control-protocol.md has more about the fields."""

    name: str | None
    """Name of the guest."""
    epoch: int
    """Number of machine resets; the first boot is 1."""
    kernels: int
    """Number of kernels since the reset; 2 and more after kexec, or in a capture kernel."""
    now_ns: int
    """Time of this status, in ns of the host's monotonic clock."""
    started_ns: int
    """When this backend began, by that clock."""
    reset_ns: int | None
    """When the machine last left reset, by that clock; None: before this backend began."""
    client_el: int
    """Exception level of the SDEI client: 1 or 2."""
    counts: Counts
    """Sums over all events and vCPUs."""
    pes: list[VcpuStatus]
    """The vCPUs, by number."""
    events: list[EventStatus]
    """The events, by number."""
    firmware: NotRequired[FirmwareStatus]
    """The firmware profile."""
    sources: NotRequired[list[SourceStatus]]
    """The error sources, in the order of the HEST; only for a guest with ACPI."""
