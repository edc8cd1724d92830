"""Rules of firmware profiles: what can be said, and what cannot is one line that says why."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qemu_sdei.errors import ProtocolError, UsageError
from qemu_sdei.profiles import firmware_profile
from qemu_sdei.profiles.firmware_profile import FirmwareProfile, load
from qemu_sdei.profiles.rule import MAX_TEXT, Rule
from qemu_sdei.profiles.values import Nth
from qemu_sdei.profiles.vocabulary import ACTIONS, CONDITIONS, OCCASIONS, Occasion
from qemu_sdei.sdei.constants import Function
from tests.examples import examples


def test_names_of_functions() -> None:
    assert Rule.of_text("EVENT_SIGNAL returns=DENIED").functions == {Function.EVENT_SIGNAL}
    assert Rule.of_text("SDEI_EVENT_SIGNAL returns=DENIED").functions == {Function.EVENT_SIGNAL}
    assert Rule.of_text("CPU_ON returns=DENIED").functions == {0x8400_0003, 0xC400_0003}
    assert Rule.of_text("PSCI_CPU_OFF returns=DENIED").functions == {0x8400_0002}
    assert Rule.of_text("0xc4000035 returns=0").functions == {0xC400_0035}
    assert Rule.of_text("SDEI_* late=1ms").functions == {int(function) for function in Function}
    assert len(Rule.of_text("* late=1ms").functions) > 40


def test_a_table_says_the_same_as_a_line() -> None:
    table = {"on": "CPU_OFF", "nth": 2, "handler": True, "keeps": ["events", "mask"], "why": "so it was"}
    rule = Rule.of_table(table)
    assert rule.text == "CPU_OFF nth=2 handler=yes keeps=events,mask"
    assert Rule.of_text(rule.text, "so it was") == rule
    assert rule.does == "keeps=events,mask"


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("3", [3]),
        ("2..4", [2, 3, 4]),
        ("8..", [8, 9, 10]),
        ("every:4", [4, 8]),
    ],
)
def test_times(text: str, times: list[int]) -> None:
    nth = Rule.of_text(f"PE_MASK nth={text} answers=0").values["nth"]
    assert isinstance(nth, Nth)
    assert [count for count in range(1, 11) if nth.has(count)] == times
    assert [nth.among(count) for count in range(11)] == [len([t for t in times if t <= count]) for count in range(11)]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("CPU_OF returns=0", "'CPU_OF' is no function and no occasion .did you mean CPU_OFF"),
        ("EVENT_SIGNLA returns=0", "EVENT_SIGNAL"),
        ("deliver holds=yes", "beside calls there are trigger, delivery, cpu-up, wake, kernel, reset"),
        ("0x84000 returns=0", "not a function id of a fast call"),
        ("CPU_OFF", "it does nothing: give an action"),
        ("CPU_OFF nth=1", "it does nothing"),
        ("CPU_OFF nht=1 returns=0", "'nht' is no condition and no action .did you mean nth"),
        ("CPU_OFF returns", "written as word=value"),
        ("CPU_OFF returns=NOPE", "a result is a number, or one of ALREADY_ON"),
        ("CPU_OFF returns=0x1ffffffffffffffff", "a result is a number"),
        ("CPU_OFF returns=0 returns=1", "returns is there twice"),
        ("CPU_OFF nth=0 returns=0", "counted from 1"),
        ("CPU_OFF nth=4..2 returns=0", "ends before it begins"),
        ("CPU_OFF each-vcpu=yes returns=0", "give nth too"),
        ("CPU_OFF handler=maybe returns=0", "yes or no"),
        ("CPU_OFF handler=no running=0 returns=0", "contradict"),
        ("CPU_OFF target=1 returns=0", "CPU_OFF names no vCPU"),
        ("CPU_ON target=none target-power=off returns=0", "target=none has neither"),
        ("CPU_ON event=0 returns=0", "CPU_ON names no event"),
        ("PE_MASK state=running returns=0", "names no event"),
        ("EVENT_STATUS state=asleep returns=0", "not one of unknown, unregistered"),
        ("EVENT_STATUS returns=0 answers=1", "returns and answers contradict"),
        ("CPU_OFF never=after late=1ms", "never and late contradict"),
        ("CPU_OFF never=maybe", "not one of instead, after"),
        ("cpu-up never=after", "never=after is for calls"),
        ("CPU_OFF late=5", "write a time such as"),
        ("CPU_OFF late=601s", "up to 600s"),
        ("delivery late=1ms", "late cannot stand at delivery"),
        ("delivery loses=kick", "there is no kick here"),
        ("CPU_ON loses=event", "loses=kick keeps the CPU"),
        ("PE_MASK loses=event", "loses is for calls of"),
        ("EVENT_STATUS keeps=events", "keeps is for calls of CPU_OFF"),
        ("CPU_OFF keeps=priorities", "cannot be here"),
        ("CPU_OFF keeps=handlers", "keeps=events,handlers"),
        ("cpu-up keeps=priorities deaf=yes", "stands alone"),
        ("EVENT_SIGNAL clobbers=x18", "not one of x0 to x17"),
        ("EVENT_SIGNAL clobbers=x0", "x0 of a call is its result"),
        ("EVENT_SIGNAL clobbers=x4 zeroes=x3..x5", "in common"),
        ("EVENT_SIGNAL clobbers=x5..x4", "ends before it begins"),
        ("EVENT_SIGNAL marks=UP", "a mark is"),
        ("EVENT_SIGNAL marks=a unmarks=a", "marks and unmarks"),
        ("trigger never=instead", "by=interrupt"),
        ("trigger by=nobody loses=event", "not one of host, interrupt"),
        ("EVENT_SIGNAL x1=5..1 returns=0", "ends before it begins"),
        ("EVENT_SIGNAL x1=08 returns=0", "not a number"),
        ("EVENT_SIGNAL " + "x" * MAX_TEXT, "one line of at most"),
        ("EVENT_SIGNAL returns=\x1b", "plain characters"),
        ("", "is no function"),
        ("EVENT_STATUS deaf=no", "deaf=no"),
        ("COMPLETE_AND_RESUME unchecked=yes", "did you mean"),
        ("PE_MASK unchecked=yes", "unchecked is for calls of SDEI_EVENT_COMPLETE_AND_RESUME"),
    ],
)
def test_what_cannot_be_is_refused(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why) as refusal:
        Rule.of_text(text)
    assert len(str(refusal.value).splitlines()) == 1
    assert len(str(refusal.value)) < 700


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        (["CPU_ON marked=x returns=0"], "rule 1: marked=x, and no rule marks so"),
        (["CPU_ON vcpu=1 nth=1 returns=0", "CPU_ON nth=1 vcpu=1 returns=DENIED"], "rules 1 and 2 contradict"),
        ([f"CPU_ON x1={n} returns=0" for n in range(65)], "at most 64"),
    ],
)
def test_rules_that_cannot_stand_together(rules: list[str], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        FirmwareProfile("x", tuple(Rule.of_text(rule) for rule in rules))


@pytest.mark.parametrize("name", firmware_profile.names())
def test_what_comes_with_the_program(name: str) -> None:
    """Each says what it reproduces; its document is what it was made of."""
    profile = load(name)
    assert profile.name == name
    assert FirmwareProfile.of_document(profile.document()) == profile
    if name != "spec":
        assert profile.misbehaves
        assert len(profile.summary) > 20
        assert len(profile.reproduces) > 60


def test_the_profiles_that_there_are() -> None:
    asked = {"tfa", "gic-active", "wedge-on-off", "agdi-eio", "no-event0", "slow", "kvm7", "lost-kick", "unmask-early"}
    assert asked == set(firmware_profile.names()) - {"spec"}
    assert load("tfa").rules[:3] == load("gic-active").rules


def test_a_file_of_ones_own_and_its_base(tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "base.toml").write_text('base = ["slow"]\n[[rule]]\non = "CPU_ON"\nreturns = -6\n')
    mine = tmp_path / "My Board.toml"
    mine.write_text(
        'base = ["lab/base.toml"]\nsummary = "ours"\n[[rule]]\non = "delivery"\nevent = [0, 0x100]\nholds = true\n'
    )
    profile = load(mine)
    assert profile.name == "my-board"
    assert [rule.text for rule in profile.rules] == [
        "* late=3ms",
        "CPU_ON returns=-6",
        "delivery event=0,256 holds=yes",
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it has no rule"),
        ("rule = 3", r"written as \[\[rule\]\] tables"),
        ("[[rule]]\non = 'CPU_OFF'", "rule 1: it does nothing"),
        ("[[rule]]\nreturns = 0", "rule 1: `on` says when"),
        ("[[rule]]\non = 'CPU_OFF'\nreturns = 1.5", "rule 1: returns: a value is text"),
        ("[[rule]]\non = 'CPU_OFF'\nreturns = 'a b'", "no space in a value"),
        ("sumary = 'x'", "unknown key 'sumary'"),
        ("base = ['nope']", "there is no firmware profile 'nope'"),
        ("base = ['./a.toml']", "it is its own base"),
        ("summary = 3", "summary is text"),
        ("x = ", "not valid TOML"),
        ("a = " + "[" * 5000, "not valid TOML"),
        ("\x80", "not UTF-8"),
        ("base = ['tfa', 'tfa', 'tfa', 'tfa']", "at most 64|contradict"),
    ],
)
def test_files_that_are_wrong(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "a.toml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=why) as refusal:
        load(file)
    assert "a.toml" in str(refusal.value) or "nope" in str(refusal.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        load(tmp_path / "not-there.toml")
    with pytest.raises(UsageError, match="not a regular file"):
        load(Path("/dev/zero"))
    with pytest.raises(UsageError, match=r"there are spec, agdi-eio, .* ends in .toml"):
        load("tf-a")
    (tmp_path / "big.toml").write_text("#" * (300 << 10))
    with pytest.raises(UsageError, match="more than it can have"):
        load(tmp_path / "big.toml")


def test_each_word_is_of_one_kind_and_says_what_for() -> None:
    words = [*(row.word for row in CONDITIONS), *(row.word for row in ACTIONS)]
    assert len(words) == len(set(words))
    assert {row.occasion for row in OCCASIONS} == set(Occasion)
    assert all(row.what for row in CONDITIONS)
    assert all(row.what for row in ACTIONS)
    assert [row.word for row in ACTIONS if not row.against] == ["unmarks", "marks-target"]


KEYS = ["name", "summary", "reproduces", "not_reproduced", "rules", "rule", "why"]
WORDS = st.sampled_from([*(row.word for row in CONDITIONS), *(row.word for row in ACTIONS)])
VALUES = st.one_of(
    st.sampled_from(["yes", "no", "1", "0..3", "DENIED", "5ms", "event", "kick", "after", "x4..x6", "none", "events"]),
    st.text(max_size=6),
)


@settings(max_examples=examples(300))
@given(
    st.one_of(st.sampled_from(["CPU_OFF", "EVENT_SIGNAL", "*", *(o.value for o in Occasion)]), st.text(max_size=8)),
    st.lists(st.tuples(WORDS, VALUES), max_size=4),
)
def test_any_text_is_a_rule_or_refused(on: str, pairs: list[tuple[str, str]]) -> None:
    """And a rule that is printed is the same rule again."""
    text = " ".join([on, *(f"{word}={value}" for word, value in pairs)])
    try:
        rule = Rule.of_text(text)
    except UsageError:
        return
    assert Rule.of_text(rule.text).values == rule.values
    profile = FirmwareProfile("x", (rule,)) if "marked" not in rule.values and "unmarks" not in rule.values else None
    if profile is not None and "target-marked" not in rule.values:
        assert FirmwareProfile.of_document(profile.document()) == profile


@settings(max_examples=examples(200))
@given(
    st.recursive(
        st.one_of(st.none(), st.integers(), st.text(max_size=5)),
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner)),
        max_leaves=12,
    )
)
def test_a_damaged_document_is_refused(document: object) -> None:
    with pytest.raises(ProtocolError):
        FirmwareProfile.of_document(document)
