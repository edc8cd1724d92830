"""A CPU with an interrupt active that nobody ends: it left its handler by CPU_OFF or another way, or the firmware has
not ended its own.
"""

from __future__ import annotations

from collections.abc import Iterator

from qemu_sdei.explain.finding import Finding, Weight
from qemu_sdei.explain.history import History
from qemu_sdei.explain.picture import Picture, Record, Vcpu, Where
from qemu_sdei.explain.rules.registry import rule
from qemu_sdei.explain.words import ago

_REFERENCES = ("IHI 0069 (GICv3) 4.8: priority drop", "docs/reference/power-down.md")


@rule
def priority_left_active(picture: Picture, history: History) -> Iterator[Finding]:
    """Group 1 interrupts of that priority and below are not signalled until it is dropped (ICC_EOIR1_EL1)."""
    for vcpu in picture.vcpus:
        where = vcpu.where
        if where is not None and vcpu.on and not vcpu.running and all(w.firmwares_own_active for w in vcpu.seen):
            yield _firmwares_own(picture, vcpu, where)
        if where is None or not where.active_priorities:
            continue
        shown = ", ".join(f"{priority:#x}" for priority in where.active_priorities)
        state = f"ICC_AP1R0_EL1 is {where.registers['ICC_AP1R0_EL1']:#x}: priority {shown} is active"
        if vcpu.power == "off":
            yield _went_off(picture, history, vcpu, state)
        elif vcpu.on and not vcpu.running and (record := _came_up_with(history, vcpu)) is not None:
            yield _came_up(picture, history, vcpu, record, state)
        elif vcpu.on and not vcpu.running and _takes_none(vcpu):
            yield _runs_on(picture, vcpu, state)


def _firmwares_own(picture: Picture, vcpu: Vcpu, where: Where) -> Finding:
    value = where.registers["ICC_AP0R0_EL1"]
    return Finding(
        rule="priority-left-active",
        weight=Weight.ERROR,
        title=f"vCPU {vcpu.index} takes no interrupt and no event: the firmware has left a priority of its own active",
        text=f"It runs at {picture.at(where.pc)}, in no handler of an event, and still a priority of Group 0, which is "
        "the firmware's, is active in its GIC interface. It is above all of the guest's, so none of the guest's "
        "interrupts is signalled, the timer's included. Firmware gets there that acknowledges the interrupt of an "
        "event and ends it only when the event is completed: CPU_OFF in the handler, or a completion that it does not "
        "expect, leaves it active.",
        todo="One write to ICC_EOIR0_EL1 at EL3: it is the firmware's to end it when the event ends, at CPU_OFF too "
        "(DEN0054 6.5.4), and to start a CPU as after a reset (DEN0022 6.4). The kernel cannot reach it.",
        evidence=(f"ICC_AP0R0_EL1 is {value:#x}",),
        references=("DEN0054 6.5.4", "DEN0022 6.4", *_REFERENCES),
        about=frozenset({f"priority {vcpu.index}"}),
    )


def _takes_none(vcpu: Vcpu) -> bool:
    """Whenever it was looked at it had its interrupts unmasked, by PSTATE and by priority, and the same priority was
    active: so it is in no interrupt's handler, and takes none.
    """
    return len(vcpu.seen) > 1 and all(
        where.active_priorities and not where.interrupts_masked and not where.priority_masked for where in vcpu.seen
    )


def _came_up_with(history: History, vcpu: Vcpu) -> Record | None:
    """The record by which the firmware has left it the priority that is active still. (Linux waits with interrupts
    masked when it has nothing to do, so PSTATE does not tell.)
    """
    newest = next((record for record in reversed(history.of(vcpu.index)) if record.get("type") == "priorities"), None)
    if newest is None or newest.get("then") != "kept":
        return None
    left = newest.get("ap1r0")
    still = isinstance(left, int) and all(where.registers.get("ICC_AP1R0_EL1", 0) & left for where in vcpu.seen)
    return newest if still else None


def _came_up(picture: Picture, history: History, vcpu: Vcpu, record: Record, state: str) -> Finding:
    where = vcpu.where
    assert where is not None
    how = "was started by CPU_ON" if record.get("at") == "cpu-on" else "came back"
    return Finding(
        rule="priority-left-active",
        weight=Weight.ERROR,
        title=f"vCPU {vcpu.index} takes no interrupt: it came up with one active that was never ended",
        text=f"It {how} {ago(history.age(record), history.reach())} with a priority active in its GIC interface, of an "
        "interrupt that it had acknowledged before it went off, and the firmware left that so. It is active still; "
        f"the CPU is at {picture.at(where.pc)}. No interrupt of that priority or below is signalled to it, the timer's "
        "and other CPUs' included.",
        todo="The firmware has to start a CPU as after a reset (DEN0022 6.4). A kernel can help itself by one write to "
        "ICC_EOIR1_EL1 before CPU_OFF; on QEMU a write of 0 to ICC_AP1R0_EL1, which Linux does as it boots, is ignored "
        "where there is an EL3.",
        evidence=(state, f"ICC_AP1R0_EL1 was {record.get('ap1r0', 0):#x} when it came up"),
        references=("DEN0022 6.4", *_REFERENCES),
        about=frozenset({f"priority {vcpu.index}"}),
        depth=2,
    )


def _went_off(picture: Picture, history: History, vcpu: Vcpu, state: str) -> Finding:
    off = next(history.calls(vcpu.index, "CPU_OFF"), None)
    where = "" if off is None else f" at {picture.at(off['pc'])}"
    return Finding(
        rule="priority-left-active",
        weight=Weight.NOTE,
        title=f"vCPU {vcpu.index} went off inside an interrupt's handler",
        text=f"It called CPU_OFF {ago(history.age(off), history.reach())}{where}, after it had acknowledged an "
        "interrupt "
        "(ICC_IAR1_EL1) and without ending it (ICC_EOIR1_EL1): Linux's crash stop does that, in the handler of "
        "the stop "
        "IPI. A CPU that really loses its power comes back with no priority active. This firmware sees to that at "
        'CPU_ON; TF-A on QEMU does not, and the CPU then takes no interrupt: a capture kernel hangs at "smp: '
        "Bringing "
        'up secondary CPUs ...".',
        evidence=(state,),
        references=_REFERENCES,
        about=frozenset({f"priority {vcpu.index}"}),
    )


def _runs_on(picture: Picture, vcpu: Vcpu, state: str) -> Finding:
    where = vcpu.where
    assert where is not None
    waits = where.registers.get("ISR_EL1", 0) & 0x80
    return Finding(
        rule="priority-left-active",
        weight=Weight.ERROR,
        title=f"vCPU {vcpu.index} takes no interrupt: one that it has acknowledged was never ended",
        text=f"It runs at {picture.at(where.pc)} with its interrupts unmasked, and still a priority is active in its "
        "GIC interface: it has left an interrupt's handler by another way than its end (a jump, CPU_OFF and CPU_ON "
        "under firmware that keeps the interface, another kernel). No interrupt of that priority or below is "
        "signalled "
        "to it, the timer's included.",
        todo="One write to ICC_EOIR1_EL1 for each active priority, on that vCPU. On QEMU a write of 0 to "
        "ICC_AP1R0_EL1, "
        "which Linux does as it boots, is ignored where there is an EL3.",
        evidence=(state, f"ISR_EL1.I is {int(bool(waits))}"),
        references=_REFERENCES,
        about=frozenset({f"priority {vcpu.index}"}),
    )
