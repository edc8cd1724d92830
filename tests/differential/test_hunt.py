"""Faults of a firmware are found without being told, and shown in a few calls; what is no fault is none."""

from __future__ import annotations

import pytest

from qemu_sdei.differential import rules
from qemu_sdei.differential.generate import Choice
from qemu_sdei.differential.hunt import Hunt, Outcome, Plan
from qemu_sdei.differential.judge import SILENT
from qemu_sdei.differential.sequence import Script, lines, parse
from qemu_sdei.differential.session import Session
from qemu_sdei.sdei.constants import Function as Sdei
from tests.differential.model import Clock, Faults, ModelMachine

MOST_CALLS = 8
M64 = (1 << 64) - 1


def hunt(faults: Faults, *, cpus: int = 2, count: int = 600, most: int = 12, script: Script | None = None) -> Outcome:
    """A comparison of the model with one that has faults."""

    def side(of: Faults) -> Session:
        clock = Clock()
        return Session("it", lambda: ModelMachine(of, clock, cpus), clock=clock)

    with side(Faults()) as ours, side(faults) as theirs:
        finder = Hunt(ours, theirs, Choice(cpus, 10), Plan(count=count, most=most))
        try:
            return finder.run() if script is None else finder.replay(script)
        finally:
            finder.close()


@pytest.mark.parametrize("cpus", [1, 2, 3])
def test_two_firmwares_that_are_the_same(cpus: int) -> None:
    outcome = hunt(Faults(), cpus=cpus, count=150)
    assert not outcome.findings
    assert not outcome.unsteady
    assert not outcome.allowed
    assert outcome.sequences == 150
    assert outcome.calls > 700


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        (Faults(lost_when_masked=True), ["SDEI_EVENT_SIGNAL", "SDEI_PE_MASK", "COMPLETE"]),
        (Faults(signalled_while_off=True), ["CPU_OFF", "SDEI_EVENT_SIGNAL"]),
        (Faults(off_in_handler=True), ["h0: CPU_OFF()"]),
        (Faults(new_kernel=True), ["goes on elsewhere"]),
    ],
    ids=["A", "B", "C", "D"],
)
def test_a_cpu_that_is_deaf_afterwards(faults: Faults, words: list[str]) -> None:
    outcome = hunt(faults, most=1)
    assert outcome.findings
    for finding in outcome.findings:
        text = "\n".join(lines(finding.verdict.script))
        assert finding.verdict.script.calls <= MOST_CALLS, text
        assert finding.steady
        assert finding.clause.startswith(("DEN0054", "DEN0022"))
    assert any(all(word in "\n".join(lines(f.verdict.script)) for word in words) for f in outcome.findings)


def test_all_four_at_once() -> None:
    outcome = hunt(Faults(True, True, True, True), count=300)
    texts = ["\n".join(lines(finding.verdict.script)) for finding in outcome.findings]
    for number, sign in enumerate(("h0: SDEI_PE_MASK()", "CPU 1: CPU_OFF()", "h0: CPU_OFF()", "goes on elsewhere")):
        assert any(sign in text for text in texts), (number, texts)
    assert len(set(texts)) == len(texts), "each is told once"
    assert all(finding.verdict.script.calls <= MOST_CALLS for finding in outcome.findings)
    assert rules.health(outcome.findings[0].verdict) or outcome.findings[0].verdict.first is not None


def test_a_wrong_answer_and_its_clause() -> None:
    """REGISTER of what is registered, accepted: two calls show it, and the row of the state table is named."""
    outcome = hunt(Faults(answers={int(Sdei.EVENT_UNREGISTER): 0}), count=300)
    shortest = min(outcome.findings, key=lambda finding: finding.verdict.script.calls)
    assert shortest.verdict.script.calls == 1
    first = shortest.verdict.first
    assert first is not None
    assert rules.answer(shortest.verdict.script, first.ours, "") == "SDEI_EVENT_UNREGISTER: DENIED"
    assert rules.answer(shortest.verdict.script, first.theirs, "") == "SDEI_EVENT_UNREGISTER: SUCCESS"
    assert "5.1.8" in shortest.clause


@pytest.mark.parametrize("fault", [Faults(hangs=int(Sdei.EVENT_CONTEXT)), Faults(resets=int(Sdei.EVENT_CONTEXT))])
def test_a_firmware_that_hangs_or_resets(fault: Faults) -> None:
    outcome = hunt(fault, count=40)
    finding = outcome.findings[0]
    assert finding.verdict.symptom[0] == SILENT
    assert finding.verdict.script.calls == 1
    first = finding.verdict.first
    assert first is not None
    assert first.theirs_end in ("no end of it for 10 s", "the machine was powered off or reset")
    assert outcome.sequences == 40, "the others are tried in new guests"


def test_a_firmware_that_talks_in_between() -> None:
    assert not hunt(Faults(talks="WARNING: \x1b[31m@r 0 0 c 0 1 0 0 ~0000 "), count=60).findings


def test_the_same_seed_finds_the_same() -> None:
    first, second = (hunt(Faults(off_in_handler=True), count=100) for _ in range(2))
    assert [f.verdict.script for f in first.findings] == [f.verdict.script for f in second.findings]


def test_one_sequence_again() -> None:
    script = parse("1cLc4000021,L0,H0,P0 1cLc4000022,L0 0cLc400002f,L0,A1 =0 o")
    outcome = hunt(Faults(off_in_handler=True), script=script)
    assert outcome.findings[0].verdict.script == script
    assert rules.health(outcome.findings[0].verdict) == [
        "CPU 1 at the end: ours takes interrupts and events; theirs takes neither interrupts nor events"
    ]
    assert not hunt(Faults(), script=script).findings
