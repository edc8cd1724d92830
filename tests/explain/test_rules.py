"""Each situation is recognised in a guest made by hand, and only there; what is said names the vCPU, the event and what
to do. Real guests: tests/guest/test_explain.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import fastjsonschema
import pytest

from qemu_sdei.explain.explanation import Explanation, explain
from qemu_sdei.explain.explanation_schema import SCHEMA
from qemu_sdei.explain.finding import Finding, Weight
from qemu_sdei.explain.picture import ErrorBlock, Picture, Where
from qemu_sdei.sdei.transitions import Action
from tests.explain.scenes import CRITICAL, GHES, PRIVATE, SHARED, SOFTWARE, Scene, ready

BLOCK = 0x7FD0_1000


fits = fastjsonschema.compile(SCHEMA)


def explained(picture: Picture) -> Explanation:
    """The explanation, whose JSON has the form that is promised."""
    explanation = explain(picture)
    fits(json.loads(json.dumps(explanation.document())))
    return explanation


def found(picture: Picture) -> list[str]:
    return [finding.rule for finding in explained(picture).findings]


def only(picture: Picture, rule: str) -> Finding:
    (finding,) = explained(picture).findings
    assert finding.rule == rule
    assert finding.references
    return finding


def block(**facts: int | bool) -> ErrorBlock:
    known: dict[str, int] = {
        "event": GHES,
        "source": 0,
        "address": BLOCK,
        "expected": BLOCK,
        "status": 0,
        "severity": 2,
    }
    return replace(ErrorBlock(**known, acknowledged=True), **facts)  # type: ignore[arg-type]


# ---- healthy guests


def idle() -> Picture:
    return ready().passes(60).picture()


def after_events() -> Picture:
    scene = ready(4, SOFTWARE, PRIVATE, CRITICAL, SHARED)
    for vcpu in range(4):
        scene.enter(vcpu, PRIVATE)
        scene.enter(vcpu, CRITICAL)
        scene.complete(vcpu)
        scene.complete(vcpu, by="SDEI_EVENT_COMPLETE_AND_RESUME")
    return scene.passes(60).picture()


def in_a_handler() -> Picture:
    scene = ready()
    scene.enter(1, SOFTWARE)
    scene.trigger(SOFTWARE, 1)
    return scene.picture()


def hotplugged() -> Picture:
    scene = ready()
    scene.does(1, Action.UNREGISTER, SOFTWARE)
    scene.mask(1)
    scene.off(1)
    scene.passes(5)
    scene.on(1)
    scene.enable(1, SOFTWARE)
    scene.unmask(1)
    return scene.passes(60).picture()


def off() -> Picture:
    scene = ready()
    scene.does(1, Action.UNREGISTER, SOFTWARE)
    scene.mask(1)
    scene.off(1)
    return scene.passes(60).picture()


def suspended_and_back() -> Picture:
    scene = ready()
    for _ in range(3):
        scene.mask(0)
        scene.suspend(0)
        scene.passes(5)
        scene.unmask(0)
    return scene.passes(60).picture()


def asleep() -> Picture:
    scene = ready()
    scene.mask(0)
    scene.suspend(0)
    scene.change(0, sleeps=True)
    return scene.passes(60).picture()


def kexeced() -> Picture:
    scene = ready()
    scene.call(0, "SDEI_PRIVATE_RESET")
    scene.step(Action.UNREGISTER, 0, SOFTWARE)
    scene.off(1)
    scene.kernel(0)
    scene.call(0, "CPU_ON", 0, target=1, entry=0, context=0)
    scene.on(1)
    for vcpu in (0, 1):
        scene.enable(vcpu, SOFTWARE)
        scene.unmask(vcpu)
    return scene.passes(60).picture()


def with_ghes() -> Picture:
    scene = ready(2, SOFTWARE, GHES)
    scene.enter(0, GHES)
    scene.complete(0)
    return scene.passes(60).picture(acpi=True, errors=(block(),))


def in_an_interrupt() -> Picture:
    scene = ready()
    busy = Where(0x1000, 0x3C5, registers={"ICC_AP1R0_EL1": 1 << 26, "ICC_PMR_EL1": 0xF8})
    free = Where(0x1004, 0x345, registers={"ICC_AP1R0_EL1": 0, "ICC_PMR_EL1": 0xF8})
    scene.change(0, seen=(busy, free))
    scene.change(1, seen=(busy, busy))
    return scene.passes(60).picture()


def booting() -> Picture:
    scene = Scene()
    return scene.passes(5).picture(acpi=True, errors=(block(),))


HEALTHY = (
    *(idle, after_events, in_a_handler, hotplugged, off, suspended_and_back, asleep, kexeced, with_ghes),
    *(in_an_interrupt, booting),
)


@pytest.mark.parametrize("guest", HEALTHY, ids=lambda guest: guest.__name__)
def test_nothing_is_found_in_a_healthy_guest(guest: Callable[[], Picture]) -> None:
    assert found(guest()) == []


# ---- the situations


def test_cpu_off_in_a_handler() -> None:
    scene = ready()
    scene.enter(1, SOFTWARE)
    scene.off(1)
    scene.passes(3)
    finding = only(scene.picture(), "cpu-off-in-handler")
    assert finding.weight is Weight.WARNING
    assert "vCPU 1" in finding.title
    assert "event 0x0 (software)" in finding.text
    assert "3.0 s ago" in finding.text
    assert "CPU_ON" in finding.todo
    assert "DEN0054 6.5.4, 6.5.2" in finding.references
    scene.on(1)
    scene.enable(1, SOFTWARE)
    scene.unmask(1)
    assert only(scene.picture(), "cpu-off-in-handler").weight is Weight.NOTE


def test_a_handler_that_was_completed_before_cpu_off_is_none_of_it() -> None:
    scene = ready()
    scene.enter(1, SOFTWARE)
    scene.complete(1)
    scene.off(1)
    assert found(scene.passes(3).picture()) == []


def test_a_handler_over_kexec() -> None:
    scene = ready()
    scene.enter(0, SOFTWARE)
    scene.passes(1)
    scene.kernel(0)
    scene.call(0, "SDEI_PRIVATE_RESET", -3)
    scene.step(Action.UNREGISTER, 0, SOFTWARE)
    scene.does(0, Action.REGISTER, SOFTWARE)
    finding = only(scene.passes(10).picture(), "handler-over-kexec")
    assert finding.weight is Weight.ERROR
    assert "vCPU 0 is still inside the handler of event 0x0 (software)" in finding.text
    assert "Kernel 2 began 10 s ago" in finding.text
    assert any("DENIED" in line for line in finding.evidence)
    assert "5.1.7" in finding.todo


def test_a_priority_left_active_by_a_cpu_that_went_off() -> None:
    scene = ready()
    scene.off(1)
    scene.change(1, seen=(Where(0x1000, 0x3C5, registers={"ICC_AP1R0_EL1": 1 << 26}),))
    finding = only(scene.passes(3).picture(), "priority-left-active")
    assert finding.weight is Weight.NOTE
    assert "went off inside an interrupt's handler" in finding.title
    assert "priority 0xa0 is active" in finding.evidence[0]


def test_a_priority_left_active_by_a_cpu_that_runs() -> None:
    scene = ready()
    deaf = Where(0x1000, 0x345, registers={"ICC_AP1R0_EL1": 1 << 26, "ICC_PMR_EL1": 0xF8, "ISR_EL1": 0})
    scene.change(1, seen=(deaf, deaf))
    finding = only(scene.picture(), "priority-left-active")
    assert finding.weight is Weight.ERROR
    assert finding.title.startswith("vCPU 1 takes no interrupt")
    assert "ICC_EOIR1_EL1" in finding.todo


def test_a_priority_that_a_cpu_came_up_with() -> None:
    """Also of a CPU that waits with interrupts masked, as Linux does when it has nothing to do; not once it is ended,
    and not where the firmware has ended it.
    """
    scene = ready()
    scene.off(1)
    scene.call(0, "CPU_ON", 0, target=1, entry=0x4020_0000)
    scene.record("priorities", 1, at="cpu-on", ap1r0=1 << 26, active=[0xA0], then="kept")
    scene.on(1)
    scene.change(1, masked=False)
    waits = Where(0x1000, 0x3C5, registers={"ICC_AP1R0_EL1": 1 << 26, "ICC_PMR_EL1": 0xF8})
    scene.change(1, seen=(waits, waits))
    finding = only(scene.picture(), "priority-left-active")
    assert finding.weight is Weight.ERROR
    assert "came up with one active" in finding.title
    assert "was started by CPU_ON" in finding.text
    assert "0x4000000" in finding.evidence[1]
    scene.change(1, seen=(waits, replace(waits, registers={"ICC_AP1R0_EL1": 0})))
    assert found(scene.picture()) == []
    scene.change(1, seen=(waits, waits))
    scene.record("priorities", 1, at="cpu-on", ap1r0=1 << 26, active=[0xA0], then="ended")
    assert found(scene.picture()) == []


def test_a_priority_of_the_firmwares_own_left_active() -> None:
    scene = ready(2, SOFTWARE)
    own = Where(0x1000, 0x3C5, registers={"ICC_AP0R0_EL1": 2, "ICC_AP1R0_EL1": 0})
    scene.change(1, seen=(own, own))
    finding = only(scene.picture(), "priority-left-active")
    assert finding.weight is Weight.ERROR
    assert "the firmware has left a priority of its own active" in finding.title
    assert "DEN0054 6.5.4" in finding.references
    kick = replace(own, registers={"ICC_AP0R0_EL1": 1})
    scene.change(1, seen=(kick, kick))
    assert found(scene.picture()) == []
    scene.change(1, seen=())
    assert found(scene.picture()) == []


def test_masked_for_ever() -> None:
    scene = ready(2, SOFTWARE, PRIVATE)
    scene.mask(1)
    scene.passes(5)
    scene.trigger(PRIVATE, 1)
    assert found(scene.picture()) == []  # it was triggered just now
    finding = only(scene.passes(4).picture(), "masked-for-ever")
    assert finding.weight is Weight.ERROR
    assert "vCPU 1 is masked" in finding.title
    assert "Event 0x100 (private-a) is pending" in finding.text
    assert "SDEI_PE_MASK() 9.0 s ago" in finding.text
    assert "SDEI_PE_UNMASK on vCPU 1 (DEN0054 5.1.13)" in finding.todo


def test_vcpus_that_are_masked_alike_are_one_finding() -> None:
    scene = ready(4)
    for vcpu in (1, 2, 3):
        scene.mask(vcpu)
        scene.trigger(SOFTWARE, vcpu)
    finding = only(scene.passes(4).picture(), "masked-for-ever")
    assert finding.title == "vCPUs 1-3 are masked, and events wait for them"
    assert "SDEI_PE_UNMASK on vCPUs 1-3" in finding.todo


def test_masked_by_a_panic() -> None:
    scene = ready()
    scene.mask(1)
    scene.trigger(SOFTWARE, 1)
    picture = scene.passes(4).picture(console=("[    3.1] Kernel panic - not syncing: sysrq triggered crash",))
    finding = only(picture, "masked-for-ever")
    assert finding.weight is Weight.WARNING
    assert "panicked" in finding.text


def test_unregister_pending_for_ever() -> None:
    scene = ready()
    scene.enter(1, SOFTWARE)
    scene.does(1, Action.UNREGISTER, SOFTWARE)
    assert found(scene.picture()) == []
    scene.does(1, Action.UNREGISTER, SOFTWARE)
    finding = only(scene.passes(4).picture(), "unregister-pending")
    assert finding.weight is Weight.ERROR
    assert "Event 0x0 (software) cannot be unregistered while its handler runs on vCPU 1" in finding.title
    assert finding.evidence == ("SDEI_EVENT_UNREGISTER(event=0x0) on vCPU 1: PENDING",)
    assert "5.1.6" in finding.todo
    assert "vCPU 1" in finding.todo


def test_an_event_left_registered_over_kexec() -> None:
    scene = ready()
    scene.kernel(0)
    scene.does(0, Action.REGISTER, SOFTWARE)
    said = "[    0.9] sdei: Failed to create event 0: -1"
    finding = only(scene.passes(2).picture(console=(said,)), "registered-over-kexec")
    assert finding.weight is Weight.ERROR
    assert "event 0x0 (software)" in finding.title
    assert "DENIED, since the event is enabled there already" in finding.text
    assert finding.evidence == (said,)
    assert "SDEI_PRIVATE_RESET (DEN0054 5.1.18) on vCPU 0" in finding.todo


def test_an_event_that_the_new_kernel_registers_twice_is_its_own_fault() -> None:
    scene = ready()
    scene.step(Action.UNREGISTER, 0, SOFTWARE)
    scene.kernel(0)
    scene.enable(0, SOFTWARE)
    scene.does(0, Action.REGISTER, SOFTWARE)
    assert found(scene.passes(2).picture()) == []


def test_cpu_on_of_a_cpu_in_a_handler() -> None:
    scene = ready()
    scene.enter(1, SOFTWARE)
    scene.passes(2)
    scene.call(0, "CPU_ON", -4, target=1, entry=0, context=0)
    finding = only(scene.passes(1).picture(), "cpu-on-in-handler")
    assert finding.weight is Weight.ERROR
    assert "vCPU 1, which is inside an SDEI handler" in finding.title
    assert "event 0x0 (software) 3.0 s ago and is still there" in finding.text
    assert "CPU_OFF" in finding.todo


def test_cpu_on_of_a_cpu_that_was_not_stopped() -> None:
    scene = ready()
    scene.call(0, "CPU_ON", -4, target=1, entry=0, context=0)
    assert only(scene.passes(1).picture(), "cpu-on-not-off").weight is Weight.WARNING


def test_an_error_block_that_was_never_acknowledged() -> None:
    scene = ready(2, SOFTWARE, GHES)
    scene.enter(1, GHES)
    scene.complete(1)
    scene.passes(4)
    filled = block(status=0x11, acknowledged=False)
    finding = only(scene.picture(acpi=True, errors=(filled,)), "ghes-not-acknowledged")
    assert finding.weight is Weight.ERROR
    assert "source 0" in finding.title
    assert "without setting the read-ack register" in finding.text
    assert "severity corrected" in finding.evidence[0]
    lost = only(scene.picture(acpi=True, errors=(replace(filled, address=0),)), "ghes-not-acknowledged")
    assert f"holds 0x0 in place of {BLOCK:#x}" in lost.text


def test_an_error_behind_a_mask() -> None:
    scene = ready(1, SOFTWARE, GHES)
    scene.mask(0)
    scene.trigger(GHES, None)
    explanation = explained(scene.passes(4).picture(acpi=True, errors=(block(status=1, acknowledged=False),)))
    assert {finding.rule for finding in explanation.findings} == {"ghes-not-acknowledged", "masked-for-ever"}
    ghes = next(f for f in explanation.findings if f.rule == "ghes-not-acknowledged")
    assert "vCPU 0 is masked" in ghes.text


@pytest.mark.parametrize(
    "how", ["the kernel says so", "an error waits", "a trigger was refused", "long after its boot"]
)
def test_an_event_of_the_hest_that_nobody_registered(how: str) -> None:
    scene = ready()
    said = "[    0.8] GHES: Generic hardware error source: 0 notified via SDE Interface is not supported!"
    console = (said,) if how == "the kernel says so" else ()
    errors = (block(status=1, acknowledged=False),) if how == "an error waits" else (block(),)
    if how == "a trigger was refused":
        scene.record("trigger", None, event=GHES, by="host", outcome="refused", why="not registered")
    scene.passes(20 if how == "long after its boot" else 2)
    finding = only(scene.picture(acpi=True, errors=errors, console=console), "hest-event-unregistered")
    assert "event 0x324 (ghes)" in finding.title
    assert "CONFIG_ARM_SDE_INTERFACE" in finding.text


@pytest.mark.parametrize("lost", ["unregistered", "disabled"])
def test_an_event_lost_over_a_suspend(lost: str) -> None:
    scene = ready(1)
    scene.mask(0)
    scene.suspend(0)
    scene.passes(5)
    scene.does(0, Action.UNREGISTER if lost == "unregistered" else Action.DISABLE, SOFTWARE)
    scene.unmask(0)
    finding = only(scene.passes(10).picture(), "lost-over-suspend")
    assert finding.weight is Weight.ERROR
    assert "Event 0x0 (software) was lost over a suspend" in finding.title
    assert "SDEI_EVENT_ENABLE" in finding.todo


def test_an_event_enabled_again_over_a_suspend() -> None:
    scene = ready(1)
    scene.does(0, Action.DISABLE, SOFTWARE)
    scene.mask(0)
    scene.suspend(0)
    scene.does(0, Action.ENABLE, SOFTWARE)
    scene.unmask(0)
    finding = only(scene.passes(10).picture(), "lost-over-suspend")
    assert "was re-enabled over a suspend" in finding.title
    assert "SDEI_EVENT_DISABLE (DEN0054 5.1.4)" in finding.todo


def test_never_unmasked_after_a_suspend() -> None:
    scene = ready(1)
    scene.mask(0)
    scene.suspend(0)
    scene.call(0, "SMCCC_ARCH_FEATURES", -1, function=0x8000_8000)
    scene.trigger(SOFTWARE, 0)
    finding = only(scene.passes(10).picture(), "lost-over-suspend")
    assert "vCPU 0 has not unmasked itself since it was suspended" in finding.title
    assert finding.weight is Weight.ERROR


def test_an_event_that_is_unregistered_long_after_a_suspend_is_not_lost() -> None:
    scene = ready(1)
    scene.mask(0)
    scene.suspend(0)
    scene.unmask(0)
    scene.passes(5)
    scene.does(0, Action.UNREGISTER, SOFTWARE)
    assert found(scene.passes(10).picture()) == []


def test_a_handler_that_does_not_end() -> None:
    scene = ready(2, SOFTWARE, PRIVATE)
    scene.enter(1, SOFTWARE)
    scene.trigger(PRIVATE, 1)
    finding = only(scene.passes(10).picture(), "handler-runs-on")
    assert finding.weight is Weight.ERROR
    assert "event 0x100 (private-a) waits behind it" in finding.text


def test_a_backend_that_does_not_answer_and_a_guest_that_is_paused() -> None:
    picture = replace(idle(), backend="its backend, process 7, is stopped: `kill -CONT 7` resumes it", paused="paused")
    assert found(picture) == ["backend-does-not-answer", "paused"]
    unknown = Picture("g", 0, backend="it has died", known_by="")
    assert found(unknown) == ["backend-does-not-answer"]


def test_a_trace_that_does_not_reach_back_makes_no_findings_up() -> None:
    """Only what stands is known: the handler's entry and the mask are older than all records."""
    scene = ready()
    scene.enter(1, SOFTWARE)
    scene.passes(10)
    picture = replace(scene.picture(), records=())
    finding = only(picture, "handler-runs-on")
    assert "at a time that the trace does not tell" in finding.text
