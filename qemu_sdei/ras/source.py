"""Error sources by description: what a HEST says of each, and how the guest hears of its errors.

Plain data, from the `[[source]]` tables of an events file. Where a source lies in guest RAM: `boot/area.py`; how errors
get there: `backend/loop/error_sources.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, Literal, get_args

from qemu_sdei.errors import UsageError

AUTO: Final = -1
"""A number that follows from others: the lowest id that is free; as many bytes as the block."""
MAX_NAME: Final = 64
MIN_BLOCK: Final = 20
"""Bytes of a Generic Error Status Block without entries (ACPI 6.5 18.3.2.7.1)."""
MAX_BLOCK: Final = 64 << 10
"""Bytes: Linux reads no more of a block (GHES_ESTATUS_MAX_SIZE)."""
MAX_ID: Final = 0xFFFE
"""0xffff names no source (ACPI 6.5 18.3.2.7, Related Source Id)."""
MAX_SOURCES: Final = 1024
FIRST_SPI, LAST_SPI = 32, 1019
_MAX_EVENT: Final = 0x7FFF_FFFF
_POLL: Final = 1000
_MAX_POLL: Final = 24 * 3600 * 1000
_MAX_RAW: Final = 1 << 20
_MAX_COUNT: Final = 0xFFFF

Type = Literal["ghes", "ghes-v2"]


class Notify(StrEnum):
    """How a guest hears that there is an error to be read (ACPI 6.5 18.3.2.9)."""

    SDEI = "sdei"
    """An SDEI event."""
    SEA = "sea"
    """A synchronous external abort of a vCPU."""
    INTERRUPT = "interrupt"
    """An interrupt (SPI) that a device of the namespace takes: "External Interrupt - GSIV", type 10."""
    EXTERNAL = "external"
    """An interrupt (SPI) without a device, type 1: Linux on arm64 refuses such a source."""
    POLLED = "polled"
    """Not at all: it looks now and then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One generic hardware error source (ACPI 6.5 18.3.2.7 and .8).

    Raises UsageError: a value is outside of its range, or there is one that its notification has no use for.
    """

    name: str
    """For people: what `--source` takes. 1 to `MAX_NAME` printable characters."""
    type: Type = "ghes-v2"
    """"ghes-v2" has a register by which the guest says that it has read an error, "ghes" has none."""
    notify: Notify = Notify.SDEI
    event: int | None = None
    """Notified by SDEI: the event's number."""
    interrupt: int | None = None
    """Notified by interrupt, of either kind: INTID of an SPI."""
    poll_ms: int | None = None
    """Polled: how often, in milliseconds; None: once a second."""
    id: int = AUTO
    """Source id in the HEST. None of a `MachineDescription` is `AUTO`."""
    block: int = 4096
    """Bytes of the error status block."""
    raw: int = AUTO
    """Max Raw Data Length, in bytes."""
    records: int = 1
    """Number Of Records To Preallocate."""
    sections: int = 1
    """Max Sections Per Record. Linux does not hold a record to it."""
    enabled: bool = True
    """False: it is in the HEST, and the kernel is told to leave it alone."""

    def __post_init__(self) -> None:
        if self.notify is Notify.POLLED and self.poll_ms is None:
            object.__setattr__(self, "poll_ms", _POLL)
        where = f"source {self.name[:MAX_NAME]!r}"
        if not 0 < len(self.name) <= MAX_NAME or not self.name.isprintable():
            raise UsageError(f"{where}: name must be 1..{MAX_NAME} printable characters")
        if self.type not in get_args(Type):
            raise UsageError(f"{where}: type must be one of {', '.join(get_args(Type))}")
        for kinds, name, value, low, high in (
            ((Notify.SDEI,), "event", self.event, 0, _MAX_EVENT),
            ((Notify.INTERRUPT, Notify.EXTERNAL), "interrupt", self.interrupt, FIRST_SPI, LAST_SPI),
            ((Notify.POLLED,), "poll", self.poll_ms, 1, _MAX_POLL),
        ):
            if value is None:
                if self.notify in kinds:
                    raise UsageError(f"{where}: notify is {self.notify.value!r}, so it needs {name}")
            elif self.notify not in kinds:
                raise UsageError(f"{where}: {name} is for notify = {kinds[0].value!r}, not {self.notify.value!r}")
            else:
                _range(where, name, value, low, high)
        if self.event == 0:
            raise UsageError(f"{where}: event 0 cannot signal hardware errors, Linux refuses it in a HEST")
        _range(where, "block", self.block, MIN_BLOCK, MAX_BLOCK)
        if self.raw == AUTO:
            object.__setattr__(self, "raw", self.block)
        _range(where, "raw", self.raw, 0, _MAX_RAW)
        if self.id != AUTO:
            _range(where, "id", self.id, 0, MAX_ID)
        _range(where, "records", self.records, 1, _MAX_COUNT)
        _range(where, "sections", self.sections, 1, _MAX_COUNT)

    @property
    def acknowledged(self) -> bool:
        """Whether the guest says that it has read an error."""
        return self.type == "ghes-v2"


