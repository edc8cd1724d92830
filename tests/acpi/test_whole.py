"""What is wrong between the tables of one machine is found, where it is; what is right, or unknown, is not."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import pytest

from qemu_sdei.acpi.formats.acpidump import Entry
from qemu_sdei.acpi.own import GhesSource, own_tables
from qemu_sdei.acpi.tables.agdi import Agdi
from qemu_sdei.acpi.tables.bert import Bert
from qemu_sdei.acpi.tables.gas import Gas
from qemu_sdei.acpi.tables.hest import Ghes, GhesV2, Hest, Notification
from qemu_sdei.acpi.tables.raw import RawTable
from qemu_sdei.acpi.tables.root import Rsdp, Xsdt
from qemu_sdei.acpi.tables.sdei import Sdei
from qemu_sdei.acpi.verify import verify, verify_set
from tests.acpi.samples import FADT, fixed_hardware

FIRST = GhesV2(
    source_id=1, max_raw_length=4096, block_length=4096, error_status_address=Gas.memory(0x4000_0000),
    notification=Notification.sdei(0x100), read_ack=Gas.memory(0x4000_0008),
)  # fmt: skip
SECOND = replace(
    FIRST, source_id=2, error_status_address=Gas.memory(0x4000_0010), read_ack=Gas.memory(0x4000_0018),
    notification=Notification.sdei(0x101),
)  # fmt: skip
HEST = Hest(sources=(FIRST, SECOND))
SDEI, AGDI = Sdei(), Agdi.by_sdei(0x102)


def found(*tables: Any, **options: Any) -> list[tuple[str, str, str]]:
    """Severity, table and field of each finding."""
    data = [table if isinstance(table, Entry) else table.to_bytes() for table in tables]
    return [
        (each.finding.severity.value, each.finding.signature, each.finding.field)
        for each in verify_set(data, **options)
    ]


def sources(**changes: Any) -> Hest:
    return Hest(sources=(FIRST, replace(SECOND, **changes)))


def madt(*cpus: tuple[int, int, int]) -> RawTable:
    """A MADT whose CPUs have these flags, parked addresses and maintenance interrupts."""
    body = struct.pack("<II", 0, 0)
    for number, (flags, parked, maintenance) in enumerate(cpus):
        body += struct.pack(
            "<BBHIIIIIQQQQIQQBBH", 11, 80, 0, number, number, flags, 0, 23, parked, 0, 0, 0, maintenance, 0, number,
            0, 0, 0,
        )  # fmt: skip
    return RawTable.build("APIC", body, revision=5)


V1 = "sources[1]."


def test_a_sound_set_is_not_complained_of() -> None:
    assert found(Rsdp(xsdt_address=8), Xsdt(entries=(8,)), FADT, SDEI, HEST, AGDI, madt((1, 0, 0), (1, 0, 0))) == []
    assert found(*own_tables(ghes=[GhesSource(1, 0x1000, 64, 0x1008), GhesSource(2, 0x1010, 64)], agdi_event=3)) == []


def test_one_event_has_one_user() -> None:
    """Linux: "Event 256 already registered", and the second is never heard of."""
    same = Notification.sdei(0x100)
    assert found(SDEI, sources(notification=same)) == [("error", "HEST", V1 + "notification.vector")]
    assert found(SDEI, HEST, Agdi.by_sdei(0x101)) == [("error", "AGDI", "sdei_event")]
    assert found(SDEI, HEST, Agdi.by_both(0x101, 90)) == [("error", "AGDI", "sdei_event")]
    # A source that is switched off and an AGDI by interrupt use none.
    assert found(SDEI, sources(notification=same, enabled=0)) == []
    assert found(SDEI, HEST, Agdi(flags=1, gsiv=90, sdei_event=0x101)) == []


def test_events_need_an_sdei_table() -> None:
    assert found(FADT, HEST, AGDI) == [("error", "HEST", ""), ("error", "AGDI", "")]
    # Two tables are not a machine: the others may have it.
    assert found(HEST, AGDI) == [("note", "HEST", ""), ("note", "AGDI", "")]
    assert found(HEST) == []
    assert found(FADT, Agdi.by_interrupt(90)) == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"error_status_address": FIRST.error_status_address}, V1 + "error_status_address.address"),
        ({"read_ack": FIRST.read_ack}, V1 + "read_ack.address"),
        # What acknowledges one error would be the address of the other's block.
        ({"error_status_address": FIRST.read_ack}, V1 + "error_status_address.address"),
        ({"read_ack": FIRST.error_status_address}, V1 + "read_ack.address"),
        # Not the same, but half of it.
        ({"error_status_address": Gas.memory(0x4000_0004)}, V1 + "error_status_address.address"),
        ({"read_ack": SECOND.error_status_address}, V1 + "read_ack.address"),
    ],
)
def test_each_register_is_of_one_source(changes: dict[str, Any], field: str) -> None:
    findings = found(SDEI, sources(**changes))
    assert findings
    assert {severity for severity, _, _ in findings} == {"error"}
    assert field in {name for _, _, name in findings}


def test_registers_that_are_not_used_or_elsewhere_do_not_overlap() -> None:
    other = {"error_status_address": FIRST.error_status_address, "read_ack": FIRST.read_ack}
    assert found(SDEI, sources(**other, enabled=0)) == []
    port = Gas(space=1, bit_width=32, access_size=3, address=0x4000_0000)
    assert found(SDEI, sources(error_status_address=port)) == []


def test_what_linux_lives_with_is_a_warning() -> None:
    """Two polled sources may read one block."""
    polled = Ghes(
        source_id=1, block_length=64, error_status_address=Gas.memory(8), notification=Notification(poll_interval=5)
    )
    assert found(Hest(sources=(polled, replace(polled, source_id=2)))) == [
        ("warning", "HEST", "sources[1].error_status_address.address")
    ]


def test_the_errors_of_the_last_boot_are_not_where_a_source_has_its_registers() -> None:
    bert = Bert(region_length=4096, region_address=0x3FFF_F010)
    assert ("error", "BERT", "region_address") in found(SDEI, bert, HEST) or (
        "error", "HEST", "sources[0].error_status_address.address"
    ) in found(SDEI, bert, HEST)  # fmt: skip
    assert found(SDEI, Bert(region_length=4096, region_address=0x4000_0020), HEST) == []


def test_there_is_one_of_most_tables() -> None:
    assert found(SDEI, HEST, HEST) == [("error", "HEST", "signature")]
    assert found(SDEI, AGDI, AGDI) == [("error", "AGDI", "signature")]
    assert found(SDEI, SDEI) == [("warning", "SDEI", "signature")]
    # RSDT and XSDT may name a FADT each: old machines have one for each.
    assert found(FADT, FADT) == [("warning", "FACP", "signature")]
    ssdt = RawTable.build("SSDT", b"")
    assert found(ssdt, ssdt) == []
    # acpidump may print one table twice.
    assert found(SDEI, Entry(HEST.to_bytes(), 0x1000), Entry(HEST.to_bytes(), 0x1000)) == []


def test_the_conduit_fits_the_machine() -> None:
    hvc = FADT.replace(psci_use_hvc=True)
    assert found(hvc, conduit="smc") == [("error", "FACP", "arm_boot_arch")]
    assert found(FADT, conduit="hvc") == [("error", "FACP", "arm_boot_arch")]
    assert found(hvc, conduit="hvc") == found(FADT, conduit="smc") == found(hvc) == []
    # CPUs with EL2: who starts there would call himself.
    assert found(hvc, madt((1, 0, 25))) == [("warning", "FACP", "arm_boot_arch")]
    assert found(hvc, madt((1, 0, 0))) == found(FADT, madt((1, 0, 25))) == []


def test_linux_on_arm_takes_the_fadt() -> None:
    one, two = madt((1, 0, 0)), madt((1, 0, 0), (1, 0, 0))
    assert found(fixed_hardware(3), one) == [("error", "FACP", "flags")]
    assert found(fixed_hardware(3)) == []
    old = FADT.replace(revision=5, size=268, minor_version=0)
    assert found(old, two) == []
    assert found(old.replace(arm_boot_arch=0), one) == [("error", "FACP", "revision")]
    no_psci = FADT.replace(arm_boot_arch=0)
    assert found(no_psci, two) == [("warning", "FACP", "arm_boot_arch")]
    assert found(no_psci, one) == found(no_psci, madt((1, 0x1000, 0), (1, 0x2000, 0))) == []
    assert found(no_psci, madt((1, 0, 0), (0, 0, 0))) == []


def test_a_damaged_table_does_not_hide_what_is_wrong_beside_it() -> None:
    data = [HEST.to_bytes()[:-1], b"?", Agdi.by_sdei(0x100).to_bytes(), FADT.to_bytes()]
    (finding,) = verify_set(data)
    assert (finding.table, finding.finding.signature) == (2, "AGDI")


def test_each_table_alone_is_right() -> None:
    """So nothing of the above is found by `verify`."""
    for table in (sources(notification=FIRST.notification, read_ack=FIRST.read_ack), HEST, AGDI, FADT):
        assert verify(table.to_bytes()) == []


def test_a_large_set_is_gone_through_once() -> None:
    many = Hest(sources=tuple(replace(FIRST, source_id=number) for number in range(2000)))
    findings = verify_set([SDEI.to_bytes(), many.to_bytes()])
    assert len(findings) == 3 * 1999
