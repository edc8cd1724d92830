"""Symbols that a kernel carries in itself: its kallsyms table, as it lies in the arm64 Image (CONFIG_KALLSYMS).

So the kernel that the guest was booted with names its own functions: no vmlinux, no System.map is needed. The table is
made by scripts/kallsyms.c. Names are strings of token numbers; each token is a piece of text, 256 of them:

    kallsyms_num_syms       u32
    kallsyms_names          of each symbol: its length in tokens (7 bits, or 14 since 6.1), then their numbers
    kallsyms_markers        u32: where each 256th name begins
    kallsyms_token_table    256 strings, each with a NUL
    kallsyms_token_index    256 u16: where each begins

with, for the addresses, `kallsyms_offsets` (u32 each) and `kallsyms_relative_base` (u64, what they count from): before
all that until 6.3, behind it since 6.4. 6.2 and 6.3 have another array before the tokens. Everything is aligned to 8
bytes. Nothing says where it is: it is found by the tokens of the digits, which stand one behind the other.

A kernel that relocates itself has 0 for the base in the file. It is `_text`, or `_stext` where data is left out
(CONFIG_KALLSYMS_ALL): a multiple of 64 KiB, so one address whose symbol is known makes up for it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from qemu_sdei.symbols import notes
from qemu_sdei.symbols.symbol_table import GLOBAL, LOCAL, MAX_SYMBOLS, WEAK, Entry, SymbolTable, is_function

_DIGITS: Final = b"".join(b"%d\0" % digit for digit in range(10))
_TOKENS: Final = 256
_INDEX: Final = struct.Struct("<256H")
_MAX_TOKEN: Final = 64
_BLOCK: Final = 256
"""Names from one marker to the next."""
_MAX_BLOCK: Final = _BLOCK * 130
_MAX_BETWEEN: Final = 8 << 20
"""Bytes from the markers to the tokens: 3 for each symbol in 6.2 and 6.3."""
_MIN_SYMBOLS: Final = 1000
_MAX_PLACES: Final = 16
"""Places that look like the digits' tokens: more are not looked at."""
_BINDINGS: Final = {"T": GLOBAL, "W": WEAK, "t": LOCAL, "w": WEAK}
_BANNER: Final = re.compile(rb"Linux version ([\w.+~-]{1,64}) \(")
_BUILD_ID: Final = b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0"


@dataclass(frozen=True)
class ImageSymbols:
    """What a kernel's Image says of itself."""

    table: SymbolTable | None
    """Its functions; None: it has no kallsyms, or one of a form that is not known here."""
    build_id: str | None
    release: str | None
    """Such as "6.1.0-56-arm64"."""


def read(image: bytes, source: str) -> ImageSymbols:
    """What `image`, an uncompressed arm64 Image, says of itself; `source` is its name in errors. A damaged one says
    less.
    """
    banner = _BANNER.search(image)
    try:
        table = _table(image, source)
    except (IndexError, struct.error):  # it was cut
        table = None
    return ImageSymbols(table, build_id(image), banner[1].decode() if banner else None)


def build_id(image: bytes) -> str | None:
    """The kernel's build id; None: it has none. The vDSOs in the kernel have their own: they are whole ELF files."""
    at = -1
    inner = [found.start() for found in re.finditer(rb"\x7fELF\x02\x01\x01|\x7fELF\x01\x01\x01", image)]
    while (at := image.find(_BUILD_ID, at + 1)) >= 0:
        if at % 4 == 0 and not any(begin < at < begin + _elf_size(image, begin) for begin in inner[:64]):
            return notes.build_id(image[at : at + 64])
    return None


def _elf_size(image: bytes, begin: int) -> int:
    """Bytes of an ELF file within the image: its section headers are its end."""
    wide = image[begin + 4] == 2
    layout, at = ("<Q10xHHH", 40) if wide else ("<I10xHHH", 32)
    try:
        offset, size, count, _ = struct.unpack_from(layout, image, begin + at)
    except struct.error:
        return 0
    return min(int(offset + size * count), 1 << 20)


def _table(image: bytes, source: str) -> SymbolTable | None:
    at = -1
    for _ in range(_MAX_PLACES):
        at = image.find(_DIGITS, at + 1)
        if at < 0:
            break
        found = _Tokens.around(image, at)
        if found is None:
            continue
        names = _names(image, found)
        if names is None:
            continue
        begin, count = names
        addresses = _addresses(image, begin, count, found.end)
        if addresses is not None:
            code: list[Entry] = []
            others: list[int] = []
            for address, text in zip(addresses, _decoded(image, begin, count, found.words), strict=False):
                binding = _BINDINGS.get(text[:1])
                if binding is None or not is_function(text[1:]):
                    others.append(address)
                else:
                    code.append(Entry(address, 0, binding, text[1:]))
            return SymbolTable(code, others, source=source)
    return None


