"""The type of what `Guest.status` returns; its form as a JSON Schema, with all that a field means, is in
`status_schema.py` (docs/reference/status.schema.json). A test compares both.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict


class TriggerCounts(TypedDict):
    """What became of an event's triggers: accepted = merged + dropped + delivered + 1 if one is pending."""

    accepted: int
    merged: int
    dropped: int
    delivered: int


class InstanceStatus(TypedDict):
    """An event on one vCPU; or a shared event, whose `pe` is None."""

    pe: int | None
    """The vCPU."""
    state: str
    """Its state in docs/reference/sdei-states.md."""
    registered: bool
    enabled: bool
    running: bool
    pending: bool
    since_ns: int | None
    """In this state since then, ns of the host's monotonic clock; None: since before this backend."""
    waits: str | None
    """Pending: why it is not delivered; None: it is on its way."""
    triggers: TriggerCounts
    routed_to: NotRequired[int | None]
    """Shared: the vCPU that it goes to; None: any."""
    running_on: NotRequired[int | None]
    """Shared: the vCPU whose handler runs."""


class EventStatus(TypedDict):
    """An SDEI event."""

    event: int
    """Its number."""
    name: str
    type: Literal["private", "shared"]
    priority: Literal["normal", "critical"]
    signalable: bool
    intid: NotRequired[int]
    """The interrupt that is bound to it."""
    instances: list[InstanceStatus]


class VcpuStatus(TypedDict):
    """A vCPU."""

    pe: int
    """Its number, from 0."""
    affinity: int
    """MPIDR."""
    on: bool
    """As SDEI sees it."""
    masked: bool
    """SDEI is masked there (PE_MASK)."""
    running: list[int]
    """Events whose handlers run, outermost first."""
    power: Literal["on", "off", "pending"]
    power_since_ns: int | None
    not_heard_of_since: int | None
    """Entry point where it was started, without a call since."""
    pc: int | None
    """Where it went on when it was last at EL3."""
    pstate: int | None
    pc_symbol: NotRequired[str]
    last_call: str | None
    calls: dict[str, int]
    """How often it called each function."""


class RuleStatus(TypedDict):
    """A rule by which the firmware misbehaves."""

    rule: str
    why: str
    acted: int


class FirmwareStatus(TypedDict):
    """What the firmware does wrong on purpose."""

    profile: str
    """Its name; `spec` does nothing wrong."""
    summary: str
    rules: list[RuleStatus]
    deaf: list[int]
    """vCPUs that it has made take no interrupt and no event."""
    stuck: list[int]
    """vCPUs that it has left in EL3."""
    held: list[int]
    """vCPUs that take no interrupt until their handlers complete."""


class SourceStatus(TypedDict):
    """An error source of the HEST."""

    name: str
    id: int
    type: Literal["ghes", "ghes-v2"]
    notify: Literal["sdei", "sea", "interrupt", "external", "polled"]
    event: int | None
    interrupt: int | None
    poll_ms: int | None
    block: int
    raw: int
    records: int
    sections: int
    address: int
    address_register: int
    read_ack: int | None
    state: Literal["free", "unread", "unacknowledged", "damaged"]
    status: int
    ready: bool
    """Somebody would notice an error now."""
    reason: str | None
    """Why nobody would."""


class Counts(TypedDict):
    """Sums over all events and vCPUs."""

    calls: int
    accepted: int
    merged: int
    dropped: int
    delivered: int
    completed: int
    rejected: int


class Status(TypedDict):
    """A guest as its firmware knows it."""

    name: str | None
    epoch: int
    """Machine resets, the first boot being 1."""
    kernels: int
    """Kernels that have begun since: 2 and more by kexec, or a capture kernel."""
    now_ns: int
    """ns of the host's monotonic clock."""
    started_ns: int
    reset_ns: int | None
    client_el: int
    counts: Counts
    pes: list[VcpuStatus]
    """Its vCPUs."""
    events: list[EventStatus]
    firmware: NotRequired[FirmwareStatus]
    sources: NotRequired[list[SourceStatus]]
