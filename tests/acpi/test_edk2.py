"""The sources for EDK2: a C compiler makes the tables of them, byte for byte."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from qemu_sdei.acpi.formats import edk2
from qemu_sdei.acpi.own import GhesSource, own_tables
from qemu_sdei.acpi.table import Oem
from qemu_sdei.acpi.tables import Agdi, Fadt, Gas
from tests.acpi.blobs import SSDT

BASE_H = """#include <stdint.h>
typedef uint8_t UINT8; typedef uint16_t UINT16; typedef uint32_t UINT32; typedef uint64_t UINT64;
#define VOID void
#define CONST const
"""
"""What of MdePkg's <Base.h> is used."""

OURS = [
    table.to_bytes()
    for table in own_tables(
        ghes=[GhesSource(0x324, 0x7FE0_0000, 4096, 0x7FE0_0008), GhesSource(0x325, 0x7FE0_1000, 64)],
        agdi_event=0x326,
        oem=Oem(oem_id=b"A'\\\"*/", oem_table_id=b"\0\xff??/ ab"),
    )
]
FADT = Fadt(arm_boot_arch=3, reset_reg=Gas.memory(0x1234), hypervisor_vendor=b"QEMU\0\0\0\0").to_bytes()
TABLES = [*OURS, FADT, Agdi(flags=1, gsiv=90, reserved=0x03_0201).to_bytes()]

needs_gcc = pytest.mark.skipif(
    shutil.which("gcc") is None or shutil.which("objcopy") is None, reason="no gcc and binutils"
)


def compiled(source: bytes, folder: Path) -> bytes:
    """The initialised data of the object, which is what EDK2's GenFw takes for the table."""
    (folder / "Base.h").write_text(BASE_H)
    (folder / "table.aslc").write_bytes(source)
    flags = ["-Wall", "-Wextra", "-Werror", "-std=c11", "-ffreestanding", "-fno-pic", "-fshort-wchar", "-I."]
    for command in (
        ["gcc", "-x", "c", "-c", *flags, "-o", "table.o", "table.aslc"],
        ["objcopy", "-O", "binary", "--only-section=.data", "table.o", "table.acpi"],
    ):
        subprocess.run(command, cwd=folder, check=True, timeout=60)
    return (folder / "table.acpi").read_bytes()


@needs_gcc
def test_each_source_compiles_to_its_table(tmp_path: Path) -> None:
    files = edk2.of_tables(TABLES)
    assert [name for name in files if name.endswith(".aslc")] == [
        "Sdei.aslc", "Hest.aslc", "Agdi1.aslc", "Facp.aslc", "Agdi2.aslc",
    ]  # fmt: skip
    for data, name in zip(TABLES, files, strict=False):
        assert compiled(files[name], tmp_path) == data, name


def test_a_person_can_read_the_source() -> None:
    text = edk2.of_tables(TABLES)["Hest.aslc"].decode()
    assert "#include <Base.h>" in text
    assert re.search(r"UINT64 +Sources0ErrorStatusAddressAddress;", text)
    assert re.search(r"0x00000324, +// Source 0: Notify: Vector", text)
    assert "ReferenceAcpiTable = &Hest;" in text


def test_the_module_lists_what_there_is() -> None:
    files = edk2.of_tables([*TABLES[:2], SSDT])
    text = files[edk2.INF].decode()
    listed = re.findall(r"^  (?:ASL\|)?(\w+\.\w+)(?:\|\*)?$", text, re.M)
    assert listed == ["Sdei.aslc", "Hest.aslc", "Ssdt.aml"] == [name for name in files if name != edk2.INF]
    assert files["Ssdt.aml"] == SSDT
    assert edk2.STORAGE_GUID in text
    assert "[Binaries" not in edk2.of_tables(TABLES[:1])[edk2.INF].decode()


def test_the_module_names_a_rule_that_takes_it() -> None:
    """EDK2's own rule ACPITABLE has `RAW ASL |.aml` without Optional: GenFds ends with F003 where there is no .aml.

    Built with EDK2 of 2026-08: with our rule, with ACPITABLE and a binary, and not with ACPITABLE alone.
    """
    alone = edk2.of_tables(OURS)[edk2.INF].decode()
    assert f"INF RuleOverride = QEMUSDEITABLES <path>/{edk2.INF}" in alone
    rule = alone.partition("[Rule.Common.USER_DEFINED.QEMUSDEITABLES]")[2]
    assert re.findall(r"RAW (\w+) +(\w*) *\|(\.\w+)", rule) == [
        ("ACPI", "Optional", ".acpi"),
        ("ASL", "Optional", ".aml"),
    ]
    both = edk2.of_tables([OURS[0], SSDT])[edk2.INF].decode()
    assert "INF RuleOverride = ACPITABLE" in both
    assert "[Rule" not in both
    assert "QEMUSDEITABLES" in edk2.of_tables([SSDT])[edk2.INF].decode()


def test_firmware_makes_its_own_roots() -> None:
    rsdp = b"RSD PTR " + bytes(28)
    xsdt = b"XSDT" + bytes(32)
    assert list(edk2.of_tables([rsdp, xsdt, OURS[0]])) == ["Sdei.aslc", edk2.INF]
