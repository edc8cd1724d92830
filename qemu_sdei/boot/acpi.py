"""ACPI boot of a Linux kernel without UEFI, all of it at the RESET frame.

QEMU's tables and ours are linked into the area below the window (`area.py`), and the kernel is started as UEFI's stub
would start it: see `qemu_sdei.acpi.efi`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from qemu_sdei.acpi import AcpiError, fdt
from qemu_sdei.acpi.efi import ACPI_20, GRANULE, MemoryType, Region, hand_off
from qemu_sdei.acpi.linker import (
    RSDP_FILE,
    SCRIPT_FILE,
    TABLES_FILE,
    Allocate,
    Loaded,
    Pointer,
    allocator,
    execute,
    parse,
)
from qemu_sdei.acpi.own import BootErrors
from qemu_sdei.boot import linux
from qemu_sdei.boot.area import AcpiArea, Announced, ErrorSource
from qemu_sdei.boot.config import BootConfig, Entry
from qemu_sdei.boot.load_addresses import BLOCK, align_up
from qemu_sdei.boot.machine_tables import MachineTables, complete
from qemu_sdei.boot.previous_errors import Stage, left_behind, region_of
from qemu_sdei.boot.tree import check_ram
from qemu_sdei.errors import GuestError

VENDOR: Final = "qemu-sdei"
"""What Linux prints as EFI's vendor."""
FILES: Final = (TABLES_FILE, RSDP_FILE, SCRIPT_FILE)
"""The files that every machine's tables come in; the script may name more."""


@dataclass(frozen=True, slots=True)
class Linked:
    """Tables that are ready to be put into memory."""

    tables: MachineTables
    pointers: tuple[Pointer, ...]
    """What QEMU is to be told."""


def wanted_files(script: bytes) -> tuple[str, ...]:
    """The files that the script places, besides those that always are there. Raises GuestError: it is damaged."""
    try:
        names = [command.file for command in parse(script) if isinstance(command, Allocate)]
    except AcpiError as error:
        raise _damaged(error) from error
    return tuple(dict.fromkeys(name for name in names if name not in FILES))


@dataclass(frozen=True, slots=True)
class Added:
    """What a user adds to the tables."""

    tables: tuple[bytes, ...] = ()
    errors: bytes = b""
    """Of the boot before the first one: the bytes of a BERT's region."""


def link(
    config: BootConfig,
    files: Mapping[str, bytes],
    announced: Announced,
    tables: Sequence[bytes] = (),
    boot_errors: BootErrors | None = None,
) -> Linked:
    """QEMU's tables, linked, with ours among them.

    Args:
        config: where the area is, and the conduit.
        files: those of `FILES` and of `wanted_files`, by name.
        announced: what our tables are about.
        tables: of the user's.
        boot_errors: what a BERT is to say; None: there is none.

    Raises:
        GuestError: the files are damaged, or do not fit. UsageError: too many error sources.
    """
    area = AcpiArea.of(config)
    sources = area.sources(announced.sources)
    try:
        loaded: Loaded = execute(parse(files[SCRIPT_FILE]), files, allocator(*area.tables))
        ours = complete(loaded, config, sources, announced.agdi, boot_errors, tables, announced.agdi_interrupt)
        return Linked(ours, tuple(loaded.pointers))
    except AcpiError as error:
        raise _damaged(error) from error


def _damaged(error: AcpiError) -> GuestError:
    return GuestError(f"the ACPI tables that QEMU should have in its fw_cfg: {error}")


