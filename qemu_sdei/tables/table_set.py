"""Sets of ACPI tables for people to take away: ours alone, or among all tables of a QEMU machine that never runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from qemu_sdei.acpi import AcpiError
from qemu_sdei.acpi.formats.acpidump import Entry
from qemu_sdei.acpi.own import BootErrors, GhesSource, own_tables
from qemu_sdei.acpi.table import Oem, Table
from qemu_sdei.acpi.tables import Fadt
from qemu_sdei.errors import GuestError, UsageError
from qemu_sdei.ras.source import Source, numbered
from qemu_sdei.vm.options import GuestOptions

if TYPE_CHECKING:
    from qemu_sdei.boot.area import AcpiArea

_HEADER: Final = 36
_DSDT, _X_DSDT = 40, 140
"""Offsets in a FADT."""


@dataclass(frozen=True, kw_only=True)
class ErrorSource:
    """A generic hardware error source of the HEST (ACPI 6.5 18.3.2.7 and .8)."""

    source: Source
    address: int | None
    """Physical address of the error status address register; None: where a guest of the machine has it."""
    read_ack: int | None = None
    """Physical address of the read-ack register; None: behind the other one, where the source has one."""


@dataclass(frozen=True, kw_only=True)
class Content:
    """What our own tables say."""

    sources: Sequence[ErrorSource] = ()
    agdi_event: int | None = None
    agdi_gsiv: int | None = None
    """Signalled by this interrupt: alone, or beside the event (mode 2)."""
    boot_errors: BootErrors | None = None
    """Where errors of the boot before are; None: no BERT."""
    firmware_first: bool = False
    r"""Whether there is an SSDT with `\_SB._OSC`."""
    method: Literal["smc", "hvc"] = "smc"
    oem_id: bytes | None = None
    """Of our tables; None: ours, or in a machine's set that of its FADT. 6 characters at most."""
    oem_table_id: bytes | None = None
    """The same, 8 characters at most."""
    oem_revision: int | None = None
    fadt: bytes | None = None
    """The FADT to set PSCI in."""

    def oem(self, base: Oem) -> Oem:
        """The OEM fields of our tables: those of `base` where nothing else is wanted."""
        wanted: dict[str, Any] = {
            "oem_id": self.oem_id,
            "oem_table_id": self.oem_table_id,
            "oem_revision": self.oem_revision,
        }
        return replace(base, **{name: value for name, value in wanted.items() if value is not None})


def own(content: Content) -> list[Entry]:
    """Our tables: SDEI, then HEST, AGDI, BERT, SSDT and FADT as far as `content` has something for them.

    Raises:
        UsageError: an error source has no address, or the FADT cannot say what PSCI needs.
        AcpiError: a value does not fit its field, or the FADT is damaged.
    """
    entries = [Entry(table.to_bytes()) for table in _made(content, Oem())]
    if content.fadt is not None:
        entries.append(Entry(with_psci(content.fadt, content.method)))
    return entries


def _made(content: Content, base: Oem) -> list[Table]:
    oem = content.oem(base)
    return own_tables(
        oem=oem,
        ghes=_ghes(content.sources),
        agdi_event=content.agdi_event,
        agdi_gsiv=content.agdi_gsiv,
        boot_errors=content.boot_errors,
        firmware_first=content.firmware_first,
    )


def _ghes(asked: Sequence[ErrorSource]) -> list[GhesSource]:
    from qemu_sdei.boot.machine_tables import ghes_of

    found = []
    for each, source in zip(asked, numbered(each.source for each in asked), strict=True):
        if each.address is None:
            raise UsageError(f"the error source {source.name!r} has no address: give {_called(source)}@ADDRESS")
        ack = None if not source.acknowledged else each.address + 8 if each.read_ack is None else each.read_ack
        found.append(ghes_of(source, each.address, ack))
    return found


def _called(source: Source) -> str:
    return source.name if source.event is None else "EVENT"


def with_psci(fadt: bytes, method: str) -> bytes:
    """`fadt` with PSCI_COMPLIANT set, and PSCI_USE_HVC as `method` wants it.

    Raises:
        UsageError: its checksum is wrong, or it is older than ARM_BOOT_ARCH (ACPI 5.1).
        AcpiError: it is damaged.
    """
    table = Fadt.from_bytes(fadt)
    if sum(fadt) & 0xFF:
        raise UsageError("the FADT's checksum is wrong: it is damaged (`qemu-sdei tables check` says more)")
    if (table.revision, table.minor_version & 0xF) < (5, 1):
        raise UsageError(f"the FADT is of revision {table.revision}: flags for PSCI are there from ACPI 5.1 on")
    return table.replace(psci_compliant=True, psci_use_hvc=method == "hvc").to_bytes()


