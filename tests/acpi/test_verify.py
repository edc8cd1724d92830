"""Each rule: what breaks it is found, with its place; what an older revision allows is not complained of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from qemu_sdei.acpi.table import Table, checksum, with_checksum
from qemu_sdei.acpi.tables.agdi import Agdi
from qemu_sdei.acpi.tables.bert import Bert
from qemu_sdei.acpi.tables.fadt import SIZES, Fadt
from qemu_sdei.acpi.tables.gas import Gas
from qemu_sdei.acpi.tables.hest import Ghes, GhesV2, Hest, Notification, OpaqueSource
from qemu_sdei.acpi.tables.root import Rsdp, Xsdt
from qemu_sdei.acpi.tables.sdei import Sdei
from qemu_sdei.acpi.verify import Severity, verify
from tests.acpi import blobs
from tests.acpi.samples import BANKS, FADT, HEST, TABLES, fixed_hardware

GHES = GhesV2(
    source_id=1, max_raw_length=4096, block_length=4096, error_status_address=Gas.memory(0x4000_0000),
    notification=Notification.sdei(0x100), read_ack=Gas.memory(0x4000_0008),
)  # fmt: skip


def hest(*sources: Ghes | OpaqueSource) -> Hest:
    return Hest(sources=sources)


def ghes(**changes: Any) -> Hest:
    return hest(replace(GHES, **changes))


def notified(**changes: Any) -> Hest:
    return ghes(notification=replace(GHES.notification, **changes))


def sample(number: int, **changes: Any) -> Hest:
    source: Any = HEST.sources[number]
    return Hest(sources=(replace(source, **changes),))


def found(data: bytes) -> set[tuple[str, str]]:
    return {(finding.severity.value, finding.field) for finding in verify(data)}


@pytest.mark.parametrize("name", TABLES)
def test_a_sound_table_is_not_complained_of(name: str) -> None:
    assert verify(TABLES[name].to_bytes()) == []


S = "sources[0]."
BROKEN: dict[str, tuple[Table, str, str]] = {
    "same id twice": (hest(GHES, replace(GHES, notification=Notification.sdei(2))), "error", "sources[1].source_id"),
    "related source is not there": (ghes(related_source_id=7), "error", S + "related_source_id"),
    "related to itself": (ghes(related_source_id=1), "error", S + "related_source_id"),
    "enabled is 2": (ghes(enabled=2), "error", S + "enabled"),
    "no records": (ghes(records=0), "error", S + "records"),
    "no sections": (ghes(max_sections=0), "error", S + "max_sections"),
    "no records, and disabled": (ghes(enabled=0, records=0), "warning", S + "records"),
    "notification's length": (notified(length=27), "error", S + "notification.length"),
    "notification's type": (notified(type=12), "error", S + "notification.type"),
    "SDEI event 0": (notified(vector=0), "error", S + "notification.vector"),
    "polled, never": (notified(type=0), "warning", S + "notification.poll_interval"),
    "reserved config bits": (notified(config_write_enable=0x40), "warning", S + "notification.config_write_enable"),
    "reserved flags": (ghes(flags=1), "warning", S + "flags"),
    "no status address": (ghes(error_status_address=Gas()), "error", S + "error_status_address.address"),
    "reserved address space": (
        ghes(error_status_address=Gas(space=0x0C, bit_width=64, address=8)), "error", S + "error_status_address.space"
    ),
    "a space that is no memory": (
        ghes(error_status_address=Gas(space=2, bit_width=64, address=8)), "error", S + "error_status_address.space"
    ),
    "no width": (
        ghes(error_status_address=Gas(address=8, access_size=4)), "error", S + "error_status_address.bit_width"
    ),
    "too wide": (
        ghes(error_status_address=Gas(bit_width=65, address=8)), "error", S + "error_status_address.bit_width"
    ),
    "reserved access size": (
        ghes(error_status_address=Gas(bit_width=64, access_size=5, address=8)), "error",
        S + "error_status_address.access_size",
    ),
    "access is too narrow": (
        ghes(error_status_address=Gas(bit_width=64, access_size=3, address=8)), "warning",
        S + "error_status_address.access_size",
    ),
    "misaligned": (ghes(error_status_address=Gas.memory(4)), "warning", S + "error_status_address.address"),
    "short block": (ghes(block_length=19), "error", S + "block_length"),
    "no read-ack register": (ghes(read_ack=Gas()), "error", S + "read_ack.address"),
    "an acknowledgement that changes nothing": (
        ghes(read_ack_write=0, read_ack_preserve=(1 << 64) - 1), "error", S + "read_ack_write"
    ),
    # edk2-platforms' SGI tables: preserve 0, write 0. Linux writes it, and what it writes is another value.
    "an acknowledgement of 0": (ghes(read_ack_write=0, read_ack_preserve=0), "warning", S + "read_ack_write"),
    "an acknowledgement by clearing": (ghes(read_ack_write=0), "warning", S + "read_ack_write"),
    "write outside of the register": (
        ghes(read_ack=Gas.memory(8, width=32), read_ack_write=1 << 32, read_ack_preserve=0), "error",
        S + "read_ack_write",
    ),
    "written and preserved": (ghes(read_ack_preserve=3), "warning", S + "read_ack_preserve"),
    "unknown source type": (hest(OpaqueSource(type=12)), "warning", "sources[0].type"),
    "bytes behind": (replace(HEST, tail=b"x"), "warning", "tail"),
    "HEST of the future": (replace(HEST, revision=9), "warning", "revision"),
    "machine check flags": (sample(0, flags=2), "warning", S + "flags"),
    "bank's reserved byte": (
        sample(0, banks=(replace(BANKS[0], reserved=1),)), "warning",
        S + "banks[0].reserved",
    ),
    "GHES assist, and firmware first": (sample(0, flags=5), "error", S + "flags"),
    "machine check's reserved bytes": (sample(0, reserved2=b"\0\0\1\0\0\0\0"), "warning", S + "reserved2"),
    "FADT: reserved byte": (FADT.replace(reserved=1), "warning", "reserved"),
    "AER flags": (sample(3, flags=4), "warning", S + "flags"),
    "AER bus": (sample(4, bus=1), "warning", S + "bus"),
    "AGDI's mode": (Agdi(flags=3), "error", "flags"),
    "AGDI's reserved flags": (Agdi(flags=4, sdei_event=1), "warning", "flags"),
    "AGDI's reserved bytes": (Agdi(reserved=1, sdei_event=1), "warning", "reserved"),
    "AGDI by event 0": (Agdi(), "error", "sdei_event"),
    "AGDI with both": (Agdi(sdei_event=1, gsiv=1), "warning", "gsiv"),
    "AGDI by interrupt, with an event": (Agdi(flags=1, sdei_event=1, gsiv=1), "warning", "sdei_event"),
    "SDEI of revision 0": (Sdei(revision=0), "warning", "revision"),
    "SDEI with more": (Sdei(tail=b"x"), "warning", "tail"),
    "BERT's region is short": (Bert(region_length=19, region_address=8), "error", "region_length"),
    "BERT without region": (Bert(region_length=20), "error", "region_address"),
    "XSDT with a hole": (Xsdt(entries=(8, 0)), "error", "entries[1]"),
    "XSDT with a table twice": (Xsdt(entries=(8, 8)), "warning", "entries[1]"),
    "empty XSDT": (Xsdt(), "warning", ""),
    "RSDP 0 without RSDT": (Rsdp(revision=0), "error", "rsdt_address"),
    "RSDP without XSDT": (Rsdp(), "error", "xsdt_address"),
    "RSDP with an RSDT alone": (Rsdp(rsdt_address=8), "warning", "xsdt_address"),
    "RSDP of revision 1": (Rsdp(revision=1, rsdt_address=8), "warning", "revision"),
    "RSDP's reserved bytes": (Rsdp(xsdt_address=8, reserved=1), "warning", "reserved"),
    # ACPICA goes by the length; of some 700 machines 29 have a FADT of revision 5 with 244 bytes.
    "FADT too short for its revision": (FADT.replace(size=SIZES[5]), "warning", "length"),
    "FADT of revision 5 with the bytes of 3": (fixed_hardware(3).replace(revision=5), "warning", "length"),
    "FADT that ends with its minor version": (
        fixed_hardware(3).replace(revision=4, size=132), "warning", "length"
    ),
    "FADT that ends within a field": (FADT.replace(size=270), "error", "length"),
    "FADT without DSDT": (FADT.replace(x_dsdt=0), "error", "x_dsdt"),
    "FADT with two DSDTs": (FADT.replace(dsdt=8), "warning", "x_dsdt"),
    "FADT: PSCI before ACPI 5.1": (
        FADT.replace(revision=5, size=SIZES[5], minor_version=0), "warning", "arm_boot_arch"
    ),
    "FADT: flags of Arm in one that Linux would not take on Arm": (
        fixed_hardware(3).replace(arm_boot_arch=1), "warning", "arm_boot_arch"
    ),
    "FADT: HVC without PSCI": (FADT.replace(arm_boot_arch=2), "warning", "arm_boot_arch"),
    "FADT: reserved boot bits": (FADT.replace(arm_boot_arch=5), "warning", "arm_boot_arch"),
    "FADT: PSCI with fixed hardware": (
        fixed_hardware(1).replace(revision=6, size=SIZES[6], minor_version=5, arm_boot_arch=1), "error", "flags"
    ),
    "FADT: reduced hardware before revision 5": (
        fixed_hardware(3).replace(hardware_reduced=True, pm1a_evt_blk=0), "warning", "flags"
    ),
    "FADT: no event block": (fixed_hardware(1).replace(pm1a_evt_blk=0), "error", "pm1a_evt_blk"),
    "FADT: no FACS": (fixed_hardware(3).replace(firmware_ctrl=0), "error", "firmware_ctrl"),
    "FADT: event block's length": (fixed_hardware(3).replace(pm1_evt_len=3), "error", "pm1_evt_len"),
    "FADT: control block's length": (fixed_hardware(3).replace(pm1_cnt_len=1), "error", "pm1_cnt_len"),
    "FADT: timer's length": (fixed_hardware(3).replace(pm_tmr_len=3), "error", "pm_tmr_len"),
    "FADT: odd GPE block": (fixed_hardware(3).replace(gpe0_blk_len=3), "error", "gpe0_blk_len"),
    "FADT: profile": (FADT.replace(preferred_pm_profile=9), "warning", "preferred_pm_profile"),
    "FADT: reserved flags": (FADT.replace(flags=0x8010_0000), "warning", "flags"),
    "FADT: persistent caches": (FADT.replace(flags=0xD0_0000), "warning", "flags"),
    "FADT: one sleep register": (
        FADT.replace(sleep_control_reg=Gas.memory(8, width=8)), "warning", "sleep_status_reg.address"
    ),
    "FADT: reset register's place": (
        FADT.replace(flags=0x10_0400, reset_reg=Gas(space=4, bit_width=8, address=8)), "error", "reset_reg.space"
    ),
    "FADT: reset register's width": (
        FADT.replace(flags=0x10_0400, reset_reg=Gas(bit_width=16, address=8)), "error", "reset_reg.bit_width"
    ),
    "FADT: block in a reserved space": (
        FADT.replace(x_gpe0_blk=Gas(space=0x80, bit_width=8, address=8)), "error", "x_gpe0_blk.space"
    ),
    "FADT: port above 64 KiB": (
        FADT.replace(x_gpe0_blk=Gas(space=1, bit_width=8, address=0x1_0000)), "error", "x_gpe0_blk.address"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_breaks_a_rule_is_found_alone_and_where_it_is(name: str) -> None:
    table, severity, field = BROKEN[name]
    data = table.to_bytes()
    findings = verify(data)
    assert [(finding.severity.value, finding.field) for finding in findings] == [(severity, field)], findings
    (finding,) = findings
    assert finding.signature == table.signature
    places = {each.name: each.offset for each in table.fields()}
    assert finding.offset == places.get(field)


def mend(data: bytes) -> bytes:
    return with_checksum(data)


def cut(data: bytes) -> bytes:
    return data[:-1]


def grow(data: bytes) -> bytes:
    return data + b"\0"


def flip(data: bytes) -> bytes:
    return data[:9] + bytes([data[9] ^ 0x55]) + data[10:]


@pytest.mark.parametrize("name", [name for name in TABLES if name[:4] not in ("RSDP", "FACS")])
def test_length_and_checksum_are_looked_at_in_every_table(name: str) -> None:
    data = TABLES[name].to_bytes()
    assert ("error", "length") in found(cut(data))
    # What follows the table is nobody's: a dump has had more than the length says.
    assert found(grow(data)) == {("warning", "length")}
    assert found(flip(data)) == {("error", "checksum")}
    (finding,) = verify(flip(data))
    assert f"{data[9]:#04x} is right" in finding.message
    assert finding.offset == 9
    lying = mend(data[:4] + bytes([35, 0, 0, 0]) + data[8:])
    assert ("error", "length") in found(lying)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda data: data[:8] + bytes([data[8] ^ 1]) + data[9:], {"checksum", "extended_checksum"}),
        (lambda data: data[:32] + bytes([data[32] ^ 1]) + data[33:], {"extended_checksum"}),
        (cut, {"extended_checksum", "reserved", "length"}),
        (lambda data: data[:12], {"oem_id"}),
    ],
)
def test_rsdp_has_two_checksums_and_a_length(change: Callable[[bytes], bytes], expected: set[str]) -> None:
    findings = verify(change(TABLES["RSDP-2"].to_bytes()))
    assert findings
    assert all(finding.severity is Severity.ERROR for finding in findings)
    assert {finding.field for finding in findings} <= expected


def test_rsdp_of_acpi_1_has_one_checksum() -> None:
    data = TABLES["RSDP-0"].to_bytes()
    assert found(data[:8] + bytes([data[8] ^ 1]) + data[9:]) == {("error", "checksum")}
    assert found(grow(data)) == {("warning", "revision")}
    assert found(grow(TABLES["RSDP-2"].to_bytes())) == {("warning", "length")}


def test_all_faults_are_listed_not_just_the_first() -> None:
    table = hest(replace(GHES, records=0, max_sections=0, enabled=7, notification=Notification(type=11, length=9)))
    data = flip(table.to_bytes())
    fields = [finding.field for finding in verify(data)]
    assert fields == [
        "checksum", S + "enabled", S + "records", S + "max_sections", S + "notification.length",
        S + "notification.vector",
    ]  # fmt: skip
    assert str(verify(data)[-1]).startswith("error: HEST (offset 0x50, sources[0].notification.vector): SDEI event 0")


def test_a_cut_table_is_checked_as_far_as_it_goes() -> None:
    data = HEST.to_bytes()[:-30]
    (length, check, content) = verify(data)
    assert "584, here are 554 bytes: the table is cut short" in length.message
    assert check.field == "checksum"
    assert content.field.startswith("sources[8].")


def test_what_is_no_table_is_one_finding() -> None:
    for data in (b"", b"SDE", bytes(64), blobs.SDEI[:20], b"FACS"):
        (finding,) = verify(data)
        assert finding.severity is Severity.ERROR


@pytest.mark.parametrize(
    ("at", "value", "severity", "field"),
    [
        (20, 4, "warning", "flags"),
        (32, 3, "warning", "version"),
        (33, 1, "warning", "reserved"),
        (63, 1, "warning", "reserved2"),
        (4, 63, "error", "length"),
    ],
)
def test_facs_has_its_own_rules(at: int, value: int, severity: str, field: str) -> None:
    data = bytearray(TABLES["FACS"].to_bytes())
    data[at] = value
    if at == 4:
        data = data[:value]
    (finding,) = verify(data)
    assert (finding.severity.value, finding.field) == (severity, field)
    assert finding.offset == {"reserved2": 40}.get(field, at)


def test_tables_without_rules_are_checked_for_their_header() -> None:
    assert verify(blobs.SSDT) == []
    assert found(flip(blobs.SSDT)) == {("error", "checksum")}


def test_a_reserved_source_type_is_found() -> None:
    data = bytearray(HEST.to_bytes())
    data[40] = 5
    data[9] = 0
    data[9] = checksum(data)
    assert found(bytes(data)) == {("error", "sources[0].type")}


@pytest.mark.parametrize(
    "table",
    [
        Fadt(revision=2, size=132, dsdt=8, firmware_ctrl=64, pm1a_evt_blk=8, pm1a_cnt_blk=8, pm1_evt_len=4,
             pm1_cnt_len=2, int_model=1),
        fixed_hardware(3).replace(revision=4),
        # What a reduced-hardware machine says about fixed hardware is ignored, so it is allowed.
        FADT.replace(pm1_evt_len=1, gpe0_blk_len=3),
        FADT.replace(dsdt=0x4100_0000),
        Agdi(revision=1, sdei_event=1),
        Agdi(flags=2, sdei_event=1, gsiv=40),
        ghes(enabled=0, error_status_address=Gas(), block_length=0, read_ack=Gas()),
        ghes(error_status_address=Gas(bit_width=64, address=8)),
        ghes(related_source_id=0xFFFF),
        # Seen on servers: a corrected machine check is "polled" as the OS likes, an acknowledgement is a magic number.
        sample(1, notification=Notification(type=0)),
        ghes(read_ack_preserve=0, read_ack_write=0xB190_0001),
        sample(3, flags=3, enabled=0),
    ],
)  # fmt: skip
def test_what_older_revisions_or_the_specification_allow_is_no_fault(table: Table) -> None:
    assert verify(table.to_bytes()) == []


@pytest.mark.parametrize("head", [b"SDEI", b"HEST", b"ABCD", b"RSD PTR \0QSDEI \2"])
def test_what_is_too_large_for_a_table_is_said(head: bytes) -> None:
    assert any(finding.severity is Severity.ERROR for finding in verify(head + bytes((1 << 24) + 1)))
