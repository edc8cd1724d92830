"""The runner with a guest that behaves badly: a scenario that takes its guest down has failed, the others still run."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from qemu_sdei.conformance import Outcome, listing, machine, runner
from qemu_sdei.conformance.listing import LAST
from qemu_sdei.errors import GuestError, NotDeliveredError, UsageError
from qemu_sdei.explain.explanation import Explanation, explain
from qemu_sdei.explain.picture import Picture, Vcpu
from qemu_sdei.vm.options import GuestOptions


def begin(number: int) -> str:
    return f"#! run {number} - scenario {number} # source J\n"


def good(number: int) -> str:
    return f"{begin(number)}ok {number} - scenario {number} # source J\n"


def rest(*done: int) -> str:
    return "".join(f"ok {n} - x # SKIP not selected\n" for n in range(1, LAST + 1) if n not in done)


class FakeGuest:
    """Plays one script after the other; None in a script: nothing more ever comes."""

    scripts: ClassVar[list[list[str | None]]] = []
    started: ClassVar[list[str]] = []
    written: ClassVar[list[str]] = []
    commands: ClassVar[list[str]] = []

    def __init__(self, options: GuestOptions, **_: Any) -> None:
        self.started.append(options.append)
        self.script = self.scripts.pop(0)
        self.console_text = SimpleNamespace(last_lines=lambda: "")

    def __enter__(self) -> FakeGuest:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def follow(self) -> Iterator[str]:
        for text in self.script:
            if text is None:
                while True:
                    yield ""
            yield text

    def inject(self, event: int, vcpu: int) -> None:
        if event != 0x100:
            raise NotDeliveredError("no")

    def trace(self, limit: int) -> list[dict[str, Any]]:
        return [{"type": "deliver", "event": 0}]

    def explain(self) -> Explanation:
        return explain(Picture("fake", 0, vcpus=(Vcpu(0, masked=True),)))

    def write(self, text: str) -> None:
        self.written.append(text)

    def qmp(self, command: str, **_: object) -> str:
        """CPU 1 comes to 0x40201000 the third time that anybody looks."""
        self.commands.append(command)
        looks = self.commands.count("human-monitor-command")
        return f" PC=00000000402{looks == 3:d}1000 X00=0000000000000000"


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(*scripts: list[str | None], **arguments: Any) -> runner.Report:
        monkeypatch.setattr(FakeGuest, "scripts", list(scripts))
        monkeypatch.setattr(FakeGuest, "started", [])
        monkeypatch.setattr(FakeGuest, "written", [])
        monkeypatch.setattr(FakeGuest, "commands", [])
        monkeypatch.setattr(machine, "Guest", FakeGuest)
        return runner.run(GuestOptions(smp=4), stall=0.01, **arguments)

    return run


def outcomes(report: runner.Report) -> dict[int, str]:
    return {result.number: result.outcome.value for result in report.results}


def test_a_scenario_that_hangs_has_failed_and_the_others_run(play: Any) -> None:
    report = play([good(12), begin(13), None], [good(14), rest(14)])
    assert outcomes(report) == {12: "ok", 13: "not ok", 14: "ok"}
    hung = report.results[1]
    assert (hung.name, hung.source) == ("scenario 13", "J")
    assert hung.reason == "the scenario did not end: nothing for 0.01 s"
    assert hung.trace == ({"type": "deliver", "event": 0},)
    assert hung.details["explain"][0].startswith("  0: on, masked")
    assert "after=13" in FakeGuest.started[1]
    assert report.starts == 2
    assert not report.ok


@pytest.mark.parametrize("end", ["FAIL: CPU 2: exception at vector 4\n", "Bail out! COMPLETE came back -3\n", ""])
def test_a_scenario_that_ends_its_guest_has_failed_and_the_others_run(play: Any, end: str) -> None:
    report = play([begin(13), end], [good(14), rest(14)])
    assert outcomes(report) == {13: "not ok", 14: "ok"}
    assert report.results[0].details["got"] == end.strip() or "the guest ended"


def test_a_failure_that_was_told_before_the_guest_ended_is_kept(play: Any) -> None:
    failure = 'not ok 13 - scenario 13 # source J\n  ---\n  what: "a"\n  expected: 1\n  got: 0\n  ...\n'
    report = play([begin(13) + "#! failed 13\n" + failure, "Bail out! a 0\n"], [good(14), rest(14)])
    assert report.results[0].reason == "a: expected 1, got 0"
    assert report.results[0].trace
    assert outcomes(report) == {13: "not ok", 14: "ok"}
    assert FakeGuest.written == ["y"]


def test_why_the_host_did_not_trigger_is_told_with_the_failure(play: Any) -> None:
    failure = 'not ok 13 - scenario 13 # source J\n  ---\n  what: "a"\n  expected: 1\n  got: 0\n  ...\n'
    report = play([begin(13) + "#! trigger 0x101 0\n", failure, rest(13)])
    assert FakeGuest.written == ["n"]
    assert report.results[0].details["refused"] == ("no",)


def test_a_guest_that_does_not_get_to_a_scenario_is_an_error(play: Any) -> None:
    with pytest.raises(GuestError, match="before a scenario: FAIL: CPU 0: unknown word 'x'"):
        play(["FAIL: CPU 0: unknown word 'x' on the command line\n"])
    with pytest.raises(GuestError, match="before its next scenario: nothing for"):
        play([begin(13), None], [None])


def test_events_are_injected_and_refusals_told(play: Any) -> None:
    report = play([begin(13), "#! trigger 0x100 1\n", "#! trigger 0x200 0\n", "ok 13 - x # source J\n" + rest(13)])
    assert FakeGuest.written == ["y", "n"]
    assert report.ok
    assert report.count(Outcome.PASS) == 1


def test_words_tell_the_guest_the_machine(play: Any) -> None:
    play([good(13), rest(13)], scenarios="13,20-25,bind")
    words = FakeGuest.started[0].split()
    assert words[:2] == ["smp=4", "trigger=console"]
    assert {"private=0x100", "critical=0x103", "shared=0x200", "shared_critical=0x202"} <= set(words)
    assert "filter=13,20-25,bind" in words


def test_a_filter_that_selects_nothing(play: Any) -> None:
    with pytest.raises(UsageError, match="no scenario is called 'nothing'"):
        play([rest()], scenarios="nothing")


@pytest.mark.parametrize("text", ["13;14", "1-", "-", "13,,14", "Bind", "1 2", "../x"])
def test_bad_filters(text: str) -> None:
    with pytest.raises(UsageError, match="is not a number"):
        listing.check_filter(text)


def test_limits() -> None:
    with pytest.raises(UsageError, match="up to 16 vCPUs, not 17"):
        runner.run(GuestOptions(smp=17))
    with pytest.raises(UsageError, match="255 is the most"):
        runner.run(GuestOptions(smp=4), scenarios=",".join(["13"] * 100))


def test_the_kinds_of_events_behind_one_that_hangs_are_tried_too(play: Any) -> None:
    """The scenario has failed, whatever comes of them; what fails besides is told with it."""
    failure = 'not ok 13 - scenario 13 # source J\n  ---\n  what: "a"\n  expected: 1\n  got: 0\n  ...\n'
    first = begin(13) + "#! kind 13 0\n#! kind 13 1\n# 13 with a private event: slow\n"
    report = play([first, None], [begin(13) + "#! kind 13 2\n" + failure, rest(13)])
    assert FakeGuest.started[1].split()[-2:] == ["after=13", "kind=2"]
    assert outcomes(report) == {13: "not ok"}
    assert report.results[0].reason == "the scenario did not end: nothing for 0.01 s"
    assert report.results[0].notes == ("with a private event: slow", "then: a: expected 1, got 0")


def test_an_event_at_a_place_and_at_a_mark(play: Any) -> None:
    asked = "#! trigger-at 0x100 1 1 0x40211000 0x40211004\n#! trigger-mark 0x100 0 7\n"
    report = play([begin(13) + asked + "#! mark 6\n#! mark 7\n#! mark 7\n", "ok 13 - x # source J\n" + rest(13)])
    assert report.ok
    assert FakeGuest.written == ["y", "n", "y", "n"]
    look = ["stop", "human-monitor-command", "cont"]
    assert FakeGuest.commands == look * 3


def test_an_event_at_a_place_that_nobody_comes_to(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "COMES", 0.05)
    report = play([begin(13) + "#! trigger-at 0x100 1 1 0 4\n", "ok 13 - x # source J\n" + rest(13)])
    assert FakeGuest.written == ["n"]
    assert FakeGuest.commands[-1] == "cont"
    assert report.ok


@pytest.mark.parametrize(
    "noise",
    [
        "x" * 5000,
        "# what\n",
        "#! run 999 - x # source J\n",
        "#! kind 13 99999999999999999999\n",
        "ok 300 - x # source J\n",
        "#! trigger-mark 0x100 0 1\n",
        "#! trigger 0x1 0\n",
    ],
)
def test_a_guest_that_says_the_same_for_ever(play: Any, noise: str) -> None:
    """What it says is no word on a scenario, or the time for all of it ends."""
    with pytest.raises(GuestError, match=r"did not end in time|before a scenario|before its next"):
        play([noise] * 100_000, timeout=0.3)
    with pytest.raises(GuestError, match=r"did not end in time|before a scenario|before its next"):
        play([begin(13), *[noise] * 100_000], [noise] * 100_000, timeout=0.3)
