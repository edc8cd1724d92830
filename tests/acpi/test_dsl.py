"""Source for iasl: every table of ours compiles to itself again, those that iasl does not know too."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from qemu_sdei.acpi.formats import dsl
from qemu_sdei.acpi.iasl import Iasl, Severity, differences
from qemu_sdei.acpi.own import GhesSource, own_tables
from qemu_sdei.acpi.parse import parse
from qemu_sdei.acpi.tables import Agdi, Fadt, RawTable, Rsdp
from tests.acpi.blobs import SSDT

pytestmark = pytest.mark.skipif(shutil.which("iasl") is None, reason="no iasl")

SOURCES = [GhesSource(0x324, 0x7FE0_0000, 4096, 0x7FE0_0008), GhesSource(0x325, 0x7FE0_1000, 64)]
TABLES = [
    *(table.to_bytes() for table in own_tables(ghes=SOURCES, agdi_event=0x326)),
    Agdi.by_interrupt(90).to_bytes(),
    Agdi.by_both(0x326, 90).to_bytes(),
    Fadt(arm_boot_arch=3, flags=1 << 20, x_dsdt=0x4100_0000).to_bytes(),
    SSDT,
]
AGDIS = [Agdi.by_sdei(0x326), Agdi.by_interrupt(90), Agdi.by_both(0x326, 90)]


def test_each_source_compiles_to_its_table() -> None:
    iasl = Iasl()
    sources, notes = dsl.files(TABLES, iasl)
    assert list(sources) == ["sdei.dsl", "hest.dsl", "agdi1.dsl", "agdi2.dsl", "agdi3.dsl", "facp.dsl", "ssdt.dsl"]
    for data, (name, text) in zip(TABLES, sources.items(), strict=True):
        result = iasl.compile(text)
        assert result.of(Severity.ERROR) == (), name
        assert result.data is not None
        assert differences(data, result.data) == [], name
        assert result.data[:9] == data[:9], name
    unknown = [name for name in ("AGDI", "HEST") if any(name in note for note in notes)]
    assert unknown in (["AGDI"], []), "only AGDI is unknown to old releases"
    assert bool(unknown) == (not iasl.disassemble(TABLES[2]).known)


@pytest.mark.parametrize("table", AGDIS, ids=["SDEI", "interrupt", "both"])
def test_an_agdi_is_for_each_iasl(table: Agdi, tmp_path: Path) -> None:
    """By iasl's own names; an iasl that is older than these takes the other half, if it is told so by -D."""
    text = dsl.agdi(table)
    (tmp_path / "agdi.dsl").write_text(text)
    old = Iasl().version() < dsl.AGDI_SINCE
    words = ["-D", f"IASL_BEFORE_{dsl.AGDI_SINCE}"] if old else []
    subprocess.run(["iasl", *words, "agdi.dsl"], cwd=tmp_path, check=True, capture_output=True, timeout=30)
    assert differences(table.to_bytes(), (tmp_path / "agdi.aml").read_bytes()) == []
    names = {line.partition(":")[0].partition("]")[2].strip() for line in text.splitlines() if ":" in line}
    assert {"Flags (decoded below)", "Reserved", "SdeiEvent", "Gsiv"} <= names
    if not old:
        # What is written is what this iasl prints.
        printed = re.sub(r"^\[.*?\]", "", Iasl().disassemble(table.to_bytes()).text, flags=re.M)
        half = re.sub(r"^\[.*?\]", "", text.partition("#else\n")[2].partition("#endif")[0], flags=re.M)
        assert [line.split(":") for line in half.split("\n") if line.strip()]
        assert all(line.strip() in re.sub(r" +", " ", printed) for line in re.sub(r" +", " ", half).splitlines())


def test_the_source_does_not_depend_on_the_iasl_here(tmp_path: Path) -> None:
    """Two of them, one of which says that it does not know the table."""
    stranger = tmp_path / "iasl"
    stranger.write_text(
        f'#!/bin/sh\n{shutil.which("iasl")} "$@"\nstatus=$?\n'
        "[ -e agdi.dsl ] && echo '**** Unknown ACPI table signature [AGDI]' >>agdi.dsl\nexit $status\n"
    )
    stranger.chmod(0o755)
    first, notes = dsl.files([TABLES[2]], Iasl(stranger))
    second, _ = dsl.files([TABLES[2]], Iasl())
    assert first == second
    assert "IASL_BEFORE_20211217" in notes[0]


@pytest.mark.parametrize("words", [[], ["-G"]], ids=["plain", "generic"])
def test_a_source_without_knowledge_says_what_its_numbers_are(words: list[str], tmp_path: Path) -> None:
    """What no iasl knows; with -G an iasl takes that of a table that it does know."""
    data = AGDIS[2].to_bytes() if words else RawTable.build("OEM1", AGDIS[2].body()).to_bytes()
    text = dsl.generic(parse(data).fields())
    assert not words or "UINT32 : 00000326 // SDEI Event" in text
    (tmp_path / "it.dsl").write_text(text)
    subprocess.run(["iasl", *words, "it.dsl"], cwd=tmp_path, check=True, capture_output=True, timeout=30)
    assert differences(data, (tmp_path / "it.aml").read_bytes()) == []


def test_what_has_no_source_is_left_out_and_said() -> None:
    sources, notes = dsl.files([Rsdp(xsdt_address=0x1000).to_bytes(), TABLES[0]], Iasl())
    assert list(sources) == ["sdei.dsl"]
    assert ["RSDP" in note for note in notes] == [True]
