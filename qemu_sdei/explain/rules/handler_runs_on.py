"""A handler that does not end."""

from __future__ import annotations

from collections.abc import Iterator

from qemu_sdei.explain.delivery import waiting
from qemu_sdei.explain.finding import Finding, Weight
from qemu_sdei.explain.history import History
from qemu_sdei.explain.picture import Picture
from qemu_sdei.explain.rules.registry import lasts, rule
from qemu_sdei.explain.words import UNTIL_COMPLETE, ago, joined


@rule
def handler_runs_on(picture: Picture, history: History) -> Iterator[Finding]:
    """DEN0054 5.2.1: a handler ends by COMPLETE or COMPLETE_AND_RESUME, and by nothing else."""
    behind = [wait for wait in waiting(picture) if wait.word in ("running", "behind")]
    for vcpu in picture.vcpus:
        for event in vcpu.running:
            entered = history.entered(event, vcpu.index)
            if not lasts(history.age(entered)):
                continue
            waits = [picture.called(wait.event.number) for wait in behind if vcpu.index in wait.vcpus]
            more = f" {joined(waits)} {'wait' if len(waits) > 1 else 'waits'} behind it." if waits else ""
            where = "" if vcpu.where is None else f" It is at {picture.at(vcpu.where.pc)} now."
            yield Finding(
                rule="handler-runs-on",
                weight=Weight.ERROR if waits else Weight.WARNING,
                title=f"vCPU {vcpu.index} does not come out of the handler of {picture.called(event)}",
                text=f"It was entered {ago(history.age(entered), history.reach())} and has not ended.{where}{more}",
                todo=UNTIL_COMPLETE.format(vcpu.index) + ".",
                references=("DEN0054 5.2.1, 6.1",),
                about=frozenset({f"running {event} {vcpu.index}"}),
                depth=0,
            )
