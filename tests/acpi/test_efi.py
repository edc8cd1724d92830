"""The structures of EFI that stand in for a firmware, read back as a kernel reads them."""

from __future__ import annotations

import struct
import zlib
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_sdei.acpi.efi import ACPI_20, CACHEABLE, HandOff, MemoryType, Region, hand_off, memory_map
from qemu_sdei.acpi.errors import AcpiError
from qemu_sdei.acpi.fdt import parse

AT = 0x7FC2_0000
REGIONS = [
    Region(0x7FC0_0000, 0x10_0000, MemoryType.ACPI_RECLAIM),
    Region(0x4000_0000, 0x3FC0_0000, MemoryType.CONVENTIONAL),
    Region(0x7FD0_0000, 0x10_0000, MemoryType.RESERVED),
]


def read(handed: HandOff, address: int, size: int) -> bytes:
    """Bytes at a physical address, which must lie in the structures."""
    assert AT <= address <= address + size <= AT + len(handed.data)
    return handed.data[address - AT :][:size]


@pytest.fixture
def handed() -> HandOff:
    return hand_off(AT, REGIONS, {ACPI_20: 0x7FC0_0000}, vendor="somebody")


def test_system_table(handed: HandOff) -> None:
    """UEFI 2.10 4.2.1 and 4.3.1; the checksum is over the header's size with the field 0."""
    data = read(handed, handed.system_table, 120)
    signature, revision, size, crc, reserved, vendor = struct.unpack_from("<8sIIIIQ", data)
    assert (signature, revision, size, reserved) == (b"IBI SYST", 0x2_0064, 120, 0)
    assert crc == zlib.crc32(data[:16] + bytes(4) + data[20:])
    assert read(handed, vendor, 200).decode("utf-16-le").rstrip("\0") == "somebody"
    assert data[40:104] == bytes(64)  # no consoles, no services


def test_configuration_tables(handed: HandOff) -> None:
    count, address = struct.unpack_from("<QQ", handed.data, 104)
    entries = {}
    for n in range(count):
        guid, where = struct.unpack("<16sQ", read(handed, address + 24 * n, 24))
        entries[str(UUID(bytes_le=guid))] = where
    assert entries.pop("8868e871-e4f1-11d3-bc22-0080c73c8881") == 0x7FC0_0000
    # EFI_RT_PROPERTIES_TABLE: version 1, 8 bytes, and no service that could be called.
    assert read(handed, entries.pop("eb66918a-7eef-402a-842e-931d21c38ae9"), 8) == struct.pack("<HHI", 1, 8, 0)
    reserve = entries.pop("888eb0c6-8ede-4ff5-a8f0-9aee5cb977c2")
    assert read(handed, reserve, 16) == bytes(16)
    assert reserve % 8 == 0
    assert not entries


def test_device_tree_has_only_chosen(handed: HandOff) -> None:
    """With any other node Linux would not use ACPI by itself."""
    root = parse(
        handed.device_tree(bootargs=b"quiet", initrd=(0x4400_0000, 0x4410_0000), seeds={"kaslr-seed": b"12345678"})
    ).root
    assert [node.name for node in root.children] == ["chosen"]
    chosen = root.ensure("chosen")
    numbers = {name: int.from_bytes(value, "big") for name, value in chosen.properties.items()}
    assert chosen.text("bootargs") == "quiet"
    assert numbers["linux,uefi-system-table"] == handed.system_table
    assert numbers["linux,uefi-mmap-start"] == handed.map_address
    assert numbers["linux,uefi-mmap-size"] == 3 * numbers["linux,uefi-mmap-desc-size"]
    assert numbers["linux,uefi-mmap-desc-ver"] == 1
    assert numbers["linux,uefi-secure-boot"] == 2
    assert (numbers["linux,initrd-start"], numbers["linux,initrd-end"]) == (0x4400_0000, 0x4410_0000)
    assert chosen.properties["kaslr-seed"] == b"12345678"


def test_memory_map_is_sorted(handed: HandOff) -> None:
    size = len(handed.data)
    assert handed.map_address + handed.map_size <= AT + size
    descriptors = read(handed, handed.map_address, handed.map_size)
    found = [struct.unpack_from("<I4xQQQQ", descriptors, at) for at in range(0, len(descriptors), 48)]
    assert found == [
        (7, 0x4000_0000, 0, 0x3FC00, CACHEABLE),
        (9, 0x7FC0_0000, 0, 0x100, CACHEABLE),
        (0, 0x7FD0_0000, 0, 0x100, CACHEABLE),
    ]


@pytest.mark.parametrize(
    "regions",
    [
        [Region(0x1000, 0x800, MemoryType.RESERVED)],
        [Region(0x1001, 0x1000, MemoryType.RESERVED)],
        [Region(0x1000, -0x1000, MemoryType.RESERVED)],
        [Region((1 << 64) - 0x1000, 0x2000, MemoryType.RESERVED)],
        [Region(0x1000, 0x2000, MemoryType.RESERVED), Region(0x2000, 0x1000, MemoryType.CONVENTIONAL)],
    ],
)
def test_maps_that_cannot_be_are_refused(regions: list[Region]) -> None:
    with pytest.raises(AcpiError, match="EFI memory map"):
        memory_map(regions)


def test_misaligned_structures_are_refused() -> None:
    with pytest.raises(AcpiError, match="multiple of 8"):
        hand_off(AT + 4, REGIONS, {}, vendor="x")


@given(st.text(max_size=300))
def test_any_vendor_fits_and_ends(vendor: str) -> None:
    data = hand_off(AT, [], {}, vendor=vendor).data
    (address,) = struct.unpack_from("<Q", data, 24)
    assert b"\0\0" in data[address - AT :][:200]
