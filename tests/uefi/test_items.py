"""The table loader's files with ours among them: carried out as UEFI does, they are what a boot without UEFI has."""

from __future__ import annotations

import struct

import pytest

from qemu_sdei.acpi import AcpiError
from qemu_sdei.acpi.linker import RSDP_FILE, SCRIPT_FILE, TABLES_FILE, allocator, execute, parse
from qemu_sdei.acpi.parse import parse as parse_table
from qemu_sdei.acpi.tables import Fadt, Hest, Rsdp, Xsdt
from qemu_sdei.acpi.tables.hest import Ghes
from qemu_sdei.boot.area import AcpiArea, Announced
from qemu_sdei.boot.config import BootConfig
from qemu_sdei.boot.machine_tables import complete
from qemu_sdei.ras.source import Source, numbered
from qemu_sdei.uefi import items
from tests.backend.fw_cfg_device import machine_files

CONFIG = BootConfig("linux", "/k", tables="acpi", uefi="/u", conduit="hvc")
ANNOUNCED = Announced(numbered([Source(name="a", event=0x324)]), 0x325)


def completed(files: dict[str, bytes]) -> dict[str, bytes]:
    sources = AcpiArea.of(CONFIG).sources(ANNOUNCED.sources)
    return items.completed(files, complete(items.linked(files), CONFIG, sources, ANNOUNCED.agdi))


def test_uefi_finds_qemus_tables_and_ours() -> None:
    found = completed(machine_files())
    loaded = execute(parse(found[SCRIPT_FILE]), found, allocator(0x7000_0000, 0x40_0000))
    blob = loaded.blobs[TABLES_FILE]

    def table(address: int) -> bytes:
        data = bytes(blob.data[address - blob.address :])
        return data[: int.from_bytes(data[4:8], "little")]

    rsdp = parse_table(bytes(loaded.blobs[RSDP_FILE].data))
    assert isinstance(rsdp, Rsdp)
    assert sum(loaded.blobs[RSDP_FILE].data) & 0xFF == 0
    xsdt = parse_table(table(rsdp.xsdt_address))
    assert isinstance(xsdt, Xsdt)
    tables = [table(address) for address in (*xsdt.entries, rsdp.xsdt_address)]
    assert all(sum(each) & 0xFF == 0 for each in tables), "each has its checksum"
    assert [each[:4] for each in tables] == [b"FACP", b"MCFG", b"SDEI", b"HEST", b"AGDI", b"SSDT", b"XSDT"]
    fadt, hest = Fadt.from_bytes(tables[0]), Hest.from_bytes(tables[3])
    assert fadt.psci_compliant
    assert fadt.psci_use_hvc
    (source,) = hest.sources
    place = AcpiArea.of(CONFIG).sources(ANNOUNCED.sources)[0]
    assert isinstance(source, Ghes)
    assert source.error_status_address.address == place.address_register


@pytest.mark.parametrize("name", [TABLES_FILE, RSDP_FILE, SCRIPT_FILE])
def test_damaged_files_end_in_an_error(name: str) -> None:
    files = machine_files()
    for at in range(0, len(files[name]), 3):
        damaged = bytearray(files[name])
        damaged[at] ^= 0xFF
        try:
            found = completed(files | {name: bytes(damaged)})
            execute(parse(found[SCRIPT_FILE]), found, allocator(0x7000_0000, 0x40_0000))
        except AcpiError:
            continue


def test_a_kernel_is_told_with_its_sizes() -> None:
    found = items.kernel(b"image", b"", "quiet")
    assert found[items.KERNEL_SIZE] == struct.pack("<I", 5)
    assert found[items.INITRD_SIZE] == struct.pack("<I", 0)
    assert found[items.COMMAND_LINE] == b"quiet\0"
    assert found[items.COMMAND_LINE_SIZE] == struct.pack("<I", 6)


def test_the_list_of_files_is_qemus_form() -> None:
    data = items.directory({"etc/a": (0x20, 5), "bootorder": (0x2A, 300)})
    assert data[:4] == b"\0\0\0\2"
    assert len(data) == 4 + 2 * 64
    assert data[4:8] == (5).to_bytes(4, "big")
    assert data[8:10] == (0x20).to_bytes(2, "big")
    assert data[12:].startswith(b"etc/a\0")
