r"""The SSDT with `\_SB._OSC`: iasl reads it as what was meant, and ACPICA's interpreter, which is Linux' own, gets the
answers.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from uuid import UUID

import pytest

from qemu_sdei.acpi import aml
from qemu_sdei.acpi.errors import AcpiError, TableError
from qemu_sdei.acpi.hed import hed_table
from qemu_sdei.acpi.iasl import Iasl, differences
from qemu_sdei.acpi.osc import APEI_SUPPORT, PLATFORM, WHEA, osc_table
from qemu_sdei.acpi.own import BootErrors, GhesSource, own_tables
from qemu_sdei.acpi.table import Oem
from qemu_sdei.acpi.tables.bert import Bert
from qemu_sdei.acpi.tables.hest import Notification
from qemu_sdei.acpi.tables.raw import RawTable
from qemu_sdei.acpi.verify import verify_set

needs_iasl = pytest.mark.skipif(shutil.which("iasl") is None, reason="no iasl")
SOURCE = r"""
DefinitionBlock ("", "SSDT", 2, "ACME", "BOARD", 1)
{
    Scope (\_SB)
    {
        Method (_OSC, 4, Serialized)
        {
            CreateDWordField (Arg3, 0, CDW1)
            If (Arg0 == ToUUID ("ed855e0c-6c90-47bf-a62a-26de0fc5ad5c"))
            {
                If (Arg1 != 1) { CDW1 |= 8 Return (Arg3) }
                Return (Arg3)
            }
            If (Arg0 == ToUUID ("0811b06e-4a27-44f9-8d60-3cbbc22e7b48"))
            {
                If (Arg1 != 1) { CDW1 |= 8 Return (Arg3) }
                CreateDWordField (Arg3, 4, CDW2)
                Local0 = CDW2 & 0x10
                If (Local0 != CDW2) { CDW1 |= 0x10 CDW2 = Local0 }
                Return (Arg3)
            }
            CDW1 |= 4
            Return (Arg3)
        }
    }
}
"""


@needs_iasl
def test_it_is_what_iasl_makes_of_the_same_method() -> None:
    table = osc_table(Oem(b"ACME", b"BOARD")).to_bytes()
    compiled = Iasl().compile(SOURCE)
    assert compiled.data is not None, compiled.messages
    assert differences(table, compiled.data) == []
    read = Iasl().disassemble(table)
    assert read.complaints == ()
    again = Iasl().compile(read.text)
    assert again.data is not None
    assert differences(table, again.data) == []


ASKED = {
    "WHEA, as Linux asks": (WHEA, 1, [1, 1, 0], [1, 1, 0]),
    "the platform, a query": (PLATFORM, 1, [1, 0x7FF], [1 | 0x10, APEI_SUPPORT]),
    "the platform, for good": (PLATFORM, 1, [0, APEI_SUPPORT], [0, APEI_SUPPORT]),
    "an unknown revision": (PLATFORM, 2, [0, APEI_SUPPORT], [8, APEI_SUPPORT]),
    "an unknown revision of WHEA": (WHEA, 7, [0, 1, 0], [8, 1, 0]),
    "an unknown UUID": ("00000000-0000-0000-0000-000000000001", 1, [0, 0], [4, 0]),
}
"""UUID, revision and words of a question, and the words of its answer."""


def words(data: bytes) -> list[int]:
    return [int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4)]


@pytest.mark.skipif(shutil.which("acpiexec") is None, reason="no acpiexec")
def test_its_answers(tmp_path: Path) -> None:
    def buffer(data: bytes) -> str:
        return f"({' '.join(f'{byte:02X}' for byte in data)})"

    dsdt = RawTable.build("DSDT", aml.scope(r"\_SB", aml.method("TEST", 0)), revision=2)
    (tmp_path / "dsdt.aml").write_bytes(dsdt.to_bytes())
    (tmp_path / "ssdt.aml").write_bytes(osc_table().to_bytes())
    commands = [
        rf"execute \_SB._OSC {buffer(UUID(uuid).bytes_le)} {revision} {len(given)} "
        + buffer(b"".join(each.to_bytes(4, "little") for each in given))
        for uuid, revision, given, _ in ASKED.values()
    ]
    done = subprocess.run(
        ["acpiexec", "dsdt.aml", "ssdt.aml"],
        input="\n".join([*commands, "quit", ""]), cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    found = re.findall(r"\[Buffer\] Length \w+ = +0000: ((?:[0-9A-F]{2} )+)", done.stdout)
    answers = [words(bytes.fromhex(each)) for each in found]
    assert dict(zip(ASKED, answers, strict=True)) == {name: answer for name, (*_, answer) in ASKED.items()}


HED_SOURCE = r"""
DefinitionBlock ("", "SSDT", 2, "ACME", "BOARD", 1)
{
    Device (\_SB.QHED) { Name (_HID, EISAID ("PNP0C33")) }
    Device (\_SB.QGED)
    {
        Name (_HID, "ACPI0013")
        Name (_UID, "QSDE")
        Name (_CRS, ResourceTemplate ()
        {
            Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) { 100 }
            Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) { 300 }
        })
        Method (_EVT, 1, Serialized) { Notify (\_SB.QHED, 0x80) }
    }
}
"""


@needs_iasl
def test_the_devices_that_take_interrupts_are_what_iasl_makes_of_them() -> None:
    table = hed_table([300, 100, 300], Oem(b"ACME", b"BOARD")).to_bytes()
    compiled = Iasl().compile(HED_SOURCE)
    assert compiled.data is not None, compiled.messages
    assert differences(table, compiled.data) == []
    assert Iasl().disassemble(table).complaints == ()


def test_sources_that_an_interrupt_tells_of_have_these_devices() -> None:
    def ghes(notification: Notification) -> list[GhesSource]:
        return [GhesSource(None, 0x4000_0000, 4096, notification=notification)]

    assert [each.signature for each in own_tables(ghes=ghes(Notification.interrupt(100)))] == ["SDEI", "HEST"]
    tables = own_tables(ghes=ghes(Notification.gsiv(100)))
    assert [each.signature for each in tables] == ["SDEI", "HEST", "SSDT"]
    assert tables[-1].to_bytes() == hed_table([100]).to_bytes()


def test_our_tables_have_it_where_it_is_asked_for() -> None:
    oem = Oem(b"ACME", b"BOARD")
    tables = own_tables(oem=oem, boot_errors=BootErrors(0x4000_0000, 4096), firmware_first=True)
    assert [each.signature for each in tables] == ["SDEI", "BERT", "SSDT"]
    bert = tables[1]
    assert isinstance(bert, Bert)
    assert (bert.region_address, bert.region_length) == (0x4000_0000, 4096)
    assert {each.header.oem.oem_id for each in tables} == {tables[0].header.oem.oem_id}
    assert [each for each in verify_set([each.to_bytes() for each in tables]) if "BERT" in str(each)] == []
    assert [each.signature for each in own_tables()] == ["SDEI"]


@pytest.mark.parametrize(
    ("address", "length", "field"),
    [(0, 4096, "region_address"), (0x4000_0004, 4096, "region_address"), (0x4000_0000, 19, "region_length")],
)
def test_a_region_that_cannot_be(address: int, length: int, field: str) -> None:
    with pytest.raises(TableError) as error:
        own_tables(boot_errors=BootErrors(address, length))
    assert (error.value.signature, error.value.field) == ("BERT", field)


def test_lengths_of_packages() -> None:
    """One byte up to 63, then the low four bits in the first and up to three more (ACPI 6.5 20.2.4)."""
    for size, head in (
        (0, b"\x01"), (62, b"\x3f"), (63, b"\x41\x04"), (4093, b"\x4f\xff"), (4094, b"\x81\x00\x01"),
    ):  # fmt: skip
        data = bytes(size)
        assert aml.package(data) == head + data


@needs_iasl
def test_large_packages_and_numbers_as_iasl_reads_them() -> None:
    data = bytes(range(256)) * 20
    values = [0, 1, 2, 0xFF, 0x100, 0xFFFF, 0x1_0000, 1 << 32, 1 << 63]
    body = aml.scope(
        r"\_SB",
        *(aml.method(f"N{n:03}", 0, aml.returns(aml.number(value))) for n, value in enumerate(values)),
        aml.method("BIG", 0, aml.returns(aml.buffer(data))),
    )
    table = RawTable.build("SSDT", body, revision=2).to_bytes()
    read = Iasl().disassemble(table)
    assert read.complaints == ()
    again = Iasl().compile(read.text)
    assert again.data is not None, again.messages
    assert differences(table, again.data) == []
    for value in values[2:]:
        assert re.search(rf"Return \(0x0*{value:X}\)", read.text)


def test_names() -> None:
    assert aml.name("CDW1") == b"CDW1"
    assert aml.name("_SB") == b"_SB_"
    assert aml.name(r"\_SB.PCI0") == b"\\\x2e_SB_PCI0"
    assert aml.name(r"\_SB.PCI0.GPP0") == b"\\\x2f\x03_SB_PCI0GPP0"
    for wrong in ("", "TOOLONG", "low", "1ABC", "\\"):
        with pytest.raises(AcpiError):
            aml.name(wrong)
    with pytest.raises(AcpiError):
        aml.number(1 << 64)
