"""Tables as objects: the bytes of each kind, round trips, edits, and what is refused."""

from __future__ import annotations

import pickle
import struct

import pytest

from qemu_sdei.acpi.errors import TableError
from qemu_sdei.acpi.formats import acpidump
from qemu_sdei.acpi.own import GhesSource, own_tables
from qemu_sdei.acpi.parse import parse, parse_file, split_file
from qemu_sdei.acpi.table import Oem, checksum
from qemu_sdei.acpi.tables.agdi import Agdi, SignalingMode
from qemu_sdei.acpi.tables.fadt import SIZES, Fadt
from qemu_sdei.acpi.tables.gas import Gas
from qemu_sdei.acpi.tables.hest import Ghes, GhesV2, Hest, Notification, NotificationType, OpaqueSource
from qemu_sdei.acpi.tables.raw import RawTable
from qemu_sdei.acpi.tables.root import Rsdp, Xsdt
from qemu_sdei.acpi.tables.sdei import Sdei
from qemu_sdei.acpi.tables.unparsed import Unparsed
from tests.acpi import blobs
from tests.acpi.samples import HEST, OEM, TABLES

every_table = pytest.mark.parametrize("name", TABLES)


@every_table
def test_bytes_to_object_to_bytes_changes_nothing(name: str) -> None:
    table = TABLES[name]
    data = table.to_bytes()
    again = parse(data)
    assert type(again) is type(table)
    assert again == table
    assert again.to_bytes() == data


@every_table
def test_sum_of_all_bytes_is_zero_and_length_is_right(name: str) -> None:
    data = TABLES[name].to_bytes()
    if name == "FACS":
        return
    if name.startswith("RSDP"):
        assert checksum(data[:20]) == 0
        assert name == "RSDP-0" or struct.unpack_from("<I", data, 20) == (len(data),)
    else:
        assert struct.unpack_from("<I", data, 4) == (len(data),)
    assert checksum(data) == 0


@every_table
def test_fields_cover_each_byte_once_and_in_order(name: str) -> None:
    table = TABLES[name]
    data = table.to_bytes()
    at = 0
    names = set()
    for each in table.fields():
        assert each.offset == at, each
        raw = data[at : at + each.size]
        assert each.value == (raw if isinstance(each.value, bytes) else int.from_bytes(raw, "little")), each
        assert each.name not in names
        names.add(each.name)
        at += each.size
    assert at == len(data)


def test_sdei_is_a_header_of_36_bytes_with_revision_1() -> None:
    assert Sdei(oem=Oem(b"OEMID", b"TABLEID", 1, b"MADE", 1)).to_bytes() == blobs.SDEI
    assert len(blobs.SDEI) == 36


def test_agdi_has_mode_event_and_interrupt_where_den0093_has_them() -> None:
    data = Agdi.by_sdei(0x4000_0001).to_bytes()
    assert data[36:] == blobs.AGDI[36:]
    assert Agdi.by_interrupt(77).to_bytes()[36:] == bytes.fromhex("01 000000 00000000 4d000000")
    table = parse(blobs.AGDI)
    assert isinstance(table, Agdi)
    assert (table.mode, table.sdei_event) == (SignalingMode.SDEI, 0x4000_0001)


def ghes_bytes(kind: int, number: int, event: int, status: int, ack: int | None, length: int) -> bytes:
    """Put together here from ACPI 6.5 18.3.2.7 and 18.3.2.8."""
    out = struct.pack("<HHHBBIII", kind, number, 0xFFFF, 0, 1, 1, 1, length)
    out += struct.pack("<BBBBQ", 0, 64, 0, 4, status)
    out += struct.pack("<BBHIIIIII", 11, 28, 0, 0, event, 0, 0, 0, 0)
    out += struct.pack("<I", length)
    if ack is not None:
        out += struct.pack("<BBBBQ", 0, 64, 0, 4, ack) + struct.pack("<QQ", 0xFFFF_FFFF_FFFF_FFFE, 1)
    return out


def test_own_hest_is_what_the_specification_says_byte_by_byte() -> None:
    sources = [GhesSource(0x100, 0x1000, 4096, 0x1008), GhesSource(0x101, 0x2000, 8192)]
    sdei, hest, agdi = own_tables(oem=OEM, ghes=sources, agdi_event=0x1FF)
    expected = struct.pack("<I", 2)
    expected += ghes_bytes(10, 0, 0x100, 0x1000, 0x1008, 4096) + ghes_bytes(9, 1, 0x101, 0x2000, None, 8192)
    assert hest.to_bytes()[36:] == expected
    assert [table.header.oem for table in (sdei, hest, agdi)] == [OEM] * 3
    assert isinstance(agdi, Agdi)
    assert agdi.sdei_event == 0x1FF


