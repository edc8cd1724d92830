"""Registers out of what QEMU's monitor prints."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qemu_sdei.vm.cpu_registers import LEVEL, parse


def printed(pc: int, x: list[int], sp: int, pstate: str, rest: str) -> str:
    """As QEMU 7.2 does it: three registers a line, and floating point behind them."""
    words = [f"X{n:02}={value:016x}" for n, value in enumerate(x)]
    lines = [f" PC={pc:016x} {' '.join(words[:2])}"]
    lines += [" ".join(words[n : n + 3]) for n in range(2, 29, 3)]
    lines += [f"{' '.join(words[29:])}  SP={sp:016x}", f"PSTATE={pstate}{rest}"]
    return "\n".join(lines)


WORD = st.integers(0, (1 << 64) - 1)


@given(WORD, st.lists(WORD, min_size=31, max_size=31), WORD)
def test_all_general_registers(pc: int, x: list[int], sp: int) -> None:
    text = printed(pc, x, sp, "600003c5 -ZC- NS EL1h", "     FPCR=00000000 FPSR=00000000\nQ00=0000000000000007:00")
    found = parse(text)
    assert (found["PC"], found["SP"], found["PSTATE"], found[LEVEL]) == (pc, sp, 0x600003C5, "EL1h")
    assert [found[f"X{n}"] for n in range(31)] == x
    assert len(found) == 35
    assert next(iter(found)) == "PC"


def test_a_vcpu_in_el0_without_security_extensions() -> None:
    found = parse(printed(4, [0] * 31, 8, "80000000 N--- EL0t", "    FPU disabled\n"))
    assert (found[LEVEL], found["PSTATE"]) == ("EL0t", 0x80000000)


@given(st.text())
def test_other_text_gives_nothing_wrong(text: str) -> None:
    assert all(isinstance(value, int) or name == LEVEL for name, value in parse(text).items())


def test_noise_of_any_length_is_bounded() -> None:
    assert parse("PSTATE=0 " * 100_000) == {}
