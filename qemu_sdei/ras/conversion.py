"""A status block as a whole record, and a record as a status block: their sections with what is said of them."""

from __future__ import annotations

from typing import Any

from qemu_sdei.ras.block import Block, block
from qemu_sdei.ras.entry import Entry, entry
from qemu_sdei.ras.fields import Field
from qemu_sdei.ras.record import Record, record
from qemu_sdei.ras.severity import NAMES, Severity


def as_record(found: Record | Block) -> Record:
    """A record of what `found` says; raw data of a block have no place in it.

    Raises:
        CperError: it would be too large.
    """
    if isinstance(found, Record):
        return found
    times = [each.about["timestamp"] for each in found.entries if "timestamp" in each.about]
    return record(found.entries, _severity(found.severity), timestamp=times[0] if times else None)


def as_block(found: Record | Block) -> Block:
    """A status block of what `found` says. The time of a record is that of each entry.

    Raises:
        CperError: it has too many sections.
    """
    if isinstance(found, Block):
        return found
    item = found.head.table["timestamp"]
    assert isinstance(item, Field)
    time = found.head["timestamp"] if found.head.valid(item) else None
    return block([_entry(each, time) for each in found.entries], _severity(found.severity))


def _entry(each: Entry, time: Any) -> Entry:
    about = {"timestamp": time, **each.about}
    return entry(each.section, _severity(each.severity), **about)


def _severity(value: int) -> Severity:
    return Severity(value) if value in NAMES else Severity.INFORMATIONAL
