"""Status blocks that are well-formed and say anything: what a fuzzer begins with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

from qemu_sdei.errors import CperError
from qemu_sdei.ras import kinds
from qemu_sdei.ras.block import Block, block
from qemu_sdei.ras.dice import Dice
from qemu_sdei.ras.entry import Entry, entry
from qemu_sdei.ras.fields import Field, Kind
from qemu_sdei.ras.items import Choice, Extent, Many, Part
from qemu_sdei.ras.kinds import Section, SectionKind
from qemu_sdei.ras.severity import Severity
from qemu_sdei.ras.structure import Table

_VENDOR: Final = "vendor"
_WEIGHTS: Final[Mapping[SectionKind | str, float]] = {
    kinds.Arm: 30, kinds.Memory: 16, kinds.Pcie: 14, kinds.CxlProtocol: 8, kinds.Memory2: 4, kinds.ArmRas: 4,
    kinds.Processor: 5, kinds.Firmware: 4, kinds.CxlGeneralMedia: 3, kinds.CxlDram: 2, kinds.CxlMemoryModule: 2,
    kinds.CxlPhysicalSwitch: 1, kinds.CxlVirtualSwitch: 1, kinds.CxlMldPort: 1, _VENDOR: 5,
}  # fmt: skip
"""How likely each kind of section is: those of which Linux reads lengths and counts more than others."""
_SEVERITIES: Final = {Severity.RECOVERABLE: 45, Severity.CORRECTED: 35, Severity.INFORMATIONAL: 12, Severity.FATAL: 8}
_HOW_MANY: Final = {1: 70, 2: 16, 3: 8, 8: 4, 24: 2}
_LIMIT: Final = 48
"""Parts or bytes where a list or a row of bytes may be of any length."""
_DEPTH: Final = 4
_PAGE: Final = 0x1000
_MMIO: Final = 0x0900_0000
_BEYOND: Final = 0x80_0000_0000


@dataclass(frozen=True)
class Shape:
    """What status blocks are to be like."""

    size: int = 4096
    """Bytes, at most."""
    ram: tuple[int, int] = (0x4000_0000, 0x8000_0000)
    """Physical addresses of the guest's RAM: from, to."""
    fatal: float = 1.0
    """In how many of a hundred the whole error is fatal, so that the kernel is to panic."""


def any_block(dice: Dice, shape: Shape, number: int) -> Block:
    """A status block.

    Args:
        dice: what it says.
        shape: what it is to be like.
        number: makes its addresses differ from those of others, so that no reader takes two for the same error.
    """
    entries: list[Entry] = []
    left = shape.size - 20
    for _ in range(dice.weighted(_HOW_MANY)):
        made = _entry(dice, shape, number)
        size = len(made.head.pack()) + len(made.section.pack())
        if size > left:
            break
        entries.append(made)
        left -= size
    severity = Severity.FATAL
    while severity is Severity.FATAL:
        severity = dice.weighted(_SEVERITIES)
    if dice.chance(shape.fatal):
        severity = Severity.FATAL
    raw = dice.octets(dice.between(1, min(left, _LIMIT))) if left and dice.chance(10) else b""
    made_block = block(entries, severity, raw=raw)
    if not raw and left and dice.chance(20):  # what another error has left there
        made_block = replace(made_block, rest=dice.octets(dice.between(1, min(left, 4 * _LIMIT))))
    return made_block


def _entry(dice: Dice, shape: Shape, number: int) -> Entry:
    section = _section(dice, shape, number)
    return entry(
        section,
        dice.weighted(_SEVERITIES),
        flags=dice.bits(8) if dice.chance(20) else None,
        fru_id=_guid(dice) if dice.chance(20) else None,
        fru_text="DIMM A1" if dice.chance(30) else None,
        revision=0x300 if dice.chance(90) else 0x201,
    )


def _section(dice: Dice, shape: Shape, number: int) -> Section:
    kind = dice.weighted(_WEIGHTS)
    if isinstance(kind, str):
        return kinds.raw(_guid(dice), dice.octets(dice.below(4 * _LIMIT)))
    try:
        return Section(kind, kind.table.make(_given(dice, kind.table, shape, number)))
    except CperError:  # more than a length of it can say
        return Section(kind, kind.table.make({}))


def _given(dice: Dice, table: Table, shape: Shape, number: int, depth: int = 0) -> dict[str, Any]:
    """What `Table.make` takes: most of its fields; validation bits, lengths and counts follow."""
    given: dict[str, Any] = {}
    for item in table.items:
        left_out = item.name == table.validity or getattr(item, "auto", None) or getattr(item, "hidden", False)
        if left_out or dice.chance(25):
            continue
        if isinstance(item, Field):
            if not item.reserved:
                given[item.name] = _value(dice, item, shape, number)
        elif isinstance(item, Many):
            count = dice.weighted({1: 60, 2: 20, 0: 10, dice.below(_LIMIT): 10}) if depth < _DEPTH else 0
            given[item.name] = [_given(dice, item.table, shape, number, depth + 1) for _ in range(count)]
        elif isinstance(item, Part):
            given[item.name] = _given(dice, item.table, shape, number, depth + 1)
        else:
            given[item.name] = _extent(dice, item, given, shape, number, depth)
    return given


def _extent(dice: Dice, item: Extent, given: dict[str, Any], shape: Shape, number: int, depth: int) -> Any:
    table = item.table_for({item.by: 0, **given}) if isinstance(item, Choice) else None
    if table is not None and depth < _DEPTH and dice.chance(80):
        return _given(dice, table, shape, number, depth + 1)
    most = item.size or (_LIMIT if table is None else max(table.fixed_size - 1, 1))
    return dice.octets(item.size or dice.below(most))


def _value(dice: Dice, item: Field, shape: Shape, number: int) -> Any:
    if item.kind is Kind.GUID:
        return _guid(dice)
    if item.kind is not Kind.NUMBER:
        return dice.octets(item.size) if dice.chance(60) else bytes(item.size)
    if item.names and dice.chance(80):
        return dice.one_of(sorted(item.names))
    if item.size == 8 and "address" in item.name and "mask" not in item.name:
        return address(dice, shape, number)
    return any_number(dice, 8 * item.size)


def any_number(dice: Dice, bits: int) -> int:
    """A number of so many bits: small ones, and those at the edges, more often than others."""
    top = (1 << bits) - 1
    kind = dice.weighted({"any": 4, "small": 4, "top": 2, "half": 2, "bit": 2})
    if kind == "small":
        return min(dice.below(17), top)
    if kind == "top":
        return top - dice.below(min(4, top))
    if kind == "half":
        return (top >> 1) + dice.below(2)
    return 1 << dice.below(bits) if kind == "bit" else dice.bits(bits)


def address(dice: Dice, shape: Shape, number: int) -> int:
    """A physical address: mostly one of its own where no RAM is."""
    kind = dice.weighted({"beyond": 70, "ram": 8, "device": 6, "edge": 6, "any": 10})
    if kind == "ram":
        low, high = shape.ram
        return low + dice.below((high - low) // _PAGE) * _PAGE + (dice.below(_PAGE) if dice.chance(20) else 0)
    if kind == "beyond":
        return _BEYOND + number * 16 * _PAGE + dice.below(16) * _PAGE
    if kind == "device":
        return _MMIO + dice.below(_PAGE)
    return dice.one_of((0, 1, *shape.ram, 2**48 - 1, 2**52, 2**64 - 1)) if kind == "edge" else dice.bits(64)


def _guid(dice: Dice) -> UUID:
    return UUID(bytes_le=dice.octets(16))
