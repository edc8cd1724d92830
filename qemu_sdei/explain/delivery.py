"""Why a pending event is not delivered, and what has to happen for that (DEN0054 6.1, 6.2)."""

from __future__ import annotations

from dataclasses import dataclass

from qemu_sdei.explain.picture import Event, Instance, Picture, Vcpu
from qemu_sdei.explain.words import UNTIL_COMPLETE, joined


@dataclass(frozen=True, slots=True)
class Wait:
    """One event that is pending.

    Attributes:
        event, instance: which.
        word: "disabled", "running", "masked", "off", "behind", "nobody", "coming".
        why: what stands between it and its handler, as the end of a sentence.
        todo: what has to happen, with the clause.
        vcpus: by which it is held up.
    """

    event: Event
    instance: Instance
    word: str
    why: str
    todo: str
    vcpus: tuple[int, ...] = ()


def waiting(picture: Picture) -> list[Wait]:
    """All events that are pending."""
    return [_wait(picture, event, instance) for event, instance in picture.instances() if instance.pending]


def _wait(picture: Picture, event: Event, instance: Instance) -> Wait:
    on = instance.vcpu if instance.vcpu is not None else instance.routed_to
    where = "" if on is None else f" on vCPU {on}"
    if not instance.enabled:
        return Wait(event, instance, "disabled", f"it is registered but disabled{where}",
                    f"SDEI_EVENT_ENABLE{where} (DEN0054 5.1.3)")  # fmt: skip
    if instance.running:
        runs = instance.running_on if instance.running_on is not None else on
        return Wait(event, instance, "running", f"its own handler still runs on vCPU {runs}",
                    UNTIL_COMPLETE.format(runs), () if runs is None else (runs,))  # fmt: skip
    if on is not None:
        vcpu = picture.vcpu(on)
        if vcpu is None:
            return Wait(event, instance, "coming", f"what vCPU {on} does is not known", "")
        return _on(picture, event, instance, vcpu)
    each = [_on(picture, event, instance, vcpu) for vcpu in picture.vcpus]
    free = [wait for wait in each if wait.word == "coming"]
    if free or not each:
        return free[0] if free else Wait(event, instance, "coming", "what the vCPUs do is not known", "")
    words = {wait.word for wait in each} - {"off"}
    word = words.pop() if len(words) == 1 else "nobody"
    held = tuple(vcpu for wait in each for vcpu in wait.vcpus if wait.word != "off")
    why = "no vCPU takes it: " + "; ".join(wait.why for wait in each[:4]) + ("; ..." if len(each) > 4 else "")
    todo = next((wait.todo for wait in each if wait.word == "masked"), each[0].todo)
    return Wait(event, instance, word, why, todo + ", or the like on another vCPU", held)


def _on(picture: Picture, event: Event, instance: Instance, vcpu: Vcpu) -> Wait:
    """On one vCPU."""
    n = vcpu.index
    if not vcpu.on:
        return Wait(event, instance, "off", f"vCPU {n} is off", f"CPU_ON for vCPU {n} (DEN0022 5.1.4)", (n,))
    if vcpu.masked:
        return Wait(event, instance, "masked", f"vCPU {n} is masked",
                    f"SDEI_PE_UNMASK on vCPU {n} (DEN0054 5.1.13)", (n,))  # fmt: skip
    blocking = [number for number in vcpu.running if picture.event(number).critical or not event.critical]
    if blocking:
        names = joined([picture.called(number) for number in blocking])
        return Wait(event, instance, "behind", f"the handler of {names} runs on vCPU {n}",
                    UNTIL_COMPLETE.format(n), (n,))  # fmt: skip
    return Wait(event, instance, "coming", f"nothing stands in its way: vCPU {n} is to come and take it",
                f"nothing by the kernel: vCPU {n} was kicked", (n,))  # fmt: skip
