"""A section with its head: the entry of a status block, or the descriptor of a record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from qemu_sdei.ras import severity as severities
from qemu_sdei.ras.declare import REVISION, bit, guid, key, reserved, text, timestamp, u16, u32, validation, word, x32
from qemu_sdei.ras.fields import Field
from qemu_sdei.ras.kinds import Section
from qemu_sdei.ras.severity import Severity
from qemu_sdei.ras.structure import Structure, Table

_FLAGS: Final = word(
    bit(0, "Primary"),
    bit(1, "Containment Warning"),
    bit(2, "Reset"),
    bit(3, "Error Threshold Exceeded"),
    bit(4, "Resource Not Accessible"),
    bit(5, "Latent Error"),
    bit(6, "Propagated"),
    bit(7, "Overflow"),
)
_TYPE: Final = guid("Section Type", json=key("sectionType", value="data", word="type"))
_FRU_ID: Final = guid("FRU Id", valid=0, json=key("fruID"))
_FRU_TEXT: Final = text(20, "FRU Text", valid=1, json=key("fruText"))


def _entry(name: str, revision: int, *last: Field) -> Table:
    return Table(
        name,
        "Generic Error Data Entry",
        (
            _TYPE,
            severities.field("Error Severity"),
            u16("Revision", word=REVISION, hexadecimal=True, default=revision),
            validation(1, ("FRU Id", "FRU Text", *(each.title for each in last))),
            Field(title="Flags", size=1, word=_FLAGS, hexadecimal=True),
            u32("Error Data Length"),
            _FRU_ID,
            _FRU_TEXT,
            *last,
        ),
        source="ACPI 6.5 18.3.2.7.1",
        validity="validation_bits",
    )


ENTRY: Final = _entry("entry", 0x300, timestamp("Timestamp", valid=2))
"""Since revision 3.0: 72 bytes."""
OLD_ENTRY: Final = _entry("old-entry", 0x201)
"""Before that: without a timestamp, 64 bytes."""
REVISION_WITH_TIMESTAMP: Final = 0x300

DESCRIPTOR: Final = Table(
    "descriptor",
    "Section Descriptor",
    (
        u32("Section Offset"),
        u32("Section Length"),
        u16("Revision", word=REVISION, hexadecimal=True, default=0x100),
        validation(1, ("FRU Id", "FRU Text"), title="Validation Mask"),
        reserved(1),
        x32("Flags", word=_FLAGS),
        _TYPE,
        _FRU_ID,
        severities.field("Section Severity"),
        _FRU_TEXT,
    ),
    source="UEFI 2.10 N.2.2",
    validity="validation_mask",
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A section and what is said of it."""

    head: Structure
    section: Section

    @property
    def severity(self) -> int:
        """A `Severity`, or a number that is none."""
        name = "section_severity" if "section_severity" in self.head.values else "error_severity"
        return int(self.head[name])

    @property
    def about(self) -> dict[str, Any]:
        """What `entry` was given, of this one: what heads of blocks and of records have in common."""
        said: dict[str, Any] = {"flags": int(self.head["flags"])}
        for name in ("fru_id", "fru_text", "timestamp"):
            item = self.head.table.by_name.get(name)
            if item is not None and self.head.valid(item):
                said[name] = self.head[name]
        return said


def entry(
    section: Section,
    severity: Severity | str | int = Severity.CORRECTED,
    *,
    fru_id: Any = None,
    fru_text: Any = None,
    timestamp: Any = None,
    flags: Any = None,
    revision: int = 0x300,
) -> Entry:
    """The entry of a status block for a section.

    Args:
        section: what happened.
        severity: how bad it is.
        fru_id: GUID of the unit that can be replaced.
        fru_text: its name, up to 20 characters.
        timestamp: a `datetime`, or text such as 2026-11-30T12:00:00+00:00.
        flags: a number, or a mapping of the flags' attributes.
        revision: two bytes; before 3.0 there is no timestamp.

    Raises:
        CperError: one of them cannot be.
    """
    table = ENTRY if revision >= REVISION_WITH_TIMESTAMP else OLD_ENTRY
    given = {"fru_id": fru_id, "fru_text": fru_text, "flags": flags, "revision": revision, "timestamp": timestamp}
    head = table.make(
        {
            **given,
            "section_type": section.kind.guid,
            "error_severity": _number(severity),
            "error_data_length": len(section.pack()),
        }
    )
    return Entry(head, section)


def _number(given: Severity | str | int) -> int:
    return int(severities.severity_of(given))
