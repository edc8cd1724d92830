"""What a user waits for at a terminal: many lines of a command, beside QEMU's own console; and the way from nothing to
an event that one's own kernel has handled, beside its boot on plain QEMU.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from qemu_sdei.boot import initramfs
from qemu_sdei.host.debian import DebianCache
from scripts.benchlib import launch

LINES: Final = 300_000
REFERENCE: Final = 30_000
"""Lines that are measured on QEMU's own console, whose UART takes a byte at a time: a tenth, times ten."""
SERIES: Final = "6.12"
RAM: Final = 1 << 30
_NONCE: Final = "bench"
_APPEND: Final = "console=ttyAMA0 quiet panic=-1"
_LIMIT: Final = 1800.0
_LOOK: Final = 0.02
_COMMAND: Final = (sys.executable, "-m", "qemu_sdei")


def measure(qemu: str, rounds: int, say: Callable[[str], None], row: Callable[..., None]) -> None:
    """Add the rows. `qemu`: of the reference, as of ours."""
    cache = DebianCache()
    kernel = cache.kernel(SERIES).image
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder, "initrd")
        ours: list[float] = []
        theirs: list[float] = []
        for n in range(rounds):
            say(f"{LINES} lines, round {n + 1} of {rounds}")
            command = [f"seq {REFERENCE}"]
            archive.write_bytes(initramfs.build(cache.busybox().read_bytes(), command=command, nonce=_NONCE))
            theirs.append(_plain_lines(qemu, kernel, archive) * LINES / REFERENCE)
            ours.append(_our_lines(qemu))
        row(f"{LINES} lines of `run -- seq` (QEMU's console)", "s", *map(statistics.median, (ours, theirs)), "<= 1.5x")
        archive.write_bytes(initramfs.build(cache.busybox().read_bytes(), command=None, nonce=_NONCE))
        handled: list[float] = []
        boots: list[float] = []
        for n in range(rounds):
            say(f"from nothing to a handled event, round {n + 1} of {rounds}")
            with launch.plain(qemu, kernel, archive, _APPEND, RAM, 2) as guest:
                guest.expect(f"qemu-sdei:{_NONCE}:shell", _LIMIT)
                boots.append(time.monotonic() - guest.started)
            commands, seconds = _to_an_event(qemu, kernel)
            handled.append(seconds)
        row("nothing to a handled event (plain boot)", "s", *map(statistics.median, (handled, boots)), "20 s")
        row("... commands, that of installing the wheel too", "", commands + 1, 0, "3")


def _plain_lines(qemu: str, kernel: Path, archive: Path) -> float:
    """Seconds that the lines take on QEMU's console, which goes into a file."""
    with launch.plain(qemu, kernel, archive, _APPEND, RAM, 2) as guest:
        guest.expect(f"qemu-sdei:{_NONCE}:begin", _LIMIT)
        began = time.monotonic()
        file = guest.directory / "console"
        # Looked at by its end only: to read it all again and again is work for the host, which the guest would lack.
        last = f"\n{REFERENCE}".encode()
        while last not in _end_of(file):
            if guest.qemu.poll() is not None and last not in _end_of(file):
                raise SystemExit("scripts/bench: the plain guest ended before it had printed its lines")
            if time.monotonic() - began > _LIMIT:
                raise SystemExit(f"scripts/bench: {REFERENCE} lines took plain QEMU more than {_LIMIT:g} s")
            time.sleep(_LOOK)
        return time.monotonic() - began


def _end_of(file: Path) -> bytes:
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - 256))
        return stream.read()


def _our_lines(qemu: str) -> float:
    """The same by `run -- COMMAND`, from its first byte to its end."""
    words = ["run", "-q", "--qemu", qemu, "--series", SERIES, "--boot-timeout", f"{_LIMIT:g}", "--", f"seq {LINES}"]
    with subprocess.Popen([*_COMMAND, *words], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        descriptor = process.stdout.fileno()
        tail = os.read(descriptor, 1 << 16)
        began = ended = time.monotonic()
        while piece := os.read(descriptor, 1 << 16):
            tail, ended = (tail + piece)[-256:], time.monotonic()
        if process.wait(_LIMIT) or tail.split()[-1:] != [str(LINES).encode()]:
            raise SystemExit(f"scripts/bench: the lines of `run` did not come: it ended with {process.returncode}")
        return ended - began


def _to_an_event(qemu: str, kernel: Path) -> tuple[int, float]:
    """How many commands, and how many seconds they take: an event of the kernel's own GHES driver, handled."""
    name = f"bench-{os.getpid()}"
    boot = ["run", "-q", "-d", "--ras", "--qemu", qemu, "--kernel", str(kernel), "--name", name]
    commands = (
        [*boot, "--boot-timeout", f"{_LIMIT:g}"],
        ["inject", name, "--event", "ghes", "--wait", "--when-registered", "600"],
    )
    began = time.monotonic()
    try:
        for words in commands:
            subprocess.run([*_COMMAND, *words], check=True, stdout=subprocess.DEVNULL, timeout=_LIMIT)
        return len(commands), time.monotonic() - began
    finally:
        subprocess.run(
            [*_COMMAND, "stop", name], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120
        )
