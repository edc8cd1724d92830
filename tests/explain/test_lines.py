"""What people read: it says of each pending event why it waits and what to do, of each refusal by which rule, and of
each vCPU where it is; within the terminal's width.
"""

from __future__ import annotations

import json
from dataclasses import replace

import fastjsonschema
import pytest

from qemu_sdei.errors import ProtocolError
from qemu_sdei.explain.delivery import waiting
from qemu_sdei.explain.explanation import explain
from qemu_sdei.explain.explanation_schema import SCHEMA
from qemu_sdei.explain.lines import lines, short
from qemu_sdei.explain.picture import Picture, Where
from qemu_sdei.explain.purpose import purpose_of
from qemu_sdei.sdei.transitions import Action
from tests.explain.scenes import CRITICAL, PRIVATE, SHARED, SOFTWARE, ready

HANDLER = Where(0xFFFF_8000_0801_0000, 0x3C5, tuple(range(31)), {"ICC_AP1R0_EL1": 1 << 26, "ISR_EL1": 0x80})


def wedged() -> Picture:
    scene = ready(3, SOFTWARE, PRIVATE, CRITICAL)
    scene.enter(1, SOFTWARE)
    scene.trigger(PRIVATE, 1)
    scene.does(1, Action.UNREGISTER, SOFTWARE)
    scene.does(1, Action.REGISTER, SOFTWARE)
    scene.does(1, Action.REGISTER, SOFTWARE)
    scene.call(1, "CPU_ON", -2, target=0x99, entry=0, context=0)
    scene.mask(2)
    scene.trigger(SOFTWARE, 2)
    scene.change(1, seen=(HANDLER, HANDLER))
    return scene.passes(12).picture()


def text(picture: Picture, width: int = 2000) -> str:
    return "\n".join(lines(explain(picture), width=width))


@pytest.mark.parametrize("width", [60, 80, 100])
def test_lines_fit(width: int) -> None:
    assert max(map(len, lines(explain(wedged()), width=width, registers=True))) <= max(width, 80)
    assert max(map(len, lines(explain(wedged()), width=width))) <= width
    assert max(map(len, short(explain(wedged()), width=width))) <= width


def test_what_is_said_of_events() -> None:
    said = text(wedged())
    assert "event 0x0 (software) on vCPU 1: running, unregister pending for 12 s, its handler runs on vCPU 1" in said
    assert "pending, triggered 12 s ago: the handler of event 0x0 (software) runs on vCPU 1" in said
    assert "next: SDEI_PE_UNMASK on vCPU 2 (DEN0054 5.1.13)" in said


def test_what_is_said_of_refusals() -> None:
    said = text(wedged())
    refused = "SDEI_EVENT_REGISTER(event=0x0) on vCPU 1: DENIED, 2 times, 12 s ago, at 0x40201000: "
    assert f"{refused}event 0x0 (software) was running, unregister pending (DEN0054 5.1.2, 6.7)" in said
    assert "CPU_ON(target=0x99) on vCPU 1: INVALID_PARAMETERS" in said
    assert "no CPU has this affinity" in said
    assert "SDEI_EVENT_UNREGISTER(event=0x0) on vCPU 1: PENDING" not in said.partition("Refused lately")[2]


def test_what_is_said_of_vcpus() -> None:
    said = text(replace(wedged(), name=lambda pc: "spin+0x4" if pc == HANDLER.pc else None))
    assert "  1: on, unmasked, in the handler of event 0x0 (software), not heard of for 12 s" in said
    assert "at spin+0x4 (0xffff800008010000), EL1, DAIF masked, stays there" in said
    assert "interrupt priority 0xa0 active, one is pending" in said
    assert "X30 000000000000001e" in "\n".join(lines(explain(wedged()), registers=True))


