"""Crash dumps made here: a kernel whose memory has nothing but its log."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

RAM: Final = 0x4000_0000
IMAGE_OFFSET: Final = 0xFFFF_8000_0000_0000 - RAM
"""kimage_voffset."""
LINEAR: Final = 0xFFFF_0000_0000_0000
MEMORY: Final = 0x1_0000
"""Bytes of RAM in a dump."""
_PRB, _DESCS, _INFOS, _TEXT = 0x100, 0x1000, 0x2000, 0x8000
"""Where in RAM the parts of the log are."""
INFO: Final = {
    "OSRELEASE": "6.1.0-test",
    "BUILD-ID": "00112233445566778899aabbccddeeff00112233",
    "PAGESIZE": "4096",
    "CRASHTIME": "1796048466",
    "SYMBOL(prb)": f"{RAM + IMAGE_OFFSET + 0x10:x}",
    "OFFSET(printk_ringbuffer.desc_ring)": "0",
    "OFFSET(printk_ringbuffer.text_data_ring)": "48",
    "OFFSET(prb_desc_ring.count_bits)": "0",
    "OFFSET(prb_desc_ring.descs)": "8",
    "OFFSET(prb_desc_ring.infos)": "16",
    "OFFSET(prb_desc_ring.head_id)": "24",
    "OFFSET(prb_desc_ring.tail_id)": "32",
    "SIZE(prb_desc)": "24",
    "OFFSET(prb_desc.state_var)": "0",
    "OFFSET(prb_desc.text_blk_lpos)": "8",
    "OFFSET(prb_data_blk_lpos.begin)": "0",
    "OFFSET(prb_data_blk_lpos.next)": "8",
    "SIZE(printk_info)": "88",
    "OFFSET(printk_info.ts_nsec)": "8",
    "OFFSET(printk_info.text_len)": "16",
    "OFFSET(prb_data_ring.size_bits)": "0",
    "OFFSET(prb_data_ring.data)": "8",
    "NUMBER(VA_BITS)": "48",
    "NUMBER(PHYS_OFFSET)": f"{RAM:#x}",
    "NUMBER(kimage_voffset)": f"{IMAGE_OFFSET:#x}",
}


@dataclass(frozen=True)
class Log:
    """A kernel's log: `bits` says how many records and bytes of text it keeps, as powers of two."""

    lines: Sequence[str]
    bits: tuple[int, int] = (4, 10)

    def put(self, ram: bytearray) -> None:
        """Write it as the kernel does, one record after the other, the oldest of them overwritten."""
        count_bits, size_bits = self.bits
        records, size = 1 << count_bits, 1 << size_bits
        position = 0
        kept: list[tuple[int, int]] = []
        for number, line in enumerate(self.lines):
            text = line.encode()
            length = 8 + -(-len(text) // 8) * 8
            begin = position
            if begin % size + length > size:
                end = (begin // size + 1) * size + length
                place = 0
            else:
                end, place = begin + length, begin % size
            ram[_TEXT + place : _TEXT + place + length] = struct.pack("<Q", number) + text.ljust(length - 8, b"\0")
            index = number % records
            struct.pack_into("<3Q", ram, _DESCS + 24 * index, number | 2 << 62, begin, end)
            struct.pack_into("<QQH", ram, _INFOS + 88 * index, number, number * 1_000_500_000, len(text))
            kept = [*kept, (number, begin)][-records:]
            position = end
        kept = [(number, begin) for number, begin in kept if begin >= position - size]
        tail = kept[0][0] if kept else 0
        struct.pack_into("<Q", ram, 0x10, LINEAR + _PRB)
        ring = (count_bits, LINEAR + _DESCS, LINEAR + _INFOS, max(len(self.lines) - 1, 0), tail, 0)
        struct.pack_into("<6Q", ram, _PRB, *ring)
        struct.pack_into("<2Q", ram, _PRB + 48, size_bits, LINEAR + _TEXT)


def note(name: bytes, kind: int, data: bytes) -> bytes:
    """An ELF note."""
    head = struct.pack("<3I", len(name) + 1, len(data), kind) + (name + b"\0").ljust(len(name) + 4 & ~3, b"\0")
    return head + data.ljust(len(data) + 3 & ~3, b"\0")


def prstatus(pid: int, pc: int) -> bytes:
    """A CPU's registers: x0 to x30 are their own numbers."""
    return struct.pack("<32xI76x34Q", pid, *range(31), 0xFFFF_8000_0000_1000, pc, 0x3C5).ljust(392, b"\0")


def vmcore(
    log: Log, *, pids: Sequence[int] = (0, 77), info: dict[str, str] | None = None, ram: bytes | None = None
) -> bytes:
    """A whole dump. `info`: VMCOREINFO, in place of INFO."""
    memory = bytearray(MEMORY)
    log.put(memory)
    notes = b"".join(note(b"CORE", 1, prstatus(pid, 0xFFFF_8000_0000_2000 + 4 * n)) for n, pid in enumerate(pids))
    text = "".join(f"{key}={value}\n" for key, value in (INFO if info is None else info).items())
    notes += note(b"VMCOREINFO", 0, text.encode())
    at = 0x1000
    start = at + (len(notes) + 0xFFF & ~0xFFF)
    header = struct.pack("<16s2HI3QI6H", b"\x7fELF\2\1\1", 4, 183, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    header += struct.pack("<2I6Q", 4, 0, at, 0, 0, len(notes), len(notes), 0)
    header += struct.pack("<2I6Q", 1, 7, start, 0, RAM, MEMORY, MEMORY, 0)
    return (header.ljust(at, b"\0") + notes).ljust(start, b"\0") + (memory if ram is None else ram)