@dataclass(frozen=True)
class _Tokens:
    """The two arrays of tokens."""

    words: list[str]
    begin: int
    end: int
    """Of the index."""

    @classmethod
    def around(cls, image: bytes, digits: int) -> _Tokens | None:
        """With those of the digits at `digits`; None: these are others."""
        at = digits
        for _ in range(ord("0"), _TOKENS):
            at = image.find(b"\0", at, at + _MAX_TOKEN) + 1
            if not at:
                return None
        index_at = at + 7 & ~7
        if index_at + _INDEX.size > len(image):
            return None
        index = _INDEX.unpack_from(image, index_at)
        begin = digits - index[ord("0")]
        if index[0] or begin < 0 or any(b <= a for a, b in pairwise(index)):
            return None
        if begin + index[-1] >= at:
            return None
        words = []
        for offset in index:
            stop = image.find(b"\0", begin + offset, begin + offset + _MAX_TOKEN)
            if stop < 0:
                return None
            words.append(image[begin + offset : stop].decode("latin-1"))
        return cls(words, begin, index_at + _INDEX.size)


def _names(image: bytes, tokens: _Tokens) -> tuple[int, int] | None:
    """Where the names begin, and how many there are. Found from their markers: 0, and then each larger."""
    area = memoryview(image)[: tokens.begin]
    for at in range(tokens.begin - 8 & ~7, max(8, tokens.begin - _MAX_BETWEEN), -8):
        if any(area[at : at + 4]):
            continue
        first, second = struct.unpack_from("<II", area, at + 4) if at + 12 <= len(area) else (0, 0)
        if not 2 * _BLOCK <= first <= _MAX_BLOCK or not first + 2 * _BLOCK <= second <= first + _MAX_BLOCK:
            continue
        if found := _names_before(image, at, _markers(area, at)):
            return found
    return None


def _markers(area: memoryview, at: int) -> list[int]:
    """The numbers from `at` on, as long as each can be a marker."""
    markers = [0]
    for (value,) in struct.iter_unpack("<I", area[at + 4 : at + 4 + (len(area) - at - 4) // 4 * 4]):
        if not markers[-1] + 2 * _BLOCK <= value <= markers[-1] + _MAX_BLOCK or len(markers) > MAX_SYMBOLS // _BLOCK:
            break
        markers.append(value)
    return markers


def _names_before(image: bytes, end: int, markers: list[int]) -> tuple[int, int] | None:
    """The names that end a little before `end` and have these markers."""
    lowest = max(8, end - markers[-1] - _MAX_BLOCK)
    for begin in range(end - markers[-1] - 2 & ~7, lowest, -8):
        (count,) = struct.unpack_from("<Q", image, begin - 8)
        if _MIN_SYMBOLS <= count <= MAX_SYMBOLS and -(-count // _BLOCK) == len(markers):
            at = 0
            for _ in range(_BLOCK):
                at = _next(image, begin + at) - begin
            if at == markers[1]:
                return begin, count
    return None


def _next(image: bytes, at: int) -> int:
    """Where the name behind the one at `at` is."""
    length = image[at]
    if length < 0x80:
        return at + 1 + length
    return at + 2 + (length & 0x7F | image[at + 1] << 7)


def _decoded(image: bytes, begin: int, count: int, words: list[str]) -> Iterator[str]:
    """The letter and name of each symbol."""
    at = begin
    word = words.__getitem__
    for _ in range(count):
        length = image[at]
        at += 1
        if length >= 0x80:
            length = length & 0x7F | image[at] << 7
            at += 1
        yield "".join(map(word, image[at : at + length]))
        at += length


def _addresses(image: bytes, names: int, count: int, tokens_end: int) -> list[int] | None:
    """Of each symbol."""
    size = count * 4 + 7 & ~7
    for offsets, base in ((names - 16 - size, names - 16), (tokens_end, tokens_end + size)):
        if offsets < 0 or base + 8 > len(image):
            continue
        found = struct.unpack_from(f"<{count}I", image, offsets)
        if found[0] < 1 << 24 and found[-1] > found[0] and list(found) == sorted(found):
            (first,) = struct.unpack_from("<Q", image, base)
            return [first + offset for offset in found]
    return None
