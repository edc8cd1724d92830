"""What a user sees in place of an address, as more and more is known of the guest; and what they are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qemu_sdei.symbols.sources import load
from qemu_sdei.symbols.symbolizer import Symbolizer
from tests.symbols import elves
from tests.symbols.elves import LINUX

OFFSET = 0x19F3_2D60_0000
HANDLER, SMC, SCHEDULE = (LINUX[name][0] for name in ("__sdei_asm_handler", "__arm_smccc_smc", "schedule"))
TRAMPOLINE = LINUX["__sdei_asm_entry_trampoline"][0]
VERSION = 0xC400_0020
REGISTER = 0xC400_0021
COMPLETE = 0xC400_0025
ARCH_FEATURES = 0x8000_0001
MODULE = 0xFFFF_D9F3_356D_A000


class User:
    """Files of the user's, and what they were told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told: list[str] = []

    def symbolizer(self, *, force: bool = False, **files: bytes) -> Symbolizer:
        words = []
        for name, data in files.items():
            path = self.folder / name
            path.write_bytes(data)
            words.append(str(path))
        return Symbolizer(load(words), force=force, tell=self.told.append)


@pytest.fixture
def user(tmp_path: Path) -> User:
    return User(tmp_path)


def call(number: int, pc: int, *x: int) -> dict[str, Any]:
    return {"type": "call", "id": number, "pc": pc, "x": [number, *x]}


def test_until_the_place_is_known_addresses_are_numbers_and_the_reason_is_told_once(user: User) -> None:
    symbols = user.symbolizer(vmlinux=elves.linux())
    for _ in range(3):
        assert symbols.name(SCHEDULE + OFFSET + 4) == f"{SCHEDULE + OFFSET + 4:#x}"
    assert len(user.told) == 1
    assert "not known yet" in user.told[0]
    assert symbols.problem == user.told[0]


def test_an_address_of_user_space_is_nothing_to_tell_of(user: User) -> None:
    assert user.symbolizer(vmlinux=elves.linux()).name(0xAAAA_1234) == "0xaaaa1234"
    assert not user.told


def test_the_handler_that_linux_registers_names_all(user: User) -> None:
    symbols = user.symbolizer(vmlinux=elves.linux())
    symbols.learn(call(REGISTER, 0x1234, 0, HANDLER + OFFSET, 0, 0, 0))
    assert symbols.name(SCHEDULE + OFFSET + 4) == "schedule+0x4/0x80"
    assert symbols.problem is None
    assert f"{LINUX['_text'][0] + OFFSET:#x}" in symbols.summary
    assert not user.told


@pytest.mark.parametrize("number", [VERSION, 0x8400_0000, 0xC400_0003])
def test_the_place_of_any_psci_or_sdei_call_names_all(number: int, user: User) -> None:
    symbols = user.symbolizer(vmlinux=elves.linux())
    symbols.learn(call(number, SMC + OFFSET + 0x10))
    assert symbols.name(SCHEDULE + OFFSET) == "schedule+0x0/0x80"


@pytest.mark.parametrize("number", [ARCH_FEATURES, COMPLETE, 0xC600_0001])
def test_calls_that_linux_makes_from_elsewhere_are_no_evidence(number: int, user: User) -> None:
    symbols = user.symbolizer(vmlinux=elves.linux())
    symbols.learn(call(VERSION, SMC + OFFSET + 0x10))
    symbols.learn(call(number, SCHEDULE + OFFSET + 0x10))
    assert symbols.name(SCHEDULE + OFFSET) == "schedule+0x0/0x80"


def test_with_kpti_the_trampoline_and_the_kernel_both_have_names(user: User) -> None:
    symbols = user.symbolizer(vmlinux=elves.linux())
    symbols.learn_handler(0xFFFF_FBFF_FDBF_8020)
    assert symbols.name(0xFFFF_FBFF_FDBF_8024) == "__sdei_asm_entry_trampoline+0x4/0x48"
    assert symbols.name(SCHEDULE + OFFSET) == f"{SCHEDULE + OFFSET:#x}"
    symbols.learn_call(SMC + OFFSET + 0x10, VERSION)
    assert symbols.name(SCHEDULE + OFFSET) == "schedule+0x0/0x80"
    assert symbols.name(0xFFFF_FBFF_FDBF_8020) == "__sdei_asm_entry_trampoline+0x0/0x48"


