"""The machine description: which events exist, and what the interface says about itself. Data, read from TOML."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Final, TypeVar

from qemu_sdei.errors import UsageError
from qemu_sdei.ras.source import Source, numbered, source_of
from qemu_sdei.sdei.constants import (
    EVENT_NUMBER_MAX,
    MAX_PRIVATE_SLOTS,
    MAX_SHARED_SLOTS,
    PRIVATE_SLOTS,
    SHARED_SLOTS,
    W_MASK,
)
from qemu_sdei.sdei.events import EventDescription, EventType, Priority
from qemu_sdei.smccc import selection

MAX_FILE_SIZE: Final = 1 << 20
MAX_NAME: Final = 64
_MAX_WORDS: Final = 200

_TYPES: Final = {"private": EventType.PRIVATE, "shared": EventType.SHARED}
SIGNALS: Final = {"pend": False, "invalid": True}
"""Names for `MachineDescription.strict_signal`: what becomes of a signal to a PE that could not take it at once."""
_PRIORITIES: Final = {"normal": Priority.NORMAL, "critical": Priority.CRITICAL}
_ACPI: Final = ("ghes", "agdi")
_EVENT_KEYS: Final = ("number", "name", "type", "priority", "signalable", "acpi")
_SDEI_KEYS: Final = ("version", "vendor", "signal")
_SLOT_KEYS: Final = ("private", "shared")
_SPIS: Final = range(32, 1020)

_Choice = TypeVar("_Choice", EventType, Priority, bool)


@dataclass(frozen=True, slots=True)
class MachineDescription:
    """A machine description. Frozen: it is part of what a guest sees and does not change under it."""

    events: tuple[EventDescription, ...]
    version: tuple[int, int] = (1, 1)
    """(major, minor) of SDEI_VERSION; FEATURES(1) exists from 1.1 on."""
    vendor: int = 0x4B564D
    """Low 32 bits of SDEI_VERSION. Clients that insist on plain 1.0 want 0 here."""
    slots: tuple[int, int] = (4, 8)
    """(private, shared) slots for bound interrupts. (0, 0), as KVM's SDEI has it: INTERRUPT_BIND finds none free."""
    strict_signal: bool = False
    """True: EVENT_SIGNAL to a PE that could not take the event at once is refused, as TF-A does since October 2024.
    False: it pends.
    """
    sources: tuple[Source, ...] = ()
    """The error sources of the HEST: those that are described, then one for each event that is for `ghes` and named by
    none of them. All have an id.
    """
    selection: tuple[str, ...] = ()
    """Which built-in services the guest finds, as `smccc.selection.parse` takes it; all there are of what is not named.
    """
    agdi_interrupt: int | None = None
    """INTID of the SPI by which AGDI asks for a diagnostic dump; None: only an event does, if one is for `agdi`."""

    def __post_init__(self) -> None:
        """Check what must hold however the profile was made.

        Raises:
            UsageError: two events of one number, event 0 missing or not private and signalable, a number with bit 31
            set, ...
        """
        seen: dict[int, EventDescription] = {}
        names: dict[str, EventDescription] = {}
        for event in self.events:
            if not 0 <= event.number <= EVENT_NUMBER_MAX:
                raise UsageError(f"event {event.name}: number {_number(event.number)} is outside 0..0x7fffffff")
            if event.number in seen:
                raise UsageError(
                    f"event {event.number:#x} ({event.name}): the number is taken by {seen[event.number].name!r}"
                )
            if event.name in names:
                raise UsageError(
                    f"event {event.number:#x}: the name {event.name!r} is taken by event {names[event.name].number:#x}"
                )
            if event.signalable and event.type != EventType.PRIVATE:
                raise UsageError(f"event {event.number:#x} ({event.name}): only a private event can be signalable")
            if event.acpi and event.number == 0:
                raise UsageError(f"event 0 ({event.name}): ACPI tables cannot name it, Linux refuses that")
            if event.acpi == "agdi" and (others := self.for_acpi("agdi")) != (event.number,):
                raise UsageError(f"event {event.number:#x} ({event.name}): {len(others)} events are for AGDI, not one")
            seen[event.number] = event
            names[event.name] = event
        zero = seen.get(0)
        if zero is None:
            raise UsageError("event 0 is missing: every SDEI has it")
        if zero.type != EventType.PRIVATE:
            raise UsageError(f"event 0 ({zero.name}) must be private")
        if not zero.signalable:
            raise UsageError(f"event 0 ({zero.name}) must be signalable: it is the one for EVENT_SIGNAL")
        if not (0 <= self.version[0] <= 0x7FFF and 0 <= self.version[1] <= 0xFFFF):
            raise UsageError("version: major is 0..32767, minor 0..65535")
        if self.agdi_interrupt is not None and self.agdi_interrupt not in _SPIS:
            raise UsageError(f"[agdi] interrupt: {_number(self.agdi_interrupt)} is not an SPI: they are 32 to 1019")
        if not 0 <= self.vendor <= W_MASK:
            raise UsageError(f"vendor {_number(self.vendor)} does not fit in 32 bits")
        for kind, count, most in zip(_SLOT_KEYS, self.slots, (MAX_PRIVATE_SLOTS, MAX_SHARED_SLOTS), strict=True):
            if not 0 <= count <= most:
                raise UsageError(f"slots: {kind} is 0..{most}")
        for slot in self.slot_events():
            if slot.number in seen:
                raise UsageError(
                    f"event {slot.number:#x} ({seen[slot.number].name}): the number is that of a slot for bound "
                    "interrupts; choose another, or fewer slots"
                )
            if slot.name in names:
                raise UsageError(f"event {names[slot.name].number:#x}: the name {slot.name!r} is that of a slot")
        sources = self._all_sources(seen)
        told = {source.event for source in sources}
        events = (replace(event, acpi="ghes") if event.number in told else event for event in self.events)
        object.__setattr__(self, "events", tuple(events))
        object.__setattr__(self, "sources", sources)

    def _all_sources(self, events: dict[int, EventDescription]) -> tuple[Source, ...]:
        told = {source.event: source for source in self.sources if source.event is not None}
        for number, source in told.items():
            event = events.get(number)
            if event is None:
                raise UsageError(f"source {source.name!r}: there is no event {_number(number)} in this description")
            if event.acpi == "agdi":
                raise UsageError(f"source {source.name!r}: event {number:#x} ({event.name}) is for AGDI, take another")
        rest = (event for event in self.events if event.acpi == "ghes" and event.number not in told)
        return numbered((*self.sources, *(Source(name=event.name, event=event.number) for event in rest)))

    def slot_events(self) -> tuple[EventDescription, ...]:
        """The events that interrupts can be bound to: always normal, never signalable (DEN0054 5.1.14)."""
        private, shared = self.slots
        return (
            *(EventDescription(PRIVATE_SLOTS + n, f"bound-private-{n}") for n in range(private)),
            *(EventDescription(SHARED_SLOTS + n, f"bound-shared-{n}", EventType.SHARED) for n in range(shared)),
        )

    @staticmethod
    def load(path: Path | str) -> MachineDescription:
        """A profile from a TOML file.

        Raises:
            UsageError: the file cannot be read or is wrong; the message names the file, the event and what is wrong.
        """
        path = Path(path)
        try:
            with path.open("rb") as file:
                data = file.read(MAX_FILE_SIZE + 1)
        except OSError as error:
            raise UsageError(f"machine description {path}: {error.strerror or error}") from error
        return _parse(data, str(path))

    @staticmethod
    def default() -> MachineDescription:
        """The profile that comes with the package, `qemu_sdei/data/events.toml`."""
        file = resources.files("qemu_sdei") / "data" / "events.toml"
        return _parse(file.read_bytes(), "events.toml")

    def find(self, name: str) -> EventDescription | None:
        """The event called `name`, or None."""
        return next((event for event in self.events if event.name == name), None)

    def for_acpi(self, purpose: str) -> tuple[int, ...]:
        """Numbers of the events that ACPI tables name for `purpose`, in the order of the description."""
        return tuple(event.number for event in self.events if event.acpi == purpose)


