"""Cases for a fuzzer: a well-formed status block, and edits of it that know what is a length, a count, an offset.

Seed and number make a case, whatever the ones before were: `case(7, 1234)` is the same one for ever, with one version
of this program.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from qemu_sdei.errors import CperError
from qemu_sdei.ras.any_record import Shape, any_block, any_number
from qemu_sdei.ras.block import BLOCK, Block, parse_block
from qemu_sdei.ras.dice import Dice
from qemu_sdei.ras.kinds import KINDS
from qemu_sdei.ras.malform import malformed
from qemu_sdei.ras.spots import Role, Spot, spots

_HOW_MANY: Final = {0: 8, 1: 44, 2: 24, 3: 12, 4: 6, 6: 4, 8: 2}
_VALIDITY: Final = "validity"
_BYTES: Final = "bytes"
_WEIGHTS: Final[dict[Role | str, float]] = {
    Role.LENGTH: 34, Role.COUNT: 20, Role.OFFSET: 8, Role.REVISION: 6, Role.GUID: 8, _VALIDITY: 8, Role.OTHER: 10,
    _BYTES: 6,
}  # fmt: skip
"""What is edited, and how often."""
_VALUES: Final = {
    "overflow": 14, "underflow": 14, "cycle": 12, "truncate": 14, "more": 18, "less": 10, "end": 8, "any": 10,
}  # fmt: skip
_STEPS: Final = (1, 1, 1, 2, 4, 8, 16, 32, 40, 64, 72, 256, 4096, 65536)
_SEVERITY: Final = "error_severity"
_ENTRY: Final = re.compile(r"(section|entry)\[(\d+)\]")


@dataclass(frozen=True)
class Case:
    """What a guest's kernel is to be shown."""

    block: bytes
    """A well-formed status block."""
    edits: tuple[str, ...] = ()
    """What is done to it (`malformed`)."""
    size: int = Shape.size
    """Bytes of the memory that it is for: what is longer is cut off."""

    @cached_property
    def data(self) -> bytes:
        """The bytes that the kernel gets to see: 20 at least. Raises `CperError`: the edits cannot be."""
        return malformed(self.block, self.edits).ljust(BLOCK.fixed_size, b"\0")[: self.size]

    @property
    def asks_to_panic(self) -> bool:
        """Whether it says that the error is fatal, or a severity that has no name: Linux takes that for fatal too."""
        severity = int.from_bytes(self.data[16:20], "little")
        return severity == 1 or severity > 3


def case(seed: int, number: int, shape: Shape | None = None) -> Case:
    """The case with this number, of this seed."""
    shape = Shape() if shape is None else shape
    dice = Dice(seed, number)
    while True:
        block = any_block(dice, shape, number)
        made = Case(block.pack(), tuple(_edits(dice, block, shape)), shape.size)
        try:
            made.data  # noqa: B018 - two edits may contradict each other
        except CperError:
            continue
        return made


def _edits(dice: Dice, block: Block, shape: Shape) -> Iterable[str]:
    groups: dict[Role | str, list[Spot]] = {}
    for spot in spots(block):
        if spot.path.startswith("raw_") and not dice.chance(100 if block.head["raw_data_length"] else 25):
            continue
        validity = spot.path.endswith(("validation_bits", "validation_mask"))
        groups.setdefault(_VALIDITY if validity else spot.role, []).append(spot)
    weights = {name: weight for name, weight in _WEIGHTS.items() if name == _BYTES or name in groups}
    for _ in range(dice.weighted(_HOW_MANY)):
        name = dice.weighted(weights)
        if name == _BYTES:
            yield f"@{dice.below(len(block.pack())):#x}={dice.octets(dice.between(1, 8)).hex()}"
            continue
        spot = dice.one_of(groups[name])
        if spot.path == _SEVERITY:
            continue  # each one but the four makes the kernel panic, as it should
        yield f"{spot.path}={_new(dice, spot, shape)}"


def _new(dice: Dice, spot: Spot, shape: Shape) -> str:
    """What a field is to be."""
    if spot.role is Role.GUID:
        kind = dice.one_of(sorted(each.name for each in KINDS.values()))
        return dice.weighted({kind: 80, "overflow": 5, "underflow": 5, "truncate": 10})
    if spot.role is Role.OTHER and spot.bits is None and spot.field.kind.value != "number":
        return "overflow"
    word = dice.weighted(_VALUES)
    telling = spot.role in (Role.LENGTH, Role.COUNT, Role.OFFSET)
    if word == "cycle" and (spot.role is Role.COUNT or not telling):
        word = "any"
    if word == "truncate" and telling and spot.told[0] == spot.told[1]:
        word = "more"
    if word in ("more", "less"):
        return f"{'+' if word == 'more' else '-'}{dice.one_of(_STEPS)}"
    if word == "end":  # up to the end of the block's memory, or just beyond
        return str(min(max(shape.size - spot.told[0] + dice.one_of((-1, 0, 1, 8)), 0), spot.top))
    return f"{any_number(dice, spot.top.bit_length()):#x}" if word == "any" else word


def simpler(found: Case) -> Iterable[Case]:
    """Cases that are this one with an edit less, or with an entry less: what a finding may be just as well."""
    for number in range(len(found.edits)):
        yield replace(found, edits=found.edits[:number] + found.edits[number + 1 :])
    block = parse_block(found.block)
    if block.rest.strip(b"\0") and not block.head["raw_data_offset"]:
        yield replace(found, block=replace(block, rest=b"").pack())
    for number in reversed(range(len(block.entries) if len(block.entries) > 1 else 0)):
        yield replace(found, block=_without(block, number), edits=tuple(_renumbered(found.edits, number)))


def _without(block: Block, number: int) -> bytes:
    """A block without one of its entries; what its head says follows."""
    gone = block.entries[number]
    size = len(gone.head.pack()) + len(gone.section.pack())
    head, raw = block.head, int(block.head["raw_data_offset"])
    values = {
        "block_status": head["block_status"] - (1 << 4),
        "data_length": head["data_length"] - size,
        "raw_data_offset": raw - size if raw else 0,
    }
    entries = block.entries[:number] + block.entries[number + 1 :]
    return replace(block, head=head.replaced(**values), entries=entries).pack()


def _renumbered(edits: Iterable[str], gone: int) -> Iterable[str]:
    for edit in edits:
        match = _ENTRY.match(edit)
        if match is None:
            yield edit
        elif int(match[2]) != gone:
            yield f"{match[1]}[{int(match[2]) - (int(match[2]) > gone)}]{edit[match.end() :]}"


__all__ = ["Case", "Shape", "case", "simpler"]
