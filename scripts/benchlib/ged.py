"""Our hardware errors beside QEMU's own: `inject-ghes-v2-error`, told by ACPI's generic event device.

Both guests run on the same QEMU (11.1 has the command), with the same kernel and the same records. Each error is
reported when the one before is acknowledged. QEMU's is seen acknowledged in the guest's RAM, where the HEST says; when
its handler was entered is not seen.
"""

from __future__ import annotations

import base64
import mmap
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from qemu.qmp import QMPError
from qemu.qmp.legacy import QEMUMonitorProtocol

from qemu_sdei.acpi.errors import TableError
from qemu_sdei.acpi.parse import parse
from qemu_sdei.acpi.tables.hest import Hest
from qemu_sdei.acpi.tables.hest_notification import NotificationType
from qemu_sdei.acpi.tables.hest_source import GhesV2
from qemu_sdei.boot import initramfs
from qemu_sdei.config import RAM_BASE
from qemu_sdei.guest.guest import Guest
from qemu_sdei.host.debian import DebianCache
from qemu_sdei.ras.block import block
from qemu_sdei.ras.entry import entry
from qemu_sdei.vm.options import GuestOptions
from scripts.benchlib import launch
from scripts.benchlib.ras import SECTIONS, Bench

COMMAND: Final = "inject-ghes-v2-error"
_RAM: Final = 1 << 30
_NONCE: Final = "bench"
_LIMIT: Final = 60.0
_BOOT: Final = 300.0
_BURST: Final = 25
"""Errors of one section, one after the other."""
_LENGTH_AT: Final = 4
"""Where a table has its length (ACPI 6.5 5.2.6)."""


class Ged:
    """A guest of plain QEMU, whose errors QEMU itself reports."""

    def __init__(self, ram: mmap.mmap, qmp: QEMUMonitorProtocol) -> None:
        self._qmp = qmp
        source = _source(ram)
        self._ram = ram
        self._ack = source.read_ack.address - RAM_BASE
        pointer = source.error_status_address.address - RAM_BASE
        self._block = int.from_bytes(ram[pointer : pointer + 8], "little") - RAM_BASE
        self._number = 0
        self.refused = 0
        """How many QEMU did not take."""

    def error(self, name: str) -> float:
        """Report one, and wait until the guest has acknowledged it. Returns nanoseconds."""
        self._number += 1
        data = block([entry(SECTIONS[name](self._number))]).pack()
        text = base64.b64encode(data).decode()
        began = time.monotonic_ns()
        try:
            self._qmp.cmd(COMMAND, cper=text)
        except QMPError:
            self.refused += 1
        while not (self._ram[self._ack] & 1) or any(self._ram[self._block : self._block + 4]):
            if time.monotonic_ns() - began > _LIMIT * 1e9:
                raise SystemExit(f"scripts/bench: QEMU's error was not acknowledged within {_LIMIT:g} s")
            time.sleep(0)  # the guest's vCPUs want the cores too
        return time.monotonic_ns() - began

    def sustained(self, seconds: float) -> tuple[int, float]:
        """Errors as fast as each is acknowledged. Returns how many in how many seconds."""
        done, began = 0, time.monotonic()
        while time.monotonic() < began + seconds:
            self.error("unknown")
            done += 1
        return done, time.monotonic() - began


def _source(ram: mmap.mmap) -> GhesV2:
    """The source that QEMU reports by its generic event device, of the HEST in the guest's RAM."""
    at = -1
    while (at := ram.find(b"HEST", at + 1)) >= 0:
        length = int.from_bytes(ram[at + _LENGTH_AT : at + _LENGTH_AT + 4], "little")
        try:
            table = parse(ram[at : at + min(length, 4096)])
        except TableError:
            continue  # another place with these letters, such as the kernel's code
        for source in table.sources if isinstance(table, Hest) else ():
            # Firmware has copies of the table in which no address is filled in yet.
            if (
                isinstance(source, GhesV2)
                and source.notification.type == NotificationType.GPIO_SIGNAL
                and source.read_ack.address >= RAM_BASE
            ):
                return source
    raise SystemExit("scripts/bench: the guest of plain QEMU has no GHES that is told by its generic event device")


