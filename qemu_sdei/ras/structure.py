"""Tables of error records, and structures: what the bytes say by such a table.

    MEMORY = Table("memory", title="Memory Error Section", items=(u64("Validation Bits"), ...))
    section = MEMORY.make({"physical_address": 0x41e78000, "memory_error_type": "Multi-bit ECC"})
    assert MEMORY.parse(section.pack()) == section

From a table follow building, reading, checking, printing and JSON; no section has code of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from functools import cached_property
from typing import Any, Final

from qemu_sdei.errors import CperError
from qemu_sdei.ras.fields import Bits, Field
from qemu_sdei.ras.items import Choice, Extent, Item, Many, Part
from qemu_sdei.ras.taking import number_from_bits

MAX_DEPTH: Final = 8


@dataclass(frozen=True, slots=True)
class Structure:
    """What some bytes say. Attributes are read by `structure["physical_address"]`.

    It holds what stood there, also where that is wrong: `pack` gives the same bytes back.
    """

    table: Table
    values: Mapping[str, Any]
    """By attribute: numbers, GUIDs, bytes; structures of parts, tuples of those of which there are many."""
    tail: bytes = b""
    """What follows the last item of the table."""

    def __getitem__(self, name: str) -> Any:
        try:
            return self.values[name]
        except KeyError:
            raise CperError(f"a {self.table.title} has no field {name!r} here", field=name) from None

    def pack(self) -> bytes:
        """Its bytes."""
        values = self.values
        parts = [_packed(item, values[item.name]) for item in self.table.items if item.name in values]
        return b"".join(parts) + self.tail

    def items(self) -> Iterator[tuple[Item, Any, int]]:
        """Each item that is there, with its value and its offset in bytes."""
        at = 0
        for item in self.table.items:
            if item.name in self.values:
                value = self.values[item.name]
                yield item, value, at
                at += _size(item, value)

    def valid(self, item: Item) -> bool:
        """Whether its validation bit is set, or it has none. A field of which only the bits have some is valid if one
        of these is.
        """
        if item.name not in self.values:
            return False
        if item.valid is None:
            each_its_own = isinstance(item, Field) and item.word is not None and item.word.each_its_own
            return not each_its_own or self.partly_valid(item)
        return bool(self.validation_bits >> item.valid & 1)

    def partly_valid(self, item: Item) -> bool:
        """Whether it is a field of which bits have validation bits of their own, and one of these is set."""
        return isinstance(item, Field) and any(valid and bits.valid is not None for bits, _, valid in self.bits(item))

    @property
    def validation_bits(self) -> int:
        """The validation bits; 0 if the table has none."""
        return int(self.values.get(self.table.validity, 0)) if self.table.validity else 0

    def bits(self, item: Field) -> Iterator[tuple[Bits, int, bool]]:
        """The bits of a field, each with its value and whether it is valid."""
        word = item.word_for(self.values)
        if word is None:
            return
        number = int(self.values[item.name])
        mask = word[word.validity].of(number) if word.validity else self.validation_bits
        for each in word.bits:
            yield each, each.of(number), each.valid is None or bool(mask >> each.valid & 1)

    def replaced(self, **values: Any) -> Structure:
        """The same with other values; lengths, counts and validation bits stay as they are.

        Raises:
            CperError: there is no such field, or it cannot be that.
        """
        new = dict(self.values)
        for name, value in values.items():
            new[name], _ = self.table.taken(self.table[name], value, new)
        return replace(self, values=new)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in the bytes a structure is read."""

    data: bytes
    start: int
    end: int
    path: str

    def fail(self, message: str, at: int, name: str) -> CperError:
        return CperError(message, offset=at, field=f"{self.path}.{name}" if self.path else name)

    def take(self, at: int, size: int, name: str) -> bytes:
        if size > self.end - at:
            left = self.end - at
            raise self.fail(
                f"cut short: {size} bytes are needed here, {left} {'is' if left == 1 else 'are'} left", at, name
            )
        return self.data[at : at + size]