def test_symbols_of_another_kernel_give_no_names(user: User) -> None:
    symbols = user.symbolizer(vmlinux=elves.linux(move=0x1240))
    symbols.learn_handler(HANDLER + OFFSET)
    assert symbols.name(SCHEDULE + OFFSET) == f"{SCHEDULE + OFFSET:#x}"
    assert len(user.told) == 1
    assert "another kernel" in user.told[0]
    assert f"{HANDLER + OFFSET:#x}" in user.told[0]


def test_a_build_id_of_another_kernel_is_said_and_only_force_uses_its_symbols(user: User) -> None:
    theirs = bytes(range(1, 21))
    for force, name in ((False, f"{SCHEDULE + OFFSET:#x}"), (True, "schedule+0x0/0x80")):
        symbols = user.symbolizer(force=force, vmlinux=elves.linux())
        symbols.learn_notes(elves.note(theirs))
        symbols.learn_handler(HANDLER + OFFSET)
        assert symbols.name(SCHEDULE + OFFSET) == name
    assert len(user.told) == 1
    assert bytes(range(20)).hex()[:12] in user.told[0]
    assert theirs.hex()[:12] in user.told[0]
    assert "--symbols-force" in user.told[0]


def test_the_same_build_id_is_nothing_to_tell_of(user: User) -> None:
    symbols = user.symbolizer(vmlinux=elves.linux(), notes=elves.note(bytes(range(20))))
    symbols.learn_handler(HANDLER + OFFSET)
    assert symbols.name(SCHEDULE + OFFSET) == "schedule+0x0/0x80"
    assert not user.told


def test_of_two_kernels_the_one_that_fits_is_used(user: User) -> None:
    symbols = user.symbolizer(one=elves.linux(move=0x1240), two=elves.linux())
    symbols.learn_call(SMC + OFFSET + 0x10, VERSION)
    assert symbols.name(SCHEDULE + OFFSET + 8) == "schedule+0x8/0x80"
    assert not user.told
    assert "two" in symbols.summary


def test_another_kernel_is_found_anew(user: User) -> None:
    """After a kexec the kernel may lie elsewhere; until it has called, addresses are numbers."""
    symbols = user.symbolizer(vmlinux=elves.linux())
    symbols.learn_handler(HANDLER + OFFSET)
    symbols.learn({"type": "kernel", "kernels": 2})
    assert symbols.name(SCHEDULE + OFFSET) == f"{SCHEDULE + OFFSET:#x}"
    symbols.learn(call(VERSION, SMC + 0x10 + 2 * OFFSET))
    assert symbols.name(SCHEDULE + 2 * OFFSET) == "schedule+0x0/0x80"
    assert len(user.told) == 1


def test_a_reset_keeps_the_build_id(user: User) -> None:
    symbols = user.symbolizer(vmlinux=elves.linux())
    symbols.learn_build_id("11" * 20)
    symbols.learn({"type": "boot", "epoch": 2})
    symbols.learn_handler(HANDLER + OFFSET)
    assert symbols.name(SCHEDULE + OFFSET) == f"{SCHEDULE + OFFSET:#x}"
    symbols.forget()
    symbols.learn_handler(HANDLER + OFFSET)
    assert symbols.name(SCHEDULE + OFFSET) == "schedule+0x0/0x80"


def test_a_kernel_that_was_not_told_of_is_noticed_by_its_handler(user: User) -> None:
    symbols = user.symbolizer(vmlinux=elves.linux())
    symbols.learn_handler(HANDLER + OFFSET)
    symbols.learn_handler(HANDLER + 3 * OFFSET)
    assert symbols.name(SCHEDULE + 3 * OFFSET) == "schedule+0x0/0x80"
    symbols.learn_handler(HANDLER + 3 * OFFSET + 0x44)
    assert symbols.name(SCHEDULE + 3 * OFFSET) == f"{SCHEDULE + 3 * OFFSET:#x}"


