"""What can be asked of a migration, and what comes of it: plain data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

from qemu_sdei import codec
from qemu_sdei.backend.loop.hold_points import STATES
from qemu_sdei.errors import UsageError

SHARED: Final = "shared"
"""Both QEMUs map the same RAM (`x-ignore-shared`): none of it is sent."""
COPY: Final = "copy"
"""RAM is sent through a unix socket into memory of the destination's own."""
LIVE: Final = "live"
"""RAM is sent while the guest runs, and what it wrote meanwhile once more (QEMU's precopy)."""
POSTCOPY: Final = "postcopy"
"""As `live` for a first pass; then the guest goes on at the destination, and RAM that is not there yet is fetched."""
ROUTES: Final = (SHARED, COPY, LIVE, POSTCOPY)
LAST_POSTCOPY: Final = (10, 0)
"""QEMU 7.2 and 10.0 were tried with postcopy and lose nothing. 11.1 does: of 512 pages that a guest writes to all along
1 to 512 arrive as they were some passes before, between two plain QEMUs too. What is between was not tried.
"""
UNIX: Final = "unix"
TCP: Final = "tcp"
TRANSPORTS: Final = (UNIX, TCP)
MAX_CHANNELS: Final = 255
"""QEMU's limit for `multifd-channels`."""


@dataclass(frozen=True)
class Hold:
    """A condition for a migration, or a save: wait until an event is in a given state on a vCPU."""

    state: str
    """One of `qemu_sdei.backend.loop.hold_points.STATES`."""
    event: int = 0
    """Event number."""
    vcpu: int = 0
    """Number of the vCPU."""
    timeout: float = 30.0
    """Seconds to wait for the state."""

    @property
    def drain(self) -> bool:
        """True: calls that are posted already are still answered at the source."""
        return self.state == "resume"


@dataclass(frozen=True)
class MigrationOptions:
    """How to migrate."""

    route: str = SHARED
    verify: bool = True
    """Compare RAM before the destination runs, and repair it (where RAM is sent)."""
    hold: Hold | None = None
    timeout: float = 120.0
    """Seconds that QEMU may take to transfer."""
    transport: str = UNIX
    """How the two QEMUs are connected: a unix socket, or TCP over the loopback interface."""
    multifd: int = 0
    """Connections that RAM is sent by in parallel; 0: by the one that all else goes by. For `copy` and `live`."""

    @property
    def live(self) -> bool:
        """The vCPUs run while RAM is sent."""
        return self.route in (LIVE, POSTCOPY)

    @property
    def compared(self) -> bool:
        """RAM is compared before the guest goes on."""
        return self.verify and self.route != SHARED

    def __post_init__(self) -> None:
        if self.route not in ROUTES:
            raise UsageError(f"no migration route {self.route!r}; there are {', '.join(ROUTES)}")
        if self.transport not in TRANSPORTS:
            raise UsageError(f"no transport {self.transport!r} of a migration; there are {', '.join(TRANSPORTS)}")
        if not 0 <= self.multifd <= MAX_CHANNELS:
            raise UsageError(f"multifd takes 1 to {MAX_CHANNELS} connections, not {self.multifd}")
        if self.multifd and self.route not in (COPY, LIVE):
            raise UsageError(
                f"multifd is for RAM that is sent before the guest is resumed, not for route {self.route!r}"
            )
        if self.hold is not None and self.hold.state not in STATES:
            raise UsageError(f"no hold point {self.hold.state!r}; there are {', '.join(STATES)}")
        if not self.timeout > 0:
            raise UsageError("the timeout of a migration must be more than 0 seconds")

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: object) -> MigrationOptions:
        """What `to_json` gave, from another process. Raises `UsageError`."""
        try:
            return codec.from_data(cls, data)
        except codec.FieldError as error:
            raise UsageError(f"options of a migration: {error}") from None


@dataclass(frozen=True)
class MigrationResult:
    """Result of a migration. Durations are in milliseconds, sizes in bytes."""

    source: str
    """Name of the guest before."""
    destination: str
    """Name of the guest after."""
    route: str
    """How RAM reached the destination: "shared", "copy", "live" or "postcopy"."""
    total_ms: float
    """Time from the request until the guest runs again, without the wait for a hold point."""
    pause_ms: float
    """Time for which no vCPU ran, measured here. With "live" QEMU stops the vCPUs by itself, and this is the upper
    limit.
    """
    guest_downtime_ms: float | None
    """The same time, measured by the guest: from the last heartbeat at the source to the first at the destination. A
    heartbeat is a trap to EL3, made by an interrupt every 1 ms, or every 5 ms where RAM is sent while the vCPUs run.
    (The guest's own counter stops during this time.) None: the guest was paused, or had no heartbeat.
    """
    qemu_downtime_ms: int
    """QEMU's own `downtime`."""
    qemu_total_ms: int
    """QEMU's own `total-time`."""
    transferred: int
    """Bytes that QEMU sent."""
    document: int
    """Size of the state document in bytes."""
    pages_differing: int | None
    """Number of pages of guest RAM that differed, and were repaired. The frame window is not compared: QEMU does not
    see what the backend writes there, and the backend writes it again. None: RAM was not compared, because it is
    shared, because `verify` is off, or with "postcopy", where such pages cannot be told from pages that are still to be
    sent.
    """
    passes: int = 0
    """How many times QEMU searched RAM for pages that were written during the transfer (its `dirty-sync-count`)."""
    fetch_ms: float = 0.0
    """With "postcopy": time for which the guest ran at the destination without all of its RAM."""
    page_requests: int = 0
    """With "postcopy": how many times the guest waited for a page (QEMU's `postcopy-requests`)."""

    def to_json(self) -> dict[str, Any]:
        """All fields, as a dictionary for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Step:
    """Progress of a migration."""

    phase: str
    """connect, files, start, hold, ram, verify, restore, inquire, fetch, again; of `save`: stop."""
    done: int = 0
    """Bytes of RAM that are dealt with, of `total`."""
    total: int = 0
    rate: float = 0.0
    """Bytes a second that QEMU sent: pages of zeroes and pages that were there already take next to none."""

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


Report = Callable[[Step], None]


def no_report(_: Step) -> None:
    """A `Report` that says nothing."""
