"""A vCPU that is masked while events wait for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from qemu_sdei.explain.delivery import Wait, waiting
from qemu_sdei.explain.finding import Finding, Weight
from qemu_sdei.explain.history import History
from qemu_sdei.explain.picture import Picture, Record, Vcpu
from qemu_sdei.explain.rules.registry import lasts, rule
from qemu_sdei.explain.words import ago, called, joined, numbers


@rule
def masked_for_ever(picture: Picture, history: History) -> Iterator[Finding]:
    """DEN0054 5.1.12: while a PE is masked nothing is delivered to it."""
    waits = [wait for wait in waiting(picture) if wait.word == "masked"]
    alike: dict[object, list[_Masked]] = {}
    for vcpu in picture.vcpus:
        behind = [wait for wait in waits if vcpu.index in wait.vcpus]
        since = history.mask_since(vcpu.index)
        ages = [history.age(history.triggered(wait.event.number, wait.instance.vcpu)) for wait in behind]
        if behind and vcpu.on and lasts(history.age(since)) and any(map(lasts, ages)):
            how = None if since is None else since.get("function", since.get("to"))
            alike.setdefault((vcpu.sleeps, how), []).append(_Masked(vcpu, since, behind, ages))
    for found in alike.values():
        yield _finding(picture, history, found)


@dataclass(frozen=True, slots=True)
class _Masked:
    """A vCPU that is masked `since` then, the events that wait behind that, and how long they have."""

    vcpu: Vcpu
    since: Record | None
    behind: list[Wait]
    ages: list[int | None]


def _finding(picture: Picture, history: History, found: list[_Masked]) -> Finding:
    """Of vCPUs that were masked in the same way."""
    first, many = found[0], len(found) > 1
    which = f"vCPU{'s' if many else ''} {numbers([one.vcpu.index for one in found])}"
    events = joined(list(dict.fromkeys(picture.called(wait.event.number) for one in found for wait in one.behind)))
    several = " and " in events
    panicked = any("Kernel panic - not syncing" in line for line in picture.console)
    text = f"{events[:1].upper()}{events[1:]} {'are' if several else 'is'} pending for {'them' if many else 'it'}, and "
    text += f"not delivered, because {'they mask' if many else 'it masks'} SDEI: {_why(first, history)}"
    if many:
        text += " The others did the same."
    if panicked:
        text += " The kernel has panicked: Linux masks SDEI on each CPU then, and does not come back."
    return Finding(
        rule="masked-for-ever",
        weight=Weight.WARNING if panicked or first.vcpu.sleeps else Weight.ERROR,
        title=f"{which} {'are' if many else 'is'} masked, and {'events wait' if several or many else 'an event waits'} "
        f"for {'them' if many else 'it'}",
        text=text,
        todo=f"SDEI_PE_UNMASK on {which} (DEN0054 5.1.13); the event is delivered by the same exchange.",
        evidence=tuple(
            f"{picture.called(wait.event.number)} on vCPU {one.vcpu.index} was triggered {ago(age, history.reach())}"
            for one in found[:2]
            for wait, age in zip(one.behind[:2], one.ages, strict=False)
        ),
        references=("DEN0054 5.1.12, 6.1",),
        about=frozenset(f"masked {one.vcpu.index}" for one in found),
    )


def _why(masked: _Masked, history: History) -> str:
    since, age, name = masked.since, history.age(masked.since), f"vCPU {masked.vcpu.index}"
    if masked.vcpu.sleeps:
        return (
            f"{name} is suspended, and masked itself before. It takes the event when it has woken and unmasked itself."
        )
    if since is None:
        return f"{name} did so {ago(None, history.reach())} and has not unmasked itself since."
    if since.get("type") == "call":
        return f"{name} called {called(since)} {ago(age)} and has not unmasked itself since."
    what = "was suspended" if since.get("to") == "suspended" else "came on"
    return f"{name} {what} {ago(age)}, which masks it (DEN0054 6.5.2), and has not called SDEI_PE_UNMASK since."
