"""Sequences typed at real guests: ours does what it must, whatever the other firmware does; its faults are found."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from qemu_sdei.cli import main
from qemu_sdei.differential import comparison, session
from qemu_sdei.differential.answers import CHECK
from qemu_sdei.differential.hunt import Outcome, Plan
from qemu_sdei.differential.judge import judge
from qemu_sdei.differential.sequence import lines, parse
from qemu_sdei.differential.session import Session
from qemu_sdei.differential.sides import OurSide, like
from qemu_sdei.vm.options import GuestOptions

pytestmark = [
    pytest.mark.guest,
    pytest.mark.skipif(shutil.which("qemu-system-aarch64") is None, reason="no qemu-system-aarch64"),
]
OPTIONS = GuestOptions(smp=2, memory="128M")
READY = "1cLc4000021,L0,H0,P0 1cLc4000022,L0"
SIGNAL = "cLc400002f,L0,A1"
KNOWN = {
    "A": f"{READY} 1{SIGNAL} =0 {SIGNAL} cLc400002b e",
    "B": f"{READY} 1o 0{SIGNAL} =0 e",
    "C": f"{READY} 0{SIGNAL} =0 o",
    "D": f"{READY} 0{SIGNAL} =0 l",
}
"""What TF-A was seen to do wrong (issue 14)."""
OTHERS = (
    # The same on CPU 0, which has the console: it comes back to it from anywhere.
    "0cLc4000021,L0,H0,P0 0cLc4000022,L0 0cLc400002f,L0,A0 0cLc4000028,L0 =0 cLc4000024,L7 l",
    "0cLc4000021,L0,H0,P0 0cLc4000022,L0 0cLc400002f,L0,A0 =0 tL0 cLc4000024,L7 rR0",
    # COMPLETE_AND_RESUME to nowhere is refused, and the handler has left.
    "0cLc4000021,L0,H0,P0 0cLc4000022,L0 0cLc400002f,L0,A0 =0 rL0",
    # Bound interrupts, a private one and one that is routed to the other CPU.
    "0cLc400002d,L1e 0cLc4000021,B0,H0,P0 0cLc4000022,B0 0fL0 0cLc400002d,L21 0cLc4000021,B1,H0,P0,L1,A1 "
    "0cLc4000022,B1 0fL1 =0 cLc4000028,B1 e",
    # CPU_ON to where it is not, of one that is on, and back.
    "1o 0cLc4000003,A1,X0,L1 0cLc4000003,A1,S0,L1 0cLc4000003,A1,S0,L1 1cLc4000020",
)


def ours() -> OurSide:
    return OurSide("ours", OPTIONS)


def test_sequences_on_our_firmware() -> None:
    """All in one boot: whatever a sequence leaves, the next one finds all CPUs as at the beginning."""
    scripts = [parse(words, 2) for words in (*KNOWN.values(), *OTHERS)]
    with Session("ours", ours().start) as guest:
        first = guest.run(scripts)
        second = guest.run(scripts)
        assert guest.starts == 1
    for script, one, other in zip(scripts, first, second, strict=True):
        text = "\n".join(lines(script))
        assert not one.crash, text
        assert one.health() == {0: (True, True), 1: (True, True)}, text
        assert judge(script, one, other).first is None, text
    answers = [[r.a for r in one.records if r.kind == "c"] for one in first]
    minus = (1 << 64).__sub__
    assert sorted(answers[7]) == sorted([0xB0000000, 0, 0, minus(2), 0xB0000001, 0, 0, 7])
    assert [record.cpu for record in first[7].records if record.kind == "h"] == [0, 1], "each on its CPU"
    assert answers[8][:3] == [minus(9), 0, minus(4)], "INVALID_ADDRESS, SUCCESS, ALREADY_ON"
    assert any(r.kind == "q" and r.a == minus(3) for r in first[6].records), "COMPLETE_AND_RESUME(0) is DENIED"
    assert all(any(r.kind == "p" and r.step == CHECK for r in one.records) for one in first)


def test_faults_of_tf_a_are_differences() -> None:
    """A to D, by the profile that has them."""
    theirs = OurSide("tfa", replace(OPTIONS, firmware="tfa"))
    scripts = [parse(words, 2) for words in KNOWN.values()]
    with Session("tfa", theirs.start) as other:
        right = other.run(scripts)
        own = OurSide("ours", like(OPTIONS, other.facts))
    with Session("ours", own.start) as guest:
        left = guest.run(scripts)
        assert guest.starts == 1
    for name, script, a, b in zip(KNOWN, scripts, left, right, strict=True):
        verdict = judge(script, a, b)
        assert verdict.first is not None, name
        assert script.calls <= 8


def found(outcome: Outcome) -> set[str]:
    """Which of the known faults are among the findings."""
    letters = set()
    for finding in outcome.findings:
        text = "\n".join(lines(finding.verdict.script))
        assert finding.verdict.script.calls <= 8, text
        signs = {"h0: SDEI_PE_MASK()": "A", "CPU 1: CPU_OFF()": "B", "h0: CPU_OFF()": "C", "goes on elsewhere": "D"}
        letters |= {letter for sign, letter in signs.items() if sign in text}
    return letters


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_they_are_found_without_being_told() -> None:
    theirs = OurSide("tfa", replace(OPTIONS, firmware="tfa"))
    result = comparison.run(OPTIONS, theirs, Plan(seed=1, count=3000, seconds=1500))
    assert found(result.outcome) == set("ABCD")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ours_against_ours() -> None:
    """Nothing differs, and hardly anything is so by chance: what is of time must not count."""
    result = comparison.run(OPTIONS, ours(), Plan(seed=2, count=400, seconds=600))
    assert not result.outcome.findings
    assert len(result.outcome.unsteady) <= 2
    assert result.starts[0] <= 4


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_real_difference_of_ours() -> None:
    """EVENT_SIGNAL that pends, and one that is refused, with ours not set up like the other: two calls show it."""
    theirs = OurSide("strict", replace(OPTIONS, sdei_signal="invalid"))
    result = comparison.run(OPTIONS, theirs, Plan(count=200, most=1), as_it_is=True)
    finding = result.outcome.findings[0]
    assert finding.verdict.script.calls <= 3
    assert "5.1.16" in finding.clause


@pytest.mark.parametrize("words", [["--json"], []])
def test_an_image_of_garbage(
    tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """One line and an exit status; the guest never begins."""
    (tmp_path / "image").write_bytes(random.Random(5).randbytes(1 << 12))
    monkeypatch.setattr(session, "START", 1.0)
    status = main(["compare", "-q", "--memory", "128M", "--firmware-image", str(tmp_path / "image"), *words])
    output, errors = capfd.readouterr()
    assert (status, output) == (1, "")
    assert errors.startswith("qemu-sdei: image: the guest did not begin: nothing of it for 1 s")
