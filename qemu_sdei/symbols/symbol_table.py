"""Symbols by address: which function an address lies in.

A table is built once and then asked often. It holds code only; of everything else it knows the addresses, because a
function ends where data begins.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from qemu_sdei.errors import UsageError
from qemu_sdei.printable import printable

MAX_SYMBOLS: Final = 1 << 20
"""Functions of one table. A kernel with everything built in has 400,000."""
MAX_NAME: Final = 512
"""Characters of a name (Linux: KSYM_NAME_LEN)."""
_TOP: Final = 1 << 64
_MAX_GUESS: Final = 1 << 16
"""Bytes that a function without a size may have: the next symbol may be far away, such as in another module."""

_ANYONES: Final = frozenset(
    ("_text", "_stext", "_etext", "_sinittext", "_einittext", "_head", "init_module", "cleanup_module")
)

_MAPPING: Final = re.compile(r"\$[adtx](?:\.|$)")
"""Mapping symbols (AAELF64 4.5.4): where code and data begin within a section."""

GLOBAL: Final = 0
WEAK: Final = 1
LOCAL: Final = 2
MARKER: Final = 3
"""Bindings, the one to prefer first. A marker is a global name without a type, such as a linker script's."""


@dataclass(frozen=True, slots=True)
class Symbol:
    """Where in a function an address is. As text it is what the kernel prints: `function+0x1c/0x80 [module]`."""

    name: str
    offset: int
    """Bytes from the function's begin."""
    size: int
    """Bytes of the function, or up to the next symbol where nobody says."""
    module: str | None = None

    def __str__(self) -> str:
        where = f" [{self.module}]" if self.module else ""
        return f"{self.name}+{self.offset:#x}/{self.size:#x}{where}"


class Entry(NamedTuple):
    """A function, as a file has it."""

    address: int
    size: int
    """0: nobody says."""
    binding: int
    """GLOBAL, WEAK, LOCAL or MARKER."""
    name: str
    module: str | None = None


def is_function(name: str) -> bool:
    """Whether a symbol's name is one that people use: not the compiler's own (`$x`, `.L12`), also with a prefix of the
    kernel's build (`__efistub_$x`), nor a table's entry.
    """
    if not name or name.startswith((".L", "__ksymtab_", "__kstrtab", "__crc_", "__UNIQUE_ID", "__kcfi")):
        return False
    return "$" not in name or _MAPPING.search(name) is None


class SymbolTable:
    """Functions by address. Addresses are those of the file; where the program runs is its user's to know."""

    def __init__(self, entries: Iterable[Entry], others: Iterable[int] = (), *, source: str = "symbols") -> None:
        """Of several names of one address, the one that people know is kept for it. Order does not matter. What lies
        outside of 64 bits is left out: a file may say so.

        Args:
            entries: functions.
            others: addresses of what is no function, or at which a section ends.
            source: their file's name, for the error.

        Raises:
            UsageError: more than `MAX_SYMBOLS`.
        """
        found: list[Entry] = []
        for entry in entries:
            if not 0 <= entry.address < _TOP:
                continue
            found.append(entry)
            if len(found) > MAX_SYMBOLS:
                raise UsageError(f"{source} has more than {MAX_SYMBOLS} functions, which no kernel has")
        found.sort(key=_address)
        self._starts = array("Q")
        self._sizes = array("Q")
        self._names: list[str] = []
        self._modules: list[str | None] = []
        self._aliases: dict[str, int | None] = {}
        """Names that an address has beside the one that is kept, and those that were asked for."""
        at = 0
        while at < len(found):
            entry = found[at]
            end = at + 1
            while end < len(found) and found[end].address == entry.address:
                end += 1
            if end > at + 1:
                same = found[at:end]
                entry = min(same, key=_preference)
                size = max(other.size for other in same)
                for other in same:
                    self._aliases.setdefault(other.name, other.address)
            else:
                size = entry.size
            at = end
            self._starts.append(entry.address)
            self._sizes.append(size)
            self._names.append(entry.name)
            self._modules.append(entry.module)
        self._ends = array("Q", sorted(other for other in others if 0 <= other < _TOP))

    def __len__(self) -> int:
        return len(self._starts)

    @property
    def first(self) -> int:
        """The lowest address of a function; 0: there is none."""
        return self._starts[0] if self._starts else 0

    def resolve(self, address: int) -> Symbol | None:
        """The function that `address` lies in; None: in none."""
        at = bisect_right(self._starts, address) - 1
        if at < 0:
            return None
        start, size = self._starts[at], self._sizes[at]
        if address - start >= size:  # no size, or in what pads the function
            size = self._room(at)
            if address - start >= size:
                return None
        module = self._modules[at]
        return Symbol(printable(self._names[at]), address - start, size, module and printable(module))

    def range_of(self, name: str) -> tuple[int, int] | None:
        """Address and size (bytes) of the function `name`; None: there is none. Of several, the first one's."""
        address = self.address_of(name)
        if address is None:
            return None
        at = bisect_right(self._starts, address) - 1
        return address, self._sizes[at] or self._room(at)

    def ranges_of(self, name: str) -> list[tuple[int, int]]:
        """Address and size (bytes) of each function `name`: files have static ones of the same name. A look at all."""
        found = [
            (self._starts[at], self._sizes[at] or self._room(at))
            for at, known in enumerate(self._names)
            if known == name
        ]
        one = None if found else self.range_of(name)
        return found if one is None else [one]

    @property
    def names(self) -> Sequence[str]:
        """Of each function the name that is kept for it."""
        return self._names

    def address_of(self, name: str) -> int | None:
        """Where the function `name` begins; None: there is none."""
        if name not in self._aliases:
            # Some few names are asked for again and again.
            found = self._names.index(name) if name in self._names else None
            self._aliases[name] = None if found is None else self._starts[found]
        return self._aliases[name]

    def some_names(self, count: int) -> Sequence[tuple[str, int]]:
        """About `count` names with their addresses, from all over the kernel proper; no names that it has twice."""
        step = max(1, len(self._names) // count)
        chosen = [at for at in range(0, len(self._names), step) if self._modules[at] is None]
        return [(self._names[at], self._starts[at]) for at in chosen]

    def addresses(self, names: Iterable[str]) -> dict[str, int]:
        """Addresses of those of `names` that the kernel proper has once."""
        wanted = set(names)
        found: dict[str, int] = {}
        twice: set[str] = set()
        for at, name in enumerate(self._names):
            if name in wanted and self._modules[at] is None:
                if name in found:
                    twice.add(name)
                found[name] = self._starts[at]
        return {name: address for name, address in found.items() if name not in twice}

    def _room(self, at: int) -> int:
        """Bytes from a function's begin to whatever comes next, if that is near."""
        start = self._starts[at]
        ends = [start + _MAX_GUESS]
        if at + 1 < len(self._starts):
            ends.append(self._starts[at + 1])
        other = bisect_right(self._ends, start)
        if other < len(self._ends):
            ends.append(self._ends[other])
        return min(ends) - start


def _address(entry: Entry) -> int:
    return entry.address


def _preference(entry: Entry) -> tuple[bool, int, int, int, str]:
    """A global function before others; names of begin and end of something, and those of every module, last."""
    name = entry.name
    marker = name.startswith(("__start_", "__stop_", "__end_")) or name.endswith(("_start", "_end", "_begin"))
    marker = marker or name in _ANYONES
    underscores = len(name) - len(name.lstrip("_"))
    return marker, entry.binding, underscores, len(name), name
