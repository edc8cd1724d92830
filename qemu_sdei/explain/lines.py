"""An explanation as lines for people, as a colleague would write them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any, Final

from qemu_sdei.durations import duration
from qemu_sdei.explain.explanation import Explanation
from qemu_sdei.explain.finding import Finding, Weight
from qemu_sdei.explain.picture import Event, Instance, Vcpu, Where
from qemu_sdei.explain.words import ago, answer, joined, lasting, numbers

WIDTH: Final = 92
_HEARD: Final = 1_000_000_000
"""Nanoseconds after which a vCPU is said not to have been heard of."""
_MANY: Final = 4
"""vCPUs of which nothing is to be said, up to which each has a line of its own."""
_SHORT: Final = 3
"""Findings in the short form."""
_MARKS: Final = {Weight.ERROR: "", Weight.WARNING: " (warning)", Weight.NOTE: " (note)"}


def lines(
    explanation: Explanation, *, width: int = WIDTH, registers: bool = False, vcpu: int | None = None
) -> list[str]:
    """All of it. `registers`: X0 to X30 of each vCPU as well; `vcpu`: of the vCPUs show this one only."""
    out = [*_head(explanation, width)]
    for number, finding in enumerate(explanation.findings, 1):
        out += ["", *_finding(finding, f"{number}. ", width)]
    for title, part in (
        ("Events", list(_events(explanation, width))),
        ("Refused lately", list(_refused(explanation, width))),
        ("vCPUs", list(_vcpus(explanation, width, registers, vcpu))),
    ):
        if part:
            out += ["", title, *part]
    return out


def short(explanation: Explanation, *, width: int = WIDTH, where: bool = False) -> list[str]:
    """The findings alone, the heaviest three. `where`: if there are none, where the vCPUs are."""
    found = [finding for finding in explanation.findings if finding.weight is not Weight.NOTE][:_SHORT]
    out: list[str] = []
    if explanation.picture.misbehaves:
        out += _wrapped(f"This firmware misbehaves on purpose: {explanation.picture.misbehaves}", "", "  ", width)
    for finding in found:
        out += _wrapped(f"- {finding.title}. {finding.text}", "", "  ", width)
        if finding.todo:
            out += _wrapped(f"Next: {finding.todo}", "  ", "    ", width)
    if where and not found:
        out += _vcpus(explanation, width, False)
    return out


def _wrapped(text: str, first: str, rest: str, width: int) -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )


def _head(explanation: Explanation, width: int) -> Iterator[str]:
    picture = explanation.picture
    kernel = f", kernel {picture.kernels}" if picture.kernels > 1 else ""
    count = len(explanation.findings)
    on = sum(vcpu.on for vcpu in picture.vcpus)
    vcpus = f"{on} of {len(picture.vcpus)} vCPUs on" if picture.vcpus else "its vCPUs' state is not known"
    if picture.misbehaves:
        yield from _wrapped(f"this firmware misbehaves on purpose: {picture.misbehaves}", "", "  ", width)
    found = "nothing unusual was found" if not count else f"{count} finding{'s' if count > 1 else ''}"
    yield from _wrapped(f"guest {picture.guest!r}, boot {picture.epoch}{kernel}, {vcpus}: {found}", "", "  ", width)
    if picture.qemu:
        yield from _wrapped(f"QEMU: {picture.qemu}", "  ", "  ", width)
    reach = explanation.history.reach()
    if reach is None:
        yield "  there is no trace of it: what happened before is not known"
    elif not explanation.history.complete:
        lost = f", and {picture.lost} of its records are missing" if picture.lost else ""
        yield f"  its trace goes back {duration(reach)}{lost}"


def _finding(finding: Finding, mark: str, width: int) -> Iterator[str]:
    indent = " " * len(mark)
    yield from _wrapped(finding.title + _MARKS[finding.weight], mark, indent, width)
    yield from _wrapped(finding.text, indent, indent, width)
    if finding.todo:
        yield from _wrapped(f"Next: {finding.todo}", indent, indent + "  ", width)
    for line in finding.evidence:
        yield from _wrapped(f"Seen: {line}", indent, indent + "  ", width)
    if finding.references:
        yield from _wrapped("See:  " + "; ".join(finding.references), indent, indent + "  ", width)


def _events(explanation: Explanation, width: int) -> Iterator[str]:
    picture = explanation.picture
    for event, instance in picture.instances():
        if instance.pending or instance.running:
            yield from _event(explanation, event, instance, width)


def _event(explanation: Explanation, event: Event, instance: Instance, width: int) -> Iterator[str]:
    history, picture = explanation.history, explanation.picture
    vcpu = instance.vcpu if instance.vcpu is not None else instance.running_on
    where = "" if instance.vcpu is None else f" on vCPU {instance.vcpu}"
    words = [f"{instance.state} for {lasting(history.state_age(event.number, vcpu), history.reach())}"]
    if instance.running:
        words.append(
            f"its handler runs on vCPU {instance.running_on}, entered "
            f"{ago(history.age(history.entered(event.number, vcpu)), history.reach())}"
        )
    yield from _wrapped(f"{picture.called(event.number)}{where}: {', '.join(words)}", "  ", "      ", width)
    wait = next((w for w in explanation.waits if w.instance is instance), None)
    if wait is not None:
        age = history.age(history.triggered(event.number, instance.vcpu))
        yield from _wrapped(f"pending, triggered {ago(age, history.reach())}: {wait.why}", "      ", "      ", width)
        if wait.todo:
            yield from _wrapped(f"next: {wait.todo}", "      ", "        ", width)


def _refused(explanation: Explanation, width: int) -> Iterator[str]:
    for refusal in explanation.refusals:
        call = refusal.call
        shown = {name: value for name, value in call.get("args", {}).items() if name in ("event", "target", "index")}
        arguments = ", ".join(f"{name}={value:#x}" for name, value in shown.items())
        times = f", {refusal.count} times" if refusal.count > 1 else ""
        yield from _wrapped(
            f"{call.get('function')}({arguments}) on vCPU {call.get('vcpu')}: {answer(call)}{times}, "
            f"{ago(explanation.history.age(call))}, at {explanation.picture.at(call.get('pc') or 0)}: {refusal.why}",
            "  ",
            "      ",
            width,
        )


# ---- vCPUs


def _vcpus(explanation: Explanation, width: int, registers: bool, only: int | None = None) -> Iterator[str]:
    alike: dict[str, list[int]] = {}
    if not registers and len(explanation.picture.vcpus) > _MANY:
        for vcpu in explanation.picture.vcpus:
            if (plain := _plain(explanation, vcpu)) is not None:
                alike.setdefault(plain, []).append(vcpu.index)
    together = {indexes[0]: (plain, indexes) for plain, indexes in alike.items() if len(indexes) > 1}
    left_out = {index for _, indexes in together.values() for index in indexes}
    for vcpu in explanation.picture.vcpus:
        if only is not None and vcpu.index != only:
            continue
        if vcpu.index in together:
            plain, indexes = together[vcpu.index]
            places = {
                v.where.pc for v in explanation.picture.vcpus if v.index in indexes and v.on and v.where is not None
            }
            if len(places) == 1 and " at " not in plain:
                plain += f", all at {explanation.picture.at(places.pop())}"
            yield from _wrapped(f"{numbers(indexes)}: {plain}", "  ", "      ", width)
        elif vcpu.index not in left_out:
            yield from _vcpu(explanation, vcpu, width, registers)


def _plain(explanation: Explanation, vcpu: Vcpu) -> str | None:
    """What is to be said of a vCPU like others; None: it must be looked at by itself."""
    if (
        vcpu.running
        or vcpu.missing
        or (vcpu.on and vcpu.masked)
        or any(vcpu.index in w.vcpus for w in explanation.waits)
    ):
        return None
    if vcpu.power == "off":
        where = vcpu.where
        return None if where is not None and where.active_priorities else "off"
    age = explanation.history.age(explanation.history.last_heard(vcpu.index))
    heard = "they make no firmware calls just now" if age is None or age > _HEARD else "they make firmware calls"
    masked = [where.interrupts_masked for where in vcpu.seen]
    if vcpu.stays and all(masked):
        name = explanation.picture.name(vcpu.seen[-1].pc)
        return (
            f"on, unmasked, at {explanation.picture.at(vcpu.seen[-1].pc)}, where CPUs that have nothing to do wait"
            if (name is not None and "idle" in name)
            else None
        )
    return f"on, unmasked; {heard}"


def _vcpu(explanation: Explanation, vcpu: Vcpu, width: int, registers: bool) -> Iterator[str]:
    picture, history = explanation.picture, explanation.history
    words = [vcpu.power if vcpu.power != "pending" else "CPU_ON was called for it, it has not come yet"]
    if vcpu.on:
        words.append("masked" if vcpu.masked else "unmasked")
    if vcpu.running:
        words.append(f"in the handler of {joined([picture.called(event) for event in vcpu.running])}")
    if vcpu.sleeps:
        words.append("suspended")
    if vcpu.missing and not picture.paused:
        words.append("did not come when asked")
    call, heard = history.last_call(vcpu.index), history.age(history.last_heard(vcpu.index))
    if call is not None:
        silent = f"not heard of for {duration(heard)}: " if heard is not None and heard > _HEARD and vcpu.on else ""
        words.append(f"{silent}last call {_call(explanation, call)}")
    elif vcpu.silent_since is not None:
        words.append(f"no call since it was started at {picture.at(vcpu.silent_since)}")
    elif vcpu.on:
        words.append("its last call is older than the trace" if not history.complete else "it has made no call")
    yield from _wrapped(f"{vcpu.index}: {', '.join(words)}", "  ", "      ", width)
    if vcpu.where is not None and (vcpu.on or vcpu.where.active_priorities or registers):
        yield from _wrapped(_where(explanation, vcpu, vcpu.where), "     ", "      ", width)
        if registers:
            yield from _registers(vcpu.where)


def _call(explanation: Explanation, call: dict[str, Any]) -> str:
    arguments = ", ".join(f"{value:#x}" for value in list(call.get("args", {}).values())[:2] if isinstance(value, int))
    return f"{call.get('function')}({arguments}) {ago(explanation.history.age(call))}: {answer(call)}"


def _where(explanation: Explanation, vcpu: Vcpu, where: Where) -> str:
    picture = explanation.picture
    words = [f"at {picture.at(where.pc)}", "in the EL3 monitor" if where.el == 3 else f"EL{where.el}"]
    if vcpu.power == "off":
        words = [f"off since its call at {picture.at(where.pc)}"]
    elif where.el < 3:
        words.append(f"{where.daif} masked" if where.daif else "interrupts unmasked")
        if vcpu.stays:
            words.append("stays there")
        if len(where.x) > 30:
            words.append(f"LR {picture.at(where.x[30])}")
    if where.active_priorities:
        words.append(f"interrupt priority {', '.join(f'{p:#x}' for p in where.active_priorities)} active")
    elif "ICC_AP1R0_EL1" in where.registers:
        words.append("no interrupt active")
    if where.registers.get("ISR_EL1", 0) & 0xC0:
        words.append("one is pending")
    if (pmr := where.registers.get("ICC_PMR_EL1")) is not None and pmr < 0xF0 and vcpu.on:
        words.append(f"ICC_PMR_EL1 {pmr:#x}")
    return ", ".join(words)


def _registers(where: Where) -> Iterator[str]:
    cells = [f"X{n:<2} {value:016x}" for n, value in enumerate(where.x)]
    cells += [f"PSTATE {where.pstate:x}"]
    for at in range(0, len(cells), 3):
        yield "      " + "  ".join(cells[at : at + 3])
    named = [f"{name} {value:x}" for name, value in where.registers.items()]
    for at in range(0, len(named), 2):
        yield "      " + "  ".join(named[at : at + 2])
