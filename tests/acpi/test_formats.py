"""C arrays, hexadecimal text and initrd overrides, read back by the tools that they are for."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from qemu_sdei.acpi import AcpiError
from qemu_sdei.acpi.formats import carray, file_names, hexdump, override
from tests.acpi.blobs import AGDI, SDEI, SSDT, table

TABLES = [SDEI, AGDI, SSDT, table(b"SSDT", bytes(300))]
HEST = table(b"HEST", bytes(4))
KERNELS = sorted((Path.home() / ".cache" / "qemu-sdei" / "kernels").glob("*/vmlinuz-*"))


def test_names_are_those_of_acpixtract() -> None:
    assert file_names(TABLES) == ["sdei", "agdi", "ssdt1", "ssdt2"]
    assert file_names([b"RSD PTR " + bytes(28)]) == ["rsdp"]


@pytest.mark.parametrize("data", [b"", b"abc", b"../x" + bytes(32), b"A B " + bytes(32), bytes(36)])
def test_a_name_is_never_made_of_something_else(data: bytes) -> None:
    with pytest.raises(AcpiError, match="signature"):
        file_names([data])


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")
def test_a_c_program_has_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "tables.c").write_text(carray.write(TABLES))
    (tmp_path / "main.c").write_text(
        """#include <stdio.h>
struct acpi_table_bytes { const char *name; const unsigned char *data; size_t size; };
extern const struct acpi_table_bytes acpi_tables[];
extern const size_t acpi_tables_count;
int main(void)
{
    for (size_t i = 0; i < acpi_tables_count; i++) {
        printf("%s %d", acpi_tables[i].name, (int)((unsigned long)acpi_tables[i].data % 8));
        for (size_t k = 0; k < acpi_tables[i].size; k++)
            printf("%s%02x", k ? "" : " ", acpi_tables[i].data[k]);
        putchar('\\n');
    }
    return 0;
}
"""
    )
    flags = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["gcc", *flags, "-o", "main", "main.c", "tables.c"], cwd=tmp_path, check=True, timeout=60)
    said = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True, timeout=10).stdout
    assert said.splitlines() == [f"{n} 0 {t.hex()}" for n, t in zip(file_names(TABLES), TABLES, strict=True)]


def test_hexadecimal_text() -> None:
    text = hexdump.write(TABLES)
    assert bytes.fromhex(text) == b"".join(TABLES)
    assert max(map(len, text.splitlines())) <= 64


def test_what_linux_takes_is_put_where_it_looks() -> None:
    assert override.files([HEST, AGDI, SSDT, TABLES[3]]) == {
        "kernel/firmware/acpi/hest.aml": HEST,
        "kernel/firmware/acpi/agdi.aml": AGDI,
        "kernel/firmware/acpi/ssdt1.aml": SSDT,
        "kernel/firmware/acpi/ssdt2.aml": TABLES[3],
    }


@pytest.mark.parametrize(
    ("tables", "what"),
    [
        ([SDEI], "no SDEI table"),
        ([b"RSD PTR " + bytes(28)], "no RSDP table"),
        ([HEST] * 65, "64"),
        ([HEST[:-1]], "40 bytes, there are 39"),
        ([HEST[:9] + b"\\0" + HEST[10:-1]], "HEST"),
        ([HEST[:9] + bytes([HEST[9] ^ 1]) + HEST[10:]], "checksum"),
        ([b"HEST"], "HEST"),
    ],
)
def test_what_linux_would_leave_out_is_refused(tables: list[bytes], what: str) -> None:
    with pytest.raises(AcpiError, match=what):
        override.files(tables)


@pytest.mark.skipif(not KERNELS, reason="no kernel of Debian's in the cache")
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda path: path.parent.name)
def test_the_signatures_are_those_of_the_kernel(kernel: Path) -> None:
    """The list lies in the image as it is in drivers/acpi/tables.c."""
    match = re.search(rb"BERTBGRT(?:[A-Z0-9!]{4})+", kernel.read_bytes())
    if match is None:
        pytest.skip("a compressed image")
    there = {match[0][at : at + 4].decode().replace("!", "_") for at in range(0, len(match[0]), 4)}
    assert there >= override.SIGNATURES
    assert "SDEI" not in there


def test_a_newer_revision_has_a_right_checksum() -> None:
    newer = override.newer(HEST, 7)
    assert newer[24:28] == b"\7\0\0\0"
    assert sum(newer) & 0xFF == 0
    assert newer[:9] + newer[10:24] + newer[28:] == HEST[:9] + HEST[10:24] + HEST[28:]
    with pytest.raises(AcpiError):
        override.newer(HEST, 1 << 32)
    with pytest.raises(AcpiError):
        override.newer(HEST[:35], 1)
