"""What a migration costs with our part, beside one of the same guest without it: plain `-M virt` on QEMU's own.

The guest is the same program on both sides, one vCPU that writes to a word of its RAM all the time (`mode=dirty`), and
so are RAM's size and kind, and QEMU. How long it stands still is seen from outside, by that word: the longest time in
which it did not change, on the host's clock. (The guest's own counter stops with its virtual machine.) Each total has
the start of the destination's processes in it. Rounds of the two sides alternate.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import statistics
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from qemu.qmp import QMPError
from qemu.qmp.legacy import QEMUMonitorProtocol

from qemu_sdei.config import RAM_BASE
from qemu_sdei.errors import GuestTimeoutError
from qemu_sdei.guest.guest import Guest
from qemu_sdei.monitor import layout
from qemu_sdei.vm.options import GuestOptions
from scripts.benchlib.checkout import ROOT

SIZE: Final = (128 << 20) + 8192
"""RAM of which QEMU 7.2 loses no page in a live migration."""
_WORD: Final = 0x4200_0000 - RAM_BASE
"""Where `mode=dirty` writes the number of its pass."""
_ENTRY: Final = 0x4020_0000
_TRAMPOLINE: Final = 0x4010_0000
_BENCH: Final = ROOT / "qemu_sdei/data/bench.bin"
_LIMIT: Final = 30.0
_STEP: Final = 0.0003
"""Seconds between two looks: few enough that looking takes no core from those who migrate."""

Say = Callable[[str], None]
Add = Callable[[str, str, float, float, str], None]


class Watcher:
    """Looks at a word of a guest's RAM three times a millisecond, in a `with`."""

    def __init__(self, fd: int, offset: int) -> None:
        self._map = mmap.mmap(fd, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ, offset=offset & -mmap.PAGESIZE)
        self._word = memoryview(self._map)[offset % mmap.PAGESIZE :][:8].cast("Q")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.longest = 0.0
        """Seconds of the longest time without a change."""

    def _run(self) -> None:
        value, since = self._word[0], time.monotonic()
        while not self._stop.is_set():
            time.sleep(_STEP)
            now = time.monotonic()
            if self._word[0] != value:
                self.longest = max(self.longest, now - since)
                value, since = self._word[0], now
        self._word.release()

    def __enter__(self) -> Watcher:
        self._thread.start()
        time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        time.sleep(0.02)
        self._stop.set()
        self._thread.join()


class Plain:
    """The guest on QEMU alone; its RAM is a file in memory that both sides of a migration map."""

    def __init__(self, qemu: str, directory: Path) -> None:
        self._qemu = qemu
        self._directory = directory
        self._number = 0
        self.ram = os.open(directory / "ram", os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(self.ram, SIZE)
        self._process, self._monitor = self._start(*self._boot())
        _until("the plain guest runs", lambda: b"ready" in (directory / "console0").read_bytes())

    def _boot(self) -> list[str]:
        """Options by which QEMU's CPU starts the bench guest, that then calls no firmware."""
        words = b"mode=dirty pages=1 alone=1 smp=1\0"
        # ldr x0 (0: no device tree), ldr x1 (command line), ldr x2, br x2; then the three literals.
        code = struct.pack("<4I", 0x58000080, 0x580000A1, 0x580000C2, 0xD61F0040)
        start = self._directory / "start"
        start.write_bytes(code + struct.pack("<3Q", 0, _TRAMPOLINE + 0x28, _ENTRY) + words)
        return [
            *("-device", f"loader,file={start},addr={_TRAMPOLINE:#x},cpu-num=0,force-raw=on"),
            *("-device", f"loader,file={_BENCH},addr={_ENTRY:#x},force-raw=on"),
        ]

    def _start(self, *more: str) -> tuple[subprocess.Popen[bytes], QEMUMonitorProtocol]:
        path = self._directory / f"qmp{self._number}"
        command = [self._qemu, "-no-user-config", "-nodefaults", "-display", "none", "-cpu", "cortex-a72"]
        command += ["-M", "virt,gic-version=3,memory-backend=ram", "-m", f"{SIZE >> 10}K"]
        command += ["-object", f"memory-backend-file,id=ram,share=on,size={SIZE},mem-path={self._directory / 'ram'}"]
        command += ["-qmp", f"unix:{path},server=on,wait=off"]
        command += ["-serial", f"file:{self._directory / f'console{self._number}'}", *more]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        self._number += 1
        try:
            monitor = _connected(path)
        except BaseException:
            process.kill()
            process.wait()
            raise
        return process, monitor

    def migrate(self) -> dict[str, float]:
        """Move it to another QEMU, with no more than QEMU has for that. Figures in seconds."""
        begin = time.monotonic()
        uri = f"unix:{self._directory / f'stream{self._number}'}"
        process, monitor = self._start("-incoming", "defer")
        for side in (self._monitor, monitor):
            side.cmd("migrate-set-capabilities", capabilities=[{"capability": "x-ignore-shared", "state": True}])
        monitor.cmd("migrate-incoming", uri=uri)
        self._monitor.cmd("migrate", uri=uri)
        _until("it runs there", lambda: _status(monitor, "query-status") == "running", step=0.001)
        total = time.monotonic() - begin
        _until("the source has ended it", lambda: _status(self._monitor, "query-migrate") == "completed")
        info: Any = self._monitor.cmd("query-migrate")
        self.close()
        self._process, self._monitor = process, monitor
        return {"total": total, "downtime": info["downtime"] / 1000}

    def close(self) -> None:
        """End the QEMU that has it."""
        with contextlib.suppress(Exception):
            self._monitor.close()
        self._process.kill()
        self._process.wait()


@contextmanager
def _plain(qemu: str) -> Iterator[Plain]:
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="qemu-sdei-bench-") as name:
        plain = Plain(qemu, Path(name))
        try:
            yield plain
        finally:
            plain.close()
            os.close(plain.ram)


