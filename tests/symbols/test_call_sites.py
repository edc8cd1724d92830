"""Functions that rules name, looked up in a kernel's symbols."""

from __future__ import annotations

import pytest

from qemu_sdei.errors import UsageError
from qemu_sdei.profiles.firmware_profile import FirmwareProfile
from qemu_sdei.profiles.rule import Rule
from qemu_sdei.symbols.call_sites import kernels_of, placed, placed_rules
from qemu_sdei.symbols.kaslr import SMC
from qemu_sdei.symbols.sources import Kernel, Sources
from qemu_sdei.symbols.symbol_table import GLOBAL, LOCAL, Entry, SymbolTable

BASE = 0xFFFF_8000_0800_0000
LINUX = [
    Entry(BASE + 0x100, 0x40, GLOBAL, SMC),
    Entry(BASE + 0x200, 0x20, LOCAL, "psci_cpu_off"),
    Entry(BASE + 0x300, 0x20, LOCAL, "twice"),
    Entry(BASE + 0x400, 0, LOCAL, "twice"),
    Entry(BASE + 0x500, 0x10, LOCAL, "other"),
    Entry(BASE + 0x500, 0x10, GLOBAL, "alias"),
]


def kernel(entries: list[Entry], offset: int | None = None) -> Kernel:
    return Kernel("vmlinux", SymbolTable(entries), offset=offset)


def text(rule: str, *kernels: Kernel) -> str:
    (found,) = placed_rules([Rule.of_text(rule)], kernels)
    return found.text


def test_a_kernel_that_may_lie_elsewhere() -> None:
    calls = "~0xffff800008000100..0xffff80000800013f"
    found = text("CPU_OFF caller=psci_cpu_off returns=DENIED", kernel(LINUX))
    assert found == f"CPU_OFF caller=psci_cpu_off@0xffff800008000200..0xffff80000800021f{calls} returns=DENIED"


def test_functions_of_one_name_are_all_meant_and_each_alias_is_known() -> None:
    twice = Rule.of_text(text("CPU_OFF pc=twice returns=0", kernel(LINUX))).sites["pc"]
    assert [site.low - BASE for site in twice] == [0x300, 0x400]
    for name in ("other", "alias"):
        (site,) = Rule.of_text(text(f"CPU_OFF pc={name} returns=0", kernel(LINUX))).sites["pc"]
        assert (site.low - BASE, site.high - BASE, site.name) == (0x500, 0x50F, name)


def test_one_that_lies_where_its_file_says() -> None:
    program = [Entry(0x4010_0000, 0x20, GLOBAL, "main")]
    assert text("* pc=main late=1ms", kernel(program)) == "* pc=main@0x40100000..0x4010001f late=1ms"
    found = text("* pc=psci_cpu_off late=1ms", kernel(LINUX, offset=0x1_0000))
    assert found == "* pc=psci_cpu_off@0xffff800008010200..0xffff80000801021f late=1ms"


def test_rules_without_names_need_no_symbols() -> None:
    profile = FirmwareProfile("own", (Rule.of_text("CPU_OFF pc=0x10..0x20 returns=0"),))
    assert placed(profile, []) is profile


@pytest.mark.parametrize(
    ("name", "entries", "expected"),
    [
        ("psci_cpu_of", LINUX, r"vmlinux has no function psci_cpu_of \(did you mean psci_cpu_off\?\)"),
        ("psci_cpu_off", None, "give --symbols"),
        ("many", [Entry(BASE + n * 16, 16, LOCAL, "many") for n in range(9)], "9 functions many: give the address"),
    ],
)
def test_one_that_is_not_found_is_one_line(name: str, entries: list[Entry] | None, expected: str) -> None:
    kernels = [] if entries is None else [kernel(entries)]
    with pytest.raises(UsageError, match=expected) as caught:
        text(f"CPU_OFF pc={name} returns=0", *kernels)
    assert "\n" not in str(caught.value)


def test_symbols_of_another_build_are_not_used() -> None:
    table = SymbolTable(LINUX)
    ours, theirs, unknown = (Kernel(name, table, build) for name, build in (("a", "aa"), ("b", "bb"), ("c", None)))
    assert kernels_of(Sources([theirs, ours, unknown], build_id="aa")) == [ours, unknown]
    assert kernels_of(Sources([theirs])) == [theirs], "whose the guest's is, nobody knows"
    with pytest.raises(UsageError, match="b is of another build"):
        kernels_of(Sources([theirs], build_id="aa"))
    assert kernels_of(Sources([theirs], build_id="aa"), force=True) == [theirs]