@contextmanager
def _guest(qemu: str) -> Iterator[Ged]:
    """Such a guest, at its shell. Raises `SystemExit`: this QEMU has no such command."""
    cache = DebianCache()
    with tempfile.TemporaryDirectory() as name, closing(SharedRam(_RAM)) as ram:
        archive, socket = Path(name, "initrd"), str(Path(name, "qmp"))
        archive.write_bytes(initramfs.build(cache.busybox().read_bytes(), command=None, nonce=_NONCE))
        extra = [
            *("-object", f"memory-backend-file,id=ram,share=on,size={_RAM},mem-path=/proc/self/fd/{ram.fd}"),
            *("-qmp", f"unix:{socket},server=on,wait=off"),
        ]
        with launch.plain(
            qemu, cache.kernel().image, archive, "console=ttyAMA0 quiet panic=-1", _RAM, 2, cache.uefi(),
            machine="virt,gic-version=3,ras=on,memory-backend=ram", extra=extra, pass_fds=(ram.fd,),
        ) as running:  # fmt: skip
            running.expect(f"qemu-sdei:{_NONCE}:shell", _BOOT)
            qmp = QEMUMonitorProtocol(socket)
            with closing(qmp):
                qmp.connect()
                known: Any = qmp.cmd("query-commands")
                if all(command["name"] != COMMAND for command in known):
                    raise SystemExit(f"scripts/bench: {qemu} has no {COMMAND}: give --beside a QEMU 11.1 or newer")
                yield Ged(ram.map, qmp)


class SharedRam:
    """RAM that both QEMU and we have."""

    def __init__(self, size: int) -> None:
        self.fd = os.memfd_create("ram")
        os.ftruncate(self.fd, size)
        self.map = mmap.mmap(self.fd, size, mmap.MAP_SHARED, mmap.PROT_READ)

    def close(self) -> None:
        self.map.close()
        os.close(self.fd)


def measure(qemu: str, rounds: int, say: Callable[[str], None], row: Callable[[str, str, float, float], None]) -> None:
    """Hand to `row`: what, unit, ours, QEMU's own. `qemu`: one that has the command."""
    say("booting both guests")
    with (
        _guest(qemu) as theirs,
        Guest(GuestOptions(ras=True, qemu=qemu)) as guest,
        guest.client() as client,
    ):
        guest.wait_shell(_BOOT)
        guest.run("dmesg -n 1")
        ours = Bench(guest, client)
        rates: list[tuple[float, float]] = []
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in SECTIONS}
        reported = 0
        before = client.status()["counts"]["completed"]
        for n in range(rounds):
            say(f"errors without a pause, round {n + 1} of {rounds}")
            (our_count, our_time), (their_count, their_time) = ours.sustained(2), theirs.sustained(2)
            rates.append((our_count / our_time, their_count / their_time))
            reported += our_count
        completed = client.status()["counts"]["completed"] - before
        for n in range(rounds):
            for name, pairs in times.items():
                say(f"a section of {name}, round {n + 1} of {rounds}")
                pairs += [(ours.error(SECTIONS[name])[2], theirs.error(name)) for _ in range(_BURST)]
    row(
        "errors acknowledged one after the other",
        "1/s",
        *(statistics.median(side) for side in zip(*rates, strict=True)),
    )
    row("... of ours not handled, of QEMU's not taken", "", reported - completed, theirs.refused)
    for name, pairs in times.items():
        our_median, their_median = (statistics.median(side) / 1000 for side in zip(*pairs, strict=True))
        row(f"{name}: report to acknowledged", "us", our_median, their_median)
