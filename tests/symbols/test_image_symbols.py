"""The kallsyms table in a kernel's Image: of each form that kernels have, and of Debian's own kernels."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qemu_sdei.host.debian import DebianCache
from qemu_sdei.symbols import image_symbols
from tests.examples import examples
from tests.symbols import elves
from tests.symbols.kallsyms_maker import image

SYMBOLS = [
    (0, "T_stext"),
    (8, "T" + "long_name_" * 15),
    *((0x1000 + 0x20 * number, f"tevent_number_{number}_and_a_long_word_of_{number % 7}") for number in range(1500)),
    (0xF000, "T__sdei_asm_handler"),
    (0xF100, "T" + "long_name_" * 20),
    (0xF200, "Dsome_data"),
]
FORMS = [
    pytest.param({"since_6_4": False}, id="6.1"),
    pytest.param({"since_6_4": False, "seqs": True}, id="6.2"),
    pytest.param({"since_6_4": True}, id="6.4"),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("base", [0, 0xFFFF_8000_0801_0000])
def test_a_kernel_names_its_own_functions(form: dict[str, bool], base: int) -> None:
    found = image_symbols.read(image(SYMBOLS, base=base, **form), "Image")
    assert found.release == "6.1.0-56-arm64"
    table = found.table
    assert table is not None
    assert str(table.resolve(base + 0x1000 + 0x20 * 1234 + 4)) == ("event_number_1234_and_a_long_word_of_2+0x4/0x20")
    assert str(table.resolve(base + 0xF010)) == "__sdei_asm_handler+0x10/0x100"
    assert str(table.resolve(base + 0xF110)) == "long_name_" * 20 + "+0x10/0x100"
    assert str(table.resolve(base + 12)) == "long_name_" * 15 + "+0x4/0xff8"
    assert table.resolve(base + 0xF200) is None


def test_a_kernel_without_kallsyms_has_none() -> None:
    assert image_symbols.read(bytes(1 << 16), "Image").table is None


def test_the_build_id_is_the_kernels_and_not_a_vdsos() -> None:
    vdso = elves.elf([elves.Section(".note.gnu.build-id", elves.note(b"\x11" * 20), kind=7)])
    kernel = elves.note(b"\x22" * 20)
    assert image_symbols.build_id(bytes(64) + vdso + bytes(64) + kernel) == "22" * 20
    assert image_symbols.build_id(bytes(64) + vdso) is None


@settings(max_examples=examples(30))
@given(st.lists(st.tuples(st.integers(4096, 60_000), st.integers(0, 255)), min_size=1, max_size=20), st.booleans())
def test_a_damaged_table_is_no_crash(changes: list[tuple[int, int]], since: bool) -> None:
    data = bytearray(image(SYMBOLS, since_6_4=since))
    for at, value in changes:
        data[at % len(data)] = value
    found = image_symbols.read(bytes(data), "Image")
    if found.table is not None:
        found.table.resolve(0xF010)


@settings(max_examples=examples(30))
@given(st.integers(0, 80_000))
def test_a_table_that_is_cut_is_no_crash(length: int) -> None:
    image_symbols.read(image(SYMBOLS, since_6_4=True)[:length], "Image")


@pytest.mark.not_quick
@pytest.mark.parametrize("series", ["6.1", "6.12"])
def test_debians_kernels_name_their_functions(series: str) -> None:
    kernel = next((kernel for kernel in DebianCache().cached_kernels() if kernel.series == series), None)
    if kernel is None:
        pytest.skip("the kernel is not in the cache: `qemu-sdei run -- true` gets it")
    found = image_symbols.read(kernel.image.read_bytes(), str(kernel.image))
    assert found.release == kernel.release
    assert found.build_id is not None
    assert len(found.build_id) == 40
    assert found.table is not None
    assert len(found.table) > 40_000
    for name in ("__sdei_asm_handler", "__arm_smccc_smc", "start_kernel", "schedule", "sdei_event_register"):
        there = found.table.range_of(name)
        assert there is not None, name
        assert str(found.table.resolve(there[0] + 4)) == f"{name}+0x4/{there[1]:#x}"
