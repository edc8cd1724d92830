"""The tables as a page of the documentation has them: `python scripts/docgen.py` prints it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from qemu_sdei.ras.block import BLOCK
from qemu_sdei.ras.entry import DESCRIPTOR, ENTRY
from qemu_sdei.ras.fields import Bits, Field, Kind, Word
from qemu_sdei.ras.items import Choice, Extent, Item, Many, Part
from qemu_sdei.ras.kinds import KINDS, SectionKind
from qemu_sdei.ras.record import RECORD
from qemu_sdei.ras.structure import Table


def kinds() -> str:
    """A row for each kind of section."""
    rows = ["| section | type | libcper's member | source |", "|---|---|---|---|"]
    rows += [_kind(kind) for kind in KINDS.values()]
    return "\n".join(rows)


def _kind(kind: SectionKind) -> str:
    anchor = kind.table.title.lower().replace(" ", "-")
    return f"| [`{kind.name}`](#{anchor}) | `{kind.guid}` | `{kind.key}` | {kind.table.source} |"


def tables() -> str:
    """A chapter for each section with its structures, then those of blocks and records. What is in several is said
    once.
    """
    out: list[str] = []
    seen: set[str] = set()
    for table in (*(kind.table for kind in KINDS.values()), BLOCK, ENTRY, RECORD, DESCRIPTOR):
        out += _chapter(table, "###", seen)
    return "\n".join(out)


def _chapter(table: Table, level: str, seen: set[str]) -> Iterator[str]:
    if table.name in seen:
        return
    seen.add(table.name)
    yield f"{level} {table.title}"
    if table.source:
        yield f"{table.source}."
    yield ""
    registers = [item for item in table.items if isinstance(item, Field)]
    if len(registers) == len(table.items) and not any(_says_more(item) for item in registers):
        sizes = {item.size for item in registers}
        if len(sizes) == 1:
            names = ", ".join(item.title for item in registers)
            yield f"{len(registers)} registers of {sizes.pop()} bytes: {names}."
            yield ""
            return
    yield "| offset | bytes | field | attribute | JSON | valid | values |"
    yield "|---|---|---|---|---|---|---|"
    at: int | None = 0
    for item in table.items:
        yield _row(item, at, table.validity)
        at = None if at is None or not isinstance(item, Field | Part) else at + _size(item)
    yield ""
    for item in table.items:
        for inner in _inner(item):
            yield from _chapter(inner, level + "#" if len(level) < 4 else level, seen)


def _says_more(item: Field) -> bool:
    return bool(item.names or item.word or item.words or item.reserved or item.valid is not None)


def _size(item: Field | Part) -> int:
    return item.size if isinstance(item, Field) else item.table.fixed_size


def _inner(item: Item) -> list[Table]:
    if isinstance(item, Choice):
        return list(item.tables.values())
    return [item.table] if isinstance(item, Part | Many) else []


def _row(item: Item, at: int | None, validity: str) -> str:
    size = str(_size(item)) if isinstance(item, Field | Part) else _length(item)
    valid = "" if item.valid is None else str(item.valid)
    hidden = getattr(item, "reserved", False) or getattr(item, "hidden", False)
    name = "" if hidden else f"`{item.name}`"
    place = "" if at is None else f"{at:#x}"
    key = "" if hidden or item.name == validity else _key(item)
    cells = (place, size, item.title, name, key, valid, _values(item))
    return re.sub(r"\|  (?=\|)", "| ", f"| {' | '.join(cells)} |")


def _key(item: Item) -> str:
    """Its key in JSON; of bits that stand in the object around theirs."""
    if item.json.flat and isinstance(item, Field) and item.word is not None:
        return ", ".join(f"`{bits.key}`" for bits in item.word.bits if not bits.reserved)
    return "" if item.json.unsaid else f"`{item.key}`"


def _length(item: Many | Extent) -> str:
    if isinstance(item, Many):
        return f"{item.table.fixed_size} each"
    if item.size:
        return str(item.size)
    if not item.length:
        return "the rest"
    return f"up to `{item.length}`" if item.from_start else f"`{item.length}`"


def _values(item: Item) -> str:
    if isinstance(item, Part):
        return item.table.title
    if isinstance(item, Many):
        return f"{item.table.title}, `{item.count}` of them"
    if isinstance(item, Choice):
        by = f"by `{item.by}`: " if item.by else ""
        return by + ", ".join(
            f"{value} {table.title}" if item.by else table.title for value, table in item.tables.items()
        )
    if isinstance(item, Extent):
        return "bytes"
    parts = [_names(item.names), _otherwise(item), _word(item.word)]
    if item.words is not None:
        by, words = item.words
        named: dict[int, tuple[Word, list[int]]] = {}
        for value, word in words.items():
            named.setdefault(id(word), (word, []))[1].append(value)
        told = (f"{', '.join(map(str, values))} {word.title}: {_word(word)}" for word, values in named.values())
        parts.append(f"by `{by}`: " + "; ".join(told))
    if item.kind is not Kind.NUMBER and not item.reserved:
        parts.append(item.kind.value)
    return "; ".join(filter(None, parts))


def _otherwise(item: Field) -> str:
    return f"else {item.otherwise}" if item.otherwise else ""


def _names(names: Mapping[int, str]) -> str:
    return ", ".join(f"{value} {name}" for value, name in names.items()).replace("|", "+")


def _word(word: Word | None) -> str:
    return ", ".join(_bits(each) for each in word.bits if not each.reserved) if word is not None else ""


def _bits(bits: Bits) -> str:
    place = str(bits.low) if bits.width == 1 else f"{bits.low + bits.width - 1}:{bits.low}"
    valid = f" (valid {bits.valid})" if bits.valid is not None else ""
    names = f" ({_names(bits.names)})" if bits.names else ""
    return f"[{place}] `{bits.name}`{valid}{names}"