def test_vcpus_that_are_alike_are_told_of_together() -> None:
    scene = ready(16)
    for n in range(2, 16):
        scene.change(n, seen=(Where(0x1000 + n, 0x345), Where(0x2000 + n, 0x345)))
    scene.mask(1)
    scene.trigger(SOFTWARE, 1)
    said = text(scene.passes(5).picture())
    assert "  0, 2-15: on, unmasked; they make no firmware calls just now" in said
    assert "  1: on, masked" in said


def test_a_healthy_guest() -> None:
    explanation = explain(ready().passes(5).picture())
    assert lines(explanation)[0] == "guest 'scene', boot 1, 2 of 2 vCPUs on: nothing unusual was found"
    assert short(explanation) == []
    assert short(explanation, where=True)[0].startswith("  0: on, unmasked")
    assert not explanation.wedged


def test_a_guest_of_which_nothing_is_known() -> None:
    said = text(Picture("g", 0, known_by="", backend="it has died", qemu="it is gone"))
    assert "its vCPUs' state is not known" in said
    assert "there is no trace of it" in said
    assert "QEMU: it is gone" in said


STATUS = {
    "profile": "own",
    "summary": "a board",
    "rules": [{"rule": "CPU_OFF never=instead", "acted": 2}, {"rule": "cpu-up deaf=yes", "acted": 0}],
    "deaf": [],
    "stuck": [1],
    "held": [],
}


def test_firmware_that_misbehaves_is_told_of_first() -> None:
    said = purpose_of({"firmware": STATUS})
    assert said == "profile own (a board); rule 1 acted; vCPU 1 stays in EL3"
    picture = replace(ready().picture(), misbehaves=said)
    assert lines(explain(picture), width=200)[0] == f"this firmware misbehaves on purpose: {said}"
    assert short(explain(picture))[0].startswith("This firmware misbehaves on purpose: profile own")
    assert explain(picture).document()["misbehaves"] == said
    assert purpose_of({}) == purpose_of({"firmware": {**STATUS, "rules": [], "stuck": []}}) == ""
    left = {**STATUS, "profile": "spec", "summary": "", "rules": []}
    assert purpose_of({"firmware": left}) == "profile spec; vCPU 1 stays in EL3"
    with pytest.raises(ProtocolError):
        purpose_of({"firmware": {"profile": 3}})


def test_it_is_json() -> None:
    nobody = Picture("g", 0, known_by="", backend="it has died", qemu="it is gone", paused="paused", lost=3)
    for picture in (nobody, wedged()):
        document = json.loads(json.dumps(explain(picture).document()))
        fastjsonschema.compile(SCHEMA)(document)
    assert [finding["rule"] for finding in document["findings"]] == ["masked-for-ever", "unregister-pending"]
    assert {(e["event"], e["vcpu"], e["reason"]) for e in document["events"]} == {
        (SOFTWARE, 1, None),
        (SOFTWARE, 2, "masked"),
        (PRIVATE, 1, "behind"),
    }
    assert document["vcpus"][1]["where"]["active_priorities"] == [0xA0]


def test_reasons() -> None:
    scene = ready(2, SOFTWARE, PRIVATE, CRITICAL, SHARED)
    scene.does(0, Action.DISABLE, PRIVATE)
    scene.trigger(PRIVATE, 0)
    scene.enter(1, CRITICAL)
    scene.trigger(CRITICAL, 1)
    scene.trigger(SOFTWARE, 1)
    scene.trigger(SOFTWARE, 0)
    scene.trigger(SHARED, None)
    assert [(w.event.number, w.instance.vcpu, w.word) for w in waiting(scene.picture())] == [
        (SOFTWARE, 0, "coming"),
        (SOFTWARE, 1, "behind"),
        (PRIVATE, 0, "disabled"),
        (CRITICAL, 1, "running"),
        (SHARED, None, "coming"),
    ]
    scene.mask(0)
    (shared,) = (w for w in waiting(scene.picture()) if w.event.number == SHARED)
    assert shared.word == "nobody"
    assert "vCPU 0 is masked" in shared.why
    assert "runs on vCPU 1" in shared.why
