"""The tables of QEMU's `virt` machine, in several shapes: each goes through unchanged and has no fault."""

from __future__ import annotations

import pytest

from qemu_sdei.acpi import linker
from qemu_sdei.acpi.parse import parse, parse_file, split_file
from qemu_sdei.acpi.show import compare, fields
from qemu_sdei.acpi.tables.fadt import Fadt
from qemu_sdei.acpi.tables.hest import GhesV2, Hest, NotificationType
from qemu_sdei.acpi.tables.root import Rsdp, Xsdt
from qemu_sdei.acpi.verify import verify
from tests.acpi.virt import BASE, SHAPES, fw_cfg, link, machine

pytestmark = pytest.mark.guest

every_shape = pytest.mark.parametrize("name", SHAPES)


@every_shape
def test_bytes_to_object_to_bytes_changes_nothing(name: str) -> None:
    found = machine(name)
    assert {b"DSDT", b"FACP", b"APIC", b"GTDT", b"XSDT"} <= {table[:4] for table in found.tables}
    for data in (found.rsdp, *found.tables):
        table = parse(data)
        assert table.to_bytes() == data
        assert sum(each.size for each in fields(data)) == len(data)
        assert compare(table, data, checksum=True) == []


@every_shape
def test_no_fault_is_found_in_them(name: str) -> None:
    found = machine(name)
    assert [str(finding) for data in (found.rsdp, *found.tables) for finding in verify(data)] == []


@every_shape
def test_xsdt_and_rsdp_point_to_the_tables(name: str) -> None:
    found = machine(name)
    at, places = found.address, {}
    for data in found.tables:
        places[at] = data[:4]
        at += len(data)
    rsdp, xsdt = parse(found.rsdp), parse(found.of(b"XSDT"))
    assert isinstance(rsdp, Rsdp)
    assert isinstance(xsdt, Xsdt)
    assert places[rsdp.xsdt_address] == b"XSDT"
    fadt = parse(found.of(b"FACP"))
    assert isinstance(fadt, Fadt)
    assert places[fadt.x_dsdt] == b"DSDT"
    pointed = {places[entry] for entry in xsdt.entries}
    assert pointed == set(places.values()) - {b"XSDT", b"DSDT"}


@every_shape
def test_the_file_as_qemu_hands_it_over_is_taken_apart(name: str) -> None:
    """Padded with zeros, and not linked yet."""
    blob = fw_cfg(name)["etc/acpi/tables"]
    raw = split_file(blob)
    assert [data[:4] for data in raw] == [data[:4] for data in machine(name).tables]
    assert [table.signature.encode() for table in parse_file(blob)] == [data[:4] for data in raw]
    # Without the linker no checksum is right, and that is what is found.
    assert all("checksum" in {finding.field for finding in verify(data)} for data in raw)


def test_machine_without_secure_world_has_psci_in_its_fadt() -> None:
    normal, secure = (parse(machine(name).of(b"FACP")) for name in ("not secure", "plain"))
    assert isinstance(normal, Fadt)
    assert isinstance(secure, Fadt)
    assert (normal.psci_compliant, normal.hardware_reduced) == (True, True)
    assert not secure.psci_compliant, "firmware of a secure machine brings its own"
    edited = secure.replace(psci_compliant=True, psci_use_hvc=normal.psci_use_hvc)
    assert edited.arm_boot_arch == normal.arm_boot_arch
    assert verify(edited.to_bytes()) == []


def test_hest_of_ras_is_a_source_of_version_2() -> None:
    table = parse(machine("ras").of(b"HEST"))
    assert isinstance(table, Hest)
    (source,) = table.sources
    assert isinstance(source, GhesV2)
    assert source.notification.type == NotificationType.SEA
    assert source.read_ack.address
    assert source.block_length >= 1024


def test_oem_ids_of_the_machine_are_found() -> None:
    for data in machine("oem ids").tables:
        oem = parse(data).header.oem
        assert (oem.oem_id, oem.oem_table_id[:5]) == (b"ACME\0\0", b"BOARD")


def test_a_fault_in_them_would_be_found() -> None:
    """Proof that the tests above look: one bit in each table."""
    found = machine("plain")
    for data in (found.rsdp, *found.tables):
        changed = bytearray(data)
        changed[-1] ^= 0x10
        assert verify(changed)


@every_shape
def test_the_library_links_them_to_the_same_bytes(name: str) -> None:
    files = fw_cfg(name)
    ours, addresses = link(files)
    given = {file: files.get(file, bytes(4096)) for file in ours}
    loaded = linker.execute(linker.parse(files["etc/table-loader"]), given, linker.allocator(BASE, 16 << 20))
    assert {file: (blob.address, bytes(blob.data)) for file, blob in loaded.blobs.items()} == {
        file: (addresses[file], bytes(data)) for file, data in ours.items()
    }
