"""CPU_OFF inside the handler of an event."""

from __future__ import annotations

from collections.abc import Iterator

from qemu_sdei.explain.finding import Finding, Weight
from qemu_sdei.explain.history import History
from qemu_sdei.explain.picture import Picture, Record
from qemu_sdei.explain.rules.registry import rule
from qemu_sdei.explain.words import ago, joined


@rule
def cpu_off_in_handler(picture: Picture, history: History) -> Iterator[Finding]:
    """DEN0054 6.5.4: the firmware completes the handler, and powers the CPU down."""
    ended: dict[int, tuple[Record, list[int]]] = {}
    for record in history.all_transitions():
        cause = history.cause(record) if record.get("cause") == "COMPLETE" else None
        if cause is not None and cause.get("function") == "CPU_OFF":
            ended.setdefault(cause["n"], (cause, []))[1].append(record["event"])
    newest = {call["vcpu"]: (call, events) for call, events in ended.values()}
    for vcpu, (call, events) in sorted(newest.items()):
        now = picture.vcpu(vcpu)
        off = now is not None and not now.on
        gone = [number for number in events if not _registered(picture, number, vcpu)]
        handlers = joined([picture.called(event) for event in events])
        text = (
            f"It called CPU_OFF {ago(history.age(call))} at {picture.at(call['pc'])}, inside the handler of "
            f"{handlers}. "
            "The firmware then ended the handler by itself and powered the vCPU down: what the handler had "
            "interrupted is lost, and so are the vCPU's private events."
        )
        if off:
            todo = "CPU_ON for this vCPU (DEN0022 5.1.4); then, on it, SDEI_EVENT_REGISTER, SDEI_EVENT_ENABLE and "
            todo += "SDEI_PE_UNMASK (DEN0054 5.1.2, 5.1.3, 5.1.13) before it can take events again."
        elif gone:
            todo = f"On vCPU {vcpu}: SDEI_EVENT_REGISTER and SDEI_EVENT_ENABLE of "
            todo += f"{joined([picture.called(event) for event in gone])} (DEN0054 5.1.2, 5.1.3)."
        else:
            todo = ""
        yield Finding(
            rule="cpu-off-in-handler",
            weight=Weight.WARNING if off or gone else Weight.NOTE,
            title=f"vCPU {vcpu} went off inside an SDEI handler" + ("" if off else "; it is on again"),
            text=text + " This is legal, and what Linux's crash stop does on some paths. Firmware that does not do the "
            "same leaves such a vCPU deaf after CPU_ON (TF-A on QEMU does: no timer interrupt, no event).",
            todo=todo,
            evidence=(f"CPU_OFF is record {call['n']} of the trace",),
            references=("DEN0054 6.5.4, 6.5.2", "lkml 2606.3/05718 (the same, seen as a hang)"),
            about=frozenset({f"off {vcpu}"}),
        )


def _registered(picture: Picture, number: int, vcpu: int) -> bool:
    return any(instance.registered for instance in picture.event(number).instances if instance.vcpu in (None, vcpu))