def of_machine(options: GuestOptions, content: Content) -> list[Entry]:
    """All tables of the machine that `options` describe, ours among them, where a guest that boots by ACPI has them.

    RSDP and XSDT come first, then the tables in the XSDT's order, the DSDT last.

    Raises:
        UsageError: the options cannot be, or an error source's registers are not in what the guest leaves alone.
        GuestError: QEMU does not make this machine, or its tables are damaged.
        AcpiError: a value of ours does not fit its field.
    """
    from qemu_sdei.acpi.linker import RSDP_FILE, SCRIPT_FILE, TABLES_FILE, allocator, execute, parse
    from qemu_sdei.boot.acpi import wanted_files
    from qemu_sdei.boot.area import AcpiArea
    from qemu_sdei.boot.config import BootConfig
    from qemu_sdei.boot.machine_tables import add
    from qemu_sdei.config import RAM_BASE
    from qemu_sdei.monitor.layout import window_base
    from qemu_sdei.tables.fw_cfg_qtest import read_files
    from qemu_sdei.vm.machine_checks import check_machine

    qemu, size = check_machine(options)
    hidden = RAM_BASE + size - window_base(RAM_BASE, size)
    # Of a guest's configuration only RAM matters here: nothing is booted.
    config = BootConfig(kind="linux", kernel="", tables="acpi", ram_size=size, hidden_size=hidden, nr_cpus=options.smp)
    area = AcpiArea.of(config)
    content = replace(content, sources=_placed(content.sources, area))
    if content.boot_errors is not None:
        _check_region(content.boot_errors, area)
    _made(content, Oem())  # so that what is wrong with ours is not taken for QEMU's fault below
    files = read_files(
        [TABLES_FILE, RSDP_FILE, SCRIPT_FILE],
        qemu=qemu,
        nr_cpus=options.smp,
        topology=options.topology,
        ram_size=size,
        cpu=options.cpu,
        virtualization=options.virtualization,
        extra=options.qemu_args,
        more=lambda files: wanted_files(files[SCRIPT_FILE]),
    )
    try:
        loaded = execute(parse(files[SCRIPT_FILE]), files, allocator(*area.tables))
        tables = add(loaded, content.method, lambda oem: _made(content, oem))
        return _walk(dict(tables.parts), tables.rsdp)
    except AcpiError as error:
        raise GuestError(f"QEMU's ACPI tables: {error}") from error


def _placed(sources: Sequence[ErrorSource], area: AcpiArea) -> list[ErrorSource]:
    """The error sources with an address each: where a guest has it, if none was given."""
    base, size = area.status
    free = area.sources([each.source for each in sources])
    blocks = [place for source, place in zip(sources, free, strict=True) if source.address is None]
    placed = []
    for source, place in zip(sources, free, strict=True):
        if source.address is None:
            placed.append(replace(source, address=place.address_register, read_ack=place.read_ack))
            continue
        ack = source.address + 8 if source.read_ack is None else source.read_ack
        for address in (source.address, ack) if source.source.acknowledged else (source.address,):
            if not base <= address <= base + size - 8:
                raise UsageError(
                    f"--ghes: {address:#x} is not in the memory that this guest leaves alone: "
                    f"give an address from {base:#x} to {base + size - 8:#x}, or none"
                )
            if other := next((each for each in blocks if each.block <= address < each.block + each.block_size), None):
                raise UsageError(f"--ghes: {address:#x} is in the status block of source {other.source.name!r}")
        placed.append(source)
    return placed


def _check_region(region: BootErrors, area: AcpiArea) -> None:
    """Refuse a boot error region that a guest of the machine would take for its own memory."""
    base, size = area.status
    if not base <= region.address <= base + size - region.length:
        raise UsageError(
            f"--bert: {region.address:#x} to {region.address + region.length:#x} is not in the memory that this guest "
            f"leaves alone: that is {base:#x} to {base + size:#x}"
        )


def _walk(memory: Mapping[int, bytes], rsdp: int) -> list[Entry]:
    """RSDP, XSDT, the tables of the XSDT, and the FADT's DSDT. Raises AcpiError: there is none at an address."""
    root = _at(memory, rsdp, 36)
    xsdt = int.from_bytes(root[24:32], "little")
    table = _table(memory, xsdt)
    found = [Entry(root, rsdp), Entry(table, xsdt)]
    last = []
    for at in range(_HEADER, len(table) - 7, 8):
        address = int.from_bytes(table[at : at + 8], "little")
        found.append(Entry(_table(memory, address), address))
        data = found[-1].data
        if data[:4] == b"FACP":
            dsdt = int.from_bytes(data[_X_DSDT : _X_DSDT + 8], "little") or int.from_bytes(
                data[_DSDT : _DSDT + 4], "little"
            )
            last.append(Entry(_table(memory, dsdt), dsdt))
    return [*found, *last]


def _table(memory: Mapping[int, bytes], address: int) -> bytes:
    size = int.from_bytes(_at(memory, address, _HEADER)[4:8], "little")
    return _at(memory, address, max(size, _HEADER))


def _at(memory: Mapping[int, bytes], address: int, size: int) -> bytes:
    for start, data in memory.items():
        if start <= address and address + size <= start + len(data):
            return data[address - start :][:size]
    raise AcpiError(f"there is no table of {size} bytes at {address:#x}")
