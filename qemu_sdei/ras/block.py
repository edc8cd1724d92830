"""Generic error status blocks: what firmware leaves for the kernel at a GHES, or in a BERT's region (ACPI 6.5
18.3.2.7.1).
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from qemu_sdei.errors import CperError
from qemu_sdei.ras import severity as severities
from qemu_sdei.ras.declare import bit, bits, u32, word, x32
from qemu_sdei.ras.entry import ENTRY, OLD_ENTRY, REVISION_WITH_TIMESTAMP, Entry
from qemu_sdei.ras.kinds import KINDS, Kinds, kind_of
from qemu_sdei.ras.severity import Severity
from qemu_sdei.ras.structure import Structure, Table

MAX_SIZE: Final = 1 << 20
"""Bytes of a block or a record that is read: Linux takes blocks of 64 KiB."""

BLOCK: Final = Table(
    "block",
    "Generic Error Status Block",
    (
        x32(
            "Block Status",
            word=word(
                bit(0, "Uncorrectable Error Valid"),
                bit(1, "Correctable Error Valid"),
                bit(2, "Multiple Uncorrectable Errors"),
                bit(3, "Multiple Correctable Errors"),
                bits(4, 13, "Error Data Entry Count"),
                bits(14, 31, "Reserved", reserved=True),
            ),
        ),
        u32("Raw Data Offset"),
        u32("Raw Data Length"),
        u32("Data Length"),
        severities.field("Error Severity"),
    ),
    source="ACPI 6.5 18.3.2.7.1",
)
_REVISION_AT: Final = 20
_UNCORRECTABLE, _CORRECTABLE, _COUNT_SHIFT, _MAX_COUNT = 1, 2, 4, 1023


@dataclass(frozen=True, slots=True)
class Block:
    """A status block: its entries, and what follows them (raw data, and what fills its memory up)."""

    head: Structure
    entries: tuple[Entry, ...] = ()
    rest: bytes = b""

    def pack(self) -> bytes:
        """Its bytes."""
        return self.head.pack() + b"".join(each.head.pack() + each.section.pack() for each in self.entries) + self.rest

    def base64(self) -> str:
        """As QMP's `inject-ghes-v2-error` takes it for `cper`."""
        return base64.b64encode(self.pack()).decode("ascii")

    @property
    def severity(self) -> int:
        """A `Severity`, or a number that is none."""
        return int(self.head["error_severity"])

    @property
    def count(self) -> int:
        """How many entries its status says it has."""
        return int(self.head["block_status"]) >> _COUNT_SHIFT & _MAX_COUNT

    @property
    def size(self) -> int:
        """Bytes of entries and raw data: what its head says it has."""
        end = BLOCK.fixed_size + int(self.head["data_length"])
        at, size = int(self.head["raw_data_offset"]), int(self.head["raw_data_length"])
        return max(end, at + size) if at else end

    @property
    def raw(self) -> bytes:
        """The raw data; empty if there are none."""
        at, size = self.head["raw_data_offset"], self.head["raw_data_length"]
        return self.pack()[at : at + size] if at else b""


def block(entries: Sequence[Entry], severity: Severity | str | int | None = None, *, raw: bytes = b"") -> Block:
    """A status block with these entries.

    Args:
        entries: as `qemu_sdei.ras.entry.entry` makes them.
        severity: None: the worst of the entries.
        raw: raw data behind them, as vendors have them.

    Raises:
        CperError: there are more than 1023 entries.
    """
    if len(entries) > _MAX_COUNT:
        raise CperError(f"{len(entries)} entries are too many: a block has up to {_MAX_COUNT}", field="block_status")
    worst = severities.worst(*(each.severity for each in entries))
    said = worst if severity is None else severities.severity_of(severity)
    size = sum(len(each.head.pack()) + len(each.section.pack()) for each in entries)
    status = (_UNCORRECTABLE if severities.uncorrected(said) else _CORRECTABLE) | len(entries) << _COUNT_SHIFT
    head = BLOCK.make(
        {
            "block_status": status,
            "raw_data_offset": BLOCK.fixed_size + size if raw else 0,
            "raw_data_length": len(raw),
            "data_length": size,
            "error_severity": int(said),
        }
    )
    return Block(head, tuple(entries), raw)


def parse_block(data: bytes, kinds: Kinds = KINDS) -> Block:
    """The status block at the start of `data`; all that follows its entries is its rest.

    Args:
        data: up to `MAX_SIZE` bytes.
        kinds: of sections.

    Raises:
        CperError: it is cut short, or its lengths contradict each other.
    """
    if len(data) > MAX_SIZE:
        raise CperError(f"{len(data)} bytes are too many: a block has up to {MAX_SIZE}")
    head = BLOCK.parse(data[: BLOCK.fixed_size])
    at = BLOCK.fixed_size
    end = at + head["data_length"]
    if end > len(data):
        raise CperError(
            f"it says {end - at} bytes of entries, {len(data) - at} are there", offset=12, field="data_length"
        )
    raw_end = head["raw_data_offset"] + head["raw_data_length"]
    if head["raw_data_offset"] and raw_end > len(data):
        raise CperError(f"it ends at {raw_end:#x}, the block at {len(data):#x}", offset=4, field="raw_data_offset")
    entries: list[Entry] = []
    while at < end:
        found, at = _entry(data, at, end, f"entries[{len(entries)}]", kinds)
        entries.append(found)
    return Block(head, tuple(entries), data[end:])


def parse_blocks(data: bytes, kinds: Kinds = KINDS) -> list[Block]:
    """The status blocks that stand one behind the other in `data`, as in a BERT's region. What follows the last one is
    its rest. Raises `CperError`, as `parse_block`.
    """
    found: list[Block] = []
    at = 0
    while not found or any(data[at : at + 4]):
        try:
            head = BLOCK.parse(data[at : at + BLOCK.fixed_size])
            end = at + Block(head).size
            # Each gets its own bytes only: those of all others, once for each, would be too many.
            found.append(parse_block(data[at:end], kinds))
        except CperError as error:
            where = None if error.offset is None else error.offset + at
            raise CperError(error.message, offset=where, field=error.field) from None
        at = end
    found[-1] = replace(found[-1], rest=found[-1].rest + data[at:])
    return found


def _entry(data: bytes, at: int, end: int, path: str, kinds: Kinds) -> tuple[Entry, int]:
    revision = int.from_bytes(data[at + _REVISION_AT : min(at + _REVISION_AT + 2, end)], "little")
    table = ENTRY if revision >= REVISION_WITH_TIMESTAMP else OLD_ENTRY
    head = table.parse(data[at : min(at + table.fixed_size, end)], path, at)
    body = at + table.fixed_size
    size = head["error_data_length"]
    if body + size > end:
        raise CperError(
            f"it says {size} bytes of section, {end - body} are left", offset=at + 24, field=f"{path}.error_data_length"
        )
    section = kind_of(head["section_type"], kinds).parse(data[body : body + size], f"{path}.section", body)
    return Entry(head, section), body + size


def block_from_base64(text: str, kinds: Kinds = KINDS) -> Block:
    """The status block in base64, as QMP takes it. Raises `CperError`: it is no base64, or no block."""
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except ValueError:
        raise CperError("it is not base64") from None
    return parse_block(data, kinds)
