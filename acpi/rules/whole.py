"""Rules for a set of tables: what no table shows alone. Of two of a kind Linux takes the first, and so do these."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

from qemu_sdei.acpi.rules.madt import Processor, processors
from qemu_sdei.acpi.rules.report import Finding, Report
from qemu_sdei.acpi.table import Table
from qemu_sdei.acpi.tables import KINDS
from qemu_sdei.acpi.tables.agdi import Agdi, SignalingMode
from qemu_sdei.acpi.tables.bert import Bert
from qemu_sdei.acpi.tables.fadt import Fadt
from qemu_sdei.acpi.tables.gas import AddressSpace, Gas
from qemu_sdei.acpi.tables.hest import Ghes, GhesV2, Hest, NotificationType
from qemu_sdei.acpi.tables.sdei import Sdei

_T = TypeVar("_T", bound=Table)

Conduit = Literal["smc", "hvc"]

MACHINE: Final = frozenset({"FACP", "XSDT", "RSDT", "RSD PTR ", "APIC", "DSDT"})
"""One of these makes a set that of a whole machine: no firmware is without them, and nobody adds them to another's."""
_LOST: Final = frozenset({"HEST", "AGDI"})
"""Of a second one of these something is lost: the sources, or the event, that it has."""
_OTHERS: Final = (
    "BGRT", "DBG2", "DSDT", "FACS", "HMAT", "IORT", "MCFG", "PPTT", "SLIT", "SPCR",
)  # fmt: skip
"""Those that have no class here and are there once. (Not SSDT, PSDT and what OEMs have.)"""
_ONCE: Final = frozenset((*_OTHERS, *(signature for signature, kind in KINDS.items() if kind.ONCE)))


@dataclass(frozen=True, slots=True)
class Member:
    """One table of a set."""

    table: Table
    address: int = 0
    """Physical address; 0 if that is not known."""


@dataclass(frozen=True, slots=True)
class SetFinding:
    """Something that is wrong between tables."""

    table: int
    """Which of the tables it is about, from 0."""
    finding: Finding


class _Set:
    def __init__(self, members: Sequence[Member]) -> None:
        self.members = members
        self._reports: dict[int, Report] = {}

    def first(self, kind: type[_T]) -> tuple[int, _T] | None:
        """The table of this kind that a system takes, and its number."""
        for number, member in enumerate(self.members):
            if isinstance(member.table, kind):
                return number, member.table
        return None

    def report(self, number: int) -> Report:
        """Takes findings about a table."""
        if number not in self._reports:
            table = self.members[number].table
            self._reports[number] = Report(table.signature, table.fields)
        return self._reports[number]

    def findings(self) -> list[SetFinding]:
        """All of them, table by table."""
        return [
            SetFinding(number, finding)
            for number, report in sorted(self._reports.items())
            for finding in report.findings
        ]


def check(members: Sequence[Member], conduit: Conduit | None = None) -> list[SetFinding]:
    """Check how the tables of a machine, or some of them, go together.

    Args:
        members: the tables; damaged ones are passed over.
        conduit: the instruction that reaches the machine's firmware; None if nobody says.
    """
    found = _Set(members)
    _twice(found)
    _events(found)
    _registers(found)
    _arm(found, conduit)
    return found.findings()


def _twice(found: _Set) -> None:
    first: dict[str, int] = {}
    for number, member in enumerate(found.members):
        kind = member.table.signature
        if kind not in _ONCE and kind not in _LOST:
            continue
        if kind not in first:
            first[kind] = number
            continue
        before = found.members[first[kind]]
        if member.address and member.address == before.address:
            continue  # acpidump prints what both RSDT and XSDT name twice
        if kind in _LOST:
            found.report(number).error(
                "signature", f"it is the second {kind}: operating systems take the first, and nothing of this one"
            )
        else:
            found.report(number).warning("signature", f"it is the second {kind}: operating systems take one")


def _events(found: _Set) -> None:
    users: dict[int, str] = {}
    tables: dict[int, None] = {}
    for number, field, event in _users(found):
        tables[number] = None
        name = f"{found.members[number].table.signature} {field}"
        if event and event in users:
            found.report(number).error(
                field,
                f"SDEI event {event:#x} is already that of {users[event]}: an event has one handler, and Linux refuses "
                'the second ("Event already registered")',
            )
        users.setdefault(event, name)
    if not users or found.first(Sdei) is not None or len(found.members) == 1:
        return
    whole = any(member.table.signature in MACHINE for member in found.members)
    for number in tables:
        report = found.report(number)
        message = "it has SDEI events, and there is no SDEI table: Linux does not look for SDEI then"
        if whole:
            report.error("", f"{message}, and these events are never registered")
        else:
            report.note("", f"{message} (these tables may not be all of the machine's)")


