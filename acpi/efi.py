"""What a kernel expects to find of the UEFI firmware that started it, made without one.

On arm64 Linux looks for ACPI tables only where EFI says they are. Its EFI stub leaves behind: a device tree that has
nothing but `/chosen`, and in it where the EFI system table and the memory map are. A kernel that is started with the
same needs no UEFI, and cannot tell the difference until it calls a runtime service; so the table
EFI_RT_PROPERTIES_TABLE says that there are none. Xen starts its first domain in this way.

UEFI 2.10: 4.2 and 4.3 (system table), 4.6 (configuration tables), 7.2.3 (memory map). The `linux,uefi-*` properties:
Documentation/arch/arm/uefi.rst.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final
from uuid import UUID

from qemu_sdei.acpi.errors import AcpiError
from qemu_sdei.acpi.fdt import Node, Tree, flatten

PAGE: Final = 4096
GRANULE: Final = 0x1_0000
"""UEFI 2.10 2.3.6: what differs in memory type or attributes must not share 64 KiB, for kernels with such pages."""

ACPI_20: Final = UUID("8868e871-e4f1-11d3-bc22-0080c73c8881")
SMBIOS3: Final = UUID("f2fd1544-9794-4a2c-992e-e5bbcf20e394")
RT_PROPERTIES: Final = UUID("eb66918a-7eef-402a-842e-931d21c38ae9")
LINUX_MEMRESERVE: Final = UUID("888eb0c6-8ede-4ff5-a8f0-9aee5cb977c2")
"""Linux's own: the head of a list of memory that a kernel started by kexec must not touch (GICv3 LPI tables). Its EFI
stub makes it; a kernel without one warns for each redistributor and taints itself."""

SYSTEM_TABLE_SIGNATURE: Final = 0x5453_5953_2049_4249  # "IBI SYST"
REVISION: Final = 2 << 16 | 100
"""UEFI 2.10."""

_SYSTEM_TABLE: Final = struct.Struct("<QIIIIQI4x10Q")
_CONFIGURATION: Final = struct.Struct("<16sQ")
_DESCRIPTOR: Final = struct.Struct("<IIQQQQ8x")
"""EFI_MEMORY_DESCRIPTOR has 40 bytes; like most firmware we space them by 48, so that nobody relies on the 40."""
_RT_PROPERTIES_TABLE: Final = struct.pack("<HHI", 1, 8, 0)
_MEMRESERVE_TABLE: Final = bytes(16)
_SECURE_BOOT_DISABLED: Final = 2


class MemoryType(IntEnum):
    """EFI_MEMORY_TYPE, as far as it is used here (UEFI 2.10 7.2.1)."""

    RESERVED = 0
    LOADER_CODE = 1
    LOADER_DATA = 2
    CONVENTIONAL = 7
    ACPI_RECLAIM = 9
    """The operating system may use it once it needs the tables no longer; Linux keeps it."""


WRITE_BACK: Final = 0x8
CACHEABLE: Final = 0xF
"""UC, WC, WT and WB: what ordinary RAM can be mapped as."""


@dataclass(frozen=True, slots=True)
class Region:
    """One range of memory: address and size in bytes, multiples of 4096."""

    address: int
    size: int
    type: MemoryType
    attributes: int = CACHEABLE

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.address + self.size


def memory_map(regions: Sequence[Region]) -> bytes:
    """EFI_MEMORY_DESCRIPTORs for `regions`, in ascending order; regions of size 0 are left out.

    Raises:
        AcpiError: a region is not made of whole pages, or two overlap.
    """
    out = []
    last = 0
    for region in sorted(regions, key=lambda region: region.address):
        if region.address % PAGE or region.size % PAGE or region.size < 0 or region.end > 1 << 64:
            raise AcpiError(f"EFI memory map: {region.size:#x} bytes at {region.address:#x} are no whole pages")
        if region.size == 0:
            continue
        if region.address < last:
            raise AcpiError(f"EFI memory map: two regions overlap at {region.address:#x}")
        last = region.end
        out.append(_DESCRIPTOR.pack(region.type, 0, region.address, 0, region.size // PAGE, region.attributes))
    return b"".join(out)


@dataclass(frozen=True, slots=True)
class HandOff:
    """The structures of `hand_off`, and where in them a kernel finds what it asks for first."""

    data: bytes
    system_table: int
    """Physical address."""
    map_address: int
    map_size: int
    """Bytes."""

    def device_tree(
        self,
        *,
        bootargs: bytes,
        initrd: tuple[int, int] | None = None,
        seeds: dict[str, bytes] | None = None,
    ) -> bytes:
        """The device tree that says all this: a root with `/chosen` and nothing else, which is how Linux knows to use
        ACPI.

        Args:
            bootargs: the command line without its NUL.
            initrd: (start, end) physical addresses.
            seeds: more properties of `/chosen` (`kaslr-seed`, `rng-seed`).

        Raises:
            AcpiError: it would be larger than a device tree can be.
        """
        root = Node("", {"#address-cells": _u32(2), "#size-cells": _u32(2)})
        chosen = root.ensure("chosen").properties
        chosen["bootargs"] = bootargs + b"\0"
        if initrd is not None:
            chosen["linux,initrd-start"] = _u64(initrd[0])
            chosen["linux,initrd-end"] = _u64(initrd[1])
        chosen["linux,uefi-system-table"] = _u64(self.system_table)
        chosen["linux,uefi-mmap-start"] = _u64(self.map_address)
        chosen["linux,uefi-mmap-size"] = _u32(self.map_size)
        chosen["linux,uefi-mmap-desc-size"] = _u32(_DESCRIPTOR.size)
        chosen["linux,uefi-mmap-desc-ver"] = _u32(1)
        # Debian's kernels read it with the others, and those before 6.2 take none of them if it is missing.
        chosen["linux,uefi-secure-boot"] = _u32(_SECURE_BOOT_DISABLED)
        chosen.update(seeds or {})
        return flatten(Tree(root))


def hand_off(
    address: int, regions: Sequence[Region], tables: dict[UUID, int], *, vendor: str, vendor_revision: int = 1
) -> HandOff:
    """An EFI system table and all that it leads to, to be put at `address` (a multiple of 8).

    Args:
        address: where the bytes will be; they must lie in a region that the kernel keeps.
        regions: all memory that the kernel may know of.
        tables: configuration tables: GUID → physical address. Those without which Linux would call services that are
            not there, or complain, are added.
        vendor: the name that Linux prints.
        vendor_revision: of what, is the vendor's to say.

    Raises:
        AcpiError: see `memory_map`; or `address` is misaligned.
    """
    if address % 8:
        raise AcpiError(f"EFI system table: {address:#x} is not a multiple of 8")
    data = bytearray(_SYSTEM_TABLE.size)

    def append(part: bytes) -> int:
        data.extend(bytes(-len(data) % 8))
        data.extend(part)
        return address + len(data) - len(part)

    # Linux reads up to 100 characters, wherever the NUL is.
    name = append(vendor.encode("utf-16-le", "replace")[:198].ljust(200, b"\0"))
    entries = dict(tables)
    entries[RT_PROPERTIES] = append(_RT_PROPERTIES_TABLE)
    entries[LINUX_MEMRESERVE] = append(_MEMRESERVE_TABLE)
    configuration = append(b"".join(_CONFIGURATION.pack(guid.bytes_le, where) for guid, where in entries.items()))
    descriptors = memory_map(regions)
    map_address = append(descriptors)

    def header(crc: int) -> bytes:
        return _SYSTEM_TABLE.pack(
            SYSTEM_TABLE_SIGNATURE, REVISION, _SYSTEM_TABLE.size, crc, 0, name, vendor_revision,
            # Consoles, runtime services and boot services: none of them is there.
            0, 0, 0, 0, 0, 0, 0, 0, len(entries), configuration,
        )  # fmt: skip

    data[: _SYSTEM_TABLE.size] = header(zlib.crc32(header(0)))
    return HandOff(bytes(data), address, map_address, len(descriptors))


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def _u64(value: int) -> bytes:
    return value.to_bytes(8, "big")