def _range(where: str, name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        shown = f"{value:#x}" if value.bit_length() <= 128 else "(too long to print)"
        raise UsageError(f"{where}: {name} is {shown}, it must be from {low} to {high}")


def numbered(sources: Iterable[Source]) -> tuple[Source, ...]:
    """The same sources with an id each: those that said none get the lowest that are free, in their order.

    Raises:
        UsageError: they are too many; two have one name, one id or one event.
    """
    found = tuple(sources)
    if len(found) > MAX_SOURCES:
        raise UsageError(f"{len(found)} error sources are too many: {MAX_SOURCES} are possible")
    for what in ("event", "name", "id"):
        users: dict[Any, str] = {}
        for source in found:
            value = getattr(source, what)
            if value in (None, AUTO):
                continue
            if value in users:
                shown = f"{value:#x}" if what == "event" else repr(value)
                raise UsageError(f"source {source.name!r}: {what} {shown} is that of source {users[value]!r} already")
            users[value] = source.name
    taken = {source.id for source in found}
    free = (number for number in range(MAX_ID + 1) if number not in taken)
    return tuple(replace(source, id=next(free)) if source.id == AUTO else source for source in found)


_NUMBERS: Final = ("event", "interrupt", "poll", "id", "block", "raw", "records", "sections")
_KEYS: Final = ("name", "type", "notify", *_NUMBERS, "enabled")


def source_of(entry: Mapping[str, Any], index: int) -> Source:
    """The source that a `[[source]]` table of an events file describes; `index` counts from 1, for messages.

    Raises:
        UsageError: a key is unknown or missing, or a value cannot be; the message is one line.
    """
    name = entry.get("name")
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise UsageError(f"source entry {index}: name must be 1..{MAX_NAME} printable characters")
    where = f"source {name!r}"
    values: dict[str, Any] = {}
    for key, value in entry.items():
        if key not in _KEYS:
            raise UsageError(f"{where}: unknown key {key[:MAX_NAME]!r} (known: {', '.join(_KEYS)})")
        if key in _NUMBERS and (isinstance(value, bool) or not isinstance(value, int)):
            raise UsageError(f"{where}: {key} must be a whole number, not {type(value).__name__}")
        if key in _NUMBERS and value < 0:
            raise UsageError(f"{where}: {key} cannot be negative")
        if key == "enabled" and not isinstance(value, bool):
            raise UsageError(f"{where}: enabled must be true or false, not {type(value).__name__}")
        if key in ("type", "notify"):
            allowed = get_args(Type) if key == "type" else tuple(each.value for each in Notify)
            if not isinstance(value, str) or value not in allowed:
                raise UsageError(f"{where}: {key} must be one of {', '.join(allowed)}")
        values["poll_ms" if key == "poll" else key] = Notify(value) if key == "notify" else value
    return Source(**values)