def _users(found: _Set) -> Iterator[tuple[int, str, int]]:
    """Table, field and event of all that listens to an SDEI event. Event 0 is a fault of its own."""
    if (there := found.first(Hest)) is not None:
        number, hest = there
        for index, source in enumerate(hest.sources):
            if isinstance(source, Ghes) and source.enabled and source.notification.type == NotificationType.SDEI:
                yield number, f"sources[{index}].notification.vector", source.notification.vector
    agdi = found.first(Agdi)
    if agdi is not None and agdi[1].mode in (SignalingMode.SDEI, SignalingMode.SDEI_AND_INTERRUPT):
        yield agdi[0], "sdei_event", agdi[1].sdei_event


@dataclass(frozen=True, slots=True)
class _Place:
    space: int
    start: int
    end: int
    table: int
    field: str
    what: str
    by_sdei: bool = False

    @property
    def owner(self) -> str:
        """Whose it is: `sources[0]`, or the BERT."""
        return self.field.partition(".")[0] if "." in self.field else "the BERT"


def _registers(found: _Set) -> None:
    """Registers and regions that firmware and system both write: each is for one purpose."""
    last: _Place | None = None
    for place in sorted(_places(found), key=lambda each: (each.space, each.start, each.end)):
        if last is not None and last.space == place.space and place.start < last.end:
            _overlap(found, *sorted((last, place), key=lambda each: (each.table, each.field)))
        if last is None or last.space != place.space or place.end > last.end:
            last = place


def _overlap(found: _Set, one: _Place, other: _Place) -> None:
    report = found.report(other.table)
    how = "is" if (one.start, one.end) == (other.start, other.end) else "overlaps"
    message = f"{other.what} at {other.start:#x} {how} {one.what} of {one.owner}"
    if one.what == other.what == _STATUS and not (one.by_sdei or other.by_sdei):
        report.warning(
            other.field, f"{message}: Linux reads both, and takes an error from one block twice or from neither"
        )
    else:
        report.error(other.field, f"{message}: what one of them writes the other takes for its own")


_STATUS: Final = "the error status address register"
_ACK: Final = "the read-ack register"


def _places(found: _Set) -> Iterator[_Place]:
    if (there := found.first(Hest)) is not None:
        number, hest = there
        for index, source in enumerate(hest.sources):
            if not isinstance(source, Ghes) or not source.enabled:
                continue
            by_sdei = source.notification.type == NotificationType.SDEI
            registers = [("error_status_address", source.error_status_address, _STATUS)]
            if isinstance(source, GhesV2):
                registers.append(("read_ack", source.read_ack, _ACK))
            for name, register, what in registers:
                if register.address:
                    start, end = _bytes(register)
                    field = f"sources[{index}].{name}.address"
                    yield _Place(register.space, start, end, number, field, what, by_sdei)
    if (bert := found.first(Bert)) is not None and (address := bert[1].region_address):
        end = address + max(bert[1].region_length, 1)
        yield _Place(AddressSpace.SYSTEM_MEMORY, address, end, bert[0], "region_address", "the boot error region")


def _bytes(register: Gas) -> tuple[int, int]:
    """The addresses that the register has, from and to."""
    size = max(1, (min(register.bit_width, 64) + register.bit_offset + 7) // 8)
    return register.address, register.address + size


def _arm(found: _Set, conduit: Conduit | None) -> None:
    there = found.first(Fadt)
    if there is None:
        return
    number, fadt = there
    cpus = [cpu for member in found.members if member.table.signature == "APIC" for cpu in processors(member.table)]
    report = found.report(number)
    said = "hvc" if fadt.psci_use_hvc else "smc"
    if conduit is not None and fadt.arm_boot_arch and said != conduit:
        report.error(
            "arm_boot_arch", f"it says {said.upper()} for PSCI and SDEI, and this machine has {conduit.upper()}"
        )
    elif conduit is None and said == "hvc" and any(cpu.has_el2 for cpu in cpus):
        report.warning(
            "arm_boot_arch",
            "it says HVC, and by the MADT (VGIC maintenance interrupt) the CPUs have EL2: a system that starts at EL2 "
            "would call itself",
        )
    if cpus:
        _sound_for_arm(report, fadt, cpus)


def _sound_for_arm(report: Report, fadt: Fadt, cpus: Iterable[Processor]) -> None:
    """What Linux wants of the FADT where the MADT has Arm CPUs (arch/arm64/kernel/acpi.c)."""
    if not fadt.hardware_reduced:
        report.error("flags", "the MADT has Arm CPUs: without HW_REDUCED_ACPI Linux uses no ACPI there")
    elif (fadt.revision, fadt.minor_version & 0xF) < (5, 1) and not fadt.arm_boot_arch:
        report.error("revision", "the MADT has Arm CPUs: Linux uses no ACPI there before version 5.1")
    usable = [cpu for cpu in cpus if cpu.usable]
    if len(usable) > 1 and not fadt.psci_compliant and not any(cpu.parked for cpu in usable):
        report.warning(
            "arm_boot_arch", f"no PSCI, and no parking protocol in the MADT: of {len(usable)} CPUs only one can start"
        )
