"""Source for iasl: every table of ours compiles to itself again, those that iasl does not know too."""

from __future__ import annotations

import shutil

import pytest

from acpi.formats import dsl
from acpi.iasl import Iasl, Severity, differences
from acpi.own import GhesSource, own_tables
from acpi.parse import parse
from acpi.tables import Agdi, Fadt, Rsdp
from tests.acpi.blobs import SSDT

pytestmark = pytest.mark.skipif(shutil.which("iasl") is None, reason="no iasl")

SOURCES = [GhesSource(0x324, 0x7FE0_0000, 4096, 0x7FE0_0008), GhesSource(0x325, 0x7FE0_1000, 64)]
TABLES = [
    *(table.to_bytes() for table in own_tables(ghes=SOURCES, agdi_event=0x326)),
    Agdi.by_interrupt(90).to_bytes(),
    Fadt(arm_boot_arch=3, flags=1 << 20).to_bytes(),
    SSDT,
]


def test_each_source_compiles_to_its_table() -> None:
    iasl = Iasl()
    sources, notes = dsl.files(TABLES, iasl)
    assert list(sources) == ["sdei.dsl", "hest.dsl", "agdi1.dsl", "agdi2.dsl", "facp.dsl", "ssdt.dsl"]
    for data, (name, text) in zip(TABLES, sources.items(), strict=True):
        result = iasl.compile(text)
        assert result.of(Severity.ERROR) == (), name
        assert result.data is not None
        assert differences(data, result.data) == [], name
        assert result.data[:9] == data[:9], name
    unknown = [name for name in ("AGDI", "HEST") if any(name in note for note in notes)]
    assert unknown in (["AGDI"], []), "only AGDI is unknown to old releases"
    assert bool(unknown) == (not iasl.disassemble(TABLES[2]).known)


def test_a_source_without_knowledge_says_what_its_numbers_are() -> None:
    text = dsl.generic(parse(TABLES[2]).fields())
    assert "UINT32 : 00000326 // SDEI Event" in text
    compiled = Iasl().compile(text).data
    assert compiled is not None
    assert differences(TABLES[2], compiled) == []


def test_what_has_no_source_is_left_out_and_said() -> None:
    sources, notes = dsl.files([Rsdp(xsdt_address=0x1000).to_bytes(), TABLES[0]], Iasl())
    assert list(sources) == ["sdei.dsl"]
    assert ["RSDP" in note for note in notes] == [True]
