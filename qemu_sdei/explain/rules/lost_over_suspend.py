"""An event that is another one after a suspend: lost, re-enabled, or never unmasked again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from qemu_sdei.explain.finding import Finding, Weight
from qemu_sdei.explain.history import MASK, UNMASK, History
from qemu_sdei.explain.picture import Instance, Picture, Record
from qemu_sdei.explain.rules.registry import lasts, rule
from qemu_sdei.explain.words import ago, called
from qemu_sdei.sdei.transitions import ENABLED, REGISTERED, RUNNING, STATE_NAMES

_ENABLED: Final = (STATE_NAMES[ENABLED], STATE_NAMES[RUNNING])
_DISABLED: Final = STATE_NAMES[REGISTERED]


@rule
def lost_over_suspend(picture: Picture, history: History) -> Iterator[Finding]:
    """DEN0054 6.5.2: a PE comes back masked from a power-down, with its events as they were."""
    for vcpu in picture.vcpus:
        suspend = next(
            (r for r in reversed(history.of(vcpu.index)) if r.get("type") == "power" and r.get("to") == "suspended"),
            None,
        )
        if suspend is None or vcpu.sleeps or not vcpu.on:
            continue
        after = [r for r in history.of(vcpu.index) if r["n"] > suspend["n"] and r.get("type") == "call"]
        if not after or not lasts(history.age(after[0])):
            continue
        unmask = next((r for r in after if r.get("function") == UNMASK), None)
        begin = _begin(history, vcpu.index, suspend)
        end = unmask["n"] if unmask is not None else after[-1]["n"] + 1
        instances = [i for _, i in picture.instances() if i.vcpu in (None, vcpu.index)]
        for instance in instances:
            found = _changed(picture, history, instance, vcpu.index, begin, end, suspend)
            if found is not None:
                yield found
        enabled = [instance for instance in instances if instance.enabled and instance.vcpu is not None]
        if unmask is None and vcpu.masked and enabled:
            yield _masked(picture, history, vcpu.index, after[0], enabled)


def _begin(history: History, vcpu: int, suspend: Record) -> int:
    """Number of the record with which going to sleep began: the newest PE_MASK before it, or the suspend itself."""
    before = [r for r in history.of(vcpu) if r["n"] < suspend["n"] and r.get("type") == "call"]
    masks = [r["n"] for r in before[-8:] if r.get("function") == MASK]
    return int(masks[-1] if masks else suspend["n"])


def _changed(
    picture: Picture, history: History, instance: Instance, vcpu: int, begin: int, end: int, suspend: Record
) -> Finding | None:
    event = instance.event
    before, after = (history.state_at(event, vcpu, n) for n in (begin, end))
    change = [t for t in history.transitions(event, vcpu) if begin <= t["n"] < end and t.get("vcpu") == vcpu]
    if not change or before == after:
        return None
    if before in _ENABLED and after not in _ENABLED and not instance.enabled:
        what, clause = "lost", "SDEI_EVENT_REGISTER and SDEI_EVENT_ENABLE (DEN0054 5.1.2, 5.1.3)"
        if instance.registered:
            clause = "SDEI_EVENT_ENABLE (DEN0054 5.1.3)"
    elif before == _DISABLED and after in _ENABLED and instance.enabled:
        what, clause = "re-enabled", "SDEI_EVENT_DISABLE (DEN0054 5.1.4)"
    else:
        return None
    cause = history.cause(change[-1])
    by = "" if cause is None else f", by {called(cause)} at {picture.at(cause['pc'])}"
    return Finding(
        rule="lost-over-suspend",
        weight=Weight.ERROR if what == "lost" else Weight.WARNING,
        title=f"{picture.called(event)[:1].upper()}{picture.called(event)[1:]} was {what} over a suspend",
        text=f"On vCPU {vcpu} it was {before} before the vCPU was suspended {ago(history.age(suspend))}, and "
        f"{after} when "
        f"it had come back{by}. The firmware changes nothing over a suspend but that the vCPU is masked: the "
        "kernel did it "
        "on its way to sleep or back, and has not put it right since.",
        todo=f"{clause} on vCPU {vcpu}, in the kernel's way back (Linux: sdei_device_thaw(), sdei_cpuhp_up(), "
        "which go by "
        "what was registered and enabled before).",
        evidence=tuple(f"{t['from']} -> {t['to']}: {t['cause']}, record {t['n']}" for t in change[-4:]),
        references=("DEN0054 6.5.2", "Linux drivers/firmware/arm_sdei.c"),
        about=frozenset({f"suspend {event} {vcpu}"}),
        depth=2,
    )


def _masked(picture: Picture, history: History, vcpu: int, back: Record, enabled: list[Instance]) -> Finding:
    return Finding(
        rule="lost-over-suspend",
        weight=Weight.ERROR if any(instance.pending for instance in enabled) else Weight.WARNING,
        title=f"vCPU {vcpu} has not unmasked itself since it was suspended",
        text=f"It came back {ago(history.age(back))}, masked as the firmware leaves each vCPU that was powered "
        "down, and has "
        f"not called SDEI_PE_UNMASK: none of its {len(enabled)} enabled events is delivered to it.",
        todo=f"SDEI_PE_UNMASK on vCPU {vcpu} (DEN0054 5.1.13), in the kernel's way back (Linux: CPU_PM_EXIT).",
        references=("DEN0054 6.5.2, 5.1.13",),
        about=frozenset({f"masked {vcpu}"}),
        depth=2,
    )
