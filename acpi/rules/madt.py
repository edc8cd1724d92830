"""Rules for MADT (ACPI 6.5 5.2.12), and what `whole` asks of its CPUs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from qemu_sdei.acpi.rules.registry import rules_for
from qemu_sdei.acpi.rules.report import Report
from qemu_sdei.acpi.table import Table
from qemu_sdei.acpi.tables.madt import ENABLED, ONLINE_CAPABLE, Gicc, Gicd, GicIts, Gicr, Madt, OtherController
from qemu_sdei.acpi.tables.structures import Structure, name_of

GICC_MIN: Final = 76
"""Bytes of a GICC in ACPI 5.1; later ones are longer. Before it had no MPIDR."""
_AFFINITY: Final = 0xFF_00FF_FFFF
"""Bits of an MPIDR that say which CPU it is."""
_VIRTUAL: Final = 3
"""GIC versions from here on have redistributors."""


@dataclass(frozen=True, slots=True)
class Processor:
    """A GIC CPU interface structure."""

    usable: bool
    """Enabled, or online capable."""
    parked: bool
    """It has an address of the parking protocol."""
    has_el2: bool
    """It has a VGIC maintenance interrupt, which is for a hypervisor."""


def processors(table: Table) -> Iterator[Processor]:
    """The Arm CPUs of a MADT, as far as its structures can be followed."""
    for each in table.controllers if isinstance(table, Madt) else ():
        if isinstance(each, Gicc) and each.present >= GICC_MIN:
            yield Processor(each.usable, bool(each.parked_address), bool(each.maintenance_interrupt))


@rules_for(Madt)
def check(report: Report, table: Madt) -> None:
    """Check the structures, and how those of Arm go together.

    Errors: what is no structure; two CPUs with one UID or MPIDR; Arm CPUs without a distributor, or with two; an ITS id
    twice; a distributor, redistributor or ITS at 0.
    Warnings: GICv3 without redistributors; a CPU both enabled and online capable; no CPU that can be used; reserved
    bits.
    """
    if table.tail:
        report.error("tail", f"no structure, whose length would be in its second byte: {table.tail[:2].hex(' ')}")
    report.reserved("flags", table.flags, 0xFFFF_FFFE)
    named = list(_named(table))
    cpus = [(name, each) for name, each in named if isinstance(each, Gicc) and each.present >= GICC_MIN]
    _unique(report, [(f"{name}.uid", each.uid) for name, each in cpus if each.usable], "UID")
    _unique(report, [(f"{name}.mpidr", each.mpidr & _AFFINITY) for name, each in cpus if each.usable], "MPIDR")
    _unique(report, [(f"{name}.its_id", each.its_id) for name, each in named if isinstance(each, GicIts)], "ITS id")
    for name, each in named:
        _structure(report, name, each)
    if cpus:
        _arm(report, [each for _, each in cpus], [each for _, each in named])


def _named(table: Madt) -> Iterator[tuple[str, Structure]]:
    """Each structure with its name, as its fields have it."""
    seen: Counter[str] = Counter()
    for each in table.controllers:
        name = name_of(each)
        yield f"{name}[{seen[name]}]", each
        seen[name] += 1


def _unique(report: Report, values: list[tuple[str, int]], what: str) -> None:
    first: dict[int, str] = {}
    for name, value in values:
        if value in first:
            report.error(name, f"{what} {value:#x} is already that of {first[value].partition('.')[0]}")
        first.setdefault(value, name)


def _structure(report: Report, name: str, each: Structure) -> None:
    if isinstance(each, Gicc):
        both = ENABLED | ONLINE_CAPABLE
        if each.flags & both == both:
            report.warning(f"{name}.flags", "enabled and online capable: a CPU is one of them")
        report.reserved(f"{name}.flags", each.flags, 0xFFFF_FFF0)
        report.reserved(f"{name}.mpidr", each.mpidr, ~_AFFINITY & (1 << 64) - 1)
    elif isinstance(each, Gicd | Gicr | GicIts) and not each.base:
        report.error(f"{name}.base", "it is 0: there is none")
    elif isinstance(each, OtherController) and each.type < 0x80 and each.type > 0x1B:
        report.warning(f"{name}.type", f"type {each.type:#x} is reserved in ACPI 6.5")


def _arm(report: Report, cpus: list[Gicc], all_of_them: list[Structure]) -> None:
    distributors = [each for each in all_of_them if isinstance(each, Gicd)]
    if not distributors:
        report.error("", "Arm CPUs, and no GICD: Linux has no interrupts then, and panics")
    elif len(distributors) > 1:
        report.error("gicd[1].type", "it is the second GICD: a machine has one, and Linux goes by it alone")
    elif distributors[0].version >= _VIRTUAL and not any(isinstance(each, Gicr) for each in all_of_them):
        without = [each for each in cpus if each.usable and not each.gicr_base]
        if without:
            report.warning(
                "", f"no GICR, and {len(without)} CPUs without a GICR base address: they have no redistributor"
            )
    if not any(cpu.usable for cpu in cpus):
        report.warning("", "none of its CPUs is enabled")
