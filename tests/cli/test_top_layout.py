"""The screens of `top`: whatever the size of the terminal and of the guest."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qemu_sdei.cli.event_lines import Line
from qemu_sdei.cli.top_choice import INJECT, PAUSE, QUIT, Choice, first_shown, shown_events
from qemu_sdei.cli.top_grid import STATES
from qemu_sdei.cli.top_layout import View, screen, short, whole
from qemu_sdei.sdei.transitions import STATE_NAMES, UNREGISTERED
from tests.cli.test_hostile_text import hostile
from tests.cli.watched import instance, rates, status
from tests.examples import examples

LOG = [Line("12:03:22.123456", f"vCPU {n}", "0x100 private-0", "handler entered") for n in range(30)]


class Times:
    """Durations that were measured."""

    def figures(self) -> dict[str, int]:
        return {"count": 3, "min": 40_000, "p50": 56_000, "p99": 340_000, "max": 350_000}

    def line(self, width: int = 24) -> str:
        return "▁█▃"[:width]

    def lines(self, width: int = 72, rows: int = 12) -> list[str]:
        return [f"{n} µs ..{'█' * (width - 10)}"[:width] for n in range(rows)]


def shown(view: View, width: int = 80, height: int = 24, choice: Choice | None = None) -> list[str]:
    lines = screen(view, choice or Choice(), width, height)
    assert len(lines) == height
    assert all(line.cell_len <= width for line in lines)
    return [line.plain.rstrip() for line in lines]


def view(vcpus: int = 2, events: int = 3, log: Sequence[Line] = LOG) -> View:
    return View(status(vcpus, events), rates(vcpus), log, [("trigger to complete", Times(), 4000)], clock="12:03:23")


def test_a_small_terminal() -> None:
    """80 by 24: all of it is there."""
    lines = shown(view(), choice=Choice(vcpu=1))
    assert lines[0] == f" demo  up 3 min 13 s  boot 1  running{'12:03:23':>42}"
    assert lines[1] == " calls 2020 (24/s)  delivered 2002 (10/s)  merged 3  dropped 0  rejected 0"
    assert lines[2] == " vCPU power   SDEI     calls/s events/s 0x100 0x101 0x102 0x200"
    assert lines[3] == " 0    on      masked   12      5.0      e     R     r"
    assert lines[4] == ">1    on      unmasked 12      5.0      R     r     .     R"
    assert lines[5] == f" shared{'R':>52}"
    assert lines[6].startswith("r registered  e enabled  R running  ")
    assert lines[7] == " vCPU 1: on for 3 min 12 s; handler of 0x100 (private-0) for 3.0 s"
    assert lines[8] == "   last call SDEI_EVENT_COMPLETE; left EL3 for EL1h at 0xffff80000801b2cc"
    assert lines[9] == " event 0x100 (private-0), private, normal: running for 3.0 s"
    assert lines[10] == "   triggers: 3 accepted, 2 delivered, 1 merged, 0 dropped"
    assert lines[11] == " trigger to complete: p50 56 µs, p99 340 µs, max 350 µs ±4 µs of 3 ▁█▃"
    assert lines[22] == " 12:03:22.123 vCPU 29 0x100 private-0: handler entered"
    assert lines[23] == " arrows choose  i inject  p pause  a all events  ? help  q quit"


def test_a_large_terminal_has_more() -> None:
    lines = shown(view(8), 200, 60)
    assert "private-0" in lines[3]
    assert "0xffff80000801b2c8" in lines[4]
    assert sum("µs .." in line for line in lines) == 12
    assert sum("handler entered" in line for line in lines) > 15


def test_many_vcpus_and_events_scroll() -> None:
    """What is chosen is on the screen, and the title says what part of all is."""
    choice = Choice()
    lines = shown(view(64, 20), choice=choice)
    assert "vCPUs 0-8/64  events 1-6/21" in lines[0]
    for key in ("end", *["right"] * 30, "up"):
        choice.key(key, 64, 21)
    lines = shown(view(64, 20), choice=choice)
    assert (choice.vcpu, choice.event) == (62, 20)
    assert "events 16-21/21" in lines[0]
    assert any(line.startswith(">62 ") for line in lines)
    assert lines[2].endswith("0x200")


def test_each_state_has_a_letter_of_its_own() -> None:
    """Not by colour alone."""
    assert set(STATES) == set(STATE_NAMES.values())
    assert len({letter for letter, _ in STATES.values()}) == len(STATES)


def test_a_pending_event_says_why() -> None:
    found = view()
    found.status["events"][0]["instances"][0] = instance(3, 0, pending=True)
    lines = shown(found)
    assert " 0    on      masked   12      5.0      e+    R     r"[1:] in lines[3]
    assert lines[10] == "   pending: event waits: PE 0 is masked"
    assert any("pending: event waits: PE 0 is masked" in line.plain for line in whole(found, 80))


def test_trouble_messages_and_pause_are_seen() -> None:
    found = view()
    found.message = "event 0x100 on vCPU 1: completed"
    assert shown(found)[-1] == " event 0x100 on vCPU 1: completed"
    found.trouble = "the backend does not answer"
    assert shown(found)[-1] == " the backend does not answer"
    found.status["host"]["vcpus"] = "paused"
    assert "PAUSED" in shown(found)[0]


def test_help_names_each_key() -> None:
    lines = shown(view(), choice=Choice(help=True))
    for words in ("arrows, tab", " i ", " p ", " a ", " ? ", " q, Ctrl-C", "any key: back"):
        assert any(words in line for line in lines)


SIZES = st.tuples(st.integers(20, 250), st.integers(5, 80))


@settings(max_examples=examples(60), deadline=None)
@given(
    SIZES,
    st.integers(1, 64),
    st.integers(1, 30),
    st.lists(
        st.sampled_from(
            ["up", "down", "left", "right", "tab", "shift-tab", "page-down", "page-up", "home", "end", "a", "?", "x"]
        ),
        max_size=20,
    ),
)
def test_any_size_and_any_keys(size: tuple[int, int], vcpus: int, events: int, keys: list[str]) -> None:
    found, choice = view(vcpus, events), Choice()
    for key in keys:
        assert choice.key(key, vcpus, len(shown_events(found.status, choice.everything))) is None
        lines = shown(found, *size, choice)
        assert choice.help or any(line.startswith(f">{choice.vcpu}") for line in lines)


@settings(max_examples=examples(60), deadline=None)
@given(hostile)
def test_names_of_others_change_nothing(text: str) -> None:
    found = view()
    found.status["name"] = found.message = found.trouble = text
    found.status["host"]["vcpus"] = text
    for event in found.status["events"]:
        event["name"] = text
        event["instances"][0] |= {"pending": True, "waits": text}
    for pe in found.status["pes"]:
        pe["last_call"] = pe["power"] = text
    for size in ((80, 24), (200, 60)):
        for line in screen(found, Choice(), *size):
            assert line.plain.isprintable() or not line.plain, line
    assert all(line.plain.isprintable() for line in whole(found, 100))


def test_paper_has_every_event_and_vcpu() -> None:
    text = "\n".join(line.plain for line in whole(view(20, 30), 80))
    assert all(f"0x{0x100 + n:x}" in text for n in range(30))
    assert text.count("\n 19 ") == 6
    assert all(line == line.rstrip() for line in text.split("\n"))
    assert "\x1b" not in text
    assert ">" not in text


def test_keys_do_what_the_help_says() -> None:
    choice = Choice()
    assert [choice.key(key, 2, 3) for key in "ipq"] == [INJECT, PAUSE, QUIT]
    for key, vcpu, event in (
        ("down", 1, 0), ("down", 1, 0), ("tab", 1, 1), ("right", 1, 2), ("tab", 1, 0), ("shift-tab", 1, 2),
        ("left", 1, 1), ("home", 0, 1), ("end", 1, 1), ("page-up", 0, 1),
    ):  # fmt: skip
        assert choice.key(key, 2, 3) is None
        assert (choice.vcpu, choice.event) == (vcpu, event), key
    choice.key("?", 2, 3)
    assert choice.help
    assert choice.key("i", 2, 3) is None, "any key leaves the help, and does nothing else"
    assert not choice.help
    choice.key("?", 2, 3)
    assert choice.key("q", 2, 3) == QUIT
    choice = Choice(vcpu=5, event=7)
    choice.key("left", 1, 0)
    assert (choice.vcpu, choice.event) == (0, 0)


def test_events_that_nobody_uses_are_left_out() -> None:
    document = status()
    for one in document["events"][1]["instances"]:
        one |= instance(UNREGISTERED, one["pe"])
    assert [event["event"] for event in shown_events(document, False)] == [0x100, 0x102, 0x200]
    assert len(shown_events(document, True)) == 4
    for event in document["events"]:
        event["instances"] = [instance(UNREGISTERED, one["pe"]) for one in event["instances"]]
    assert len(shown_events(document, False)) == 4, "none in use: all"


@pytest.mark.parametrize(("first", "chosen", "total", "room", "shows"), [
    (0, 0, 5, 10, 0), (0, 9, 10, 4, 6), (6, 3, 10, 4, 3), (6, 7, 10, 4, 6), (9, 0, 3, 2, 0), (0, 0, 0, 4, 0),
    (0, 5, 6, 0, 5),
])  # fmt: skip
def test_scrolling_moves_no_more_than_it_must(first: int, chosen: int, total: int, room: int, shows: int) -> None:
    assert first_shown(first, chosen, total, room) == shows


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (99_999, "99999"),
        (100_000, "100k"),
        (1_234_567, "1.2M"),
        (98_765_432_100, "98.8G"),
        (10**15, "1000000G"),
    ],
)
def test_short_counts(number: int, text: str) -> None:
    assert short(number) == text
