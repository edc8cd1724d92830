"""The program is upgraded while a guest runs without owner: the guest is taken over, or refused in one line.

What is real: the monitor of the frame window before this one, in a guest that it has served since it was saved by the
version of then. What is not: the files of its run directory are of this version; and a monitor that is not served is
one of this version whose image says another.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from qemu_sdei import rundir
from qemu_sdei.guest.guest import Guest
from qemu_sdei.monitor import layout
from tests.guest.guests import check_nothing_left, command, until
from tests.guest.test_saved_older import FORMER, restorable

pytestmark = [pytest.mark.guest, pytest.mark.usefixtures("ownerless")]

OWNER = """
import sys, time
from qemu_sdei import Guest, GuestOptions
guest = {guest}
guest.start()
print("up", flush=True)
time.sleep(1000)
"""
NEW = 'Guest(GuestOptions(kernel="builtin:bench", append="mode=idle smp=2", memory="64M", name="g"))'
MAGIC, VERSION = 8, 48
"""Offsets in a monitor's image."""


def killed(guest: str) -> None:
    """A guest 'g' that has lost its owner."""
    with subprocess.Popen([sys.executable, "-c", OWNER.format(guest=guest)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.kill()


def works(guest: Guest) -> None:
    for vcpu in range(2):
        assert guest.inject(0, vcpu, wait=True, timeout=30).outcome == "completed"


@pytest.mark.timeout(90)
def test_a_guest_with_the_former_monitor_is_taken_over(runtime: Path, tmp_path: Path) -> None:
    """Also after its backend was killed, by another migration, and by a reset, which starts the monitor anew."""
    killed(f"Guest.saved({str(restorable(FORMER, 'idle', tmp_path / 'old'))!r}, name='g', trust=True)")
    with Guest.adopt("g") as guest:
        works(guest)
        assert guest.backend_pid is not None
        os.kill(guest.backend_pid, signal.SIGKILL)
        until("another backend", lambda: guest.backend_starts == 2)
        works(guest)
        guest.migrate("h")
        works(guest)
        printed = guest.console.count("idle: ready")
        guest.reset()
        until("it boots again", lambda: guest.console.count("idle: ready") > printed)
        until("both CPUs are ready", lambda: guest.status()["counts"]["rejected"] == 0 and _ready(guest))
        works(guest)
        guest.save(tmp_path / "again")
    with Guest.saved(tmp_path / "again", name="g") as guest:
        works(guest)
    check_nothing_left(runtime)


def _ready(guest: Guest) -> bool:
    (event,) = (event for event in guest.status()["events"] if event["event"] == 0)
    return [one["enabled"] for one in event["instances"]] == [True, True]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("at", "word", "version"),
    [(MAGIC, int.from_bytes(b"SDEIMON1", "little"), 2), (VERSION, layout.VERSION + 1, layout.VERSION + 1)],
    ids=["older", "newer"],
)
def test_a_guest_whose_monitor_is_not_served_is_refused_and_goes_on(
    at: int, word: int, version: int, runtime: Path
) -> None:
    killed(NEW)
    with (rundir.find("g").path / rundir.MONITOR).open("r+b") as file:
        file.seek(at)
        file.write(word.to_bytes(8, "little"))
    process = command(runtime, "attach", "g")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, b"")
    assert err.decode().splitlines() == [
        "qemu-sdei: taking the guest over",
        f"qemu-sdei: error: guest 'g' cannot be taken over: its EL3 monitor has frame window {version}, and this "
        f"program knows {layout.OLDEST} to {layout.VERSION}: use the version of qemu-sdei that it was started with",
    ]
    process = command(runtime, "inject", "g", "--event", "0", "--vcpu", "1", "--wait")
    assert b"completed" in process.communicate(timeout=60)[0], "by the backend that it has"
    assert command(runtime, "stop", "g").wait(60) == 0
    check_nothing_left(runtime)
