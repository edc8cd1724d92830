"""How long a guest waits when its backend is killed: from the SIGKILL to the next call that is answered.

    python -m scripts.benchlib.restart [--rounds N] [--smp N]

The guest calls all the time (`mode=storm`); that a call was answered is seen in the window: some frame's ACK moves. The
first ACKs after the kill may still be those of the old backend, so the end of that process is waited for first.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import time
from pathlib import Path

from qemu_sdei.config import RAM_BASE
from qemu_sdei.guest.guest import Guest
from qemu_sdei.monitor.layout import Word
from qemu_sdei.monitor.window import Window
from qemu_sdei.vm.options import GuestOptions

_PAUSE = 0.3
_LIMIT = 10.0


def main() -> None:
    """Measure, and print milliseconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--smp", type=int, default=1)
    args = parser.parse_args()
    took = sorted(measure(args.rounds, args.smp))
    print(f"restart of a killed backend, ms: median {statistics.median(took):.0f}, all", *(f"{t:.0f}" for t in took))


def measure(rounds: int, smp: int) -> list[float]:
    """Milliseconds of each round."""
    options = GuestOptions(
        kernel="builtin:bench",
        append=f"mode=storm count=1000000000 smp={smp} seed=1",
        memory="128M",
        smp=smp,
        die_with_owner=True,
    )
    with Guest(options) as guest:
        window = Window(guest.placement.ram.fd, RAM_BASE, guest.placement.config.ram_size, smp)
        try:
            return [_round(guest, window) for _ in range(rounds)]
        finally:
            window.close()


def _round(guest: Guest, window: Window) -> float:
    time.sleep(_PAUSE)
    pid = guest.backend_pid
    assert pid is not None
    pidfd = os.pidfd_open(pid)
    began = time.perf_counter()
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    while not _ended(pid):
        time.sleep(0.0002)
    os.close(pidfd)
    before = _acks(window)
    while _acks(window) == before:
        if time.perf_counter() - began > _LIMIT:
            raise SystemExit(f"no call was answered within {_LIMIT:g} s")
        time.sleep(0.0002)
    return 1000 * (time.perf_counter() - began)


def _ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def _acks(window: Window) -> list[int]:
    return [frame[Word.ACK] for frame in window.frames]


if __name__ == "__main__":
    main()
