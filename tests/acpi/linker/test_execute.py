"""The table loader's script carried out: pointers and checksums are right, and no script gets out of its files."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qemu_sdei.acpi.errors import AcpiError
from qemu_sdei.acpi.linker import (
    AddChecksum,
    AddPointer,
    Allocate,
    Command,
    Pointer,
    WritePointer,
    Zone,
    allocator,
    execute,
    files_of,
    parse,
)
from tests.examples import examples

BASE, SIZE = 0x7FC0_0000, 0x10_0000


def table(signature: bytes, body: bytes = b"", revision: int = 1) -> bytes:
    """A table whose checksum is not made."""
    return (
        struct.pack("<4sIBB6s8sI4sI", signature, 36 + len(body), revision, 0x55, b"OEM", b"TABLE", 1, b"TEST", 1) + body
    )


def test_pointers_and_checksums() -> None:
    files = {"a": bytes(8) + (4).to_bytes(8, "little"), "b": bytes(16)}
    loaded = execute(
        [Allocate("a", 64), Allocate("b", 0x1000), AddPointer("a", "b", 8, 8), AddChecksum("a", 0, 0, 16)],
        files,
        allocator(BASE, SIZE),
    )
    a, b = loaded.blobs["a"], loaded.blobs["b"]
    assert (a.address, b.address) == (BASE, BASE + 0x1000)
    assert int.from_bytes(a.data[8:], "little") == b.address + 4
    assert sum(a.data) % 256 == 0
    assert b.data == bytes(16)


def test_what_the_hypervisor_wants_to_know_is_told() -> None:
    loaded = execute([Allocate("a", 16), WritePointer("addr", "a", 8, 4, 8)], {"a": bytes(16)}, allocator(BASE, SIZE))
    assert loaded.pointers == [Pointer("addr", 8, (BASE + 4).to_bytes(8, "little"))]


A = Allocate("a", 16)
REFUSED: list[tuple[list[Command], str]] = [
    ([Allocate("c", 16)], "there is no file 'c'"),
    ([A, A], "placed twice"),
    ([AddPointer("a", "a", 0, 8)], "'a' has not been placed"),
    ([A, AddPointer("a", "b", 0, 8)], "'b' has not been placed"),
    ([A, AddPointer("a", "a", 25, 8)], "outside of 'a'"),
    ([A, AddPointer("a", "a", 0xFFFF_FFFF, 8)], "outside of 'a'"),
    ([A, AddPointer("a", "a", 8, 8)], "a pointer to 0x20 is outside of 'a'"),
    ([A, AddPointer("a", "a", 0, 2)], "does not fit into 2 bytes"),
    ([A, AddChecksum("a", 0, 0, 33)], "outside"),
    ([A, AddChecksum("a", 9, 0, 4)], "outside"),
    ([A, AddChecksum("a", 0, 4, 8)], "outside"),
    ([A, AddChecksum("a", 0xFFFF_FFFF, 0xFFFF_FFFF, 1)], "outside"),
    ([A, AddChecksum("a", 0, 0, 0)], "outside"),
    ([WritePointer("x", "a", 0, 0, 8)], "'a' has not been placed"),
    ([A, WritePointer("x", "a", 0, 32, 8)], "a pointer to 0x20 is outside"),
    ([A, WritePointer("x", "a", 0, 0, 1)], "does not fit into 1 bytes"),
    ([Allocate("big", 16), Allocate("bigger", 16)], "more than 16 MiB"),
    ([A, *[AddChecksum("a", 0, 0, 1 << 25)] * 3], "outside|more than 64 MiB"),
]


@pytest.mark.parametrize(("commands", "message"), REFUSED)
def test_hostile_scripts_are_refused(commands: list[Command], message: str) -> None:
    files = {"a": bytes(8) + (32).to_bytes(8, "little") + bytes(16), "b": bytes(4)}
    files |= {"big": bytes(9 << 20), "bigger": bytes(9 << 20)}
    with pytest.raises(AcpiError, match=message):
        execute(commands, files, allocator(BASE, 64 << 20))


@pytest.mark.parametrize("address", [-16, BASE + 8, 1 << 64, (1 << 64) - 16])
def test_addresses_that_cannot_be_are_refused(address: int) -> None:
    with pytest.raises(AcpiError, match="cannot be placed"):
        execute([A], {"a": bytes(32)}, lambda *_: address)


def test_files_one_over_the_other_are_refused() -> None:
    with pytest.raises(AcpiError, match="would lie over 'a'"):
        execute([A, Allocate("b", 16)], {"a": bytes(32), "b": bytes(8)}, lambda file, *_: BASE + 16 * (file == "b"))


def test_the_allocator_says_when_it_is_full() -> None:
    allocate = allocator(BASE, 100)
    assert allocate("a", 50, 1, Zone.HIGH) == BASE
    assert allocate("b", 20, 64, Zone.HIGH) == BASE + 64
    with pytest.raises(AcpiError, match="does not fit"):
        allocate("c", 20, 1, Zone.HIGH)


def test_checksums_are_bounded_in_all() -> None:
    """1000 checksums over a megabyte would keep a boot waiting for seconds."""
    commands: list[Command] = [A, *[AddChecksum("a", 0, 0, 1 << 20)] * 100]
    with pytest.raises(AcpiError, match="more than 64 MiB"):
        execute(commands, {"a": bytes(1 << 20)}, allocator(BASE, 16 << 20))


NAMES = st.sampled_from(["a", "b", "c"])
NUMBER = st.one_of(st.integers(0, 80), st.sampled_from([0xFFFF_FFFF, 0x8000_0000]))
HOSTILE: st.SearchStrategy[Command] = st.one_of(
    st.builds(Allocate, NAMES, st.sampled_from([1, 16, 4096, 1 << 31])),
    st.builds(AddPointer, NAMES, NAMES, NUMBER, st.sampled_from([1, 2, 4, 8])),
    st.builds(AddChecksum, NAMES, NUMBER, NUMBER, NUMBER),
    st.builds(WritePointer, NAMES, NAMES, NUMBER, NUMBER, st.sampled_from([1, 2, 4, 8])),
)


@settings(max_examples=examples(300))
@given(st.lists(HOSTILE, max_size=12), st.binary(max_size=80), st.binary(max_size=80))
def test_no_script_does_more_than_raise_an_acpi_error(commands: list[Command], a: bytes, b: bytes) -> None:
    try:
        loaded = execute(commands, {"a": a, "b": b}, allocator(BASE, SIZE))
    except AcpiError:
        return
    for name, blob in loaded.blobs.items():
        assert len(blob.data) == len({"a": a, "b": b}[name])
        assert BASE <= blob.address <= blob.end <= BASE + SIZE


# ---- what is written, executed

SIGNATURE = st.sampled_from([b"SDEI", b"HEST", b"AGDI", b"SSDT", b"MCFG"])
TABLES = st.lists(st.builds(table, SIGNATURE, st.binary(max_size=200)), max_size=8)


def walk(rsdp: bytes, read: dict[int, bytes]) -> list[bytes]:
    """The tables that an RSDP leads to; all checksums are checked."""
    assert rsdp[:8] == b"RSD PTR "
    assert sum(rsdp[:20]) % 256 == 0 == sum(rsdp[:36]) % 256

    def at(address: int) -> bytes:
        (base,) = (start for start, data in read.items() if start <= address < start + len(data))
        data = read[base][address - base :]
        found = data[: int.from_bytes(data[4:8], "little")]
        assert found[:4] == b"FACS" or sum(found) % 256 == 0, found
        return found

    xsdt = at(int.from_bytes(rsdp[24:32], "little"))
    assert xsdt[:4] == b"XSDT"
    listed = [at(int.from_bytes(xsdt[i : i + 8], "little")) for i in range(36, len(xsdt), 8)]
    for found in list(listed):
        if found[:4] == b"FACP":
            listed += [at(address) for i in (132, 140) if (address := int.from_bytes(found[i : i + 8], "little"))]
    return listed


def without_checksum(data: bytes) -> bytes:
    return data[:9] + b"\0" + data[10:]


@given(TABLES, st.integers(0, 200))
def test_what_is_written_executes_to_the_same_tables(tables: list[bytes], shift: int) -> None:
    files = files_of(tables)
    loaded = execute(parse(files["etc/table-loader"]), files, allocator(BASE + shift, SIZE))
    read = {blob.address: bytes(blob.data) for blob in loaded.blobs.values()}
    found = walk(bytes(loaded.blobs["etc/acpi/rsdp"].data), read)
    assert [without_checksum(data) for data in found] == [without_checksum(data) for data in tables]


def test_a_fadt_leads_to_its_dsdt_and_facs() -> None:
    facs = b"FACS" + (64).to_bytes(4, "little") + bytes(56)
    fadt, dsdt = table(b"FACP", bytes(240), 6), table(b"DSDT", b"code", 2)
    files = files_of([facs, fadt, table(b"SDEI"), dsdt])
    loaded = execute(parse(files["etc/table-loader"]), files, allocator(BASE, SIZE))
    read = {blob.address: bytes(blob.data) for blob in loaded.blobs.values()}
    found = walk(bytes(loaded.blobs["etc/acpi/rsdp"].data), read)
    assert [data[:4] for data in found] == [b"FACP", b"SDEI", b"FACS", b"DSDT"]
    assert found[2] == facs


@pytest.mark.parametrize(
    "tables",
    [
        [b"SDEI"],
        [table(b"SDEI") + b"more"],
        [table(b"DSDT"), table(b"DSDT")],
        [table(b"FACP", bytes(240)), table(b"FACP", bytes(240))],
    ],
)
def test_tables_that_cannot_be_emitted_are_refused(tables: list[bytes]) -> None:
    with pytest.raises(AcpiError):
        files_of(tables)