def _number(value: int) -> str:
    """`value` for a message. A number from a file may be too long for Python to print."""
    return f"{value:#x}" if value.bit_length() <= 128 else "(too long to print)"


def _parse(data: bytes, source: str) -> MachineDescription:
    where = f"machine description {source}: "
    if len(data) > MAX_FILE_SIZE:
        raise UsageError(f"{where}larger than {MAX_FILE_SIZE >> 20} MiB")
    try:
        document = tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        raise UsageError(f"{where}not UTF-8 text (byte {error.start})") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{where}not valid TOML: {error}") from error
    except (RecursionError, ValueError) as error:  # nested too deep; a number too long for int()
        raise UsageError(f"{where}not valid TOML: {type(error).__name__}") from error
    try:
        return _profile(document)
    except UsageError as error:
        raise UsageError(f"{where}{error}") from error


def _profile(document: dict[str, Any]) -> MachineDescription:
    _keys(document, ("sdei", "slots", "services", "agdi", "event", "source"), "top level")
    agdi = _table(document, "agdi")
    _keys(agdi, ("interrupt",), "[agdi]")
    sdei = _table(document, "sdei")
    _keys(sdei, _SDEI_KEYS, "[sdei]")
    slots = _table(document, "slots")
    _keys(slots, _SLOT_KEYS, "[slots]")
    entries, sources = _tables(document, "event"), _tables(document, "source")
    return MachineDescription(
        events=tuple(_event(entry, index) for index, entry in enumerate(entries, 1)),
        sources=tuple(source_of(entry, index) for index, entry in enumerate(sources, 1)),
        version=_version(sdei.get("version", "1.1")),
        vendor=_int(sdei.get("vendor", 0x4B564D), "[sdei] vendor"),
        slots=(_int(slots.get("private", 4), "[slots] private"), _int(slots.get("shared", 8), "[slots] shared")),
        strict_signal=_choice(sdei.get("signal", "pend"), SIGNALS, "[sdei] signal"),
        selection=_selection(_table(document, "services")),
        agdi_interrupt=_int(agdi["interrupt"], "[agdi] interrupt") if "interrupt" in agdi else None,
    )


