"""Backends that die soon after their start: one that has served the guest is followed by another, however often; one
that has not ends the guest in the end.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from qemu_sdei.errors import LaunchError
from qemu_sdei.guest.guest import Guest
from qemu_sdei.monitor import layout
from qemu_sdei.vm.early_deaths import LIMIT, WITHIN, EarlyDeaths
from qemu_sdei.vm.options import GuestOptions
from tests.guest.guests import check_nothing_left

DEATHS = LIMIT + 3
BACKEND = """#!{python}
# The backend, which is killed when it has answered {frames} frames, {deaths} times over, and before it has a socket.
import os, signal, sys
from pathlib import Path
if sys.argv[1:3] != ["-m", "qemu_sdei.backend"]:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
sys.path[:0] = {path!r}
import qemu_sdei.backend.__main__ as backend
from qemu_sdei.backend.loop.call_frames import CallFrames
count = Path({count!r})
died = len(count.read_bytes()) if count.exists() else 0
if died < {deaths}:
    with count.open("ab") as file:
        file.write(b"x")

    left, frame = {frames}, CallFrames.frame

    def counted(self, pe, s):
        global left
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return frame(self, pe, s)

    class NoSocket:
        def __init__(self, *_):
            pass

        def close(self):
            pass

    CallFrames.frame = counted

    backend.Control = NoSocket
sys.exit(backend.main(sys.argv[3:]))
"""


def dying(tmp_path: Path, frames: int, deaths: int) -> Path:
    """A Python whose backends die."""
    file = tmp_path / "python"
    text = BACKEND.format(
        python=sys.executable, path=sys.path, count=str(tmp_path / "deaths"), frames=frames, deaths=deaths
    )
    file.write_text(text)
    file.chmod(0o755)
    return file


def idle() -> GuestOptions:
    return GuestOptions(kernel="builtin:bench", append="mode=idle smp=2", memory="128M")


@pytest.mark.guest
def test_backends_that_have_served_are_replaced(runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a host that is busy, and kills them before anybody has come to ask them."""
    monkeypatch.setattr("sys.executable", str(dying(tmp_path, 1, DEATHS)))
    with Guest(idle()) as guest:
        guest.expect("idle: ready")
        assert guest.inject(0, 1, wait=True, timeout=30).outcome == "completed"
        assert guest.backend_starts == DEATHS + 1
    check_nothing_left(runtime)


@pytest.mark.guest
def test_backends_that_die_at_once_end_the_guest(
    runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", str(dying(tmp_path, 0, DEATHS)))
    with pytest.raises(LaunchError, match=f"was killed by SIGKILL {LIMIT} times in a row before it served anything"):
        Guest(idle()).start()
    check_nothing_left(runtime)


def test_deaths_are_counted_in_a_time(tmp_path: Path) -> None:
    now = 0.0
    size = 4 * layout.WINDOW_SIZE
    with (tmp_path / "ram").open("w+b") as ram:
        ram.truncate(size)
        deaths = EarlyDeaths(ram.fileno(), 2, clock=lambda: now)
        for number in range(1, LIMIT):
            deaths.started()
            deaths.died(answered=False)
            assert deaths.count == number
            assert not deaths.over
        now += WITHIN
        deaths.started()
        deaths.died(answered=False)
        assert (deaths.count, deaths.over, deaths.delay) == (1, False, 0.0), "the others were long ago"
        for _ in range(LIMIT - 1):
            deaths.started()
            deaths.died(answered=False)
        assert deaths.over
        assert deaths.delay > 0
        deaths.started()
        deaths.died(answered=True)
        assert deaths.count == 0
        deaths.died(answered=False)
        deaths.started()
        ram.seek(layout.window_base(0, size) + layout.frame_offset(1) + 8 * layout.Word.ACK)
        ram.write(b"\1")
        ram.flush()
        deaths.died(answered=False)
        assert deaths.count == 0, "it has answered vCPU 1"
