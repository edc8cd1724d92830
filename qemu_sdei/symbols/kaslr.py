"""Where a kernel runs: the distance from the addresses of its file to those that it has in the guest. Pure.

Linux moves its image as a whole (arch/arm64/kernel/kaslr.c, pi/kaslr_early.c, "KASLR"). The distance is a multiple of
2 MiB; where an EFI stub has put the image at an address that is no multiple of it, of 64 KiB (`EFI_KIMG_ALIGN`). So the
low 16 bits of an address stay what the file says, and one address whose symbol is known gives the distance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from qemu_sdei.symbols.symbol_table import SymbolTable

GRANULE: Final = 1 << 16
"""Bytes: each distance is a multiple of it."""
PAGE: Final = 1 << 12
_TOP: Final = 1 << 64
_KERNEL_HALF: Final = 0xFFF << 52
"""Addresses from here on are the kernel's (TTBR1, 52-bit addresses and shorter)."""

HANDLER: Final = "__sdei_asm_handler"
TRAMPOLINE: Final = "__sdei_asm_entry_trampoline"
TRAMPOLINE_BEGIN: Final = "__entry_tramp_text_start"
TRAMPOLINE_END: Final = "__entry_tramp_text_end"
SMC: Final = "__arm_smccc_smc"
"""The function with the SMC instruction by which Linux makes its PSCI and SDEI calls (kernel/smccc-call.S)."""
_LINUX: Final = (SMC, HANDLER, "start_kernel", "primary_entry")
_SAMPLES: Final = 64
_ENOUGH: Final = 0.9


@dataclass(frozen=True)
class Found:
    """What one address says of the kernel's place: one of the three, or nothing."""

    offset: int | None = None
    """Bytes to add to an address of the file; may be negative."""
    trampoline: int | None = None
    """Where the guest has what the file has at `__entry_tramp_text_start`: says nothing of the rest of the kernel."""
    why: str | None = None
    """Why the address fits nothing: the symbols are of another kernel, or the guest runs something else."""


def is_kernel_address(address: int) -> bool:
    """Whether `address` is one of the kernel's half of the address space (with the MMU on)."""
    return _KERNEL_HALF <= address < _TOP


def is_linux(table: SymbolTable) -> bool:
    """Whether these are symbols of a Linux kernel, which may run at another place than its file says."""
    return any(table.address_of(name) is not None for name in _LINUX)


def offset_from_handler(entry: int, table: SymbolTable) -> Found:
    """What the handler's address of an SDEI_EVENT_REGISTER says.

    Linux registers `__sdei_asm_handler`, or with KPTI the alias of `__sdei_asm_entry_trampoline` in the fixmap
    (arch/arm64/kernel/sdei.c, `sdei_arch_get_entry_point`). The fixmap does not move with the kernel.
    """
    handler = table.address_of(HANDLER)
    if handler is None:
        return Found(why=f"there is no {HANDLER} in its symbols")
    if is_kernel_address(entry) and is_possible(entry - handler, table):
        return Found(offset=entry - handler)
    begin, trampoline = table.address_of(TRAMPOLINE_BEGIN), table.address_of(TRAMPOLINE)
    if begin is None or trampoline is None:  # a kallsyms without CONFIG_KALLSYMS_ALL: it may be the trampoline
        return Found()
    alias = entry - (trampoline - begin)
    if alias % PAGE == begin % PAGE and is_kernel_address(alias):
        return Found(trampoline=alias)
    return Found(
        why=f"the handler that the guest registered, {entry:#x}, is neither its {HANDLER} nor its {TRAMPOLINE}"
    )


def offset_from_call(pc: int, table: SymbolTable) -> Found:
    """What the PC of a PSCI or SDEI call says: it lies in `__arm_smccc_smc`, behind its SMC instruction. Works with
    KPTI too.
    """
    there = table.range_of(SMC)
    if there is None:
        return Found()
    address, size = there
    inside = (pc - address) % GRANULE
    offset = pc - inside - address
    if inside < min(size, GRANULE) and pc % 4 == 0 and is_kernel_address(pc) and is_possible(offset, table):
        return Found(offset=offset)
    return Found(why=f"a call was made at {pc:#x}, which is not in its {SMC}")


def offset_from_kallsyms(running: SymbolTable, table: SymbolTable) -> Found:
    """What the guest's own /proc/kallsyms says: the same names are everywhere at the same distance."""
    named = dict(table.some_names(_SAMPLES * 4))
    once = table.addresses(named)
    theirs = running.addresses(once)
    distances = [theirs[name] - once[name] for name in theirs]
    if not distances:
        return Found(why="the guest's kallsyms has none of its names")
    offset = max(set(distances), key=distances.count)
    if distances.count(offset) < _ENOUGH * len(distances) or not is_possible(offset, table):
        return Found(why="the guest's kallsyms has its names at other distances from each other")
    return Found(offset=offset)


def is_possible(offset: int, table: SymbolTable) -> bool:
    """Whether a kernel can run `offset` bytes from where its file says."""
    first = table.first
    return offset % GRANULE == 0 and (offset == 0 or is_kernel_address(first + offset))
