"""The table loader's script: what is read is what was written, and damage is told with its entry."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_sdei.acpi.errors import AcpiError
from qemu_sdei.acpi.linker import AddChecksum, AddPointer, Allocate, Command, WritePointer, Zone, emit, parse

NAME = st.text("abcdefghijklmnopqrstuvwxyz/-_.0", min_size=1, max_size=55)
U32 = st.integers(0, (1 << 32) - 1)
SIZE = st.sampled_from([1, 2, 4, 8])
COMMAND: st.SearchStrategy[Command] = st.one_of(
    st.builds(Allocate, NAME, st.integers(0, 31).map(lambda n: 1 << n), st.sampled_from(Zone)),
    st.builds(AddPointer, NAME, NAME, U32, SIZE),
    st.builds(AddChecksum, NAME, U32, U32, U32),
    st.builds(WritePointer, NAME, NAME, U32, U32, SIZE),
)


@given(st.lists(COMMAND, max_size=20))
def test_parse_reads_what_emit_wrote(commands: list[Command]) -> None:
    script = emit(commands)
    assert len(script) == 128 * len(commands)
    assert parse(script) == commands


def test_layout_is_that_of_the_interface() -> None:
    """Written out by hand from QEMU's description: command, names of 56 bytes, numbers right behind."""
    name, other = b"etc/a".ljust(56, b"\0"), b"etc/b".ljust(56, b"\0")
    assert parse(struct.pack("<I56sIB63x", 1, name, 64, 2)) == [Allocate("etc/a", 64, Zone.FSEG)]
    assert parse(struct.pack("<I56s56sIB7x", 2, name, other, 24, 8)) == [AddPointer("etc/a", "etc/b", 24, 8)]
    assert parse(struct.pack("<I56sIII56x", 3, name, 9, 0, 36)) == [AddChecksum("etc/a", 9, 0, 36)]
    assert parse(struct.pack("<I56s56sIIB3x", 4, name, other, 8, 16, 4)) == [WritePointer("etc/a", "etc/b", 8, 16, 4)]


def test_entries_that_say_nothing_are_skipped() -> None:
    script = emit([Allocate("a", 16)])
    assert parse(bytes(128) + script + bytes(256)) == [Allocate("a", 16)]


def entry(text: bytes) -> bytes:
    return text.ljust(128, b"\0")


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (bytes(127), "127 bytes"),
        (bytes(128 * 4097), "4097 entries"),
        (bytes(128) + entry(b"\x05"), "entry 1: there is no command 0x5"),
        (entry(struct.pack("<I56sIB", 1, b"a", 24, 1)), "alignment 24 is not a power of two"),
        (entry(struct.pack("<I56sIB", 1, b"a", 0, 1)), "alignment 0 is not a power of two"),
        (entry(struct.pack("<I56sIB", 1, b"a", 16, 3)), "there is no zone 3"),
        (entry(struct.pack("<I56sIB", 1, b"a" * 56, 16, 1)), "a file name has no end"),
        (entry(struct.pack("<I56sIB", 1, b"", 16, 1)), "is no name of a file"),
        (entry(struct.pack("<I56sIB", 1, b"\xff\n", 16, 1)), "is no name of a file"),
        (entry(struct.pack("<I56s56sIB", 2, b"a", b"b", 0, 3)), "a pointer has 1, 2, 4 or 8 bytes, not 3"),
        (entry(struct.pack("<I56s56sIB", 2, b"a", b"b" * 56, 0, 4)), "a file name has no end"),
        (entry(struct.pack("<I56s56sIIB", 4, b"a", b"b", 0, 0, 16)), "a pointer has 1, 2, 4 or 8 bytes, not 16"),
    ],
)
def test_damaged_scripts_are_refused(script: bytes, message: str) -> None:
    with pytest.raises(AcpiError, match=message):
        parse(script)


@given(st.binary(min_size=128, max_size=512))
def test_no_bytes_make_the_parser_fail_in_another_way(data: bytes) -> None:
    try:
        commands = parse(data)
    except AcpiError:
        return
    assert parse(emit(commands)) == commands


@pytest.mark.parametrize(
    "command",
    [Allocate("a" * 56, 16), Allocate("a", 3), AddPointer("a", "b", 1 << 32, 8), AddPointer("a", "ü\n", 0, 8)],
)
def test_what_cannot_be_written_is_refused(command: Command) -> None:
    with pytest.raises(AcpiError):
        emit([command])
