"""Printing a table and comparing two."""

from __future__ import annotations

import re

import pytest

from qemu_sdei.acpi.show import compare, fields, show
from qemu_sdei.acpi.tables.agdi import Agdi
from qemu_sdei.acpi.tables.hest import Ghes, Hest, Notification
from qemu_sdei.acpi.tables.raw import RawTable
from qemu_sdei.acpi.tables.sdei import Sdei
from tests.acpi import blobs
from tests.acpi.samples import FADT, HEST, OEM, TABLES


@pytest.mark.parametrize("name", TABLES)
def test_every_line_has_offset_name_and_value(name: str) -> None:
    table = TABLES[name]
    text = show(table)
    assert text == show(table.to_bytes())
    for line in text.splitlines():
        assert re.fullmatch(r"\[0x[0-9a-f]{4,}\] (\S.* : .+|  [0-9a-f ]+)", line), line
    assert len(text.splitlines()) >= len(fields(table))


def test_numbers_are_told_in_words() -> None:
    text = show(HEST)
    for words in (
        "[0x0024] Error Source Count",
        ": 0x00000009",
        "Source 7: Notify: Type",
        "0x0b (Software Delegated Exception (SDEI))",
        "0x000a (generic hardware error source, version 2)",
        "0x01 (enabled)",
        "0xffff (no related source)",
        "0x00 (system memory)",
    ):
        assert words in text, words
    text = show(FADT.replace(psci_use_hvc=True))
    assert re.search(r"\[0x0081\] ARM_BOOT_ARCH +: 0x0003 \(PSCI_COMPLIANT, PSCI_USE_HVC\)", text)
    assert "(HW_REDUCED_ACPI)" in text
    assert "(enterprise server)" in text
    assert "(signalled by an SDEI event)" in show(Agdi.by_sdei(1))
    assert "unknown" in show(Hest(sources=(Ghes(notification=Notification(type=99)),)))


def test_what_has_no_fields_is_printed_as_bytes() -> None:
    text = show(RawTable.build("OEM1", bytes(range(40))))
    assert "[0x0024] Data             : 40 bytes" in text
    assert "[0x0044]   20 21 22 23 24 25 26 27" in text


def test_a_wrong_checksum_is_shown_as_it_stands() -> None:
    data = bytearray(blobs.SDEI)
    data[9] ^= 0xFF
    assert f"[0x0009] Checksum         : {data[9]:#04x} (wrong)" in show(data)
    assert "wrong" not in show(blobs.SDEI)


def test_differences_are_told_by_field_old_and_new() -> None:
    (difference,) = compare(FADT, FADT.replace(psci_use_hvc=True))
    assert (difference.name, difference.offset, difference.old, difference.new) == ("arm_boot_arch", 129, 1, 3)
    assert str(difference) == "arm_boot_arch: 0x0001 (PSCI_COMPLIANT) -> 0x0003 (PSCI_COMPLIANT, PSCI_USE_HVC)"
    names = [each.name for each in compare(FADT, FADT.replace(psci_use_hvc=True), checksum=True)]
    assert names == ["checksum", "arm_boot_arch"]


@pytest.mark.parametrize("name", TABLES)
def test_a_table_does_not_differ_from_itself(name: str) -> None:
    assert compare(TABLES[name], TABLES[name].to_bytes(), checksum=True) == []


def test_fields_that_one_table_lacks_are_named() -> None:
    first = Hest(oem=OEM, sources=HEST.sources[:1])
    differences = {each.name: each for each in compare(first, HEST)}
    assert differences["error_source_count"].new == 9
    added = differences["sources[7].notification.vector"]
    assert (added.old, added.new) == (None, 0x101)
    assert str(added) == "sources[7].notification.vector: not there -> 0x00000101"
    assert differences["length"].old == 40 + 96
    removed = {each.name: each for each in compare(HEST, first)}["sources[7].notification.vector"]
    assert (removed.old, removed.new) == (0x101, None)


def test_long_data_is_told_by_its_first_difference() -> None:
    first, second = RawTable.build("SSDT", bytes(100)), RawTable.build("SSDT", bytes(70) + b"x" + bytes(29))
    (difference,) = compare(first, second)
    assert str(difference) == "data: 100 bytes -> 100 bytes, the first difference is at offset 0x6a"


def test_tables_of_other_kinds_can_be_compared() -> None:
    names = [each.name for each in compare(Sdei(), Agdi.by_sdei(5))]
    assert names == ["signature", "length", "revision", "flags", "reserved", "sdei_event", "gsiv"]


def test_of_a_damaged_table_header_bytes_and_reason_are_shown() -> None:
    text = show(HEST.to_bytes()[:-1])
    reason, *lines = text.splitlines()
    assert reason.startswith("cannot be read: HEST (offset 0x4, length):")
    assert any("OEM Table ID" in line and "BOARD" in line for line in lines)
    assert sum(each.size for each in fields(HEST.to_bytes()[:-1])) == len(HEST.to_bytes()) - 1
    assert show(blobs.SDEI[:20]).startswith("cannot be read: ")


def test_a_damaged_table_is_compared_by_its_bytes() -> None:
    data = HEST.to_bytes()
    assert compare(data[:-1], data[:-1], checksum=True) == []
    (difference,) = compare(data[:-1], data)
    assert difference.name == "data"


def test_bytes_behind_a_table_are_shown_behind_its_fields() -> None:
    """A FACS in texts of old acpidumps has 80 bytes, and a length of 64."""
    facs = b"FACS" + (64).to_bytes(4, "little") + bytes(72)
    assert [(each.name, each.offset, each.size) for each in fields(facs)][-2:] == [
        ("reserved2", 40, 24), ("behind", 64, 16),
    ]  # fmt: skip
    assert "cannot be read" not in show(facs)