def _selection(table: dict[str, Any]) -> tuple[str, ...]:
    for register, features in table.items():
        if not isinstance(features, list) or not all(isinstance(feature, str) for feature in features):
            raise UsageError(f'[services] {register[:MAX_NAME]}: must be a list of words, such as ["trng"]')
    words = tuple(f"{register}={','.join(features)}" for register, features in table.items())
    if any(len(text) > _MAX_WORDS for text in words):
        raise UsageError("[services]: a line is too long to be right")
    selection.parse(words, "[services]")
    return words


def _event(entry: dict[str, Any], index: int) -> EventDescription:
    where = f"event entry {index}"
    if "number" not in entry:
        raise UsageError(f"{where}: number is missing")
    number = _int(entry["number"], f"{where}: number")
    where = f"event {_number(number)}"
    _keys(entry, _EVENT_KEYS, where)
    name = entry.get("name")
    if not isinstance(name, str) or not name or len(name) > MAX_NAME or not name.isprintable():
        raise UsageError(f"{where}: name must be 1..{MAX_NAME} printable characters")
    return EventDescription(
        number=number,
        name=name,
        type=_choice(entry.get("type", "private"), _TYPES, f"{where}: type"),
        priority=_choice(entry.get("priority", "normal"), _PRIORITIES, f"{where}: priority"),
        signalable=_bool(entry.get("signalable", False), f"{where}: signalable"),
        acpi=_acpi(entry.get("acpi", ""), f"{where}: acpi"),
    )


def _keys(table: dict[str, Any], allowed: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in allowed:
            raise UsageError(f"{where}: unknown key {key[:MAX_NAME]!r} (known: {', '.join(allowed)})")


def _table(document: dict[str, Any], key: str) -> dict[str, Any]:
    table = document.get(key, {})
    if not isinstance(table, dict):
        raise UsageError(f"{key}: must be a table, written as [{key}]")
    return table


def _tables(document: dict[str, Any], key: str) -> list[dict[str, Any]]:
    tables = document.get(key, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise UsageError(f"{key}: {key}s are written as [[{key}]] tables")
    return tables


def _int(value: object, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise UsageError(f"{where} must be a whole number, not {type(value).__name__}")
    return value


def _bool(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{where} must be true or false, not {type(value).__name__}")
    return value


def _choice(value: object, choices: dict[str, _Choice], where: str) -> _Choice:
    if not isinstance(value, str) or value not in choices:
        raise UsageError(f"{where} must be one of {', '.join(choices)}")
    return choices[value]


def parse_version(text: str) -> tuple[int, int] | None:
    """(major, minor) of "MAJOR.MINOR"; None if it is none."""
    major, dot, minor = text.partition(".")
    if dot and all(part.isascii() and part.isdigit() and len(part) <= 5 for part in (major, minor)):
        return int(major), int(minor)
    return None


def _acpi(value: object, where: str) -> str:
    if not isinstance(value, str) or value not in ("", *_ACPI):
        raise UsageError(f"{where} must be one of {', '.join(_ACPI)}")
    return value


def _version(value: object) -> tuple[int, int]:
    version = parse_version(value) if isinstance(value, str) else None
    if version is None:
        raise UsageError('[sdei] version must be a string of the form "1.1"')
    return version
