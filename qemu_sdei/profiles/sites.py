"""Places in the guest's code that a rule asks for: addresses, and functions by name. Pure.

A name is written as the user knows it, `pc=psci_cpu_off`. Which addresses it has is looked up where symbols are
(`qemu_sdei/symbols/call_sites.py`), and the rule then says both: `psci_cpu_off@0xffff800008012340..0xffff80000801239b`.
A kernel may lie elsewhere than its file says (KASLR). Then `~LOW..HIGH` follows: the function by which it makes its
PSCI and SDEI calls, by the file's addresses too. The PC of such a call tells where the kernel is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from qemu_sdei.errors import UsageError

GRANULE: Final = 1 << 16
"""Bytes: a Linux kernel lies a multiple of it from where its file says (`EFI_KIMG_ALIGN`)."""
INSTRUCTION: Final = 4
"""Bytes: a function's last instruction may be the call, so what comes back is looked for in front of its address."""
_KERNEL_HALF: Final = 0xFFF << 52
"""Addresses from here on are the kernel's."""
_NAME: Final = re.compile(r"[A-Za-z_.$][A-Za-z0-9_.$]{0,127}")
_MAX_SITES: Final = 16


class Site(NamedTuple):
    """Addresses, or a function.

    Attributes:
        low, high: the first and the last address; of a name that nobody has looked up both are -1.
        name: of a function; empty: addresses only.
        anchor: where the file has the function of all calls, first and last address; None: `low` and `high` are where
            the guest has them.
    """

    low: int
    high: int
    name: str = ""
    anchor: tuple[int, int] | None = None

    @property
    def unplaced(self) -> bool:
        """Whether nobody has looked the name up."""
        return self.low < 0

    def has(self, address: int, distance: int | None) -> bool:
        """Whether `address` is there. `distance`: by how much the kernel lies elsewhere; None: not known."""
        if self.name:
            address -= INSTRUCTION
        if self.anchor is not None:
            if distance is None:
                return False
            address -= distance
        return self.low <= address <= self.high


Sites = tuple[Site, ...]


def distance_of(pc: int, anchor: tuple[int, int]) -> int | None:
    """By how much the kernel lies elsewhere than its file says, in bytes, if `pc` is that of a call of its function
    `anchor`; None: it is none.
    """
    low, high = anchor
    inside = (pc - low) % GRANULE
    if pc < _KERNEL_HALF or inside > high - low + 1:
        return None
    return pc - inside - low


def read(text: str, number: Callable[[str], int]) -> Sites:
    """Addresses, ranges of them and names. `number` reads one address. Raises `UsageError`."""
    items = text.split(",")
    if len(items) > _MAX_SITES:
        raise UsageError(f"more than {_MAX_SITES} places")
    return tuple(_site(item, number) for item in items)


def written(site: Site) -> str:
    """As `read` reads it."""
    if site.unplaced:
        return site.name
    text = f"{site.low:#x}" if site.low == site.high else f"{site.low:#x}..{site.high:#x}"
    if site.name:
        text = f"{site.name}@{text}"
    return text if site.anchor is None else f"{text}~{site.anchor[0]:#x}..{site.anchor[1]:#x}"


def _site(item: str, number: Callable[[str], int]) -> Site:
    name, at, place = item.partition("@")
    if not at:
        if _NAME.fullmatch(item):
            return Site(-1, -1, item)
        name, place = "", item
    elif _NAME.fullmatch(name) is None:
        raise UsageError(f"{name[:40]!r} is no function's name")
    place, tilde, calls = place.partition("~")
    low, high = _range(place, number)
    return Site(low, high, name, _range(calls, number) if tilde else None)


def _range(text: str, number: Callable[[str], int]) -> tuple[int, int]:
    first, dots, last = text.partition("..")
    low = number(first)
    high = number(last) if dots else low
    if high < low:
        raise UsageError(f"the range {text} ends before it begins")
    return low, high