def test_own_tables_are_only_those_that_were_asked_for() -> None:
    assert [table.signature for table in own_tables()] == ["SDEI"]
    assert own_tables(sdei=False) == []


@pytest.mark.parametrize(
    ("sources", "agdi", "words", "field"),
    [
        ([GhesSource(0, 0x1000, 4096)], None, "event 0 is the software-signalled", "sources[0].notification.vector"),
        ([], 0, "event 0 is the software-signalled one", "sdei_event"),
        ([GhesSource(1, 0x1000, 64), GhesSource(1, 0x2000, 64)], None, "already that of HEST", "sources[1]"),
        ([GhesSource(1, 0x1000, 64)], 1, "already that of HEST", "sdei_event"),
        ([GhesSource(1, 0x1004, 64)], None, "multiple of 8", "error_status_address"),
        ([GhesSource(1, 0x1000, 64, 0)], None, "multiple of 8", "read_ack"),
        ([GhesSource(1, 0x1000, 19)], None, "at least 20 bytes", "block_length"),
        ([GhesSource(1 << 32, 0x1000, 64)], None, "not a number of 32 bits", "vector"),
        ([GhesSource(1, 1 << 64, 64)], None, "not a number of 64 bits", "address"),
    ],
)  # fmt: skip
def test_own_tables_that_cannot_be_are_refused(
    sources: list[GhesSource], agdi: int | None, words: str, field: str
) -> None:
    with pytest.raises(TableError) as caught:
        own_tables(ghes=sources, agdi_event=agdi)
    assert words in str(caught.value)
    assert field in caught.value.field


def test_every_notification_type_goes_through() -> None:
    for kind in NotificationType:
        table = Hest(sources=(Ghes(notification=Notification(type=kind, vector=3)),))
        again = parse(table.to_bytes())
        assert isinstance(again, Hest)
        (source,) = again.sources
        assert isinstance(source, Ghes)
        assert source.notification.type == kind
    assert int(NotificationType.SDEI) == 11


def test_source_types_above_11_are_kept_by_their_length() -> None:
    table = Hest(sources=(OpaqueSource(type=12, source_id=7, rest=b"abc"), GhesV2(source_id=1)))
    assert parse(table.to_bytes()) == table


def test_unused_bits_and_bytes_behind_the_last_field_go_through() -> None:
    data = bytearray(TABLES["AGDI-sdei"].to_bytes() + b"\x01\x02")
    data[37:40] = b"\xaa\xbb\xcc"
    data[4] = len(data)
    data[9] = 0
    data[9] = checksum(data)
    assert parse(data).to_bytes() == data


# ---- FADT


def test_fadt_fields_are_at_their_offsets() -> None:
    at = {each.name: each.offset for each in Fadt().fields()}
    for name, offset in {
        "sci_int": 46, "pm1_evt_len": 88, "iapc_boot_arch": 109, "flags": 112, "reset_reg.space": 116,
        "arm_boot_arch": 129, "minor_version": 131, "x_firmware_ctrl": 132, "x_dsdt": 140,
        "x_gpe1_blk.address": 236, "sleep_control_reg.space": 244, "hypervisor_vendor": 268,
    }.items():  # fmt: skip
        assert at[name] == offset, name


def test_fadt_edits_change_their_bits_and_nothing_else() -> None:
    before = Fadt(arm_boot_arch=0x8000)
    after = before.replace(psci_compliant=True, psci_use_hvc=True, hardware_reduced=True, minor_version=1)
    old, new = before.to_bytes(), after.to_bytes()
    assert [at for at in range(len(old)) if old[at] != new[at]] == [9, 114, 129, 131]
    assert new[129:132] == bytes.fromhex("03 80 01")
    assert (after.psci_compliant, after.psci_use_hvc, after.hardware_reduced) == (True, True, True)
    assert after.replace(psci_use_hvc=False).arm_boot_arch == 0x8001


def test_fadt_of_acpi_1_has_no_psci_to_set() -> None:
    with pytest.raises(TableError, match="has no such field") as caught:
        Fadt(revision=1, size=SIZES[1]).replace(psci_compliant=True)
    assert (caught.value.field, caught.value.offset) == ("arm_boot_arch", 129)
    with pytest.raises(TableError, match="there is no such field"):
        Fadt().replace(arm_boot_flags=1)


# ---- OEM fields, errors


