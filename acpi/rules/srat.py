"""Rules for SRAT (ACPI 6.5 5.2.16)."""

from __future__ import annotations

from collections.abc import Iterator

from qemu_sdei.acpi.rules.registry import rules_for
from qemu_sdei.acpi.rules.report import Report
from qemu_sdei.acpi.tables.srat import ENABLED, HOT_PLUGGABLE, GiccAffinity, MemoryAffinity, Srat


@rules_for(Srat)
def check(report: Report, table: Srat) -> None:
    """Check the whole table.

    Errors: what is no structure; two ranges of memory that overlap, a range that goes beyond 64 bits.
    Warnings: an enabled range of no bytes; a CPU in two domains; the reserved 1 is another number; reserved bits.
    """
    if table.tail:
        report.error("tail", f"no structure, whose length would be in its second byte: {table.tail[:2].hex(' ')}")
    if table.reserved != 1:
        report.warning("reserved", f"it is {table.reserved:#x}, and 1 for older systems")
    _memory(report, table)
    domains: dict[int, tuple[int, int]] = {}
    cpus = [each for each in table.affinities if isinstance(each, GiccAffinity)]
    for number, each in enumerate(cpus):
        report.reserved(f"gicc_affinity[{number}].flags", each.flags, 0xFFFF_FFFE)
        if not each.flags & ENABLED:
            continue
        before, domain = domains.setdefault(each.uid, (number, each.domain))
        if domain != each.domain:
            report.warning(
                f"gicc_affinity[{number}].domain", f"CPU {each.uid:#x} is in domain {domain} by gicc_affinity[{before}]"
            )


def _memory(report: Report, table: Srat) -> None:
    """What is in a hot-pluggable range, such as a non-volatile DIMM that is there from the start, has a structure of
    its own: only ranges that are both of that kind, or both not, exclude each other.
    """
    ranges: dict[bool, list[tuple[int, int, int]]] = {False: [], True: []}
    for number, each in _enabled(table):
        name = f"memory_affinity[{number}]"
        if not each.size:
            report.warning(f"{name}.size", "an enabled range of 0 bytes")
        elif each.base + each.size > 1 << 64:
            report.error(f"{name}.size", f"from {each.base:#x} on it goes beyond 64 bits")
        else:
            ranges[bool(each.flags & HOT_PLUGGABLE)].append((each.base, each.base + each.size, number))
    for found in ranges.values():
        end, last = 0, 0
        for start, stop, number in sorted(found):
            if start < end:
                report.error(f"memory_affinity[{number}].base", f"{start:#x} is in memory_affinity[{last}] already")
            if stop > end:
                end, last = stop, number


def _enabled(table: Srat) -> Iterator[tuple[int, MemoryAffinity]]:
    ranges = (each for each in table.affinities if isinstance(each, MemoryAffinity))
    return ((number, each) for number, each in enumerate(ranges) if each.flags & ENABLED)
