"""Sequences: the guest's form, what cannot be one, which contains which, and shorter ones."""

from __future__ import annotations

import pytest

from qemu_sdei.differential.generate import Choice, Generator
from qemu_sdei.differential.sequence import Script, checksum, embeds, lines, mapped, parse
from qemu_sdei.differential.shrink import shrink, tidy
from qemu_sdei.errors import UsageError

REGISTER = "1cLc4000021,L0,H0,P0"
ENABLE = "1cLc4000022,L0"
SIGNAL = "cLc400002f,L0,A1"


def test_generated_ones_can_be_typed_and_read() -> None:
    for cpus in (1, 2, 4):
        generator = Generator(7, Choice(cpus, 10, (True, True), ((0x100, False), (0x200, True))))
        for number in range(300):
            script = generator.script()
            assert parse(script.words(), cpus) == script
            line = script.line(number)
            text, _, total = line.rstrip("\n").rpartition(" ~")
            assert int(total, 16) == checksum(text)
            assert len(line) < 2048
            assert lines(script)


def test_the_same_seed_makes_the_same() -> None:
    a, b, other = (Generator(seed, Choice(2, 10)) for seed in (3, 3, 4))
    made = [a.script() for _ in range(20)]
    assert made == [b.script() for _ in range(20)]
    assert made != [other.script() for _ in range(20)]


@pytest.mark.parametrize(
    "words",
    [
        "",
        "1",
        "hello",
        "cLc4000020",
        "9cLc4000020",
        "0o",
        "1j",
        "0cL84000008",
        "0cL84000009",
        "0cLc4000012",
        "0cL84000002",
        "0cLc4000001,L0",
        "0cA1",
        "0e",
        "0cLc4000020 =0 cLc4000020",
        "0cLc4000020 =1 e",
        "0cLc4000020 =0 o 1cLc4000020",
        "0cLc4000020 =0 jL1,L1 e",
        "0cLc4000020 " + "0cLc4000020 " * 64,
        "0cLc4000020,L1,L1,L1,L1,L1,L1",
        "x" * 5000,
        "0cL\x1b",
        "0cL11111111111111111",
    ],
)
def test_what_is_no_sequence(words: str) -> None:
    with pytest.raises(UsageError):
        parse(words, 2)


def test_words_for_people() -> None:
    script = parse(f"{REGISTER} {ENABLE} 0{SIGNAL} 0tL0 1o 0cLc4000003,A1,S0,L1 =0 cLc4000024,L7 l")
    assert [line.strip() for line in lines(script)] == [
        "1  CPU 1: SDEI_EVENT_REGISTER(event=0, entry=handler, argument=h0)",
        "2  CPU 1: SDEI_EVENT_ENABLE(event=0)",
        "3  CPU 0: SDEI_EVENT_SIGNAL(event=0, target=CPU 1)",
        "4  CPU 0: takes a timer interrupt",
        "5  CPU 1: CPU_OFF()",
        "6  CPU 0: CPU_ON(target=CPU 1, entry=start, context=1)",
        "h0: SDEI_EVENT_CONTEXT(register=7)",
        "h0: (goes on elsewhere, as a new kernel does)",
    ]
    assert script.calls == 6


def test_one_in_another() -> None:
    pattern = parse(f"{REGISTER} {ENABLE} 0{SIGNAL} =0 o")
    longer = parse(f"0tL0 {REGISTER} 0tL0 {ENABLE} 1tL0 0{SIGNAL} 0tL0 =0 cLc4000020 o")
    assert embeds(longer, pattern, 2, {0})
    assert not embeds(pattern, longer, 2, {0})
    other_end = parse(f"{REGISTER} {ENABLE} 0{SIGNAL} =0 e")
    assert not embeds(other_end, pattern, 2, {0})
    assert embeds(other_end, pattern, 2, set()), "what a handler would do that never ran does not matter"
    elsewhere = mapped(longer, {0: 1, 1: 0})
    assert embeds(elsewhere, pattern, 2, {0}), "on whichever CPUs"
    wrong_order = parse(f"{ENABLE} {REGISTER} 0{SIGNAL} =0 o")
    assert not embeds(wrong_order, pattern, 2, {0})


def test_shrinking_leaves_what_shows_it() -> None:
    """Three operations out of many, and what has to register the one that is in a handler."""
    generator = Generator(5, Choice(3, 20))

    def shows(script: Script) -> bool:
        text = script.words()
        return "cLc4000022,L0" in text and "cLc400002b" in text and any(p.ending.what == "o" for p in script.programs)

    found = 0
    while found < 5:
        script = generator.script()
        if not shows(script):
            continue
        found += 1
        short = shrink(script, shows, most=2000)
        assert shows(short)
        assert len(short.ops()) <= 4, lines(short)
        assert parse(short.words(), 3) == short


def test_shrinking_ends() -> None:
    calls = 0

    def always(script: Script) -> bool:
        nonlocal calls
        calls += 1
        return True

    shrink(Generator(1, Choice(2, 20)).script(), always, most=30)
    assert calls <= 30


def test_programs_nobody_uses_go() -> None:
    script = parse("1cLc4000021,L0,H0,P2 =0 e =1 cLc4000020 e =2 cLc4000021,L0,H0,P1 l")
    assert tidy(script).words() == "1cLc4000021,L0,H0,P0 =0 cLc4000021,L0,H0,P1 l =1 cLc4000020 e"