@dataclass(frozen=True, eq=False, repr=False)
class Table:
    """The description of a structure."""

    name: str
    title: str
    items: tuple[Item, ...]
    source: str = ""
    """Where it is specified."""
    validity: str = ""
    """The field with the validation bits; "": there is none, all is valid."""
    shorter: frozenset[int] = frozenset()
    """Lengths that older revisions had: such a structure ends there."""
    derived: frozenset[str] = frozenset()
    """Keys that libcper's JSON has beside, for people: they follow from the rest, and are not read."""
    by_name: Mapping[str, Item] = dataclass_field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        names = {item.name: item for item in self.items}
        assert len(names) == len(self.items), f"{self.name}: two items of one name"
        object.__setattr__(self, "by_name", names)

    def __repr__(self) -> str:
        return f"<Table {self.name}>"

    def __getitem__(self, name: str) -> Item:
        item = self.by_name.get(name)
        if item is None:
            known = ", ".join(each.name for each in self.items if not getattr(each, "reserved", False))
            raise CperError(f"{self.title} has no field {name!r}; its fields: {known}", field=name)
        return item

    @cached_property
    def fixed_size(self) -> int:
        """Bytes of all that is there in any case."""
        return sum(
            item.size if isinstance(item, Field) else item.table.fixed_size
            for item in self.items
            if isinstance(item, Field | Part)
        )

    def parse(self, data: bytes, path: str = "", offset: int = 0) -> Structure:
        """The structure that all of `data` is; what follows the table's last item is its tail.

        Args:
            data: its bytes.
            path: of the structure, for errors.
            offset: of `data` in what was read, for errors.

        Raises:
            CperError: it is cut short, or its lengths contradict each other.
        """
        try:
            found, at = self.read(_Place(data, 0, len(data), path), 0)
        except CperError as error:
            where = None if error.offset is None else error.offset + offset
            raise CperError(error.message, offset=where, field=error.field) from None
        return replace(found, tail=data[at:])

    def read(self, place: _Place, depth: int) -> tuple[Structure, int]:
        """The structure at `place`, and where it ends."""
        if depth > MAX_DEPTH:
            raise place.fail("structures are nested too deep", place.start, self.name)
        values: dict[str, Any] = {}
        at = place.start
        short = place.end - place.start in self.shorter
        for item in self.items:
            if short and at == place.end:
                break
            if isinstance(item, Field):
                values[item.name] = item.unpack(place.take(at, item.size, item.name))
                at += item.size
            elif isinstance(item, Part):
                values[item.name], at = item.table.read(_inner(place, at, item.name), depth + 1)
            elif isinstance(item, Many):
                values[item.name], at = _many(item, place, at, values, depth)
            elif not item.when or values[item.when]:
                chunk = place.take(at, _extent(item, place, at, values), item.name)
                if chunk or not item.hidden:
                    values[item.name] = _chosen(item, chunk, place, at, values)
                at += len(chunk)
        return Structure(self, values), at

    def make(self, given: Mapping[str, Any], *, tail: bytes = b"") -> Structure:
        """A structure of these values.

        What is given is valid, what is not is zero; validation bits, counts, lengths and offsets follow, unless they
        are given too.

        Args:
            given: by attribute. Of a field with bits a mapping of these may be given, of parts mappings.
            tail: bytes that follow.

        Raises:
            CperError: there is no such field, or it cannot be that; or bytes are to follow what takes all that is left.
        """
        given = {name: value for name, value in given.items() if value is not None}
        for name in given:
            self[name]
        values: dict[str, Any] = {}
        valid: set[int] = set()
        for item in self.items:
            if item.name in given:
                values[item.name], bits = self.taken(item, given[item.name], values)
                valid |= bits
            elif isinstance(item, Field):
                values[item.name] = item.zero
            elif isinstance(item, Part):
                values[item.name] = item.table.parse(bytes(item.table.fixed_size))
            elif isinstance(item, Many):
                values[item.name] = ()
            elif not item.when and not item.hidden:
                table = item.table_for(values) if isinstance(item, Choice) else None
                values[item.name] = bytes(item.size) if table is None else _structure_of(table, bytes(item.size))
        if tail and (taker := next((each for each in self.items if _takes_all(each) and each.name in values), None)):
            raise CperError(f"{taker.title!r} takes all that is left, nothing can follow it", field=taker.name)
        made = Structure(self, values, tail)
        places = {item.name: (at, at + _size(item, value)) for item, value, at in made.items()}
        places[""] = (0, max((end for _, end in places.values()), default=0))
        for item in self.items:
            if isinstance(item, Field) and item.auto is not None and item.name not in given:
                values[item.name] = self._automatic(item, values, places)
        if self.validity and self.validity not in given:
            values[self.validity] = sum(1 << number for number in valid)
        return made

    @staticmethod
    def _automatic(item: Field, values: Mapping[str, Any], places: Mapping[str, tuple[int, int]]) -> int:
        assert item.auto is not None
        start, end = places.get(item.auto.of, (0, 0))
        number = {"offset": start, "end": end, "length": end - start}.get(item.auto.what)
        if number is None:
            number = len(values[item.auto.of])
        if number >= 1 << 8 * item.size:
            raise CperError(f"{number} is more than {item.title!r} can say", field=item.name)
        return number

    def taken(self, item: Item, given: Any, values: Mapping[str, Any]) -> tuple[Any, set[int]]:
        """What is given for an item, as a structure with `values` holds it, and the numbers of its validation bits.

        Raises:
            CperError: it cannot be that.
        """
        valid = set() if item.valid is None else {item.valid}
        try:
            if isinstance(item, Field):
                if isinstance(given, Mapping):
                    return number_from_bits(item, given, values)
                return item.taken(given), valid
            if isinstance(item, Many):
                if not isinstance(given, Sequence) or isinstance(given, str | bytes):
                    raise CperError("it is not a list")
                return tuple(_made(item.table, each, f"[{n}]") for n, each in enumerate(given)), valid
            if isinstance(item, Part):
                return _made(item.table, given, ""), valid
            table = item.table_for(values) if isinstance(item, Choice) else None
            if isinstance(given, bytes):
                return (_structure_of(table, given) if table is not None else given), valid
            if isinstance(given, Structure) and isinstance(item, Choice):
                return given, valid
            if table is None:
                raise CperError(
                    "it is not bytes" if not isinstance(item, Choice) else "its kind is not known: give bytes"
                )
            return _made(table, given, ""), valid
        except CperError as error:
            raise error.below(item.name) from None


