"""The instructions that run at EL2: an assembler takes each mnemonic for the same word, and the vectors lie as the CPU
wants them.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from qemu_sdei.guestcompile import find_compiler, flatten
from qemu_sdei.hypervisor import vectors
from qemu_sdei.hypervisor.instructions import SIZE, STAY, code, smc
from qemu_sdei.hypervisor.vectors import ENTRIES, ENTRY_SIZE, FIRST_IMMEDIATE, image


def assembled(mnemonics: list[str], folder: Path) -> bytes:
    compiler = find_compiler()
    if compiler is None or compiler.is_clang:
        pytest.skip("no GCC for AArch64")
    source, linked = folder / "code.S", folder / "code.elf"
    source.write_text("\t.text\n\t.global _start\n_start:\n" + "".join(f"\t{line}\n" for line in mnemonics))
    subprocess.run(
        [compiler.path, "-nostdlib", "-static", "-Wl,-Ttext=0x10000,--build-id=none", str(source), "-o", str(linked)],
        check=True,
        timeout=300,
    )
    return flatten(linked.read_bytes())


def test_each_word_is_what_an_assembler_makes_of_its_mnemonic(tmp_path: Path) -> None:
    used = [*(each for number in range(ENTRIES) for each in vectors.entry(number)), smc(0), smc(0xFFFF), STAY]
    words = assembled([each.mnemonic for each in used], tmp_path)
    assert words[-len(used) * SIZE :] == code(used)


def test_an_entry_is_where_the_cpu_jumps_to_and_says_which_it_is() -> None:
    whole = image()
    assert len(whole) == vectors.ALIGN
    for number in range(ENTRIES):
        first = whole[number * ENTRY_SIZE :][:SIZE]
        assert first == code([smc(FIRST_IMMEDIATE + number)])


@pytest.mark.parametrize("immediate", [-1, 0x10000])
def test_an_immediate_has_16_bits(immediate: int) -> None:
    with pytest.raises(ValueError, match="16 bits"):
        smc(immediate)
