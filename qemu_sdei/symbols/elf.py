"""Symbols of ELF files: a kernel (vmlinux), a bare-metal program, a module (.ko).

pyelftools reads headers and sections, through a stream that ends when more was read than headers can have: a file may
lie about every number in it. Symbols are read here: 300,000 of them one by one take pyelftools ten seconds.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any, Final, cast

from qemu_sdei.errors import UsageError
from qemu_sdei.symbols import notes
from qemu_sdei.symbols.symbol_table import GLOBAL, LOCAL, MARKER, MAX_NAME, WEAK, Entry, SymbolTable, is_function

MAGIC: Final = b"\x7fELF"
MAX_SYMBOLS: Final = 1 << 21
"""Symbols of any kind."""
MAX_STRINGS: Final = 64 << 20
"""Bytes of their names."""
MAX_SECTIONS: Final = 1 << 14
MAX_HEADERS: Final = 16 << 20
"""Bytes that are read of headers and of the sections' names."""
_SYMBOL: Final = struct.Struct("<IBBHQQ")
_AARCH64: Final = "EM_AARCH64"
_ALLOC, _EXEC = 2, 4
_TYPELESS, _FUNCTION = 0, 2
_SPECIAL: Final = 0xFF00
"""Section numbers from here on are none (SHN_LORESERVE)."""


@dataclass(frozen=True)
class Section:
    """A section that is in memory when the program runs."""

    name: str
    address: int
    size: int
    align: int
    code: bool


@dataclass(frozen=True)
class Program:
    """A kernel, or a bare-metal program: linked to addresses."""

    table: SymbolTable
    build_id: str | None