def _made(table: Table, given: Any, path: str) -> Structure:
    try:
        if isinstance(given, Structure) and given.table is table:
            return given
        if isinstance(given, bytes):
            return table.parse(given)
        if isinstance(given, Mapping):
            return table.make(given)
        raise CperError(f"it is no {table.title}")
    except CperError as error:
        raise (error.below(path) if path else error) from None


def _takes_all(item: Item) -> bool:
    return isinstance(item, Extent) and item.takes_all


def _packed(item: Item, value: Any) -> bytes:
    if isinstance(item, Field):
        return item.pack(value)
    if isinstance(value, tuple):
        return b"".join(each.pack() for each in value)
    return value if isinstance(value, bytes) else bytes(value.pack())


def _size(item: Item, value: Any) -> int:
    return item.size if isinstance(item, Field) else len(_packed(item, value))


def _inner(place: _Place, at: int, name: str) -> _Place:
    return _Place(place.data, at, place.end, f"{place.path}.{name}" if place.path else name)


def _many(
    item: Many, place: _Place, at: int, values: Mapping[str, Any], depth: int
) -> tuple[tuple[Structure, ...], int]:
    count, least, left = values[item.count], item.table.fixed_size, place.end - at
    if count * least > left:  # before any of them is read: a count is cheap to write
        raise place.fail(f"{count} times at least {least} bytes are needed, {left} are left", at, item.name)
    found = []
    for number in range(count):
        each, at = item.table.read(_inner(place, at, f"{item.name}[{number}]"), depth + 1)
        found.append(each)
    return tuple(found), at


def _extent(item: Extent, place: _Place, at: int, values: Mapping[str, Any]) -> int:
    if not item.length:
        return item.size or place.end - at
    said = int(values[item.length])
    if not item.from_start:
        return said
    before = at - place.start
    if said < before:
        raise place.fail(f"{item.length} is {said}, and {before} bytes are before this", at, item.name)
    return said - before


def _chosen(item: Extent, chunk: bytes, place: _Place, at: int, values: Mapping[str, Any]) -> Structure | bytes:
    """The structure that these bytes are, or the bytes."""
    table = item.table_for(values) if isinstance(item, Choice) else None
    if table is None:
        return chunk
    return _structure_of(table, chunk, f"{place.path}.{item.name}" if place.path else item.name, at)


def _structure_of(table: Table, chunk: bytes, path: str = "", offset: int = 0) -> Structure | bytes:
    if len(chunk) < table.fixed_size:
        return chunk
    return table.parse(chunk, path, offset)
