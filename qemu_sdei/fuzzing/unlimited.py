"""Linux' limits on what it prints of hardware errors, lifted in a copy of a guest.

No more than two errors in five seconds are printed, of each kind, by two `struct ratelimit_state` of drivers/acpi/apei
(ghes_print_estatus) that no sysctl reaches. What goes through a record's lengths and counts to print it would be met by
one case of a few otherwise. They are found by the kernel's own list of symbols, or where that has no data (no
KALLSYMS_ALL) by what they look like: two of them lie one behind the other, and no others do. What is not as it should
be is left alone. They get an interval of 0: without limit (lib/ratelimit.c).
"""

from __future__ import annotations

import contextlib
import mmap
import re
import struct
from typing import Final

from qemu_sdei.errors import SdeiError
from qemu_sdei.guest.guest import Guest

_COMMAND: Final = (
    "grep -E ' (ratelimit_(un)?corrected([.][0-9]+)?|_sdata)$' /proc/kallsyms; grep 'Kernel data' /proc/iomem"
)
_SYMBOL: Final = re.compile(r"^([0-9a-f]{16}) \w (\S+)$", re.MULTILINE)
_DATA: Final = re.compile(r"^\s*([0-9a-f]{8,16})-([0-9a-f]{8,16}) : Kernel data", re.MULTILINE)
_STATE: Final = struct.Struct("<Iii")
"""Lock, interval in jiffies, burst."""
_SIZE: Final = 40
"""Bytes of one."""
_SECONDS: Final = 5
_HZ: Final = (100, 250, 300, 1000)
_BURST: Final = 2
_LONGEST: Final = 600.0


def lift(guest: Guest) -> int:
    """Lift the limits of the kernel in `guest`, which has a shell of ours. Returns how many: 2, or 0 where they are not
    found.
    """
    text = guest.run(_COMMAND, timeout=_LONGEST).output
    ram = guest.placement.ram
    lifted = 0
    with contextlib.suppress(SdeiError, OSError, ValueError), mmap.mmap(ram.fd, ram.size) as memory:
        for address in addresses(text) or alike(text, memory, ram.addresses.start):
            at = address - ram.addresses.start
            if 0 <= at <= ram.size - _STATE.size and is_limit(memory[at : at + _STATE.size]):
                memory[at + 4 : at + 8] = bytes(4)
                lifted += 1
    return lifted


def addresses(text: str) -> list[int]:
    """Physical addresses of the limits, by the kernel's lists of its symbols and of its memory."""
    symbols = {name: int(address, 16) for address, name in _SYMBOL.findall(text)}
    base, data = symbols.pop("_sdata", 0), _DATA.search(text)
    if not base or data is None:
        return []
    start, end = int(data[1], 16), int(data[2], 16)
    found = [start + address - base for address in symbols.values()]
    return [address for address in found if start <= address <= end and not address % 4][:_BURST]


def alike(text: str, memory: bytes | mmap.mmap, base: int) -> list[int]:
    """Physical addresses of two limits one behind the other in the kernel's data; empty unless that is so once.

    Args:
        text: the kernel's list of its memory.
        memory: the guest's RAM.
        base: its physical address.
    """
    data = _DATA.search(text)
    if data is None:
        return []
    start, end = (int(each, 16) - base for each in data.groups())
    found = []
    for hz in _HZ:
        pattern = _STATE.pack(0, _SECONDS * hz, _BURST)
        at = memory.find(pattern, start, end)
        while at >= 0:
            if at % 4 == 0 and memory[at + _SIZE : at + _SIZE + len(pattern)] == pattern:
                found.append(base + at)
            at = memory.find(pattern, at + 4, end)
    return [found[0], found[0] + _SIZE] if len(found) == 1 else []


def is_limit(data: bytes) -> bool:
    """Whether such a limit lies there, and nobody holds its lock."""
    lock, interval, burst = _STATE.unpack(data)
    return lock == 0 and interval in [_SECONDS * hz for hz in _HZ] and burst == _BURST
