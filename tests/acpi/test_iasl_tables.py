"""A second opinion: iasl takes every table that is made here apart and puts it together to the same bytes."""

from __future__ import annotations

import re
import shutil

import pytest

from qemu_sdei.acpi.iasl import Iasl, ToolError, differences
from qemu_sdei.acpi.own import GhesSource, own_tables
from qemu_sdei.acpi.show import fields
from qemu_sdei.acpi.table import Table
from qemu_sdei.acpi.tables.agdi import Agdi
from qemu_sdei.acpi.tables.hest import Ghes, Hest, Notification, NotificationType
from tests.acpi.samples import TABLES

pytestmark = pytest.mark.skipif(shutil.which("iasl") is None, reason="no iasl")

OWN = own_tables(
    ghes=[GhesSource(0x100, 0x4000_0000, 4096, 0x4000_0008), GhesSource(0x101, 0x4001_0000, 8192)], agdi_event=0x1FF
)
EMITTED: dict[str, Table] = {
    **{name: table for name, table in TABLES.items() if not name.startswith(("AGDI", "RSDP"))},
    **{f"own {table.signature}": table for table in OWN if table.signature != "AGDI"},
    "every notification": Hest(
        sources=tuple(
            Ghes(source_id=int(kind), notification=Notification(type=kind, vector=7)) for kind in NotificationType
        )
    ),
}

LOST = {"MADT": {160}}
"""Offsets at which an older iasl may write what it does not know as zero: "online capable" of a GICC (ACPI 6.5)."""

TOO_MUCH = {"MADT": "TRBE Interrupt"}
"""A field that the table does not have, and that iasl of 2025 shows all the same: it reads on into the next structure,
and does not compile its own listing then.
"""


@pytest.mark.parametrize("name", EMITTED)
def test_iasl_disassembles_and_compiles_to_the_same_bytes(name: str) -> None:
    data = EMITTED[name].to_bytes()
    iasl = Iasl()
    text = iasl.disassemble(data)
    assert text.known
    assert text.complaints == ()
    if name in TOO_MUCH and TOO_MUCH[name] in text.text:
        pytest.skip(f"iasl {iasl.version()} shows a field that this table does not have: {TOO_MUCH[name]}")
    again = iasl.compile(text.text)
    assert again.data is not None, again.messages
    found = differences(data, again.data, start=0 if name == "FACS" else 36)
    assert {each.offset for each in found} <= LOST.get(name, set())
    assert len(again.data) == len(data)


def test_iasl_sees_the_event_numbers_and_the_way_of_notification() -> None:
    text = Iasl().disassemble(OWN[1].to_bytes()).text
    assert text.count("Notify Type : 0B [Software Delegated Exception]") == 2
    assert "Vector : 00000100" in text
    assert "Vector : 00000101" in text


@pytest.mark.parametrize("name", ["FADT-6", "FADT-3", "HEST", "own HEST", "BERT", "XSDT", "RSDT"])
def test_iasl_and_we_see_the_same_fields_at_the_same_offsets(name: str) -> None:
    """Offsets by iasl are `[081h 0129   2]`, or since 2021 `[081h 0129 002h]`: hexadecimal, decimal, size."""
    data = EMITTED[name].to_bytes()
    text = Iasl().disassemble(data).text.partition("Raw Table Data")[0]
    places = re.findall(r"^\[[0-9A-F]+h (\d+) +([0-9A-F]+)(h?)\]", text, re.M)
    theirs = {(int(at), int(size, 16 if base else 10)) for at, size, base in places}
    ours = {(each.offset, each.size) for each in fields(data)}
    assert len(theirs) >= 10
    structures = {place for place in theirs if place[1] in (12, 28)}
    assert theirs - structures == ours, "iasl gives each structure a line of its own as well"


@pytest.mark.parametrize("table", [OWN[2], Agdi.by_interrupt(77)], ids=["by SDEI", "by interrupt"])
def test_agdi_is_said_to_be_unknown_to_an_iasl_that_does_not_know_it(table: Table) -> None:
    """Debian 12's iasl is of 2020-09-25, AGDI came in 2021-12: it gives the header alone. A newer one must agree."""
    iasl = Iasl()
    data = table.to_bytes()
    text = iasl.disassemble(data)
    if iasl.version() >= 20211217:
        again = iasl.compile(text.text)
        assert again.data is not None
        assert differences(data, again.data) == []
        return
    assert not text.known
    with pytest.raises(ToolError, match=r"does not know \(AGDI\)"):
        iasl.compile(text.text)
