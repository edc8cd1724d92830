"""What can be asked of a migration, and what comes of it: plain data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final

from qemu_sdei.backend.hold import STATES
from qemu_sdei.errors import UsageError

SHARED: Final = "shared"
"""Both QEMUs map the same RAM (`x-ignore-shared`): none of it is sent."""
COPY: Final = "copy"
"""RAM is sent through a unix socket into memory of the destination's own."""
ROUTES: Final = (SHARED, COPY)


@dataclass(frozen=True)
class Hold:
    """Migrate when `event` on `vcpu` is in `state` (see `qemu_sdei.backend.hold.STATES`)."""

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
    """Compare RAM before the destination runs, and repair it (only where RAM was copied)."""
    hold: Hold | None = None
    timeout: float = 120.0
    """Seconds that QEMU may take to transfer."""

    def __post_init__(self) -> None:
        if self.route not in ROUTES:
            raise UsageError(f"no migration route {self.route!r}; there are {' and '.join(ROUTES)}")
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
        hold = _checked(Hold, data.pop("hold")) if isinstance(data, dict) and data.get("hold") else None
        options: MigrationOptions = _checked(cls, {**data, "hold": None} if isinstance(data, dict) else data)
        return replace(options, hold=hold)


@dataclass(frozen=True)
class MigrationResult:
    """What came of a migration."""

    source: str
    destination: str
    route: str
    total_ms: float
    """From the request to the guest's going on, without the wait for a hold point."""
    pause_ms: float
    """How long the vCPUs stood still, as seen from here."""
    qemu_downtime_ms: int
    """QEMU's own `downtime`."""
    qemu_total_ms: int
    """QEMU's own `total-time`."""
    transferred: int
    """Bytes that QEMU sent."""
    document: int
    """Bytes of the state document."""
    pages_differing: int | None
    """Pages of guest RAM that had not arrived, and were repaired; None: not compared, or the RAM is the same."""

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


@dataclass(frozen=True)
class Step:
    """Progress of a migration."""

    phase: str
    """start, stop, hold, ram, verify, restore."""
    done: int = 0
    """Bytes of RAM that are dealt with, of `total`."""
    total: int = 0
    rate: float = 0.0
    """Bytes a second."""

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


Report = Callable[[Step], None]


def no_report(_: Step) -> None:
    """A `Report` that says nothing."""


def _checked(kind: Any, data: object) -> Any:
    """An object of the data class `kind`, whose fields are str, bool, int or float with defaults."""
    if not isinstance(data, dict):
        raise UsageError("options of a migration: an object is missing")
    known = {field.name: field for field in fields(kind)}
    for name, value in data.items():
        if name not in known:
            raise UsageError(f"options of a migration: unknown field {name!r}")
        if value is None and name == "hold":
            continue
        wanted = {"str": str, "bool": bool, "int": int, "float": (int, float)}[str(known[name].type)]
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):  # type: ignore[arg-type]
            raise UsageError(f"options of a migration: {name} has the wrong type")
    try:
        return kind(**data)
    except TypeError as error:
        raise UsageError(f"options of a migration: {error}") from None
