"""Hardware errors in a Linux that handles them: how many a second it takes without loss, and how long one takes from
the report to the handler's entry, to its end, and until it is acknowledged.

The reference of each section is the same event of the same source without an error in its block, a moment before: what
is left is what the kernel does with the error. All by one client that waits for each, as `qemu-sdei ras inject` does.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Final
from uuid import UUID

from qemu_sdei.guest.control_client import ControlClient
from qemu_sdei.guest.guest import Guest
from qemu_sdei.ras import kinds
from qemu_sdei.ras.block import block
from qemu_sdei.ras.entry import entry
from qemu_sdei.ras.kinds import Section
from qemu_sdei.vm.options import GuestOptions

SOURCE: Final = "ghes"
"""The source of `--ras`: a GHES of version 2."""
EVENT: Final = 0x324
SECTIONS: Final[dict[str, Callable[[int], Section]]] = {
    "memory": lambda n: kinds.Memory(physical_address=0x4800_0000 + n % 0x4000 * 4096, node=n >> 14),
    "arm": lambda n: kinds.Arm(mpidr_el1=n, error_information=[{"type": "Cache Error"}]),
    "pcie": lambda n: kinds.Pcie(port_type="Root Port", device_id={"device_number": 31, "vendor_id": n & 0xFFFF}),
    "unknown": lambda n: kinds.raw(UUID("12345678-1234-1234-1234-123456789abc"), n.to_bytes(16, "little")),
}
"""Corrected errors of which no two are equal: Linux drops what it has seen in the last ten seconds."""
_LIMIT: Final = 60.0
_BURST: Final = 25
"""Errors of one section, one after the other."""


class Bench:
    """One guest."""

    def __init__(self, guest: Guest, client: ControlClient) -> None:
        self._guest = guest
        self._client = client
        self._number = 0
        self.unread = 0
        """How often a handler had ended and its error lay there still."""

    def error(self, section: Callable[[int], Section]) -> tuple[float, float, float]:
        """Report one. Returns nanoseconds to the handler's entry, to its end, and until it was seen acknowledged."""
        self._number += 1
        data = block([entry(section(self._number))]).pack()
        began = time.monotonic_ns()
        found = self._client.ras_report(SOURCE, data, wait=True, timeout=_LIMIT)
        while not self._is_free():
            self.unread += 1
            if time.monotonic_ns() - began > _LIMIT * 1e9:
                raise SystemExit(f"scripts/bench: an error was not acknowledged within {_LIMIT:g} s")
        return found["entry_ns"], found["complete_ns"], time.monotonic_ns() - began

    def empty(self) -> tuple[float, float, float]:
        """The same without an error: the event alone."""
        began = time.monotonic_ns()
        found = self._client.inject(EVENT, 0, wait=True, timeout=_LIMIT)
        self._is_free()
        return found.entry_ns or 0, found.complete_ns or 0, time.monotonic_ns() - began

    def _is_free(self) -> bool:
        return all(each["state"] == "free" for each in self._client.ras_sources())

    def sustained(self, seconds: float) -> tuple[int, float]:
        """Errors as fast as each is acknowledged. Returns how many in how many seconds."""
        done, began = 0, time.monotonic()
        while time.monotonic() < began + seconds:
            self.error(SECTIONS["unknown"])
            done += 1
        return done, time.monotonic() - began


def measure(qemu: str, rounds: int, say: Callable[[str], None], row: Callable[[str, str, float, float], None]) -> None:
    """Hand to `row`: what, unit, with an error, without."""
    with Guest(GuestOptions(ras=True, qemu=qemu)) as guest, guest.client() as client:
        guest.wait_shell(_LIMIT * 5)
        guest.run("dmesg -n 1")
        bench = Bench(guest, client)
        before = client.status()["counts"]["completed"]
        bursts = []
        for n in range(rounds):
            say(f"errors without a pause, round {n + 1} of {rounds}")
            bursts.append(bench.sustained(2))
        completed = client.status()["counts"]["completed"] - before
        times: dict[str, list[tuple[tuple[float, float, float], tuple[float, float, float]]]] = {}
        for n in range(rounds):
            for name, section in SECTIONS.items():
                say(f"a section of {name}, round {n + 1} of {rounds}")
                pairs = times.setdefault(name, [])
                pairs += [(bench.error(section), bench.empty()) for _ in range(_BURST)]
        row("errors dealt with by Linux, GHES v2", "1/s", statistics.median(done / took for done, took in bursts), 0)
        row("... reported (handlers that completed)", "", sum(done for done, _ in bursts), completed)
        row("... found unread after the handler", "", bench.unread, 0)
        for name, pairs in times.items():
            for index, what in enumerate(("entry", "the handler's end", "acknowledged")):
                with_error = statistics.median(pair[0][index] for pair in pairs)
                without = statistics.median(pair[1][index] for pair in pairs)
                row(f"{name}: report to {what} (the event alone)", "us", with_error / 1000, without / 1000)
