"""What events cost a Linux that handles them: how many a second it takes, and how much slower its own work gets.

The handler is the client module's, which counts and records. Nothing is compared with another implementation here: the
reference of a slowed workload is the same workload without events, a moment before.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from qemu_sdei.machine.guest import Guest
from qemu_sdei.machine.options import GuestOptions
from scripts.benchlib.processes import cpu_seconds

EVENTS: Final = (0, 0x100, 0x101, 0x102)
"""Private events: several, so that one can be pending while another is handled."""
WORK: Final = {
    "computing": "md5sum </tmp/data >/dev/null; gzip -c /tmp/data >/dev/null",
    "memory-bound": "for i in 1 2 3 4; do dd if=/tmp/data of=/tmp/copy bs=1M 2>/dev/null; done",
    "syscall-bound": "dd if=/dev/zero of=/dev/null bs=1 count=30000 2>/dev/null",
}
"""Shell commands that take a second or so on an emulated CPU of a host that has time."""


@contextmanager
def guest(qemu: str, cpus: int) -> Iterator[Guest]:
    """Debian's kernel with the client module loaded, a silent console, and 4 MiB of data in /tmp."""
    with Guest(GuestOptions(smp=cpus, client=True, qemu=qemu)) as running:
        running.run("dmesg -n 1; dd if=/dev/urandom of=/tmp/data bs=1M count=4 2>/dev/null", timeout=60)
        running.sdei_client(EVENTS, verbose=0)
        yield running


def sustained(qemu: str, cpus: int, seconds: float) -> tuple[float, float]:
    """Events a second that handlers completed, as fast as one client injects them; the backend's share of a core."""
    with guest(qemu, cpus) as running:
        targets = [(event, vcpu) for event in EVENTS for vcpu in range(cpus)]
        assert running.backend_pid is not None
        with running.client() as client:
            busy, completed = cpu_seconds(running.backend_pid), client.status()["counts"]["completed"]
            began = time.monotonic()
            while time.monotonic() < began + seconds:
                for target in targets:
                    client.inject(*target)
            took = time.monotonic() - began
            done = client.status()["counts"]["completed"] - completed
        return done / took, (cpu_seconds(running.backend_pid) - busy) / took


@contextmanager
def events(running: Guest, vcpu: int, rate: float) -> Iterator[None]:
    """Inject `rate` events a second on one vCPU meanwhile; 0: none."""
    stop = threading.Event()

    def inject() -> None:
        with running.client() as client:
            due = time.monotonic()
            while not stop.wait(max(due - time.monotonic(), 0)):
                client.inject(EVENTS[0], vcpu)
                due += 1 / rate

    thread = threading.Thread(target=inject)
    if rate:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if rate:
            thread.join()


def slowdown(
    qemu: str, rates: tuple[float, ...], rounds: int, say: Callable[[str], None]
) -> dict[tuple[str, float], float]:
    """Median seconds that each workload takes on vCPU 1 of 2 under each rate of events there."""
    times: dict[tuple[str, float], list[float]] = {(name, rate): [] for name in WORK for rate in rates}
    with guest(qemu, 2) as running:
        for n in range(rounds):
            for name, rate in times:
                say(f"{name} work under {rate:g} events/s, round {n + 1} of {rounds}")
                with events(running, 1, rate):
                    began = time.monotonic()
                    running.run(f"taskset 2 sh -c '{WORK[name]}'", timeout=300)
                    times[name, rate].append(time.monotonic() - began)
    return {key: statistics.median(values) for key, values in times.items()}
