"""What events cost a Linux that handles them: how many a second it takes, and how much slower its own work gets.

The handler is the client module's, which counts and records. Nothing is compared with another implementation here: the
reference of a slowed workload is the same workload without events, a moment before.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Final, NamedTuple

from qemu_sdei.guest.guest import Guest
from qemu_sdei.vm.options import GuestOptions
from scripts.benchlib.processes import cpu_seconds

EVENTS: Final = (0, 0x100, 0x101, 0x102)
"""Private events: several, so that one can be pending while another is handled."""
WORK: Final = {
    "compile-like": "for n in $(seq 8); do gzip -c /tmp/part >/tmp/out; md5sum /tmp/out >/dev/null; rm /tmp/out; done",
    "memory-bound": "for i in 1 2 3 4; do dd if=/tmp/data of=/tmp/copy bs=1M 2>/dev/null; done",
    "syscall-bound": "dd if=/dev/zero of=/dev/null bs=1 count=30000 2>/dev/null",
}
"""Shell commands that take a second or so on an emulated CPU of a host that has time."""


class Sustained(NamedTuple):
    """What a guest made of events without pause."""

    rate: float
    """Events a second that handlers completed."""
    merged: float
    """The share of those accepted that found the event pending."""
    share: float
    """Of a core, that the backend took meanwhile."""


class Slowed(NamedTuple):
    """A workload under events, medians."""

    seconds: float
    rate: float
    """Events a second that handlers completed: less than asked for where the host has no time."""


@contextmanager
def guest(qemu: str, cpus: int) -> Iterator[Guest]:
    """Debian's kernel with the client module loaded, a silent console, and 4 MiB of data in /tmp."""
    with Guest(GuestOptions(smp=cpus, client=True, qemu=qemu)) as running:
        running.run(
            "dmesg -n 1; dd if=/dev/urandom of=/tmp/data bs=1M count=4 2>/dev/null; "
            "dd if=/tmp/data of=/tmp/part bs=512k count=1 2>/dev/null",
            timeout=60,
        )
        running.sdei_client(EVENTS, verbose=0)
        yield running


def sustained(qemu: str, cpus: int, seconds: float) -> Sustained:
    """Inject as fast as one client can, one event after the other on each vCPU."""
    with guest(qemu, cpus) as running:
        targets = [(event, vcpu) for event in EVENTS for vcpu in range(cpus)]
        assert running.backend_pid is not None
        with running.client() as client:
            busy, before = cpu_seconds(running.backend_pid), client.status()["counts"]
            began = time.monotonic()
            while time.monotonic() < began + seconds:
                for target in targets:
                    client.inject(*target)
            took = time.monotonic() - began
            share = (cpu_seconds(running.backend_pid) - busy) / took
            after = client.status()["counts"]
        accepted, merged, done = (after[name] - before[name] for name in ("accepted", "merged", "completed"))
        return Sustained(done / took, merged / accepted, share)


@contextmanager
def events(running: Guest, vcpu: int, rate: float) -> Iterator[None]:
    """Inject `rate` events a second on one vCPU meanwhile; 0: none. An error there is raised at the end."""
    stop = Event()

    def inject() -> None:
        with running.client() as client:
            due = time.monotonic()
            while not stop.wait(max(due - time.monotonic(), 0)):
                client.inject(EVENTS[0], vcpu)
                due = max(due + 1 / rate, time.monotonic() - 1)  # no more than a second's worth is made up for

    with ThreadPoolExecutor(1) as pool:
        injector = pool.submit(inject) if rate else None
        try:
            yield
        finally:
            stop.set()
        if injector is not None:
            injector.result()


def slowdown(
    qemu: str, rates: tuple[float, ...], rounds: int, say: Callable[[str], None]
) -> dict[tuple[str, float], Slowed]:
    """What each workload takes on vCPU 1 of 2 under each rate of events there; the rates alternate."""
    times: dict[tuple[str, float], list[Slowed]] = {(name, rate): [] for name in WORK for rate in rates}
    with guest(qemu, 2) as running:
        for n in range(rounds):
            for name, rate in times:
                say(f"{name} work under {rate:g} events/s, round {n + 1} of {rounds}")
                with events(running, 1, rate):
                    before = running.status()["counts"]["completed"]
                    began = time.monotonic()
                    running.run(f"taskset 2 sh -c '{WORK[name]}'", timeout=300)
                    took = time.monotonic() - began
                    done = running.status()["counts"]["completed"] - before
                    times[name, rate].append(Slowed(took, done / took))
    return {
        key: Slowed(statistics.median(s.seconds for s in values), statistics.median(s.rate for s in values))
        for key, values in times.items()
    }