@every_table
def test_oem_fields_can_be_set_in_every_table(name: str) -> None:
    other = Oem(b"OTHER", b"THING", 3, b"X", 4)
    table = TABLES[name].with_oem(other)
    if name == "FACS":
        assert table == TABLES[name]
        return
    assert table.header.oem.oem_id == b"OTHER "
    assert table.header.oem == other or name.startswith("RSDP")
    assert checksum(table.to_bytes()) == 0
    assert parse(table.to_bytes()) == table


def test_oem_fields_that_do_not_fit_are_refused() -> None:
    for values in ({"oem_id": b"TOO LONG"}, {"creator_id": b"FIVE!"}, {"oem_revision": 1 << 32}, {"oem_id": "text"}):
        with pytest.raises(TableError) as caught:
            Oem(**values)
        assert caught.value.field in values


def test_a_value_that_does_not_fit_is_refused_with_its_field() -> None:
    with pytest.raises(TableError, match="not a number of 8 bits") as caught:
        Agdi(flags=256)
    assert (caught.value.signature, caught.value.field) == ("AGDI", "flags")
    with pytest.raises(TableError):
        Xsdt(entries=(1 << 64,))
    with pytest.raises(TableError):
        Rsdp(revision=0, xsdt_address=1)
    with pytest.raises(TableError):
        Gas(address=-1)


def test_errors_say_where() -> None:
    data = HEST.to_bytes()
    cut = data[:4] + struct.pack("<I", 60) + data[8:60]
    with pytest.raises(TableError) as caught:
        parse(cut)
    error = caught.value
    assert (error.signature, error.offset, error.field) == ("HEST", 56, "sources[0].global_capability")
    assert str(error) == (
        "HEST (offset 0x38, sources[0].global_capability): cut short: 8 bytes are needed here and 4 are left"
    )
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize(
    ("data", "offset", "field"),
    [
        (b"", 0, "signature"),
        (b"SDE", 0, "signature"),
        (b"\0\0\0\0" + bytes(40), 0, "signature"),
        (blobs.SDEI[:35], 35, "creator_revision"),
        (blobs.SDEI + b"\0", 4, "length"),
        (b"FACS" + bytes(60), 4, "length"),
        (b"RSD PTR " + bytes(5), 9, "oem_id"),
    ],
)
def test_what_is_no_table_is_refused_with_offset_and_field(data: bytes, offset: int, field: str) -> None:
    with pytest.raises(TableError) as caught:
        parse(data)
    assert (caught.value.offset, caught.value.field) == (offset, field)


# ---- files


def test_files_of_several_tables_are_taken_apart() -> None:
    tables = list(TABLES.values())
    joined = b"".join(table.to_bytes() + bytes(number) for number, table in enumerate(tables))
    assert parse_file(joined) == tables


def test_acpidump_text_is_taken_for_what_it_is() -> None:
    """As `acpidump` writes it on a server, with what a mail adds around it."""
    tables = list(TABLES.values())
    text = acpidump.write(acpidump.Entry(table.to_bytes(), 0x7F00_0000 + number) for number, table in enumerate(tables))
    assert parse_file(text.encode()) == tables
    assert parse_file(b"Hello, here is the dump:\n\n" + text.replace("\n", "\r\n").encode() + b"-- \nme\n") == tables
    broken = text.replace("  0010:", "  0020:", 1)
    with pytest.raises(TableError, match="line 3 of the dump"):
        parse_file(broken.encode())


def test_a_cut_last_table_is_handed_over_as_it_is() -> None:
    data = blobs.SDEI + blobs.AGDI[:-1]
    assert split_file(data) == [blobs.SDEI, blobs.AGDI[:-1]]
    whole, damaged = parse_file(data)
    assert whole == parse(blobs.SDEI)
    assert isinstance(damaged, Unparsed)
    assert (damaged.signature, damaged.to_bytes(), damaged.header.oem) == (
        "AGDI", blobs.AGDI[:-1], parse(blobs.AGDI).oem,
    )  # fmt: skip
    assert "names a length of 48 bytes, here are 47" in str(damaged.why)


def test_rubbish_between_tables_is_named_with_its_offset() -> None:
    with pytest.raises(TableError) as caught:
        split_file(blobs.SDEI + b"\xff\xff" + blobs.AGDI)
    assert caught.value.offset == 36
    for empty in (b"", bytes(100)):
        with pytest.raises(TableError):
            split_file(empty)


def test_raw_tables_keep_a_wrong_checksum_until_they_are_changed() -> None:
    data = bytearray(blobs.SSDT)
    data[9] ^= 0xFF
    table = parse(data)
    assert isinstance(table, RawTable)
    assert table.to_bytes() == data
    assert checksum(table.with_oem(OEM).to_bytes()) == 0
