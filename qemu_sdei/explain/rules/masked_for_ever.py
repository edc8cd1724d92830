"""A vCPU that is masked while events wait for it."""

from __future__ import annotations

from collections.abc import Iterator

from qemu_sdei.explain.delivery import waiting
from qemu_sdei.explain.finding import Finding, Weight
from qemu_sdei.explain.history import History
from qemu_sdei.explain.picture import Picture, Record, Vcpu
from qemu_sdei.explain.rules.registry import lasts, rule
from qemu_sdei.explain.words import ago, called, joined


@rule
def masked_for_ever(picture: Picture, history: History) -> Iterator[Finding]:
    """DEN0054 5.1.12: while a PE is masked nothing is delivered to it."""
    waits = [wait for wait in waiting(picture) if wait.word == "masked"]
    panicked = any("Kernel panic - not syncing" in line for line in picture.console)
    for vcpu in picture.vcpus:
        behind = [wait for wait in waits if vcpu.index in wait.vcpus]
        since = history.mask_since(vcpu.index)
        age = history.age(since)
        if not behind or not lasts(age) or not vcpu.on:
            continue
        ages = [history.age(history.triggered(wait.event.number, wait.instance.vcpu)) for wait in behind]
        if not any(map(lasts, ages)):
            continue
        events = joined([picture.called(wait.event.number) for wait in behind])
        many = len(behind) > 1
        text = f"{events[:1].upper()}{events[1:]} {'are' if many else 'is'} pending for it, and not delivered, "
        text += "because it masks SDEI: "
        text += _why(vcpu, since, age, history)
        if panicked:
            text += " Its kernel has panicked: Linux masks SDEI on each CPU then, and does not come back."
        yield Finding(
            rule="masked-for-ever",
            weight=Weight.WARNING if panicked or vcpu.sleeps else Weight.ERROR,
            title=f"vCPU {vcpu.index} is masked, and {'events wait' if many else 'an event waits'} for it",
            text=text,
            todo=f"SDEI_PE_UNMASK on vCPU {vcpu.index} (DEN0054 5.1.13); the event is delivered by the same exchange.",
            evidence=tuple(
                f"{picture.called(wait.event.number)} was triggered {ago(age, history.reach())}"
                for wait, age in zip(behind, ages, strict=True)
            ),
            references=("DEN0054 5.1.12, 6.1",),
            about=frozenset({f"masked {vcpu.index}"}),
        )


def _why(vcpu: Vcpu, since: Record | None, age: int | None, history: History) -> str:
    if vcpu.sleeps:
        return "it is suspended, and masked itself before. It takes the event when it has woken and unmasked itself."
    if since is None:
        return f"it did so {ago(None, history.reach())} and has not unmasked itself since."
    if since.get("type") == "call":
        return f"it called {called(since)} {ago(age)} and has not unmasked itself since."
    what = "was suspended" if since.get("to") == "suspended" else "came on"
    return f"it {what} {ago(age)}, which masks it (DEN0054 6.5.2), and has not called SDEI_PE_UNMASK since."
