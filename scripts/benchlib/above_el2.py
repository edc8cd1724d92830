"""What a Linux above our EL2 loses by it, and by stage 2: the same work in three guests, in turns.

CPU time of QEMU is compared, not the clock: it is the same on a host on which others work too.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Final

from qemu_sdei.guest.guest import Guest
from qemu_sdei.vm.options import GuestOptions
from scripts.benchlib.processes import cpu_seconds

WORK: Final = {
    "CPU-bound": "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done",
    "TLB-bound": "i=0; while [ $i -lt 150 ]; do /bin/busybox true; i=$((i+1)); done",
    "syscall-bound": "dd if=/dev/zero of=/dev/null bs=1 count=30000 2>/dev/null",
    "memory-bound": "dd if=/dev/zero bs=1M count=60 2>/dev/null | md5sum >/dev/null",
}
"""Shell commands that take a second or so on an emulated CPU of a host that has time."""
_WAYS: Final = {
    "without": GuestOptions(smp=1),
    "above EL2, no stage 2": GuestOptions(smp=1, hypervisor=True, stage2=False),
    "above stage 2": GuestOptions(smp=1, hypervisor=True),
}


def measure(qemu: str, rounds: int, say: Callable[[str], None], add: Callable[[str, str, float, float], None]) -> None:
    """CPU seconds of each kind of work, beside those of a guest without EL2: medians of all rounds."""
    times: dict[tuple[str, str], list[float]] = {(work, way): [] for work in WORK for way in _WAYS}
    with ExitStack() as stack:
        guests: dict[str, Guest] = {}
        for way, options in _WAYS.items():
            say(f"starting the guest {way}")
            guests[way] = stack.enter_context(Guest(replace(options, qemu=qemu)))
            guests[way].run("dmesg -n 1", timeout=300)
        for n in range(rounds):
            for work, way in times:
                say(f"{work} work {way}, round {n + 1} of {rounds}")
                pid = guests[way].qemu_pid
                assert pid is not None
                before = cpu_seconds(pid)
                guests[way].run(WORK[work], timeout=600)
                times[work, way].append(cpu_seconds(pid) - before)
    for work in WORK:
        alone = statistics.median(times[work, "without"])
        for way in list(_WAYS)[1:]:
            add(f"{work} work {way} (without)", "s", statistics.median(times[work, way]), alone)
