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
    """Migrate when `event` on `vcpu` is in `state` (see `qemu_sdei.backend.loop.hold_points.STATES`)."""

    state: str
    event: int = 0
    vcpu: int = 0
    timeout: float = 30.0
    """Seconds to wait for it."""

    @property
    def drain(self) -> bool:
        """Whether calls that are posted are still answered at the source."""
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
            raise UsageError(f"multifd is for RAM that is sent before the guest goes on, not for route {self.route!r}")
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
    """What came of a migration."""

    source: str
    destination: str
    route: str
    total_ms: float
    """From the request to the guest's going on, without the wait for a hold point."""
    pause_ms: float
    """How long the vCPUs stood still, as seen from here; at most, where QEMU stops them by itself (`live`)."""
    guest_downtime_ms: float | None
    """The same as the guest shows it: from the last time that one of its vCPUs came by in the firmware at the source to
    the first at the destination. For that it is interrupted every millisecond before it is stopped, where RAM is sent
    while it runs every 5 ms. (Its own counter stands still meanwhile.) None: it was paused, or had no heartbeat.
    """
    qemu_downtime_ms: int
    """QEMU's own `downtime`."""
    qemu_total_ms: int
    """QEMU's own `total-time`."""
    transferred: int
    """Bytes that QEMU sent."""
    document: int
    """Bytes of the state document."""
    pages_differing: int | None
    """Pages of guest RAM that had not arrived, and were repaired; None: not compared, or the RAM is the same, or with
    `postcopy`, where they cannot be told from those that were to be sent yet. The frame window is not counted: what the
    backend writes there QEMU does not see, and it is written anew.
    """
    passes: int = 0
    """How often QEMU looked for pages that were written meanwhile (its `dirty-sync-count`)."""
    fetch_ms: float = 0.0
    """How long the guest ran at the destination while not all of its RAM was there (`postcopy`)."""
    page_requests: int = 0
    """How often it stopped for a page then (QEMU's `postcopy-requests`)."""

    def to_json(self) -> dict[str, Any]:
        """All fields."""
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
