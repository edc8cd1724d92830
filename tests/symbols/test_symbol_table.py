"""Which function an address lies in, and which of its names is shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_sdei.errors import UsageError
from qemu_sdei.symbols import symbol_table
from qemu_sdei.symbols.symbol_table import GLOBAL, LOCAL, MARKER, WEAK, Entry, SymbolTable


def names(table: SymbolTable, *addresses: int) -> list[str | None]:
    return [str(symbol) if (symbol := table.resolve(address)) else None for address in addresses]


def test_an_address_is_shown_as_the_kernel_shows_it() -> None:
    table = SymbolTable([Entry(0x1000, 0x80, GLOBAL, "schedule"), Entry(0x2000, 0x10, LOCAL, "on_event", "sdei_test")])
    assert names(table, 0x101C, 0x200F) == ["schedule+0x1c/0x80", "on_event+0xf/0x10 [sdei_test]"]


def test_without_a_size_a_function_ends_at_the_next_symbol_whatever_that_is() -> None:
    table = SymbolTable([Entry(0x1000, 0, GLOBAL, "a"), Entry(0x1100, 0, GLOBAL, "b")], [0x1180])
    assert names(table, 0x10FF, 0x1100, 0x117F, 0x1180) == ["a+0xff/0x100", "b+0x0/0x80", "b+0x7f/0x80", None]


def test_what_pads_a_function_is_still_it() -> None:
    table = SymbolTable([Entry(0x1000, 0x34, GLOBAL, "a"), Entry(0x1040, 8, GLOBAL, "b")], [0x1048])
    assert names(table, 0x1033, 0x1034, 0x1048) == ["a+0x33/0x34", "a+0x34/0x40", None]


def test_the_last_function_does_not_go_on_for_ever() -> None:
    table = SymbolTable([Entry(0xFFFF_8000_0000_0000, 0, GLOBAL, "last")])
    assert names(table, 0xFFFF_8000_0000_FFFF, 0xFFFF_8000_0001_0000) == ["last+0xffff/0x10000", None]
    assert names(table, 0, (1 << 64) - 1) == [None, None]


@pytest.mark.parametrize(
    ("others", "best"),
    [
        ([(LOCAL, "helper"), (GLOBAL, "vfs_read")], "vfs_read"),
        ([(WEAK, "arch_read"), (GLOBAL, "vfs_read")], "vfs_read"),
        ([(MARKER, "_stext"), (LOCAL, "first")], "first"),
        ([(GLOBAL, "_stext"), (GLOBAL, "gic_handle_irq_of_this")], "gic_handle_irq_of_this"),
        ([(GLOBAL, "__irqentry_text_start"), (GLOBAL, "gic_handle_irq")], "gic_handle_irq"),
        ([(GLOBAL, "kprobes_text_start"), (LOCAL, "__do_something")], "__do_something"),
        ([(GLOBAL, "cleanup_module"), (LOCAL, "sdei_exit")], "sdei_exit"),
        ([(GLOBAL, "__memcpy"), (GLOBAL, "memcpy"), (GLOBAL, "__pi_memcpy")], "memcpy"),
    ],
)
def test_of_several_names_the_one_that_people_know_is_shown(others: list[tuple[int, str]], best: str) -> None:
    for order in (others, others[::-1]):
        table = SymbolTable([Entry(0x1000, 0x10, binding, name) for binding, name in order])
        assert names(table, 0x1000) == [f"{best}+0x0/0x10"]
        assert {table.address_of(name) for _, name in others} == {0x1000}


def test_a_name_that_is_there_twice_has_no_address_of_its_own() -> None:
    """Nor counts a module's: where a kernel lies is found by names that say one place."""
    functions = [Entry(0x1000, 4, LOCAL, "init"), Entry(0x2000, 4, LOCAL, "init"), Entry(0x3000, 4, LOCAL, "once")]
    table = SymbolTable([*functions, Entry(0x4000, 4, LOCAL, "of_a_module", "m")])
    assert table.addresses(["init", "once", "of_a_module", "nothing"]) == {"once": 0x3000}


@pytest.mark.parametrize(
    "name", ["", "$x", "$d.12", "__efistub_$x", ".L34", "__ksymtab_schedule", "__kstrtab_schedule"]
)
def test_names_of_the_compiler_are_no_functions(name: str) -> None:
    assert not symbol_table.is_function(name)


@pytest.mark.parametrize("name", ["schedule", "foo.isra.0", "_ZN4core3fmt9$LT$impl$GT$4name17h0E", "price$"])
def test_other_names_are(name: str) -> None:
    assert symbol_table.is_function(name)


def test_a_name_of_a_file_cannot_change_the_terminal() -> None:
    table = SymbolTable([Entry(0, 16, GLOBAL, "a\x1b[2Jb\u202e", "m\n")])
    assert names(table, 0) == ["a\\x1b[2Jb\\u202e+0x0/0x10 [m\\n]"]


def test_more_functions_than_any_kernel_has_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symbol_table, "MAX_SYMBOLS", 3)
    with pytest.raises(UsageError, match="listing has more than 3 functions"):
        SymbolTable((Entry(at, 0, GLOBAL, "f") for at in range(10**9)), source="listing")


def test_addresses_that_no_machine_has_are_left_out() -> None:
    """A damaged module says that a function begins behind its section, which is at the end of memory."""
    table = SymbolTable([Entry(1 << 64, 4, GLOBAL, "a"), Entry(0x1000, (1 << 64) - 1, GLOBAL, "b")], [1 << 65, -1])
    assert len(table) == 1
    assert names(table, 0x1000) == ["b+0x0/0xffffffffffffffff"]


@given(st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 300)), max_size=30), st.integers(-1, 5000))
def test_a_function_begins_at_or_before_the_address_and_reaches_it(
    functions: list[tuple[int, int]], address: int
) -> None:
    table = SymbolTable([Entry(start, size, GLOBAL, f"f{start}") for start, size in functions])
    found = table.resolve(address)
    before = [start for start, _ in functions if start <= address]
    if not before:
        assert found is None
    else:
        assert found is not None
        assert (found.name, found.offset) == (f"f{max(before)}", address - max(before))
        assert found.offset < found.size