def test_the_guests_kallsyms_names_kernel_and_modules(user: User) -> None:
    symbols = user.symbolizer(vmlinux=elves.linux())
    module = b"%016x t on_event\t[sdei_test]\n%016x t leave\t[sdei_test]\n" % (MODULE, MODULE + 0x40)
    symbols.learn_kallsyms(elves.system_map(move=OFFSET) + module)
    assert symbols.name(SCHEDULE + OFFSET + 4) == "schedule+0x4/0x80"
    assert symbols.name(MODULE + 4) == "on_event+0x4/0x40 [sdei_test]"
    assert not user.told


def test_kallsyms_alone_will_do(user: User) -> None:
    symbols = user.symbolizer()
    symbols.learn_kallsyms(elves.system_map(move=OFFSET).decode())
    assert symbols.name(HANDLER + OFFSET + 4).startswith("__sdei_asm_handler+0x4/")
    assert symbols.problem is None


def test_a_copy_of_kallsyms_is_used_where_it_fits(user: User) -> None:
    """Of this boot with its modules, of another boot without: they lie elsewhere now."""
    module = b"%016x t on_event\t[sdei_test]\n%016x t leave\t[sdei_test]\n" % (MODULE, MODULE + 0x40)
    copy = elves.system_map(move=OFFSET) + module
    symbols = user.symbolizer(kallsyms=copy)
    symbols.learn_handler(HANDLER + OFFSET)
    assert symbols.name(MODULE) == "on_event+0x0/0x40 [sdei_test]"
    symbols.learn({"type": "boot", "epoch": 2})
    symbols.learn_handler(HANDLER + OFFSET + (1 << 21))
    assert symbols.name(MODULE + (1 << 21)) == f"{MODULE + (1 << 21):#x}"
    assert symbols.name(SCHEDULE + OFFSET + (1 << 21)).startswith("schedule+0x0/")


def test_a_module_lies_where_proc_modules_says(user: User) -> None:
    modules = f"sdei_test 16384 0 - Live {MODULE:#x} (O)\n".encode()
    symbols = user.symbolizer(module=elves.module(), modules=modules)
    assert symbols.name(MODULE + 0x14) == "on_event+0x4/0x40 [sdei_test]"
    assert symbols.name(MODULE + 0x60) == "leave+0x0/0x10 [sdei_test]"


def test_a_copy_of_proc_modules_counts_though_the_trace_begins_with_a_boot(user: User) -> None:
    modules = f"sdei_test 16384 0 - Live {MODULE:#x} (O)\n".encode()
    symbols = user.symbolizer(module=elves.module(), modules=modules)
    symbols.learn({"type": "boot", "epoch": 1})
    assert symbols.name(MODULE + 0x14) == "on_event+0x4/0x40 [sdei_test]"
    symbols.learn_modules("sdei_test 16384 0 - Live 0xffff800001000000 (O)\n")
    symbols.learn({"type": "boot", "epoch": 2})
    assert symbols.name(0xFFFF_8000_0100_0014) == "0xffff800001000014"


def test_kallsyms_of_a_kernel_that_is_gone_names_nothing(user: User) -> None:
    symbols = user.symbolizer()
    symbols.learn_kallsyms(elves.system_map(move=OFFSET))
    symbols.forget()
    assert symbols.name(SCHEDULE + OFFSET) == f"{SCHEDULE + OFFSET:#x}"


def test_the_reason_is_told_anew_of_the_next_kernel(user: User) -> None:
    symbols = user.symbolizer(vmlinux=elves.linux())
    symbols.name(SCHEDULE)
    symbols.forget()
    symbols.name(SCHEDULE)
    assert len(user.told) == 2


def test_the_end_of_a_handler_is_no_evidence_before_the_place_is_known(user: User) -> None:
    """Linux ends it in its entry code: that its PC is in no __arm_smccc_smc is no sign of another kernel."""
    symbols = user.symbolizer(vmlinux=elves.linux())
    symbols.learn(call(COMPLETE, SCHEDULE + OFFSET + 0x10))
    assert "not known yet" in (symbols.problem or "")


