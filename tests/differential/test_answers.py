"""What a hostile firmware prints in place of answers, and sessions that live with it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import pytest

from qemu_sdei.differential import session
from qemu_sdei.differential.answers import MAX_RECORDS, Bad, End, Facts, Over, Parser, Record
from qemu_sdei.differential.sequence import checksum, parse
from qemu_sdei.differential.session import Session
from qemu_sdei.errors import GuestError

SCRIPT = parse("0cLc4000020")


def summed(text: str) -> str:
    return f"{text} ~{checksum(text):04x}\n"


FACTS = summed("@f el=1 cpus=2 version=10001004b564d slots=0 signal=0")
RECORD = summed("@r 0 0 c 0 10001004b564d 0 0")


def items(text: str) -> list[Any]:
    return list(Parser().feed(text))


def test_lines_of_the_form() -> None:
    assert items(RECORD) == [Record(0, 0, "c", 0, 0x10001004B564D)]
    assert items(summed("@e 1f 3 1")) == [End(0x1F, 3, dirty=True)]
    assert items(FACTS)[0] == Facts({"el": 1, "cpus": 2, "version": 0x10001004B564D, "slots": 0, "signal": 0})
    assert items(summed("@b")) == [Bad()]
    assert items("NOTICE:  BL31 " + RECORD), "what a firmware says without ending its line"
    assert items("FAIL: CPU 1: exception\n") == [Over("FAIL: CPU 1: exception")]


@pytest.mark.parametrize(
    "text",
    [
        "@r 0 0 c 0 1 0 0 ~0000\n",
        summed("@r 11 0 c 0 1 0 0"),
        summed("@r 0 0 Z 0 1 0 0"),
        summed("@r 0 0 c 0 11111111111111111 0 0"),
        summed("@r 0 0 c"),
        summed("@e 1 2 3"),
        summed("@q"),
        "\x1b[2J\x07\u202e@\n",
        "@" * 100_000 + "\n",
    ],
)
def test_what_is_nothing(text: str) -> None:
    assert items(text) == []


def test_pieces_and_rubbish() -> None:
    rng = random.Random(1)
    parser, text = Parser(), f"rubbish\n{FACTS}{RECORD}{RECORD}"
    found: list[Any] = []
    while text:
        n = rng.randint(1, 7)
        found += parser.feed(text[:n])
        text = text[n:]
    assert len(found) == 3
    for _ in range(200):
        items("".join(map(chr, rng.choices(range(1, 0x250), k=400))) + "\n")


class Scripted(AbstractContextManager["Scripted"]):
    """A machine that prints what it is told."""

    def __init__(self, texts: Sequence[str], ended: str = "") -> None:
        self.texts, self.ended = texts, ended
        self.written: list[str] = []

    def __exit__(self, *_: object) -> None:
        pass

    def follow(self) -> Iterator[str]:
        yield from self.texts
        if self.ended:
            return
        while True:
            yield ""

    def write(self, text: str) -> None:
        self.written.append(text)

    def inject(self, event: int, cpu: int) -> None:
        pass

    def inject_at(self, event: int, cpu: int, watched: int, code: range) -> None:
        pass

    def trace(self, most: int = 0) -> Sequence[Mapping[str, Any]]:
        return ()

    def explanation(self) -> Sequence[str]:
        return ()

    def console(self) -> list[str]:
        return ["the last line"]


@pytest.mark.parametrize(
    ("texts", "ended", "crash"),
    [
        ([RECORD, summed("@e 1 1 0")], "", ""),
        ([RECORD], "", "no end of it for 0.05 s"),
        ([RECORD], "gone", "gone"),
        ([RECORD, FACTS], "", "the guest began again: a reset"),
        ([RECORD * 3000], "", "records without end"),
        (["noise\n" * 100_000], "", "no end of it for 0.05 s"),
        ([summed("@x")], "", "exceptions without end in the guest"),
        ([RECORD, summed("@e 2 1 0"), summed("@e 1 1 1")], "", ""),
    ],
)
def test_one_sequence(texts: list[str], ended: str, crash: str) -> None:
    patience = 0.05 if crash.startswith("no end") else 60.0
    with Session("it", lambda: Scripted([FACTS, *texts], ended), patience=patience) as one:
        transcript = one.run([SCRIPT])[0]
        assert transcript.crash == crash
        assert len(transcript.records) <= MAX_RECORDS


def test_answers_that_never_arrive_whole() -> None:
    """The line is typed again, in new guests, and not for ever."""
    with Session("it", lambda: Scripted([FACTS, "@r 0 0 c\n", *(summed(f"@e {n} 5 0") for n in range(1, 9))])) as one:
        assert one.run([SCRIPT])[0].crash == "its answers did not arrive whole"
        assert one.starts == 3


@pytest.mark.parametrize(
    ("texts", "ended", "words"),
    [
        ([], "the machine was powered off or reset", "did not begin: the machine was powered off or reset"),
        (["FAIL: CPU 0: x\n"], "", "did not begin: FAIL: CPU 0: x"),
        (["\x1b]0;evil\x07" * 1000], "", "did not begin: nothing of it for"),
    ],
)
def test_a_guest_that_never_begins(texts: list[str], ended: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "START", 0.05)
    with Session("it", lambda: Scripted(texts, ended)) as one, pytest.raises(GuestError, match=words):
        one.run([SCRIPT])
