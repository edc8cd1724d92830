"""Small files with symbols, made by hand: what a compiler would not make can be made too."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

AARCH64 = 183
EXEC, REL = 2, 1
FUNCTION, TYPELESS, OBJECT = 2, 0, 1
LOCAL, GLOBAL, WEAK = 0, 1, 2


@dataclass
class Section:
    name: str
    data: bytes = b""
    address: int = 0
    flags: int = 0
    kind: int = 1
    link: int = 0
    entry: int = 0
    size: int | None = None
    offset: int | None = None
    align: int = 4


def symbol(
    name: int, address: int, *, section: int = 1, size: int = 0, kind: int = FUNCTION, bind: int = GLOBAL
) -> bytes:
    return struct.pack("<IBBHQQ", name, bind << 4 | kind, 0, section, address, size)


def note(build_id: bytes) -> bytes:
    return struct.pack("<3I4s", 4, len(build_id), 3, b"GNU\0") + build_id


def elf(sections: Sequence[Section], *, kind: int = EXEC, machine: int = AARCH64) -> bytes:
    """An ELF file with these sections; section 1 is the first of them, the names' is added."""
    names = b"\0"
    parts = b""
    headers = [bytes(64)]
    for section in [*sections, Section(".shstrtab", kind=3)]:
        at = len(names)
        names += section.name.encode() + b"\0"
        data = names if section.name == ".shstrtab" else section.data
        size = len(data) if section.size is None else section.size
        offset = 64 + len(parts) if section.offset is None else section.offset
        headers.append(
            struct.pack(
                "<IIQQQQIIQQ", at, section.kind, section.flags, section.address, offset, size, section.link, 0,
                section.align, section.entry,
            )
        )  # fmt: skip
        parts += data + bytes(-len(data) % 8)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", kind, machine, 1, 0, 0, 64 + len(parts), 0, 64, 0, 0, 64,
        len(headers), len(headers) - 1,
    )  # fmt: skip
    return header + parts + b"".join(headers)


def program(
    functions: dict[str, tuple[int, int]],
    *,
    build_id: bytes = b"",
    kind: int = EXEC,
    text: int = 0xFFFF_8000_0801_0000,
    text_size: int = 0x40000,
    extra: Sequence[bytes] = (),
    machine: int = AARCH64,
) -> bytes:
    """A program with these functions (name to address and size) in one section of code."""
    strings = b"\0"
    table = [bytes(24)]
    for name, (address, size) in functions.items():
        table.append(symbol(len(strings), address, size=size))
        strings += name.encode("utf-8", "surrogateescape") + b"\0"
    data = b"".join([*table, *extra])
    sections = [
        Section(".text", address=text, flags=6, kind=8, size=text_size),
        Section(".note.gnu.build-id", note(build_id) if build_id else b"", flags=2, kind=7),
        Section(".symtab", data, kind=2, link=4, entry=24),
        Section(".strtab", strings, kind=3),
    ]
    return elf(sections, kind=kind, machine=machine)


LINUX = {
    "_text": (0xFFFF_8000_0800_0000, 0),
    "__sdei_asm_handler": (0xFFFF_8000_0801_6018, 0x188),
    "__arm_smccc_smc": (0xFFFF_8000_0802_8990, 0x30),
    "start_kernel": (0xFFFF_8000_0803_0BE0, 0x820),
    "schedule": (0xFFFF_8000_0803_2000, 0x80),
    "__entry_tramp_text_start": (0xFFFF_8000_0804_0000, 0),
    "__sdei_asm_entry_trampoline": (0xFFFF_8000_0804_2020, 0x48),
    "__entry_tramp_text_end": (0xFFFF_8000_0804_3000, 0),
}
"""Where a kernel has what the symbolizer looks for; two of them with sizes that a file would have."""


def linux(build_id: bytes = bytes(range(20)), move: int = 0) -> bytes:
    """A vmlinux; `move`: its functions are this much elsewhere, as in another build."""
    functions = {name: (address + move, size) for name, (address, size) in LINUX.items()}
    return program(functions, build_id=build_id, text=0xFFFF_8000_0800_0000, text_size=0x50000)


def system_map(names: dict[str, tuple[int, int]] = LINUX, move: int = 0) -> bytes:
    lines = [f"{address + move:016x} T {name}\n" for name, (address, _) in names.items()]
    return "".join(lines).encode()


def module(name: str = "sdei_test", release: str = "6.1.0-56-arm64") -> bytes:
    """A kernel module with two sections of code that stay, one that goes, and a function in each."""
    strings = b"\0on_event\0leave\0start\0"
    table = bytes(24) + symbol(1, 0x10, size=0x40) + symbol(10, 0, section=3, size=0x10) + symbol(16, 0, section=2)
    info = f"license=GPL\0name={name}\0vermagic={release} SMP mod_unload\0".encode()
    sections = [
        Section(".text", bytes(0x58), flags=6, align=8),
        Section(".init.text", bytes(0x20), flags=6),
        Section(".exit.text", bytes(0x10), flags=6, align=16),
        Section(".plt", bytes(1), flags=6, align=1),
        Section(".text.behind", bytes(4), flags=6),
        Section(".modinfo", info, flags=2),
        Section(".symtab", table, kind=2, link=8, entry=24),
        Section(".strtab", strings, kind=3),
    ]
    return elf(sections, kind=REL)