def load(
    ram: memoryview, config: BootConfig, files: Mapping[str, bytes], announced: Announced, added: Added, epoch: int
) -> Entry:
    """Write kernel, initrd, tables and the structures of EFI into `ram`, and say where the boot CPU starts.

    Doing it again before the guest runs gives the same result.

    Args:
        ram: all of guest RAM, a writable memoryview of format "B"; index 0 is `config.ram_base`.
        config: what to boot.
        files: see `link`.
        announced: see `link`.
        added: what the user adds to the tables.
        epoch: which boot of the machine this is, the first being 1.

    Raises:
        UsageError: kernel or initrd cannot be read or are no such thing, or memory is too small.
        GuestError: QEMU's tables or device tree are damaged.
    """
    check_ram(ram, config)
    parts = linux.pieces(config)
    area = AcpiArea.of(config)
    sources = area.sources(announced.sources)
    told = errors_to_tell(ram, config, sources, added, epoch)
    where, size = area.boot_errors
    tables = link(config, files, announced, added.tables, BootErrors(where, size) if told else None).tables
    start = align_up(tables.end, 64)
    try:
        efi = hand_off(start, _regions(config, area, parts), {ACPI_20: tables.rsdp}, vendor=VENDOR)
        tree = efi.device_tree(
            bootargs=config.append.encode(errors="surrogateescape"), initrd=parts.initrd_range, seeds=_seeds(ram)
        )
    except AcpiError as error:
        raise GuestError(f"ACPI boot: {error}") from error
    address, size = area.tables
    if start + len(efi.data) > address + size:
        raise GuestError(f"QEMU's ACPI tables leave no room for the rest: they have {tables.end - address:#x} bytes")
    ram[address - config.ram_base :][:size] = bytes(size)
    reset_status(ram, config, sources, told, epoch)
    for where, data in (*tables.parts, (start, efi.data)):
        ram[where - config.ram_base :][: len(data)] = data
    return parts.write(ram, config, tree)


def errors_to_tell(
    ram: memoryview, config: BootConfig, sources: Sequence[ErrorSource], added: Added, epoch: int
) -> bytes:
    """The region of the BERT: what the boot before has left. Empty: nothing, or the user has a BERT of their own."""
    if any(table.startswith(b"BERT") for table in added.tables):
        return b""
    if epoch == 1:
        return added.errors
    area = AcpiArea.of(config)
    errors = left_behind(Stage(ram, config.ram_base, area), ram, config.ram_base, sources, epoch)
    return region_of(errors, area.boot_errors[1])


def reset_status(ram: memoryview, config: BootConfig, sources: Sequence[ErrorSource], told: bytes, epoch: int) -> None:
    """Have the status area be that of a machine that has just been reset: no error, and nothing that waits to be
    acknowledged. `told`: the region of the BERT.
    """
    area = AcpiArea.of(config)
    start, staged = area.status[0], area.staged_errors
    if epoch == 1:
        ram[staged[0] - config.ram_base :][: staged[1]] = bytes(staged[1])
    # All but what waits for the next boot: a boot that begins twice tells of the same errors.
    ram[start - config.ram_base : staged[0] - config.ram_base] = bytes(staged[0] - start)
    parts = [(area.boot_errors[0], told)]
    for source in sources:
        parts.append((source.address_register, source.block.to_bytes(8, "little")))
        if source.read_ack is not None:
            parts.append((source.read_ack, (1).to_bytes(8, "little")))
    for where, data in parts:
        ram[where - config.ram_base :][: len(data)] = data


def _regions(config: BootConfig, area: AcpiArea, parts: linux.Pieces) -> list[Region]:
    place = parts.place
    kernel_end = align_up(place.kernel_address + parts.kernel.image_size, GRANULE)
    kernel = Region(place.kernel_address, kernel_end - place.kernel_address, MemoryType.LOADER_CODE)
    loaded = [kernel, Region(place.dtb_address, BLOCK, MemoryType.LOADER_DATA)]
    if parts.initrd:
        size = align_up(len(parts.initrd), GRANULE)
        loaded.insert(1, Region(place.initrd_address, size, MemoryType.LOADER_DATA))
    regions = [
        *loaded,
        Region(*area.tables, MemoryType.ACPI_RECLAIM),
        Region(*area.status, MemoryType.RESERVED),
    ]
    at = config.ram_base
    for region in (*loaded, Region(area.base, 0, MemoryType.CONVENTIONAL)):
        regions.append(Region(at, region.address - at, MemoryType.CONVENTIONAL))
        at = region.end
    return regions


def _seeds(ram: memoryview) -> dict[str, bytes]:
    """The random numbers that QEMU has put into its device tree: for KASLR and for the kernel's generator."""
    chosen = fdt.parse(ram[: fdt.total_size(ram[:64])]).root.ensure("chosen").properties
    return {name: chosen[name] for name in ("kaslr-seed", "rng-seed") if name in chosen}
