"""`qemu-sdei run` without a terminal: input from a pipe, output into one, and neither."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.guest.guests import check_nothing_left, command, until

pytestmark = [pytest.mark.guest, pytest.mark.usefixtures("linux")]


@pytest.mark.parametrize("end", ["\n", ""])
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
