"""`qemu-sdei trace diff`: what a user sees of two traces."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.trace.test_compare import booted
from tests.trace.written import META, Written


def written(path: Path, trace: Written) -> str:
    """The trace as a file of JSON lines."""
    lines = [META.document(), *trace.records]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_two_runs_of_the_same_are_the_same(command: Command, tmp_path: Path) -> None:
    a = written(tmp_path / "a.jsonl", booted())
    b = written(tmp_path / "b.jsonl", booted(0x20_0001, events=4))
    done = command("trace", "diff", a, b)
    assert (done.returncode, done.stderr) == (0, "")
    assert "same: 18 steps\n" in done.stdout
    assert "folded: addresses, counts, idle, moments, places, repeats, values" in done.stdout


def test_the_first_divergence_is_on_top_and_lists_follow(command: Command, tmp_path: Path) -> None:
    one, other = booted(), booted(0x20_0001)
    one.call("SDEI_EVENT_ENABLE", 0, vcpu=1)
    other.call("SDEI_EVENT_ENABLE", 0, vcpu=1, result=-3)
    other.call("SDEI_PE_MASK")
    a, b = written(tmp_path / "a.jsonl", one), written(tmp_path / "b.jsonl", other)
    done = command("trace", "diff", a, b)
    assert done.returncode == 1
    text = done.stdout
    assert text.index("First divergence: vCPU 1, after 3 steps") < text.index("Answered differently")
    assert "- 28     0.000027  SDEI_EVENT_ENABLE(event=0x0) = SUCCESS\n" in text
    assert "    B: DENIED  (DEN0054 5.1.3)\n" in text
    assert "Only in B\n+ vCPU 0  SDEI_PE_MASK()" in text
    assert max(map(len, text.splitlines())) <= 120


def test_for_programs(command: Command, tmp_path: Path) -> None:
    one, other = booted(), booted()
    other.call("SDEI_PE_MASK")
    a, b = written(tmp_path / "a.jsonl", one), written(tmp_path / "b.jsonl", other)
    done = command("trace", "diff", a, b, "--json", "--no-fold", "all", "--fold", "moments")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found["folded"] == ["moments"]
    assert [step["text"] for step in found["first"]["only_b"]] == ["SDEI_PE_MASK() = 0"]
    assert found["only_a"] == []
    assert command("trace", "diff", a, b, "-q").stdout == ""


def test_what_a_guest_has_written_is_shown_and_not_obeyed(command: Command, tmp_path: Path) -> None:
    one, other = booted(), booted()
    other.call("\x1b]0;owned\x07\u202e")
    a, b = written(tmp_path / "a.jsonl", one), written(tmp_path / "b.jsonl", other)
    text = command("trace", "diff", a, b).stdout
    assert "\\x1b]0;owned\\x07\\u202e" in text
    assert not {"\x1b", "\x07", "\u202e"} & set(text)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a", "missing.jsonl"], "missing.jsonl"),
        (["a", "no-such-guest"], "no-such-guest"),
        (["a", "noise"], "noise"),
        (["a", "a", "--vcpu", "-1"], "counted from 0"),
        (["a", "a", "--context", "1000"], "--context 1000"),
        (["a", "a", "--no-fold", "everything"], "everything"),
    ],
)
def test_what_cannot_be_is_one_line(command: Command, tmp_path: Path, words: list[str], said: str) -> None:
    written(tmp_path / "a", booted())
    (tmp_path / "noise").write_bytes(bytes(range(256)) * 40)
    done = command("trace", "diff", *(str(tmp_path / word) if word in ("a", "noise") else word for word in words))
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
