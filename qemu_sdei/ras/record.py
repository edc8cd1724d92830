"""Whole error records, as in an ERST, in pstore, and as BMCs keep them (UEFI 2.10 N.2.1, N.2.2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from qemu_sdei.errors import CperError
from qemu_sdei.ras import severity as severities
from qemu_sdei.ras.block import MAX_SIZE
from qemu_sdei.ras.declare import REVISION, guid, key, reserved, timestamp, u16, u32, validation, x64
from qemu_sdei.ras.differing import Difference, differences, patched
from qemu_sdei.ras.entry import DESCRIPTOR, Entry
from qemu_sdei.ras.fields import Field
from qemu_sdei.ras.kinds import KINDS, Kinds, kind_of
from qemu_sdei.ras.severity import Severity
from qemu_sdei.ras.structure import Structure, Table

SIGNATURE: Final = b"CPER"
_SIGNATURE_END: Final = 0xFFFFFFFF

NOTIFICATIONS: Final = {
    UUID("2dce8bb1-bdd7-450e-b9ad-9cf4ebd4f890"): "CMC",
    UUID("4e292f96-d843-4a55-a8c2-d481f27ebeee"): "CPE",
    UUID("e8f56ffe-919c-4cc5-ba88-65abe14913bb"): "MCE",
    UUID("cf93c01f-1a16-4dfc-b8bc-9c4daf67c104"): "PCIe",
    UUID("cc5263e8-9308-454a-89d0-340bd39bc98e"): "INIT",
    UUID("5bad89ff-b7e6-42c9-814a-cf2485d6e98a"): "NMI",
    UUID("3d61a466-ab40-409a-a698-f362d464b38f"): "Boot",
    UUID("667dd791-c6b3-4c27-8a6b-0f8e722deb41"): "DMAr",
    UUID("9a78788a-bbe8-11e4-809e-67611e5d46b0"): "SEA",
    UUID("5c284c81-b0ae-4e87-a322-b04c85624323"): "SEI",
    UUID("09a9d5ac-5204-4214-96e5-94992e752bcd"): "PEI",
    UUID("69293bc9-41df-49a3-b4bd-4fb0db3041f6"): "CXL Component",
}

_FLAGS: Final = ("HW_ERROR_FLAGS_RECOVERED", "HW_ERROR_FLAGS_PREVERR", "HW_ERROR_FLAGS_SIMULATED")
FLAGS: Final = {
    value: " | ".join(name for bit, name in enumerate(_FLAGS) if value >> bit & 1) or "None"
    for value in range(1 << len(_FLAGS))
}

RECORD: Final = Table(
    "record",
    "Common Platform Error Record",
    (
        Field(title="Signature Start", size=4, default=int.from_bytes(SIGNATURE, "little"), reserved=True),
        u16("Revision", word=REVISION, hexadecimal=True, default=0x101),
        Field(title="Signature End", size=4, default=_SIGNATURE_END, reserved=True),
        u16("Section Count"),
        severities.field("Error Severity"),
        validation(4, ("Platform ID", "Timestamp", "Partition ID")),
        u32("Record Length"),
        timestamp("Timestamp", valid=1),
        guid("Platform ID", valid=0, json=key("platformID")),
        guid("Partition ID", valid=2, json=key("partitionID")),
        guid("Creator ID", json=key("creatorID")),
        guid("Notification Type", guids=NOTIFICATIONS, json=key("notificationType", value="guid", word="type")),
        x64("Record ID", json=key("recordID")),
        u32("Flags", names=FLAGS),
        x64("Persistence Information", json=key("persistenceInfo")),
        reserved(12),
    ),
    source="UEFI 2.10 N.2.1",
    validity="validation_bits",
)


@dataclass(frozen=True, slots=True)
class Record:
    """A whole record. The head of each entry is a section descriptor, which says where the section is."""

    head: Structure
    entries: tuple[Entry, ...] = ()
    others: tuple[Difference, ...] = ()
    """Bytes that no section has, where they are not 0."""

    def pack(self) -> bytes:
        """Its bytes: as many as its head says.

        Raises:
            CperError: a section is not within them.
        """
        size = self.head["record_length"]
        if not RECORD.fixed_size + DESCRIPTOR.fixed_size * len(self.entries) <= size <= MAX_SIZE:
            raise CperError(f"a record of {size} bytes cannot hold {len(self.entries)} sections", field="record_length")
        out = bytearray(size)
        heads = self.head.pack() + b"".join(each.head.pack() for each in self.entries)
        out[: len(heads)] = heads
        for number, each in enumerate(self.entries):
            at, data = each.head["section_offset"], each.section.pack()
            if at + len(data) > size:
                raise CperError("it is not within the record", offset=at, field=f"sections[{number}]")
            out[at : at + len(data)] = data
        return patched(bytes(out), self.others)

    @property
    def severity(self) -> int:
        """A `Severity`, or a number that is none."""
        return int(self.head["error_severity"])


def record(entries: Sequence[Entry], severity: Severity | str | int | None = None, **about: Any) -> Record:
    """A record with these sections.

    Args:
        entries: of a block or of another record: sections, severities and FRUs are taken from them.
        severity: None: the worst of them.
        about: further fields of the head, such as `timestamp`, `record_id`, `notification_type`, `creator_id`.

    Raises:
        CperError: one of them cannot be.
    """
    at = RECORD.fixed_size + DESCRIPTOR.fixed_size * len(entries)
    listed = []
    for each in entries:
        size = len(each.section.pack())
        said = {name: value for name, value in each.about.items() if name != "timestamp"}
        head = DESCRIPTOR.make(
            {
                **said,
                "section_offset": at,
                "section_length": size,
                "section_type": each.section.kind.guid,
                "section_severity": each.severity,
            }
        )
        listed.append(Entry(head, each.section))
        at += size
    if severity is None:
        severity = severities.worst(*(each.severity for each in entries))
    given = {
        "section_count": len(entries),
        "error_severity": int(severities.severity_of(severity)),
        "record_length": at,
        **about,
    }
    return Record(RECORD.make(given), tuple(listed))


def parse_record(data: bytes, kinds: Kinds = KINDS) -> Record:
    """The record that all of `data` is.

    Raises:
        CperError: it is none, it is cut short, or its lengths contradict each other.
    """
    found, end = _parse(data, 0, kinds)
    if end != len(data):
        raise CperError(f"{len(data) - end} bytes follow the record", offset=end)
    return found


def parse_records(data: bytes, kinds: Kinds = KINDS) -> Iterator[Record]:
    """The records that stand one behind the other in `data`. Raises as `parse_record`."""
    at = 0
    while at < len(data):
        found, at = _parse(data, at, kinds)
        yield found


def _parse(data: bytes, at: int, kinds: Kinds) -> tuple[Record, int]:
    if data[at : at + 4] != SIGNATURE:
        raise CperError("it is no CPER record: it does not begin with CPER", offset=at, field="signature_start")
    head = RECORD.parse(data[at : at + RECORD.fixed_size], "", at)
    if head["signature_end"] != _SIGNATURE_END:
        raise CperError(f"{head['signature_end']:#010x} is not 0xffffffff", offset=at + 6, field="signature_end")
    size, count = head["record_length"], head["section_count"]
    if size > len(data) - at or size > MAX_SIZE:
        raise CperError(f"it says {size} bytes, {len(data) - at} are there", offset=at + 20, field="record_length")
    if RECORD.fixed_size + count * DESCRIPTOR.fixed_size > size:
        raise CperError(f"{count} sections do not fit into {size} bytes", offset=at + 10, field="section_count")
    own = data[at : at + size]
    entries: list[Entry] = []
    left = size
    for number in range(count):
        entries.append(_listed(own, number, at, left, kinds))
        left -= entries[-1].head["section_length"]
    found = Record(head, tuple(entries))
    return Record(head, tuple(entries), differences(found.pack(), own)), at + size


def _listed(own: bytes, number: int, base: int, left: int, kinds: Kinds) -> Entry:
    """The section of a descriptor; `left`: bytes that are not those of sections before it."""
    at = RECORD.fixed_size + number * DESCRIPTOR.fixed_size
    path = f"sectionDescriptors[{number}]"
    head = DESCRIPTOR.parse(own[at : at + DESCRIPTOR.fixed_size], path, base + at)
    start, size = head["section_offset"], head["section_length"]
    if start + size > len(own):
        raise CperError(
            f"the section ends at {start + size:#x}, the record at {len(own):#x}",
            offset=base + at, field=f"{path}.section_offset",
        )  # fmt: skip
    if size > left:  # a few bytes more for each descriptor could be the whole record once more
        raise CperError(
            f"the sections have {size - left} bytes more than the record",
            offset=base + at + 4, field=f"{path}.section_length",
        )  # fmt: skip
    section = kind_of(head["section_type"], kinds).parse(own[start : start + size], f"sections[{number}]", base + start)
    return Entry(head, section)
