"""Where a kernel lies: found from one address, and never from one that does not fit."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qemu_sdei.symbols import elf, kaslr, listings
from qemu_sdei.symbols.kaslr import Found
from qemu_sdei.symbols.symbol_table import SymbolTable
from tests.examples import examples
from tests.symbols import elves
from tests.symbols.elves import LINUX

HANDLER = LINUX["__sdei_asm_handler"][0]
SMC = LINUX["__arm_smccc_smc"][0]
OFFSET = 0x59F3_2D60_0000  # what a kernel on QEMU had, and a multiple of 2 MiB


def kernel() -> SymbolTable:
    found = elf.read(io.BytesIO(elves.linux()), "vmlinux")
    assert isinstance(found, elf.Program)
    return found.table


TABLE = kernel()
offsets = st.integers(-0x800, (1 << 45) // kaslr.GRANULE).map(lambda number: number * kaslr.GRANULE)


@given(offsets)
def test_the_handler_says_where_the_kernel_is(offset: int) -> None:
    assert kaslr.offset_from_handler(HANDLER + offset, TABLE) == Found(offset=offset)


@given(offsets, st.integers(0, 0x2C // 4))
def test_a_call_says_it_too(offset: int, instruction: int) -> None:
    assert kaslr.offset_from_call(SMC + 4 * instruction + offset, TABLE) == Found(offset=offset)


@given(offsets, st.integers(1, kaslr.GRANULE // 4 - 1).map(lambda number: 4 * number))
def test_a_handler_of_another_kernel_fits_nothing(offset: int, move: int) -> None:
    found = kaslr.offset_from_handler(HANDLER + offset + move, TABLE)
    assert found.offset is None
    if (HANDLER + move - LINUX["__sdei_asm_entry_trampoline"][0]) % kaslr.PAGE:
        assert found.trampoline is None
        assert found.why is not None


def test_a_kernel_cannot_lie_in_user_space() -> None:
    assert kaslr.offset_from_kallsyms(many(-(1 << 63)), MANY).why is not None


@pytest.mark.parametrize("pc", [SMC - 4, SMC + 0x30, SMC + 2, SMC & 0xFFFF, 0x4020_0000, HANDLER, 0, (1 << 64) - 4])
def test_a_call_from_elsewhere_says_nothing_of_the_place(pc: int) -> None:
    found = kaslr.offset_from_call(pc, TABLE)
    assert found.offset is None
    assert found.why is not None


def test_with_kpti_the_handler_is_the_trampolines_alias() -> None:
    """The address is one that Linux 6.1 registered; the fixmap is where it is whatever KASLR does."""
    found = kaslr.offset_from_handler(0xFFFF_FBFF_FDBF_8020, TABLE)
    assert found == Found(trampoline=0xFFFF_FBFF_FDBF_6000)


def test_a_kernel_whose_symbols_lack_the_trampoline_may_have_registered_it() -> None:
    """CONFIG_KALLSYMS_ALL is off in Debian's 6.1: that says nothing, also not that the symbols are wrong."""
    names = {name: place for name, place in LINUX.items() if "tramp" not in name}
    table = listings.symbols(elves.system_map(names), "System.map")
    assert kaslr.offset_from_handler(0xFFFF_FBFF_FDBF_8020, table) == Found()


def test_a_bare_metal_program_is_no_linux() -> None:
    found = elf.read(io.BytesIO(elves.program({"main": (0x4020_0000, 64)}, text=0x4020_0000)), "FILE")
    assert isinstance(found, elf.Program)
    assert not kaslr.is_linux(found.table)
    assert kaslr.is_linux(TABLE)


def many(move: int = 0, step: int = 0x100) -> SymbolTable:
    names = {f"function_{at}": (0xFFFF_8000_0801_0000 + step * at, 0) for at in range(2000)}
    return listings.symbols(elves.system_map(names, move), "kallsyms")


@settings(max_examples=examples(20))
@given(offsets)
def test_kallsyms_says_where_the_kernel_is(offset: int) -> None:
    assert kaslr.offset_from_kallsyms(many(offset), MANY) == Found(offset=offset)


MANY = many()


def test_kallsyms_of_another_kernel_does_not() -> None:
    assert kaslr.offset_from_kallsyms(many(OFFSET, 0x110), MANY).why is not None
    assert kaslr.offset_from_kallsyms(many(OFFSET + 0x40), MANY).why is not None
    assert kaslr.offset_from_kallsyms(TABLE, MANY).why is not None


def test_a_name_that_is_there_twice_says_nothing() -> None:
    """Static functions of different files have one name: only those that are unique are compared."""
    lines = elves.system_map({f"f{at}": (0xFFFF_8000_0801_0000 + 64 * at, 0) for at in range(600)})
    twice = b"".join(b"%016x t init\n" % (0xFFFF_8000_0900_0000 + 64 * at) for at in range(600))
    table = listings.symbols(lines + twice, "System.map")
    moved = elves.system_map({f"f{at}": (0xFFFF_8000_0801_0000 + 64 * at, 0) for at in range(600)}, OFFSET)
    other = b"".join(b"%016x t init\n" % (0xFFFF_8000_0900_0000 + OFFSET + 96 * at) for at in range(600))
    assert kaslr.offset_from_kallsyms(listings.symbols(moved + other, "kallsyms"), table) == Found(offset=OFFSET)
