"""The ACPI tables of QEMU's `virt` machine, in several shapes, as firmware would leave them in memory.

The files come from fw_cfg of a machine that never runs. They are linked here by the few lines below, and not by
`qemu_sdei.acpi.linker`, so that neither is tested by itself.
"""

from __future__ import annotations

import shutil
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from qemu_sdei.tables.fw_cfg_qtest import read_files

BASE: Final = 0x4400_0000
FILES: Final = ("etc/acpi/tables", "etc/acpi/rsdp", "etc/table-loader")
DEVICES: Final = ("-device", "virtio-rng-pci", "-device", "pcie-root-port,id=port0,chassis=1")


@dataclass(frozen=True)
class Shape:
    """A machine: what `-smp`, `-m` and the rest of QEMU's command line say."""

    cpus: int = 2
    mib: int = 256
    cpu: str = "cortex-a72"
    virtualization: bool = False
    extra: tuple[str, ...] = ()


SHAPES: Final[dict[str, Shape]] = {
    "plain": Shape(),
    "1 vCPU, 128 MiB": Shape(cpus=1, mib=128),
    "4 vCPUs, 4 GiB": Shape(cpus=4, mib=4096),
    "virtualization": Shape(cpu="max", virtualization=True),
    "not secure": Shape(extra=("-machine", "secure=off")),
    "pcie devices": Shape(extra=DEVICES),
    "its off": Shape(extra=("-machine", "its=off")),
    "ras": Shape(extra=("-machine", "ras=on")),
    "smmu": Shape(extra=("-machine", "iommu=smmuv3")),
    "gic 2": Shape(extra=("-machine", "gic-version=2")),
    "oem ids": Shape(extra=("-machine", "x-oem-id=ACME,x-oem-table-id=BOARD")),
    "virtio iommu": Shape(extra=("-device", "virtio-iommu-pci")),
    "nvdimm": Shape(
        extra=(
            "-m", "256M,slots=2,maxmem=1G", "-machine", "nvdimm=on",
            "-object", "memory-backend-ram,id=nv,size=16M", "-device", "nvdimm,memdev=nv",
        ),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """Its tables, linked."""

    rsdp: bytes
    tables: tuple[bytes, ...]
    """All others, in their order in memory, without gaps."""
    address: int
    """Of the first of them."""

    def of(self, signature: bytes) -> bytes:
        """The only table with a signature."""
        (found,) = (table for table in self.tables if table[:4] == signature)
        return found


@cache
def fw_cfg(name: str) -> dict[str, bytes]:
    """The three files that ACPI needs, of the machine `SHAPES[name]`."""
    qemu = shutil.which("qemu-system-aarch64")
    if qemu is None:
        pytest.skip("no qemu-system-aarch64")
    shape = SHAPES[name]
    return dict(
        read_files(
            FILES, qemu=Path(qemu), nr_cpus=shape.cpus, ram_size=shape.mib << 20, cpu=shape.cpu,
            virtualization=shape.virtualization, extra=shape.extra,
        )
    )  # fmt: skip


@cache
def machine(name: str) -> Machine:
    """The linked tables of `SHAPES[name]`. The test that asks has the marker `guest`, since this starts a QEMU."""
    placed, address = link(fw_cfg(name))
    blob = placed["etc/acpi/tables"]
    tables: list[bytes] = []
    at = 0
    while blob[at : at + 4].isalnum():
        (size,) = struct.unpack_from("<I", blob, at + 4)
        tables.append(bytes(blob[at : at + size]))
        at += size
    assert not any(blob[at:]), "bytes behind the last table"
    rsdp = placed["etc/acpi/rsdp"]
    return Machine(bytes(rsdp[: 36 if rsdp[15] >= 2 else 20]), tuple(tables), address["etc/acpi/tables"])


def link(files: dict[str, bytes]) -> tuple[dict[str, bytearray], dict[str, int]]:
    """Do what the script says (QEMU's hw/acpi/bios-linker-loader.c: 128 bytes a command), from `BASE` on.

    Returns each file as it is then, and where. Files that are no tables (`etc/hardware_errors`) are 4096 zeros.
    """
    placed: dict[str, bytearray] = {}
    address: dict[str, int] = {}
    free = BASE
    script = files["etc/table-loader"]
    for at in range(0, len(script), 128):
        (command,) = struct.unpack_from("<I", script, at)
        first = text(script[at + 4 : at + 60])
        if command == 1:
            (align,) = struct.unpack_from("<I", script, at + 60)
            placed[first] = bytearray(files.get(first, bytes(4096)))
            free = address[first] = (free + align - 1) // align * align
            free += len(placed[first])
        elif command == 2:
            target = text(script[at + 60 : at + 116])
            offset, size = struct.unpack_from("<IB", script, at + 116)
            field = placed[first][offset : offset + size]
            value = int.from_bytes(field, "little") + address[target]
            placed[first][offset : offset + size] = value.to_bytes(size, "little")
        elif command == 3:
            offset, start, size = struct.unpack_from("<III", script, at + 60)
            placed[first][offset] = (placed[first][offset] - sum(placed[first][start : start + size])) & 0xFF
    return placed, address


def text(name: bytes) -> str:
    """A file's name, which ends with a zero."""
    return name.partition(b"\0")[0].decode()
