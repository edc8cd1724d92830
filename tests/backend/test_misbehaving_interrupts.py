"""What a firmware profile does to interrupts that are bound to events."""

from __future__ import annotations

from pathlib import Path

import pytest

from qemu_sdei.backend.control import state_document
from qemu_sdei.monitor.layout import AnswerFlag
from qemu_sdei.profiles.firmware_profile import SPEC_PROFILE
from qemu_sdei.profiles.rule import Rule
from qemu_sdei.sdei.constants import Function
from tests.backend.handed_over import taken
from tests.backend.test_bound import ALARM, TIMER, BoundWorld, P, S


@pytest.fixture
def bound(tmp_path: Path) -> BoundWorld:
    world = BoundWorld(tmp_path)
    world.boot()
    return world


def have(world: BoundWorld, *rules: str) -> None:
    world.server.misbehave(SPEC_PROFILE.with_rules([Rule.of_text(rule) for rule in rules]))


def test_an_interrupt_that_goes_back_disabled(bound: BoundWorld) -> None:
    have(bound, "EVENT_UNREGISTER disables=yes")
    line = bound.gic.lines[ALARM, -1]
    assert line.enabled
    bound.enable(1, S)
    assert bound.x0(1, Function.EVENT_UNREGISTER, S) == 0
    assert (line.group0, line.enabled, line.priority) == (False, False, 0xFF)


@pytest.mark.parametrize(("event", "intid", "owner"), [(P, TIMER, 1), (S, ALARM, -1)])
def test_an_interrupt_that_is_lost_leaves_the_next_one_to_come(
    bound: BoundWorld, event: int, intid: int, owner: int
) -> None:
    have(bound, "trigger by=interrupt nth=1 loses=event", f"delivery event={event} nth=2 loses=event")
    bound.enable(1, event)
    line = bound.gic.lines[intid, owner]
    for entered in (False, True, False, True):
        assert bound.interrupt(intid, 1), "it is taken each time"
        line.pending = False
        assert bound.in_handler(1, event) is entered
        if entered:
            bound.call(1, Function.EVENT_COMPLETE, 0)
        assert line.enabled
    state_document.form()(taken(bound.server))


def test_a_masked_cpu_that_takes_a_shared_interrupt(bound: BoundWorld) -> None:
    have(bound, "trigger by=interrupt routed=any masked=yes never=instead")
    bound.enable(1, S)
    bound.call(0, Function.PE_MASK)
    assert bound.interrupt(ALARM, 0)
    assert bound.seen[-1][1][0] & AnswerFlag.PARK
    assert bound.server.status()["firmware"]["stuck"] == [0]