def test_a_module_of_another_kernel_is_said(user: User) -> None:
    """As soon as it is known which kernel runs; before, the module is taken for what the user gave it for."""
    (user.folder / "boot").mkdir()
    (user.folder / "boot/vmlinux-6.12.1").write_bytes(elves.linux())
    (user.folder / "sdei_test.ko").write_bytes(elves.module(release="6.1.0-56-arm64"))
    symbols = Symbolizer(load([str(user.folder)]), tell=user.told.append)
    symbols.learn_modules(f"sdei_test 1 0 - Live {MODULE:#x}\n")
    assert symbols.name(MODULE + 0x14) == "on_event+0x4/0x40 [sdei_test]"
    symbols.learn_handler(HANDLER + OFFSET)
    assert symbols.name(MODULE + 0x14) == f"{MODULE + 0x14:#x}"
    assert user.told == ["no file of module sdei_test is of the guest's kernel 6.12.1"]


def test_a_module_lies_where_its_sections_are(user: User) -> None:
    sections = f"/sys/module/sdei_test/sections/.text:{MODULE:#x}\n".encode()
    symbols = user.symbolizer(module=elves.module(), sections=sections)
    assert symbols.name(MODULE + 0x14) == "on_event+0x4/0x40 [sdei_test]"


def test_a_module_without_a_place_is_told_of(user: User) -> None:
    symbols = user.symbolizer(module=elves.module())
    assert symbols.name(MODULE) == f"{MODULE:#x}"
    assert len(user.told) == 1
    assert "/proc/modules" in user.told[0]
    symbols.learn_modules(f"sdei_test 16384 0 - Live {MODULE:#x} (O)\n")
    assert symbols.name(MODULE + 0x10) == "on_event+0x0/0x40 [sdei_test]"


def test_a_bare_metal_program_lies_where_it_was_linked(user: User) -> None:
    program = elves.program({"main": (0x4020_0000, 0x40)}, text=0x4020_0000)
    symbols = user.symbolizer(program=program)
    assert symbols.name(0x4020_0010) == "main+0x10/0x40"


def test_an_address_given_by_the_user_counts(user: User) -> None:
    path = user.folder / "program.elf"
    path.write_bytes(elves.program({"main": (0x1000, 0x40)}, text=0x1000))
    symbols = Symbolizer(load([f"{path}@0x40200000"]))
    assert symbols.name(0x4020_0010) == "main+0x10/0x40"
    path.write_bytes(elves.module())
    symbols = Symbolizer(load([f"{path}@{MODULE:#x}"]))
    assert symbols.name(MODULE + 0x10) == "on_event+0x0/0x40 [sdei_test]"


def test_records_get_names_beside_their_addresses(user: User) -> None:
    symbols = user.symbolizer(vmlinux=elves.linux())
    record = call(VERSION, SMC + OFFSET + 0x10) | {"next_pc": SCHEDULE + OFFSET}
    assert symbols.annotated(record) == record | {
        "pc_symbol": "__arm_smccc_smc+0x10/0x30",
        "next_pc_symbol": "schedule+0x0/0x80",
    }
    assert symbols.annotated({"type": "note", "next_pc": None}) == {"type": "note", "next_pc": None}
    assert symbols.symbol(0x1234) is None


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"type": "call"},
        {"type": "call", "id": REGISTER, "x": None, "pc": None},
        {"type": "call", "id": REGISTER, "x": [1, 2, "three"], "pc": "four"},
        {"type": "call", "id": "five", "x": [REGISTER, 0, 6], "pc": 7},
        {"type": "transition", "pc": None},
    ],
)
def test_a_record_without_what_is_looked_for_says_nothing(record: dict[str, Any], user: User) -> None:
    symbols = user.symbolizer(vmlinux=elves.linux())
    symbols.learn(record)
    assert "not known yet" in (symbols.problem or "")
