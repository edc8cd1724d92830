"""An event that the kernel before has left registered."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from qemu_sdei.explain.finding import Finding, Weight
from qemu_sdei.explain.history import History
from qemu_sdei.explain.picture import Picture
from qemu_sdei.explain.rules.registry import rule
from qemu_sdei.explain.words import ago, called
from qemu_sdei.sdei.constants import DENIED
from qemu_sdei.sdei.transitions import ENABLED, REGISTERED, STATE_NAMES

_LINUX: Final = re.compile(r"sdei: .*Failed to (?:create|register) event (\d{1,10})")


@rule
def registered_over_kexec(picture: Picture, history: History) -> Iterator[Finding]:
    """DEN0054 5.1.2: EVENT_REGISTER of what is registered is DENIED, and no call says by whom it was."""
    kernel = history.kernel_began()
    if picture.kernels < 2 or kernel is None:
        return
    told: set[tuple[int, int]] = set()
    for call in history.calls(None, "SDEI_EVENT_REGISTER"):
        if call["n"] < kernel["n"]:
            break
        event, vcpu = int(call.get("args", {}).get("event", -1)), int(call["vcpu"])
        if call.get("result") != DENIED or (event, vcpu) in told:
            continue
        state = history.state_at(event, vcpu, call["n"])
        before = history.state_at(event, vcpu, kernel["n"])
        again = [t for t in history.transitions(event, vcpu) if kernel["n"] < t["n"] < call["n"]]
        if state not in (STATE_NAMES[REGISTERED], STATE_NAMES[ENABLED]) or before != state or again:
            continue
        told.add((event, vcpu))
        said = [line.strip() for line in picture.console if (m := _LINUX.search(line)) and int(m[1]) == event]
        yield Finding(
            rule="registered-over-kexec",
            weight=Weight.ERROR,
            title=f"The kernel before has left {picture.called(event)} registered",
            text=f"vCPU {vcpu} called {called(call)} {ago(history.age(call))} and was DENIED, since the event is "
            f"{state} "
            f"there already: by the kernel that ran before kernel {picture.kernels}, which began "
            f"{ago(history.age(kernel))} without a reset. Events are still delivered to that kernel's handler, whose "
            'memory may be another thing by now. Linux says "Failed to create event" or "Failed to register event".',
            todo=f"SDEI_PRIVATE_RESET (DEN0054 5.1.18) on vCPU {vcpu} for a private event, SDEI_SHARED_RESET "
            "(5.1.19) for "
            "a shared one, before anything is registered; or SDEI_EVENT_UNREGISTER (5.1.8) by the kernel that "
            "leaves.",
            evidence=tuple(said[:3]),
            references=("DEN0054 5.1.2, 5.1.18, 5.1.19",),
            about=frozenset({f"registered {event} {vcpu}"}),
        )
