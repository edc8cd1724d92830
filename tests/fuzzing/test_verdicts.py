"""What became of an error."""

from __future__ import annotations

import pytest

from qemu_sdei.fuzzing.verdicts import Observed, Verdict, judge
from tests.fuzzing import consoles

QUIET = Observed("", taken=False)

CASES: dict[str, tuple[Observed, bool, Verdict]] = {
    "nothing": (QUIET, False, Verdict.IGNORED),
    "nothing, and fatal": (QUIET, True, Verdict.IGNORED),
    "printed": (Observed(consoles.LOGGED), False, Verdict.LOGGED),
    "handled, and the print was suppressed": (Observed("", taken=True), False, Verdict.LOGGED),
    "refused with a warning of the firmware": (
        Observed("[    1.000000] GHES: [Firmware Warn]: GHES: Invalid error status block length!\n", taken=False),
        False,
        Verdict.IGNORED,
    ),
    "warned": (Observed(consoles.LOGGED + consoles.WARNED, taken=True), False, Verdict.WARNED),
    "oops": (Observed(consoles.OOPS), False, Verdict.OOPS),
    "an oops after which nothing goes on": (Observed(consoles.OOPS, alive=False), False, Verdict.OOPS),
    "lockup": (Observed(consoles.LOCKUP, alive=False), False, Verdict.HANG),
    "stall": (Observed(consoles.STALL), False, Verdict.HANG),
    "silence": (Observed("", alive=False, completed=False), False, Verdict.HANG),
    "a handler without an end": (Observed("", completed=False), False, Verdict.HANG),
    "a warning and silence": (Observed(consoles.WARNED, alive=False), False, Verdict.HANG),
    "panic": (Observed(consoles.DIED, alive=False), False, Verdict.PANIC),
    "panic by an oops, of a fatal error": (Observed(consoles.DIED, alive=False), True, Verdict.PANIC),
    "fatal": (Observed(consoles.ASKED, alive=False), True, Verdict.PANIC_AS_ASKED),
    "fatal for the kernel alone": (Observed(consoles.ASKED, alive=False), False, Verdict.PANIC),
    "init's page": (Observed(consoles.INIT, alive=False), False, Verdict.PANIC_AS_ASKED),
    "the shell's page": (
        Observed(consoles.INIT.partition("\n")[0] + "\nBus error\nsh: 17: not found\n", alive=False),
        False,
        Verdict.PANIC_AS_ASKED,
    ),
    "the shell, and no page": (Observed("Killed\nsh: 17: not found\n", alive=False), False, Verdict.HANG),
    "init, and no page": (
        Observed(consoles.INIT.partition("\n")[2], alive=False), False, Verdict.PANIC,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_verdict(case: str) -> None:
    seen, asked, verdict = CASES[case]
    judged = judge(seen, asks_to_panic=asked)
    assert judged.verdict is verdict
    assert bool(judged.key) is verdict.is_finding
    if verdict.is_finding:
        assert judged.key.startswith(f"{verdict.value}: ")


def test_what_may_be_printed_is_of_no_account() -> None:
    """The same record, printed or not (estatus cache, rate limit), has the same verdict."""
    for taken in (True, False):
        verdicts = {judge(Observed(text, taken=taken), asks_to_panic=False).verdict for text in ("", consoles.LOGGED)}
        assert len(verdicts) == 1


def test_the_same_fault_is_known_again_and_worse_ones_are_others() -> None:
    oops = judge(Observed(consoles.OOPS), asks_to_panic=False)
    again = judge(Observed(consoles.LOGGED + consoles.OOPS), asks_to_panic=False)
    died = judge(Observed(consoles.DIED, alive=False), asks_to_panic=False)
    assert oops.key == again.key
    assert oops.key != died.key
    assert oops.key.partition(": ")[2] == died.key.partition(": ")[2]


def test_a_hang_is_known_by_where_it_is() -> None:
    there = Observed("", completed=False, alive=False, stuck=("go_through", "handle_it"))
    judged = judge(there, asks_to_panic=False)
    assert judged.trouble is not None
    assert judged.trouble.stack == ("go_through", "handle_it")
    for text in (consoles.STALL, consoles.LOCKUP):
        told = judge(Observed(text, completed=False, stuck=("go_through", "handle_it")), asks_to_panic=False)
        assert told.key == judged.key, "whether the kernel has noticed it is of no account"
    other = judge(Observed("", completed=False, alive=False, stuck=("elsewhere",)), asks_to_panic=False)
    assert other.key != judged.key
    unknown = judge(Observed("", completed=False, alive=False), asks_to_panic=False)
    assert (unknown.trouble, unknown.note) == (None, "its handler did not end")


def test_only_what_goes_on_is_trusted_afterwards() -> None:
    assert {each for each in Verdict if not each.loses_guest} == {Verdict.IGNORED, Verdict.LOGGED, Verdict.WARNED}
