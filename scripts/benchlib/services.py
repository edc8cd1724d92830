"""Services of KVM's in a Linux above EL2: how far its cross timestamps lie apart; its steal beside the host's figure.

A cross timestamp is the host's real time and the guest's raw time of one moment. What is between them does not change
while nothing happens, so a timestamp is off by what lies between its own difference and the median of all.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from qemu_sdei.errors import UsageError
from qemu_sdei.guest.guest import Guest
from qemu_sdei.guestcompile import FOR_LINUX, LINK_FLAGS, Program, compile_program, find_compiler
from qemu_sdei.vm.options import GuestOptions
from scripts.benchlib.checkout import ROOT

COUNT: Final = 1000
"""Timestamps of a round."""
_STEAL_SECONDS: Final = 5.0
_TICK: Final = 1e-2
"""Seconds of a unit of /proc/stat (USER_HZ)."""
_CROSSTIME: Final = Program(
    "crosstime", ("crosstime", "linux"), "linux/program.lds", (*LINK_FLAGS, *FOR_LINUX), executable=True
)

Row = Callable[[str, str, float, float], None]


def crosstime(target: Path) -> Path:
    """Build crosstime.c, which asks /dev/ptp0 for cross timestamps, into the file `target`.

    Raises:
        UsageError: there is no cross compiler, or it refuses.
    """
    compiler = find_compiler()
    if compiler is None:
        raise UsageError("a cross compiler for AArch64 is needed: apt install gcc-aarch64-linux-gnu")
    with tempfile.TemporaryDirectory() as build:
        target.write_bytes(compile_program(_CROSSTIME, compiler, ROOT / "guest", Path(build)))
    target.chmod(0o755)
    return target


def measure(qemu: str, rounds: int, say: Callable[[str], None], row: Row) -> None:
    """Hand to `row`: what, unit, figure, reference (0: there is none)."""
    with tempfile.TemporaryDirectory() as name:
        program = crosstime(Path(name) / "crosstime")
        options = GuestOptions(series="6.12", hypervisor=True, qemu=qemu, files={"/bin/crosstime": program})
        with Guest(options) as guest:
            guest.run("dmesg -n 1")
            apart: list[float] = []
            for n in range(rounds):
                say(f"cross timestamps, round {n + 1} of {rounds}")
                apart += _apart(guest)
            for what, at in (("median", 0.5), ("p99", 0.99)):
                row(f"PTP: a cross timestamp is off by, {what}", "us", sorted(apart)[int(at * len(apart))] / 1e3, 0)
            say("stolen time")
            row("stolen in /proc/stat (the host's schedstat)", "s", *_stolen(guest))


def _apart(guest: Guest) -> list[float]:
    """Nanoseconds between each timestamp's difference and the median of them."""
    lines = guest.run(f"crosstime {COUNT}", 120).output.splitlines()
    moments = [[int(word) for word in line.split()] for line in lines if re.fullmatch(r"\d+ \d+ \d+", line)]
    if len(moments) != COUNT:
        raise SystemExit(f"scripts/bench: {len(moments)} cross timestamps came of {COUNT}")
    between = [device - raw for device, _, raw in moments]
    middle = statistics.median(between)
    return [abs(each - middle) for each in between]


def _stolen(guest: Guest) -> tuple[float, float]:
    """Seconds that the guest's vCPUs, both on one of the host's CPUs beside another process, waited for it: by the
    guest's account and by the host's.
    """
    threads = [
        folder
        for folder in Path(f"/proc/{guest.qemu_pid}/task").iterdir()
        if (folder / "comm").read_text().startswith("CPU ")
    ]
    usual = os.sched_getaffinity(0)
    one = {min(usual)}
    guest.run("for n in 1 2; do (while :; do :; done) & echo $! >>/tmp/loops; done")
    hog = subprocess.Popen([sys.executable, "-c", "while True: pass"], stdout=subprocess.DEVNULL)
    try:
        for pid in (*(int(folder.name) for folder in threads), hog.pid):
            os.sched_setaffinity(pid, one)
        before = _steal(guest), _waited(threads)
        time.sleep(_STEAL_SECONDS)
        after = _steal(guest), _waited(threads)
    finally:
        hog.kill()
        hog.wait()
        for folder in threads:
            os.sched_setaffinity(int(folder.name), usual)
        guest.run("kill $(cat /tmp/loops)")
    return after[0] - before[0], after[1] - before[1]


def _steal(guest: Guest) -> float:
    return int(guest.run("head -n 1 /proc/stat", 60).output.split()[8]) * _TICK


def _waited(threads: list[Path]) -> float:
    return sum(int((folder / "schedstat").read_text().split()[1]) for folder in threads) / 1e9
