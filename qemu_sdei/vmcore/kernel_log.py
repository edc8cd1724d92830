"""The kernel log in a dump: the ring buffer that Linux has since 5.10 (kernel/printk/printk_ringbuffer.c).

Descriptors, a power of two of them, say where the text of a record is in a ring of bytes; positions there count on and
on, and where one is in the ring is said by its low bits.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from qemu_sdei.errors import UsageError
from qemu_sdei.vmcore.kernel_memory import KernelMemory
from qemu_sdei.vmcore.vmcoreinfo import VmcoreInfo

_MAX_COUNT_BITS: Final = 20
_MAX_SIZE_BITS: Final = 26
_MAX_STRUCTURE: Final = 128
_ID: Final = (1 << 62) - 1
_COMMITTED, _FINALIZED = 1, 2
_BLOCK_HEAD: Final = 8


@dataclass(frozen=True)
class Record:
    """What one printk said."""

    nanoseconds: int
    """Since the kernel began."""
    text: str

    def lines(self) -> list[str]:
        """As dmesg prints it."""
        seconds, rest = divmod(self.nanoseconds, 1_000_000_000)
        return [f"[{seconds:5}.{rest // 1000:06}] {line}" for line in self.text.split("\n")]


def kernel_log(memory: KernelMemory, info: VmcoreInfo) -> list[Record]:
    """All records that are whole, oldest first. Raises `UsageError`: the log is not there, or is damaged."""
    buffer = memory.word(info.symbol("prb"))
    ring = buffer + info.offset("printk_ringbuffer.desc_ring")
    data = buffer + info.offset("printk_ringbuffer.text_data_ring")

    def field(base: int, member: str) -> int:
        return memory.word(base + info.offset(member))

    count_bits = field(ring, "prb_desc_ring.count_bits") & 0xFFFF_FFFF
    size_bits = field(data, "prb_data_ring.size_bits") & 0xFFFF_FFFF
    row, told = _size(info, "prb_desc"), _size(info, "printk_info")
    if not 0 < count_bits <= _MAX_COUNT_BITS or not 0 < size_bits <= _MAX_SIZE_BITS:
        raise UsageError(f"the dump's kernel log is damaged: 2^{count_bits} records, 2^{size_bits} bytes")
    descriptors = memory.read(field(ring, "prb_desc_ring.descs"), row << count_bits)
    infos = memory.read(field(ring, "prb_desc_ring.infos"), told << count_bits)
    text = memory.read(field(data, "prb_data_ring.data"), 1 << size_bits)
    head, tail = field(ring, "prb_desc_ring.head_id") & _ID, field(ring, "prb_desc_ring.tail_id") & _ID

    state_at = info.offset("prb_desc.state_var")
    block = info.offset("prb_desc.text_blk_lpos")
    begin_at, next_at = (block + info.offset(f"prb_data_blk_lpos.{name}") for name in ("begin", "next"))
    time_at, length_at = info.offset("printk_info.ts_nsec"), info.offset("printk_info.text_len")
    if max(state_at, begin_at, next_at) + 8 > row or max(time_at + 8, length_at + 2) > told:
        raise UsageError("the dump's VMCOREINFO is damaged: what it says of the kernel log cannot be")
    records: list[Record] = []
    size = 0
    for number in range(min((head - tail & _ID) + 1, 1 << count_bits)):
        identity = tail + number & _ID
        index = identity & (1 << count_bits) - 1
        state, begin, end = (_word(descriptors, index * row + at) for at in (state_at, begin_at, next_at))
        if state & _ID != identity or state >> 62 not in (_COMMITTED, _FINALIZED):
            continue
        (length,) = struct.unpack_from("<H", infos, index * told + length_at)
        said = _text(text, size_bits, begin, end)[:length].decode("utf-8", "replace")
        size += length
        if size > 1 << size_bits:
            raise UsageError("the dump's kernel log is damaged: its records have more text than there is room for")
        records.append(Record(_word(infos, index * told + time_at), said))
    return records


def _size(info: VmcoreInfo, structure: str) -> int:
    size = info.size(structure)
    if not 0 < size <= _MAX_STRUCTURE:
        raise UsageError(f"the dump's VMCOREINFO is damaged: SIZE({structure})={size}")
    return size


def _word(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")


def _text(ring: bytes, bits: int, begin: int, end: int) -> bytes:
    """What is between two positions; odd ones say that there is no text."""
    if begin & 1 or begin == end:
        return b""
    mask = (1 << bits) - 1
    # A block does not go over the ring's end: it is at its start then.
    start = begin & mask if begin >> bits == end - 1 >> bits else 0
    stop = ((end - 1) & mask) + 1
    return ring[start + _BLOCK_HEAD : stop]
