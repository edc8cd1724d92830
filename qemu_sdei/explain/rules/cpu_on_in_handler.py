"""CPU_ON of a CPU that never went off: it is inside an SDEI handler, or was not stopped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from qemu_sdei.explain.finding import Finding, Weight
from qemu_sdei.explain.history import History
from qemu_sdei.explain.picture import Picture, Record
from qemu_sdei.explain.rules.registry import rule
from qemu_sdei.explain.words import UNTIL_COMPLETE, ago, joined

_ALREADY_ON: Final = -4


@rule
def cpu_on_in_handler(picture: Picture, history: History) -> Iterator[Finding]:
    """DEN0022 5.1.4: ALREADY_ON. Only CPU_OFF, by that CPU itself, makes it one that can be started."""
    by_affinity = {vcpu.affinity: vcpu.index for vcpu in picture.vcpus}
    told: set[int] = set()
    for call in history.calls(None, "CPU_ON"):
        target = by_affinity.get(call.get("args", {}).get("target", -1))
        if call.get("result") != _ALREADY_ON or target is None or target in told:
            continue
        told.add(target)
        running = history.running_at(target, call["n"])
        vcpu = picture.vcpu(target)
        if vcpu is None or not vcpu.on:
            continue
        yield (
            _in_handler(picture, history, call, target, running)
            if running
            else _not_stopped(picture, history, call, target)
        )


def _in_handler(picture: Picture, history: History, call: Record, target: int, running: list[int]) -> Finding:
    vcpu = picture.vcpu(target)
    entered = history.entered(running[-1], target)
    handlers = joined([picture.called(event) for event in running])
    still = vcpu is not None and running[-1] in vcpu.running
    return Finding(
        rule="cpu-on-in-handler",
        weight=Weight.ERROR if still else Weight.NOTE,
        title=f"CPU_ON was asked for vCPU {target}, which is inside an SDEI handler",
        text=f"vCPU {call['vcpu']} called CPU_ON for vCPU {target} {ago(history.age(call))} and got ALREADY_ON (-4; "
        f'Linux: "psci: failed to boot CPU"): vCPU {target} never went off. It entered the handler of {handlers} '
        f"{ago(history.age(entered), history.reach())}"
        + (" and is still there." if still else "; that has ended since."),
        todo=f"{UNTIL_COMPLETE.format(target)}, then CPU_OFF there (or CPU_OFF in the handler, DEN0054 6.5.4); "
        "then CPU_ON again "
        "(DEN0022 5.1.4)."
        if still
        else "",
        references=("DEN0022 5.1.4", "DEN0054 6.5.4", "docs/howto/panic.md#a-capture-kernel"),
        about=frozenset({f"on {target}"} | {f"running {event} {target}" for event in running}),
        depth=2,
    )


def _not_stopped(picture: Picture, history: History, call: Record, target: int) -> Finding:
    kernel = history.kernel_began()
    other = "" if kernel is None else f", which ran before kernel {picture.kernels}"
    return Finding(
        rule="cpu-on-not-off",
        weight=Weight.WARNING,
        title=f"CPU_ON was asked for vCPU {target}, which never went off",
        text=f"vCPU {call['vcpu']} called CPU_ON for vCPU {target} {ago(history.age(call))} and got ALREADY_ON (-4): "
        f"vCPU {target} still runs what the kernel{other} left it with. A CPU that spins with interrupts masked "
        "does not "
        "take the IPI by which Linux stops it.",
        todo=f"CPU_OFF on vCPU {target} (DEN0022 5.1.3), which only that vCPU can call; see below where it is.",
        references=("DEN0022 5.1.4", "docs/howto/panic.md#a-capture-kernel"),
        about=frozenset({f"on {target}"}),
    )
