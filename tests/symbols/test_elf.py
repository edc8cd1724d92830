"""ELF files: what a compiler makes, what is made by hand, and what lies."""

from __future__ import annotations

import io
import subprocess
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_sdei import guestcompile
from qemu_sdei.errors import UsageError
from qemu_sdei.symbols import elf
from tests.symbols import elves


def read(data: bytes) -> elf.Program | elf.ModuleFile:
    return elf.read(io.BytesIO(data), "FILE")


def program(data: bytes) -> elf.Program:
    found = read(data)
    assert isinstance(found, elf.Program)
    return found


def refusal(data: bytes) -> str:
    with pytest.raises(UsageError) as caught:
        read(data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_kernel_has_functions_with_sizes_and_a_build_id() -> None:
    found = program(elves.linux())
    assert str(found.table.resolve(0xFFFF_8000_0801_6018 + 8)) == "__sdei_asm_handler+0x8/0x188"
    assert str(found.table.resolve(0xFFFF_8000_0803_2000 + 4)) == "schedule+0x4/0x80"
    assert found.build_id == bytes(range(20)).hex()


def test_names_of_the_assembler_and_data_are_no_functions() -> None:
    data = elves.program(
        {"f": (0x1000, 0x40)},
        text=0x1000,
        extra=[
            elves.symbol(0, 0x1010, kind=elves.TYPELESS),
            elves.symbol(1, 0x1020, kind=elves.OBJECT),
            elves.symbol(1, 0x1030, section=0xFFF1),
            elves.symbol(1, 0x1034, section=77),
            elves.symbol(0xFFFF, 0x1038),
        ],
    )
    table = program(data).table
    assert len(table) == 1
    assert str(table.resolve(0x1030)) == "f+0x30/0x40"


def test_a_module_has_its_sections_where_the_kernel_puts_them() -> None:
    found = read(elves.module())
    assert isinstance(found, elf.ModuleFile)
    assert (found.name, found.release) == ("sdei_test", "6.1.0-56-arm64")
    places = found.at(0xFFFF_8000_0100_0000)
    assert places == {".text": 0xFFFF_8000_0100_0000, ".exit.text": 0xFFFF_8000_0100_0060}
    table = found.placed(places)
    assert str(table.resolve(0xFFFF_8000_0100_0014)) == "on_event+0x4/0x40 [sdei_test]"
    assert str(table.resolve(0xFFFF_8000_0100_0064)) == "leave+0x4/0x10 [sdei_test]"


def test_sections_of_a_module_can_be_anywhere() -> None:
    found = read(elves.module())
    assert isinstance(found, elf.ModuleFile)
    table = found.placed({".text": 0x5000, ".init.text": 0x9000})
    assert str(table.resolve(0x5010)) == "on_event+0x0/0x40 [sdei_test]"
    assert str(table.resolve(0x9000)) == "start+0x0/0x20 [sdei_test]"


def test_what_the_compiler_makes_is_read(tmp_path: Path) -> None:
    compiler = guestcompile.find_compiler()
    if compiler is None or compiler.is_clang:
        pytest.skip("there is no cross compiler")
    source = tmp_path / "small.c"
    source.write_text(
        "static int __attribute__((noinline)) inner(int a) { return a * 3; }\n"
        "int outer(int a) { return inner(a) + 1; }\n"
        "int __attribute__((weak)) spare(int a) { return a; }\n"
        "int counter = 5;\n"
        "int _start(void) { return outer(counter); }\n"
    )
    out = tmp_path / "small"
    flags = ["-O1", "-g", "-nostdlib", "-static", "-Wl,--build-id", "-Wl,-Ttext=0x40200000"]
    subprocess.run([compiler.path, *flags, "-o", str(out), str(source)], check=True, timeout=60)
    with out.open("rb") as file:
        found = elf.read(file, "small")
    assert isinstance(found, elf.Program)
    for name in ("inner", "outer", "spare", "_start"):
        begin = found.table.address_of(name)
        assert begin is not None
        assert str(found.table.resolve(begin)).startswith(f"{name}+0x0/0x")
    assert found.table.address_of("counter") is None
    assert found.build_id is not None
    assert len(found.build_id) == 40


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (elves.linux()[:40], "damaged ELF file"),
        (elves.linux()[:-100], "damaged ELF file"),
        (elves.program({}, machine=62), "for x64, and guests are arm64"),
        (elves.elf([elves.Section(".text", bytes(8), flags=6)]), "it was stripped"),
        (elves.elf([elves.Section(".text", bytes(8), flags=6)], kind=4), "of type ET_CORE"),
        (elves.program({"f": (0, 4)}, kind=elves.REL), "is an object file"),
        (
            elves.elf(
                [
                    elves.Section(".text", bytes(8), flags=6),
                    elves.Section(".symtab", b"", kind=2, link=3, entry=24, size=24 << 36),
                    elves.Section(".strtab", b"\0", kind=3),
                ]
            ),
            "more symbols than any kernel",
        ),
        (
            elves.elf(
                [
                    elves.Section(".text", bytes(8), flags=6),
                    elves.Section(".symtab", b"", kind=2, link=3, entry=24, size=24 << 10, offset=1 << 50),
                    elves.Section(".strtab", b"\0", kind=3),
                ]
            ),
            "damaged ELF file: it is cut short",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(data: bytes, says: str) -> None:
    assert says in refusal(data)


def test_a_number_of_sections_without_end_is_refused() -> None:
    data = bytearray(elves.linux())
    data[60:62] = b"\0\0"  # then it is the size of section 0
    at = int.from_bytes(data[40:48], "little")
    data[at + 32 : at + 40] = (1 << 62).to_bytes(8, "little")
    assert "sections" in refusal(bytes(data))


def test_names_without_an_end_are_not_read_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sections' names are 8 MiB in which no NUL ends them."""
    monkeypatch.setattr(elf, "MAX_HEADERS", 1 << 20)
    data = bytearray(elves.linux())
    at = int.from_bytes(data[40:48], "little")
    names = at + 64 * int.from_bytes(data[62:64], "little")
    data[names + 24 : names + 32] = len(data).to_bytes(8, "little")
    path = tmp_path / "vmlinux"
    path.write_bytes(bytes(data) + b"x" * (8 << 20))
    tracemalloc.start()
    try:
        with path.open("rb") as file, pytest.raises(UsageError, match="damaged ELF file"):
            elf.read(file, "vmlinux")
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@given(st.data())
def test_a_damaged_file_is_read_or_refused_in_one_line(data: st.DataObject) -> None:
    whole = bytearray(data.draw(st.sampled_from([elves.linux(), elves.module()])))
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    try:
        found = read(bytes(whole[:cut]) if data.draw(st.booleans()) else bytes(whole))
    except UsageError:
        return
    if isinstance(found, elf.ModuleFile):
        found.placed(found.at(0xFFFF_8000_0100_0000)).resolve(0xFFFF_8000_0100_0014)
    else:
        found.table.resolve(0xFFFF_8000_0801_6018)