def _connected(path: Path) -> QEMUMonitorProtocol:
    limit = time.monotonic() + _LIMIT
    while True:
        monitor = QEMUMonitorProtocol(str(path))
        try:
            monitor.connect()
        except (QMPError, OSError):
            if time.monotonic() > limit:
                raise GuestTimeoutError(f"QMP is not there within {_LIMIT:g} s") from None
            time.sleep(0.005)
        else:
            return monitor


def _status(monitor: QEMUMonitorProtocol, command: str) -> object:
    answer: Any = monitor.cmd(command)
    return answer["status"]


def _until(what: str, condition: Callable[[], bool], step: float = 0.005) -> None:
    limit = time.monotonic() + _LIMIT
    while not condition():
        if time.monotonic() > limit:
            raise GuestTimeoutError(f"{what}: not within {_LIMIT:g} s")
        time.sleep(step)


def _ours(guest: Guest, offset: int) -> dict[str, float]:
    with Watcher(guest.placement.ram.fd, offset) as watcher:
        result = guest.migrate()
    assert result.guest_downtime_ms is not None
    return {"total": result.total_ms / 1000, "downtime": result.guest_downtime_ms / 1000, "gap": watcher.longest}


def measure(qemu: str, rounds: int, say: Say, add: Add) -> None:
    """Migrations on one host (route "shared"), and the guest's own view of them; `add` takes what, unit, ours, plain
    QEMU's, aim.
    """
    ours: list[dict[str, float]] = []
    plain: list[dict[str, float]] = []
    calls: list[dict[str, float]] = []

    def options(words: str) -> GuestOptions:
        return GuestOptions(kernel="builtin:bench", append=f"{words} smp=1", smp=1, memory=SIZE, qemu=qemu)

    with Guest(options("mode=dirty pages=1")) as guest, _plain(qemu) as bare, closing(bare):
        guest.expect("dirty: ready")
        for number in range(rounds):
            say(f"migration, round {number + 1} of {rounds}")
            ours.append(_ours(guest, _WORD))
            with Watcher(bare.ram, _WORD) as watcher:
                figures = bare.migrate()
            plain.append(figures | {"gap": watcher.longest})
    # The number of the newest call, in the window: one that is answered is followed by the next one.
    word = layout.window_base(RAM_BASE, SIZE) - RAM_BASE + layout.SEQ_OFFSET
    with Guest(options("mode=hot count=1000000000")) as guest:
        for number in range(rounds):
            say(f"migration of a guest that calls, round {number + 1} of {rounds}")
            calls.append(_ours(guest, word))

    def median(side: list[dict[str, float]], key: str) -> float:
        return 1000 * statistics.median(figures[key] for figures in side)

    add("migration: in all", "ms", median(ours, "total"), median(plain, "total"), "")
    add("migration: stood still, as its RAM shows", "ms", median(ours, "gap"), median(plain, "gap"), "<= +5 ms")
    add("... as ours, and QEMU, tell", "ms", median(ours, "downtime"), median(plain, "downtime"), "")
    add("... longest between two calls, guest calls on", "ms", median(calls, "gap"), median(plain, "gap"), "<= +5 ms")
