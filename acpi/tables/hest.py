"""HEST: the hardware error sources, and how each of them is heard of (ACPI 6.5 18.3.2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Final

from qemu_sdei.acpi.errors import TableError
from qemu_sdei.acpi.layout import FieldValue
from qemu_sdei.acpi.table import HEADER_SIZE, Header, Table
from qemu_sdei.acpi.tables.hest_notification import Notification, NotificationType
from qemu_sdei.acpi.tables.hest_source import (
    AerBridge,
    AerEndpoint,
    AerRootPort,
    CorrectedMachineCheck,
    DeferredMachineCheck,
    Ghes,
    GhesV2,
    MachineCheck,
    MachineCheckBank,
    NmiSource,
    OpaqueSource,
    Source,
    SourceType,
    read_source,
)

__all__ = [
    "AerBridge",
    "AerEndpoint",
    "AerRootPort",
    "CorrectedMachineCheck",
    "DeferredMachineCheck",
    "Ghes",
    "GhesV2",
    "Hest",
    "MachineCheck",
    "MachineCheckBank",
    "NmiSource",
    "Notification",
    "NotificationType",
    "OpaqueSource",
    "Source",
    "SourceType",
]

MAX_SOURCES: Final = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Hest(Table):
    """The `sources`, see below."""

    SIGNATURE: ClassVar[str] = "HEST"
    REVISIONS: ClassVar[tuple[int, int]] = (1, 1)
    ONCE: ClassVar[bool] = True

    sources: tuple[Source, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "sources", tuple(self.sources))
        for number, source in enumerate(self.sources):
            if not isinstance(source, Source):
                raise TableError(f"{source!r} is no source", signature="HEST", field=f"sources[{number}]")

    def body(self) -> bytes:
        """How many sources there are, and the sources."""
        return len(self.sources).to_bytes(4, "little") + b"".join(source.pack() for source in self.sources)

    @classmethod
    def _from_body(cls, data: bytes, header: Header) -> Hest:
        at = HEADER_SIZE + 4
        if len(data) < at:
            raise TableError("cut short", signature="HEST", offset=len(data), field="error_source_count")
        count = int.from_bytes(data[HEADER_SIZE:at], "little")
        if count > MAX_SOURCES:
            raise TableError(
                f"it names {count} sources: their ids have 16 bits",
                signature="HEST", offset=HEADER_SIZE, field="error_source_count",
            )  # fmt: skip
        sources: list[Source] = []
        for number in range(count):
            if at >= len(data):
                raise TableError(
                    f"cut short: it names {count} sources and has {number}",
                    signature="HEST", offset=at, field=f"sources[{number}].type",
                )  # fmt: skip
            source = read_source(data, at, f"sources[{number}].")
            sources.append(source)
            at += len(source.pack())
        return cls(revision=header.revision, oem=header.oem, sources=tuple(sources), tail=data[at:])

    def body_fields(self) -> Iterator[FieldValue]:
        """The fields of all sources."""
        yield FieldValue("error_source_count", "Error Source Count", HEADER_SIZE, 4, len(self.sources))
        at = HEADER_SIZE + 4
        for number, source in enumerate(self.sources):
            yield from source.walk(at, f"sources[{number}].", f"Source {number}: ")
            at += len(source.pack())
