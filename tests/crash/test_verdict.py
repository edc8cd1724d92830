"""What a crash has come to: of what was seen, and of nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qemu_sdei.crash.verdict import LostCpu, Result, Seen, judge
from qemu_sdei.guest.kdump_stages import Stage
from tests.crash.cells import ALL, STARTED, came_up_deaf, dumped, explained, fewer, stayed, wedged
from tests.explain.scenes import ready


def test_all_that_was_wanted_is_here() -> None:
    verdict = dumped()
    assert (verdict.result, verdict.stage, verdict.reason, verdict.lost) == (Result.DUMPED, Stage.OFF, "", ())
    assert verdict.seconds == ALL[-1][1]


def test_a_cpu_that_stays_in_its_handler_is_lost_and_holds_nothing_up() -> None:
    verdict = fewer()
    assert verdict.result is Result.FEWER
    assert verdict.vcpus == (0,)
    (lost,) = verdict.lost
    assert (lost.vcpu, lost.rule, lost.clause) == (1, "handler-over-kexec", "DEN0054 6.5.4")
    assert verdict.reason == ""


def test_a_cpu_that_came_up_deaf_is_why_the_capture_kernel_hangs() -> None:
    verdict = wedged()
    assert (verdict.result, verdict.stage, verdict.acted) == (Result.WEDGED, Stage.KERNEL, (1, 3))
    assert verdict.reason.startswith("it did not come to its init: vCPU 1 takes no interrupt")
    assert "DEN0022 6.4" in verdict.todo
    (lost,) = verdict.lost
    assert (lost.vcpu, lost.clause) == (1, "DEN0022 6.4")
    assert (lost.call, lost.answered) == ("CPU_OFF()", "the vCPU went off")


def test_what_holds_nothing_up_is_no_reason_for_a_hang() -> None:
    """A CPU that stays in its handler was answered for, and the kernel went on; so nobody knows why it hangs."""
    verdict = judge(Seen(STARTED, None, 2, explained(stayed()), "it did not come to its init"))
    assert verdict.result is Result.UNEXPLAINED
    assert not verdict.result.judged
    assert verdict.reason == "it did not come to its init"
    assert [cpu.vcpu for cpu in verdict.lost] == [1]


def test_a_cpu_that_nobody_asked_for() -> None:
    scene = ready(3)
    scene.off(2)
    scene.off(1)
    scene.passes(2).kernel(0)
    verdict = judge(Seen(STARTED, None, 3, explained(scene), "?"))
    assert verdict.lost[1] == LostCpu(
        2, "the capture kernel has not come to ask for it", call="CPU_OFF()", answered="the vCPU went off"
    )


def test_one_cpu_was_wanted() -> None:
    """A capture kernel with one CPU misses none."""
    verdict = judge(Seen(ALL, (0,), 1, explained(stayed())))
    assert (verdict.result, verdict.lost) == (Result.DUMPED, ())


def test_a_guest_that_did_not_crash() -> None:
    verdict = judge(Seen(((Stage.LOADED, 0.0),), None, 2, None, "the crash was waited for 60 s"))
    assert verdict.result is Result.FAILED
    assert verdict.stage is Stage.LOADED


@pytest.mark.parametrize("stage", [Stage.CRASH, Stage.KERNEL, Stage.INIT, Stage.SDEI])
def test_without_an_explanation_it_is_not_explained(stage: Stage) -> None:
    stages = ALL[: list(Stage).index(stage) + 1]
    assert judge(Seen(stages, None, 2, None, "it hangs")).result is Result.UNEXPLAINED


def test_rounds_agree_whatever_time_they_take() -> None:
    assert wedged().same == replace(wedged(), seconds=9, took=20, acted=()).same
    assert wedged().same != fewer().same
    assert judge(Seen(STARTED, None, 2, explained(came_up_deaf()), "x")).same == wedged().same
