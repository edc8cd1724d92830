"""Save guests by the `qemu_sdei` that is first on PYTHONPATH: README.md says from which commits, and what they are.

    PYTHONPATH=CHECKOUT python tests/guest/saved/make.py NAME

It uses only what all of those commits have, and puts NAME-idle.tar.xz and so on beside itself.
"""

from __future__ import annotations

import json
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from qemu_sdei.guest.guest import Guest
from qemu_sdei.vm.options import GuestOptions

HERE = Path(__file__).parent
LIMIT = 60.0


def idle(guest: Guest) -> None:
    """Both CPUs have registered event 0; five and three of them were handled."""
    guest.expect("idle: ready")
    for vcpu, times in ((0, 5), (1, 3)):
        for _ in range(times):
            guest.inject(0, vcpu, wait=True)


def journey(guest: Guest) -> None:
    """CPU 1 is off. On CPU 0 the handler of event 0 runs, waits for event 0x103, and event 0 is pending once more."""
    guest.expect(r"waits for event 0x103\r?\n")
    guest.inject(0, 0)


def storm(guest: Guest) -> None:
    """Both CPUs signal each other and themselves, and call, as fast as they can."""
    deadline = time.monotonic() + LIMIT
    while guest.status()["counts"]["calls"] < 3000:
        assert time.monotonic() < deadline
        time.sleep(0.01)


GUESTS: dict[str, tuple[str, Callable[[Guest], None]]] = {
    "idle": ("mode=idle smp=2", idle),
    "journey": ("mode=journey smp=2", journey),
    "storm": ("mode=storm count=20000 smp=2 seed=5", storm),
}


def main(name: str) -> None:
    for what, (words, prepare) in GUESTS.items():
        with tempfile.TemporaryDirectory() as scratch:
            saved = Path(scratch) / f"{name}-{what}"
            with Guest(GuestOptions(kernel="builtin:bench", append=words, memory="64M", smp=2)) as guest:
                prepare(guest)
                guest.save(saved)
            with tarfile.open(HERE / f"{saved.name}.tar.xz", "w:xz", preset=9) as archive:
                for file in sorted(saved.iterdir()):
                    archive.add(file, f"{saved.name}/{file.name}", filter=_nobody)
            versions = [json.loads((saved / file).read_bytes()).get("version") for file in ("saved.json", "state.json")]
            print(f"{saved.name}: saved.json version {versions[0]}, state.json version {versions[1]}")


def _nobody(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without who made it and when."""
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o600
    return entry


if __name__ == "__main__":
    main(sys.argv[1])
