"""A handler that was not completed before another kernel began."""

from __future__ import annotations

from collections.abc import Iterator

from qemu_sdei.explain.finding import Finding, Weight
from qemu_sdei.explain.history import History
from qemu_sdei.explain.picture import Picture
from qemu_sdei.explain.rules.registry import rule
from qemu_sdei.explain.words import ago, refused


@rule
def handler_over_kexec(picture: Picture, history: History) -> Iterator[Finding]:
    """DEN0054 6.7: the event cannot be registered again before its handler has ended."""
    if picture.kernels < 2:
        return
    kernel = history.kernel_began()
    for vcpu in picture.vcpus:
        for event in vcpu.running:
            entered = history.entered(event, vcpu.index)
            if entered is not None and (kernel is None or entered["n"] > kernel["n"]):
                continue  # by the kernel that runs now
            calls = [
                call
                for call in history.calls(vcpu.index)
                if (call.get("result") or 0) < 0
                and call.get("args", {}).get("event", event) == event
                and (kernel is None or call["n"] > kernel["n"])
            ]
            yield Finding(
                rule="handler-over-kexec",
                weight=Weight.ERROR,
                title="A handler was not completed before another kernel began",
                text=f"vCPU {vcpu.index} is still inside the handler of {picture.called(event)}, which it entered "
                f"{ago(history.age(entered), history.reach())}, when the kernel before this one ran. Kernel "
                f"{picture.kernels} began {ago(history.age(kernel), history.reach())} by kexec or as a capture "
                "kernel, "
                "without a reset: the firmware was told nothing of it. So the event still runs there, no other "
                "event of "
                "its priority is delivered to this vCPU, and it cannot be registered again.",
                todo="The kernel that leaves has to end the handler before it jumps: SDEI_EVENT_COMPLETE_AND_RESUME "
                "(DEN0054 5.1.7) with the next instruction as its address, as Linux's sdei_handler_abort() does. Now "
                f"only {f'CPU_OFF of vCPU {vcpu.index} (6.5.4)'} or a reset of the machine ends it, or the new "
                "kernel "
                "calling COMPLETE for a handler that is not its own.",
                evidence=refused(calls),
                references=("DEN0054 6.5.4, 6.7", "Linux arch/arm64/kernel/machine_kexec.c, sdei_handler_abort()"),
                about=frozenset({f"running {event} {vcpu.index}"}),
                depth=3,
            )
