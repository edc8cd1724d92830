"""`qemu-sdei run` without a terminal: input from a pipe, output into one, and neither."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.guest.guests import Command, check_nothing_left, command, until

pytestmark = [pytest.mark.guest, pytest.mark.usefixtures("linux")]


@pytest.mark.parametrize("end", [pytest.param("\n", marks=pytest.mark.slow), ""])
def test_the_end_of_the_input_ends_the_guest(runtime: Path, end: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "qemu_sdei", "run", "-q"],
        input=f"uname -m\nsleep 1\necho sum $((1+2)){end}".encode(), capture_output=True, timeout=100, check=False,
        env=os.environ | {"XDG_RUNTIME_DIR": str(runtime)},
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, b"")
    assert b"\naarch64\r" in result.stdout
    assert b"\nsum 3\r" in result.stdout
    assert b"\x1eqemu-sdei" not in result.stdout
    check_nothing_left(runtime)


def test_a_guest_in_the_background_stays(runtime: Path) -> None:
    """With /dev/null for input there was nothing to end."""
    log = runtime.with_suffix(".log")
    try:
        with log.open("wb") as output, command(runtime, "run", "-q", stdout=output) as guest:
            until("the shell is there", lambda: b"guest# " in log.read_bytes())
            assert guest.poll() is None
            guest.send_signal(signal.SIGINT)
            guest.communicate(timeout=30)
            assert guest.returncode == 130
    finally:
        log.unlink()
    check_nothing_left(runtime)


def test_input_without_end_waits_for_the_guest(runtime: Path) -> None:
    """A guest that reads nothing: what it does not take stays in the pipe, and in nobody's memory."""
    with Command(
        [sys.executable, "-m", "qemu_sdei", "run", "-q", "--kernel", "builtin:bench", "--append", "mode=idle"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {"XDG_RUNTIME_DIR": str(runtime)},
    ) as guest:  # fmt: skip
        try:
            assert guest.stdin is not None
            assert guest.stdout is not None
            until("the guest is ready", lambda: b"idle: ready" in guest.stdout.readline())
            pipe = guest.stdin.fileno()
            os.set_blocking(pipe, False)
            poll = select.poll()
            poll.register(pipe, select.POLLOUT)
            taken = 0
            while taken < 1 << 20 and poll.poll(2000):
                taken += os.write(pipe, b"x" * 4096)
            assert 64 << 10 <= taken < 1 << 20, "what the pipe holds, and 64 KiB or so beside"
        finally:
            guest.terminate()
    check_nothing_left(runtime)