@dataclass(frozen=True)
class ModuleFile:
    """A kernel module: each section may be anywhere."""

    name: str
    build_id: str | None
    release: str | None
    """Of its kernel: the first word of its vermagic."""
    sections: tuple[Section, ...]
    symbols: tuple[tuple[int, Entry], ...] = field(repr=False)
    """Section, as an index into `sections`, and symbol; its address counts from the section's begin."""
    source: str

    def at(self, base: int) -> dict[str, int]:
        """Where its sections are in a module that /proc/modules shows at `base`.

        Linux puts code first, in the file's order, and what begins with `.init` elsewhere (kernel/module/main.c,
        `layout_sections`). A module's `.plt` grows when it is loaded: what comes behind it is not known.
        """
        places: dict[str, int] = {}
        at = base
        for section in self.sections:
            if not section.code or section.name.startswith(".init"):
                continue
            if section.name == ".plt":
                break
            at = -(-at // section.align) * section.align
            places[section.name] = at
            at += section.size
        return places

    def placed(self, places: dict[str, int]) -> SymbolTable:
        """Its symbols, with the sections of `places` at those addresses."""
        bases = {number: places[s.name] for number, s in enumerate(self.sections) if s.name in places}
        ends = [bases[number] + self.sections[number].size for number in bases]
        return SymbolTable(
            (
                Entry(bases[number] + entry.address, entry.size, entry.binding, entry.name, self.name)
                for number, entry in self.symbols
                if number in bases
            ),
            ends,
            source=self.source,
        )


def read(file: IO[bytes], source: str) -> Program | ModuleFile:
    """What an ELF file holds; `source` is its name in errors.

    Raises:
        UsageError: it is not for arm64, has no symbols, is no kernel, program or module, or is damaged.
    """
    from elftools.elf.elffile import ELFFile  # here: it takes 50 ms, and few commands need it

    try:
        return _read(file, ELFFile(cast(IO[bytes], _Bounded(file, MAX_HEADERS))), source)
    except UsageError:
        raise
    except Exception as error:  # of a damaged file pyelftools raises what its parts raise
        raise UsageError(f"{source} is a damaged ELF file ({type(error).__name__})") from None


def _read(file: IO[bytes], elf: Any, source: str) -> Program | ModuleFile:
    if elf.elfclass != 64 or not elf.little_endian or elf.header["e_machine"] != _AARCH64:
        raise UsageError(f"{source} is an ELF file for {elf.get_machine_arch()}, and guests are arm64")
    kind = elf.header["e_type"]
    if kind not in ("ET_EXEC", "ET_DYN", "ET_REL"):
        raise UsageError(f"{source} is an ELF file of type {kind}: give a kernel (vmlinux), a program or a module")
    if elf.num_sections() > MAX_SECTIONS:
        raise UsageError(f"{source} is a damaged ELF file: it has {elf.num_sections()} sections")
    sections: list[Section | None] = []
    tables: list[Any] = []
    build_id = release = None
    module = None
    for section in elf.iter_sections():
        header = section.header
        flags = header["sh_flags"]
        if header["sh_type"] == "SHT_SYMTAB":
            tables.append(section)
        if header["sh_type"] == "SHT_NOTE" and build_id is None:
            build_id = notes.build_id(_bytes(file, header, notes.MAX_NOTES))
        if section.name == ".modinfo":
            module, release = _modinfo(_bytes(file, header, 1 << 16))
        if not flags & _ALLOC:
            sections.append(None)
            continue
        align = max(1, min(header["sh_addralign"], 1 << 21))
        code = bool(flags & _EXEC)
        sections.append(Section(section.name, header["sh_addr"], header["sh_size"], align, code))
    if not tables:
        raise UsageError(f"{source} has no symbol table: it was stripped")
    table = tables[0].header
    names = elf.get_section(table["sh_link"]).header
    symbols = _symbols(file, table, names, sections, source)
    if kind == "ET_REL":
        if module is None:
            raise UsageError(f"{source} is an object file: give a kernel (vmlinux), a program or a module (.ko)")
        kept = tuple(section or Section("", 0, 0, 1, False) for section in sections)
        code_only = tuple((number, entry) for number, entry, code in symbols if code)
        return ModuleFile(module, build_id, release, kept, code_only, source)
    ends = [section.address + section.size for section in sections if section and section.code]
    others: list[int] = list(ends)
    entries: list[Entry] = []
    for _, entry, code in symbols:
        if code:
            entries.append(entry)
        else:
            others.append(entry.address)
    return Program(SymbolTable(entries, others, source=source), build_id)


def _symbols(
    file: IO[bytes], table: Any, strings: Any, sections: list[Section | None], source: str
) -> Iterator[tuple[int, Entry, bool]]:
    """Section, symbol, and whether it is a function, of each symbol that is in memory."""
    if table["sh_size"] > MAX_SYMBOLS * _SYMBOL.size or strings["sh_size"] > MAX_STRINGS:
        raise UsageError(f"{source} has more symbols than any kernel: {table['sh_size'] // _SYMBOL.size}")
    data = _bytes(file, table, MAX_SYMBOLS * _SYMBOL.size, source)
    names = _bytes(file, strings, MAX_STRINGS, source)
    end = len(data) // _SYMBOL.size * _SYMBOL.size
    for name_at, info, _, number, value, size in _SYMBOL.iter_unpack(memoryview(data)[:end]):
        if not 0 < number < _SPECIAL or number >= len(sections):
            continue
        section = sections[number]
        if section is None:
            continue
        kind, binding = info & 15, info >> 4
        stop = names.find(b"\0", name_at, name_at + MAX_NAME)
        name = names[name_at:stop].decode("utf-8", "replace") if stop > name_at else ""
        code = section.code and kind in (_FUNCTION, _TYPELESS) and is_function(name)
        if not code and kind == _TYPELESS and section.code:
            continue  # the compiler's own names, inside of functions
        rank = LOCAL if binding == 0 else WEAK if binding == 2 else GLOBAL if kind == _FUNCTION else MARKER
        yield number, Entry(value, size, rank, name), code


def _bytes(file: IO[bytes], header: Any, limit: int, source: str = "") -> bytes:
    """A section's bytes. With `source`: all of them must be there."""
    if header["sh_type"] == "SHT_NOBITS":
        return b""
    file.seek(header["sh_offset"])
    data = file.read(min(header["sh_size"], limit))
    if source and len(data) < header["sh_size"]:
        raise UsageError(f"{source} is a damaged ELF file: it is cut short")
    return data


def _modinfo(data: bytes) -> tuple[str | None, str | None]:
    """A module's name, and its kernel's release."""
    values = dict(part.split(b"=", 1) for part in data.split(b"\0") if b"=" in part)
    name = values.get(b"name", b"").decode("utf-8", "replace").replace("-", "_")[:64]
    words = values.get(b"vermagic", b"").decode("utf-8", "replace").split()
    return name or None, words[0][:64] if words else None


class _Bounded(io.RawIOBase):
    """A file of which only so many bytes are read altogether."""

    def __init__(self, file: IO[bytes], limit: int) -> None:
        super().__init__()
        self._file = file
        self._left = limit
        self._size = file.seek(0, os.SEEK_END)
        file.seek(0)

    def read(self, size: int | None = -1) -> bytes:
        """As a file's. Raises `ValueError`: the limit is reached."""
        data = self._file.read(self._left + 1 if size is None or size < 0 else min(size, self._left + 1))
        self._left -= len(data)
        if self._left < 0:
            raise ValueError("its headers have no end")
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As a file's. Raises `ValueError`: behind its end."""
        if whence == os.SEEK_SET and offset > self._size:
            raise ValueError("it points behind its end")
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As a file's."""
        return self._file.tell()
