"""Status blocks that are wrong on purpose: `malformed(block, ["section[0].error_information[1].length=overflow"])`.

An edit changes one value and nothing else, so that each check of a reader can be met alone.

FIELD=VALUE       a number, a name that the field's values have, a GUID; +N and -N: so much more or less than it is
FIELD=overflow    the largest that the field can hold
FIELD=underflow   one less than the least that can be right: what is left after the fixed part is below zero
FIELD=cycle       of a length: the reader that goes on behind it is where it was; of an offset: it points to itself
FIELD=truncate    the bytes end in the middle of what the field tells of, which says as before how much there is
@OFFSET=HEX       these bytes, there

A word alone is about the length of the last section.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from qemu_sdei.errors import CperError
from qemu_sdei.ras.block import MAX_SIZE, parse_block
from qemu_sdei.ras.fields import Field, Kind, Plain
from qemu_sdei.ras.kinds import KINDS, Kinds
from qemu_sdei.ras.spots import Range, Role, Spot, spots

WORDS: Final = ("overflow", "underflow", "truncate", "cycle")
_RELATIVE: Final = re.compile(r"([+-])\s*(0[xX][0-9a-fA-F]{1,16}|\d{1,20})")
_AT: Final = re.compile(r"@(0[xX][0-9a-fA-F]{1,8}|\d{1,8})")
_ENTRY: Final = re.compile(r"(section|entry)(?=\.|$)")
_SHOWN: Final = 4
"""How many names an error offers."""
_LONGEST: Final = 200
"""Characters of an edit that an error repeats."""


def malform(data: bytes, edit: str, kinds: Kinds = KINDS) -> bytes:
    """A block with one edit. See `malformed`."""
    return malformed(data, [edit], kinds)


def malformed(data: bytes, edits: Sequence[str], kinds: Kinds = KINDS) -> bytes:
    """A block with edits, each about the block as it was before all of them. Where two are about the same bytes, the
    last one wins.

    Args:
        data: a status block that is well-formed.
        edits: such as `entry[0].error_data_length=+8`.
        kinds: of sections.

    Returns:
        Its bytes; `truncate` makes them fewer.

    Raises:
        CperError: it is no block, or an edit names no field of it, or no value that can be.
    """
    block = parse_block(data, kinds)
    found = {spot.path: spot for spot in spots(block)}
    out = bytearray(data)
    cuts: list[Spot] = []
    said: set[str] = set()
    for edit in edits:
        name, value = _split(edit, found)
        if at := _AT.fullmatch(name):
            _put_bytes(out, int(at[1], 0), value)
            continue
        spot = _spot(name, found)
        if value == "truncate":
            if spot.role in (Role.LENGTH, Role.COUNT, Role.OFFSET) and spot.told[0] == spot.told[1]:
                raise CperError("there is nothing that it tells of", field=spot.path)
            cuts.append(spot)
            continue
        spot.put(out, _number(spot, value, data, kinds))
        said.add(spot.path)
    return _cut(out, cuts, found, said) if cuts else bytes(out)


def _split(edit: str, found: dict[str, Spot]) -> tuple[str, str]:
    """Name and value of an edit."""
    name, equals, value = edit.partition("=")
    name, value = name.strip(), value.strip()
    if not equals and name in WORDS:
        last = max((spot.entry for spot in found.values() if spot.entry is not None), default=None)
        return ("data_length" if last is None else f"entry[{last}].error_data_length"), name
    if not equals or not name or not value:
        raise CperError(f"{edit[:_LONGEST]!r} is no edit: FIELD=VALUE, @OFFSET=HEX, or {', '.join(WORDS)}")
    return name, value.lower() if value.lower() in WORDS else value


def path_of(name: str) -> str:
    """The path that is meant by a name as people write it, or as `cper decode` and `cper check` print it."""
    path = re.sub(r"\s+(\d+)(?=\.|$)", r"[\1]", name.strip().lower())
    path = re.sub(r"[\s-]+", "_", path).removeprefix("block.")
    path = re.sub(r"^sections\b", "section", re.sub(r"^entries\b", "entry", path))
    return _ENTRY.sub(r"\1[0]", path, count=1) if _ENTRY.match(path) else path


def _spot(name: str, found: dict[str, Spot]) -> Spot:
    """The field that `name` names: by its path, or the end of its path if there is no other one with it."""
    path = path_of(name)
    if spot := _exactly(path, found):
        return spot
    ends = [each for each in found if each.endswith(f".{path}")]
    if len(ends) == 1:
        return found[ends[0]]
    if ends:
        raise CperError(f"there are {len(ends)} fields {name[:_LONGEST]!r}: {', '.join(ends[:_SHOWN])}")
    near = _near(path, found)
    shown = f"near it: {', '.join(near)}" if near else "`qemu-sdei cper decode` prints those that there are"
    raise CperError(f"there is no field {name[:_LONGEST]!r}; {shown}")


def _exactly(path: str, found: dict[str, Spot]) -> Spot | None:
    if path in found:
        return found[path]
    whole, _, name = path.rpartition(".")
    word = found[whole].field.word if whole in found else None
    bits = next((each for each in word.bits if each.name == name), None) if word is not None else None
    return None if bits is None else replace(found[whole], path=path, bits=bits, role=Role.OTHER)


def _near(path: str, found: dict[str, Spot]) -> list[str]:
    """Paths that may have been meant, the likeliest first."""
    where, _, name = path.rpartition(".")
    names = list(found)
    if where in found and (word := found[where].field.word) is not None:
        names += [f"{where}.{each.name}" for each in word.bits]
    beside = {each.rpartition(".")[2]: each for each in names if each.rpartition(".")[0] == where}
    near = [beside[each] for each in difflib.get_close_matches(name, beside, n=_SHOWN)]
    near += [each for each in names if each.rpartition(".")[2] == name]
    near += difflib.get_close_matches(path, names, n=_SHOWN, cutoff=0.7)
    return list(dict.fromkeys(near))[:_SHOWN]


def _put_bytes(out: bytearray, at: int, digits: str) -> None:
    try:
        new = bytes.fromhex(digits.removeprefix("0x"))
    except ValueError:
        raise CperError(f"{digits[:_LONGEST]!r} is not a row of bytes in hexadecimal", offset=at) from None
    if at + len(new) > MAX_SIZE:
        raise CperError(f"a block has up to {MAX_SIZE} bytes", offset=at)
    if at > len(out):
        out.extend(bytes(at - len(out)))
    out[at : at + len(new)] = new


def _taken(field: Field, value: str, kinds: Kinds) -> Plain:
    """What a field is to be; a GUID also by the name of a section."""
    if field.kind is Kind.GUID:
        value = next((str(kind.guid) for kind in kinds.values() if kind.name == value), value)
    return field.taken(value)


def _number(spot: Spot, value: str, data: bytes, kinds: Kinds) -> int:
    """What a field is to be, as the number that its bytes are."""
    if value in WORDS:
        return _meant(spot, value)
    try:
        if relative := _RELATIVE.fullmatch(value):
            step = int(relative[2], 0) * (1 if relative[1] == "+" else -1)
            return spot.number(data) + step & spot.top
        if spot.bits is not None:
            return spot.bits.taken(value)
        if spot.field.kind is Kind.BYTES:
            packed = bytes.fromhex(value.removeprefix("0x"))
            return int.from_bytes(spot.field.pack(spot.field.taken(packed)), "little")
        return int.from_bytes(spot.field.pack(_taken(spot.field, value, kinds)), "little")
    except CperError as error:
        raise CperError(error.message, field=spot.path) from None
    except ValueError:
        raise CperError(f"{value[:_LONGEST]!r} is not a row of bytes in hexadecimal", field=spot.path) from None


def _meant(spot: Spot, word: str) -> int:
    if word == "overflow":
        return spot.top
    if word == "underflow":
        return min(spot.least - 1, spot.top)
    if spot.role is Role.LENGTH:
        # A length that counts its own structure is 0 then; another one takes the structure's head back.
        return -(spot.told[0] - spot.structure) & spot.top
    if spot.role is Role.OFFSET:
        return spot.at - spot.structure & spot.top
    raise CperError("cycle is for lengths and offsets", field=spot.path)


def _cut(out: bytearray, cuts: list[Spot], found: dict[str, Spot], said: set[str]) -> bytes:
    """Take away what is cut; lengths around it follow, unless an edit was about them."""
    told = said | {spot.path for spot in cuts}
    gone = _joined(cuts)
    # Where the block itself ends too early, nothing in it says so.
    followed = _joined([spot for spot in cuts if spot.entry is not None or spot.role is Role.COUNT])
    data_length = found["data_length"]
    _less(out, data_length, _overlap(followed, data_length.told), told)
    for path, spot in found.items():
        if path.endswith(".error_data_length"):
            _less(out, spot, _overlap(followed, spot.told), told)
    if (raw := found["raw_data_offset"]).number(out):
        _less(out, raw, _overlap(followed, data_length.told), told)
    for start, end in reversed(gone):
        del out[start:end]
    return bytes(out)


def _less(out: bytearray, spot: Spot, size: int, told: set[str]) -> None:
    if size and spot.path not in told:
        spot.put(out, spot.number(out) - size & spot.top)


def _joined(cuts: list[Spot]) -> list[Range]:
    """The bytes that are taken away, as ranges in order, none of them twice."""
    out: list[Range] = []
    for start, end in sorted((spot.cut, max(spot.end, spot.cut)) for spot in cuts):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(end, out[-1][1]))
        else:
            out.append((start, end))
    return out


def _overlap(gone: list[Range], told: Range) -> int:
    return sum(max(0, min(end, told[1]) - max(start, told[0])) for start, end in gone)
